"""Records, the raw problems of a data set, and the interface of the sources that hold them."""

import dataclasses
from collections.abc import Iterable, Iterator
from typing import Protocol

from absl import logging

from sejax.errors import shortened

NO_GOLD = "no gold answer"


@dataclasses.dataclass(frozen=True)
class Record:
  """A question with its images, before anything is decoded or tokenized.

  Attributes:
    id: identifies the record within its data set. It depends neither on the order of the records
      nor on how they are spread over files.
    question: the text. It holds `<image>` once per image, or never: the images then come first.
    images: encoded image files; may be empty.
  """

  id: str
  question: str
  images: tuple[bytes, ...] = ()


class BadRecord(ValueError):  # noqa: N818 (it is raised for a record, and says what is wrong)
  """Raised for a record that cannot be used.

  `str(error)` names the record where its id is known; decoders, which see bytes, do not know it.

  Attributes:
    kind: short category under which such records are counted, such as `truncated image`.
    message: what is wrong, without the record's id.
    record_id: empty if the code that raised does not know it.
  """

  def __init__(self, kind: str, message: str, record_id: str = ""):
    super().__init__(about_record(record_id, message) if record_id else message)
    self.kind, self.message, self.record_id = kind, message, record_id

  def __reduce__(self):
    return type(self), (self.kind, self.message, self.record_id)


def about_record(record_id: str, message: str) -> str:
  """Returns an error message that begins with the record it is about."""
  return f"record {shortened(record_id)}: {message}"


class Source(Protocol):
  """Random access to the records of one data set. Must be picklable for worker processes."""

  name: str

  def __len__(self) -> int:
    """Returns the number of records, including bad ones."""
    ...

  def __getitem__(self, index: int) -> Record:
    """Reads a record.

    Raises:
      BadRecord: it cannot be read.
    """
    ...

  def gold(self, index: int) -> str | None:
    """Returns the gold answer of a record, or None if it has none.

    Only metrics and supervised baselines read it; the unsupervised method never does.

    Raises:
      BadRecord: the record or its answer cannot be read.
    """
    ...


def gold_if_readable(source: Source, index: int) -> str | None:
  """Returns a gold answer for metrics, treating an unreadable one as missing.

  A run that does not train on gold answers must not end because of one. The first ten errors are
  logged.
  """
  try:
    return source.gold(index)
  except BadRecord as error:
    logging.log_first_n(logging.WARNING, "No answer for metrics: %s", 10, error)
    return None


def gold_errors(source: Source, indices: Iterable[int]) -> Iterator[BadRecord]:
  """Yields an error for each record whose gold answer is missing (kind `NO_GOLD`) or unreadable."""
  for index in indices:
    try:
      gold = source.gold(index)
    except BadRecord as error:
      yield error
      continue
    if gold is None:
      yield BadRecord(NO_GOLD, f"record {index} of {source.name} has no gold answer")
