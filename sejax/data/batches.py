"""Examples to a batch: padded arrays of a bounded number of shapes; host only.

Axes: B prompts, P prompt tokens, S patches.
"""

import collections
import dataclasses
from collections.abc import Sequence
from typing import NamedTuple, Self

import jax
import ml_collections
import numpy as np
from jaxtyping import Bool, Int, UInt32

from sejax import models
from sejax.data.prepare import Example
from sejax.parallel import hosts
from sejax.sampling import record_hashes


class Batch(NamedTuple):
  """This process's rows of a batch. The answers stay with the source.

  Attributes:
    record_ids: names of the records; empty for a row that only pads.
    records: hashes of them and their occurrences, for the sampler's keys.
    index: their places in the source, for `source.gold`; -1 for a row that only pads.
    questions: their texts.
    pictures: their encoded images, for reports.
    actor: the Actor's prompts.
    judge: the Judge's prompts up to the candidate.
    judge_tails: what follows the candidate, for `Processor.continuation`.
    images: of both roles; None where no row of any process has one.
  """

  record_ids: tuple[str, ...]
  records: UInt32[np.ndarray, "B 2"]
  index: Int[np.ndarray, " B"]
  questions: tuple[str, ...]
  pictures: tuple[tuple[bytes, ...], ...]
  actor: models.Prompt
  judge: models.Prompt
  judge_tails: tuple[tuple[str | int, ...], ...]
  images: models.Images | None

  @property
  def real(self) -> Bool[np.ndarray, " B"]:
    """Rows that hold a record; the others have one padding token and get a limit of 0."""
    return self.index >= 0


class Sizes(NamedTuple):
  """A batch's shape, or the largest lengths that it must hold.

  Attributes:
    actor: tokens of the Actor's prompts.
    judge: tokens of the Judge's.
    patches: of a row's images; 0 where no row has one.
  """

  actor: int
  judge: int
  patches: int


@dataclasses.dataclass(frozen=True)
class Buckets:
  """The sizes that arrays may have, ascending.

  Attributes:
    prompt: tokens.
    patch: patches, each a multiple of a window's.
  """

  prompt: tuple[int, ...]
  patch: tuple[int, ...]

  @classmethod
  def of(cls, data: ml_collections.ConfigDict) -> Self:
    """Returns those of a configuration's section `data`."""
    return cls(tuple(data.prompt_buckets), tuple(data.patch_buckets))

  def choose(self, needed: Sizes) -> Sizes:
    """Returns the smallest sizes that hold what is needed.

    Raises:
      ValueError: nothing does.
    """
    return Sizes(
      _smallest("prompt", self.prompt, needed.actor),
      _smallest("prompt", self.prompt, needed.judge),
      _smallest("patch", self.patch, needed.patches) if needed.patches else 0,
    )


