"""Records: what a set of problems holds, before anything is decoded or tokenized."""

import dataclasses
from typing import Protocol

from absl import logging


@dataclasses.dataclass(frozen=True)
class Record:
  """A question about images.

  Attributes:
    id: names the record within its set, whatever the order or the number of files.
    question: its text; `<image>` stands once for each image, or nowhere: images then come first.
    images: encoded image files; there may be none.
  """

  id: str
  question: str
  images: tuple[bytes, ...] = ()


class BadRecord(ValueError):  # noqa: N818 (it is raised for a record, and says what is wrong)
  """A record that cannot be used.

  Attributes:
    kind: what is wrong, as a word or two to count by, such as `truncated image`.
  """

  def __init__(self, kind: str, message: str):
    super().__init__(message)
    self.kind = kind

  def __reduce__(self):
    return type(self), (self.kind, str(self))


class Source(Protocol):
  """Random access to the records of one set; safe to use from several processes."""

  name: str

  def __len__(self) -> int:
    """Returns the number of records, bad ones included."""
    ...

  def __getitem__(self, index: int) -> Record:
    """Returns a record.

    Raises:
      BadRecord: it cannot be read; the message names it.
    """
    ...

  def gold(self, index: int) -> str | None:
    """Returns the answer for metrics, which training never asks for; None where there is none.

    Raises:
      BadRecord: the record, or its answer, cannot be read.
    """
    ...


def gold_if_readable(source: Source, index: int) -> str | None:
  """Returns the answer of a record for figures that can go without it.

  An answer that cannot be read counts as none, so that it does not end a run which never needed it;
  the first ten are logged.
  """
  try:
    return source.gold(index)
  except BadRecord as error:
    logging.log_first_n(logging.WARNING, "No answer for metrics: %s", 10, error)
    return None