@dataclasses.dataclass(frozen=True)
class Collator:
  """Makes batches.

  Attributes:
    model: packs images and lays positions out.
    dataset: name of the set, part of the records' hashes.
    rows: of this process in each batch, B.
    buckets: the sizes to choose from.
    pad_id: token that fills a row.
  """

  model: models.Model
  dataset: str
  rows: int
  buckets: Buckets
  pad_id: int

  def __call__(self, examples: Sequence[Example]) -> Batch:
    """Returns the examples in their order, then rows that only pad.

    All processes call it together: they agree on the sizes.

    Raises:
      ValueError: there are more examples than rows, or one exceeds the largest bucket.
    """
    if len(examples) > self.rows:
      raise ValueError(f"{len(examples)} examples do not fit a batch of {self.rows} rows")
    sizes = self.buckets.choose(Sizes(*hosts.max_over_processes(*longest(examples))))
    empty = self.rows - len(examples)
    padding = np.full(1, self.pad_id, np.int32)
    grids = [example.grids for example in examples] + [np.zeros((0, 3), np.int32)] * empty
    ids = (*(example.id for example in examples), *[""] * empty)
    numbers = (*(example.occurrence for example in examples), *[0] * empty)
    return Batch(
      record_ids=ids,
      records=record_hashes(self.dataset, ids, numbers),
      index=np.array([example.index for example in examples] + [-1] * empty),
      questions=(*(example.question for example in examples), *[""] * empty),
      pictures=(*(example.pictures for example in examples), *[()] * empty),
      actor=self._prompt([*(e.actor for e in examples), *[padding] * empty], grids, sizes.actor),
      judge=self._prompt([*(e.judge for e in examples), *[padding] * empty], grids, sizes.judge),
      judge_tails=(*(example.judge_tail for example in examples), *[()] * empty),
      images=self._images(examples, grids, sizes.patches) if sizes.patches else None,
    )

  def _prompt(self, rows: Sequence[np.ndarray], grids: Sequence[np.ndarray], size: int):
    return padded_prompts(self.model, rows, grids, size, self.pad_id)

  def _images(self, examples: Sequence[Example], grids: Sequence[np.ndarray], size: int):
    none = np.zeros((0, self.model.patch_dim), np.float32)
    patches = [example.patches for example in examples] + [none] * (len(grids) - len(examples))
    return self.model.pack_images(patches, grids, size)


def number_occurrences(
  examples: Sequence[Example], seen: collections.Counter[str]
) -> list[Example]:
  """Numbers the occurrences of each record in a step, so that no two of them are sampled alike.

  Epochs meet in a batch, and one that is larger than the set holds several. All processes call it
  together, as the same record may lie in several of them. The stream's order counts, so a record
  has the same number whichever process reads it.

  Args:
    examples: this process's, of one batch.
    seen: how often records, by their ids, occurred in earlier batches of the step; brought up to
      date.

  Returns:
    The examples with their `occurrence`.
  """
  parts = hosts.gather_json([(example.turn, example.id) for example in examples])
  numbers = occurrences(parts, seen)[jax.process_index()]
  return [
    example._replace(occurrence=number) for example, number in zip(examples, numbers, strict=True)
  ]


def occurrences(
  parts: Sequence[Sequence[tuple[int, str]]], seen: collections.Counter[str]
) -> list[list[int]]:
  """Returns the numbers that `number_occurrences` gives, those of each process.

  Args:
    parts: of each process, the place in the stream and the record of each example.
    seen: see `number_occurrences`.
  """
  numbers = [[0] * len(part) for part in parts]
  places = [
    (turn, process, row, record)
    for process, part in enumerate(parts)
    for row, (turn, record) in enumerate(part)
  ]
  for _, process, row, record in sorted(places):
    numbers[process][row] = seen[record]
    seen[record] += 1
  return numbers


def padded_prompts(
  model: models.Model,
  rows: Sequence[Int[np.ndarray, " P"]],
  grids: Sequence[Int[np.ndarray, "n 3"]],
  size: int,
  pad_id: int,
) -> models.Prompt:
  """Returns prompts of one width, padded on the right.

  Args:
    rows: tokens of each prompt, at most `size`.
    grids: of each prompt's images.
    size: the width.
    pad_id: token that fills a row.
  """
  ids = np.full((len(rows), size), pad_id, np.int32)
  lengths = np.array([len(row) for row in rows], np.int32)
  for row, tokens in enumerate(rows):
    ids[row, : len(tokens)] = tokens
  return models.Prompt(ids, lengths, model.prompt_positions(ids, lengths, grids))


def longest(examples: Sequence[Example]) -> Sizes:
  """Returns the largest lengths among examples, those of a row that only pads at the least."""
  return Sizes(
    max((len(example.actor) for example in examples), default=1),
    max((len(example.judge) for example in examples), default=1),
    max((len(example.patches) for example in examples), default=0),
  )


def _smallest(what: str, sizes: Sequence[int], needed: int) -> int:
  for size in sizes:
    if needed <= size:
      return size
  raise ValueError(f"{needed} does not fit the largest {what} bucket, {sizes[-1]}")
