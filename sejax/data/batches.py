"""Collates examples into batches: arrays padded to one of a few bucket sizes; host only.

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
from sejax.parallel.programs import rounded_up
from sejax.sampling import record_hashes


class Batch(NamedTuple):
  """This process's rows of a batch. Gold answers are not part of it, see `Source.gold`.

  A batch may have fewer records than rows; the remaining rows are padding.

  Attributes:
    record_ids: ids of the records; empty in padding rows.
    record_hashes: 64-bit hash of each record and its occurrence, which seeds its samples.
    index: positions of the records in the source; -1 in padding rows.
    questions: texts of the records.
    image_files: encoded image files of each record, for reports.
    actor: the Actor's prompts.
    judge: the Judge's prompts up to where the candidate solution is inserted.
    judge_tails: what follows the candidate, for `Processor.tokenize_candidate`.
    packed_images: image patches, shared by both roles; None if no row of any process has an image.
    views: row of the other view of each row's record; itself in padding rows. None without views.
  """

  record_ids: tuple[str, ...]
  record_hashes: UInt32[np.ndarray, "B 2"]
  index: Int[np.ndarray, " B"]
  questions: tuple[str, ...]
  image_files: tuple[tuple[bytes, ...], ...]
  actor: models.Prompt
  judge: models.Prompt
  judge_tails: tuple[tuple[str | int, ...], ...]
  packed_images: models.Images | None
  views: Int[np.ndarray, " B"] | None = None

  @property
  def real(self) -> Bool[np.ndarray, " B"]:
    """False in padding rows, which hold a prompt of one padding token and are never sampled."""
    return self.index >= 0


class Sizes(NamedTuple):
  """Row lengths of the arrays of a batch.

  Attributes:
    actor: tokens of an Actor's prompt.
    judge: tokens of a Judge's prompt.
    patches: patches of a row's images; 0 if no row has images.
  """

  actor: int
  judge: int
  patches: int


@dataclasses.dataclass(frozen=True)
class Buckets:
  """The lengths that arrays are padded to; one program is compiled per combination in use.

  Beside these, what reads images is compiled for each number of images of a row, see `Collator`.

  Attributes:
    prompt: numbers of tokens, ascending.
    patch: numbers of patches, ascending, each a multiple of `Model.patch_multiple`.
  """

  prompt: tuple[int, ...]
  patch: tuple[int, ...]

  @classmethod
  def of(cls, data: ml_collections.ConfigDict) -> Self:
    """Creates the buckets of the section `config.data`."""
    return cls(tuple(data.prompt_buckets), tuple(data.patch_buckets))

  def choose(self, needed: Sizes) -> Sizes:
    """Rounds sizes up to the next buckets.

    Raises:
      ValueError: a size exceeds the largest bucket.
    """
    return Sizes(
      actor=_smallest_bucket("prompt", self.prompt, needed.actor),
      judge=_smallest_bucket("prompt", self.prompt, needed.judge),
      patches=_smallest_bucket("patch", self.patch, needed.patches) if needed.patches else 0,
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Collator:
  """Function from examples to a `Batch`.

  Attributes:
    dataset: name of the data set, hashed together with the record ids.
    rows: rows of this process in each batch, B.
    paired: whether each two adjacent examples are views of one record.
    buckets: the lengths to pad to.
    pad_id: token id used as padding.
  """

  model: models.Model
  dataset: str
  rows: int
  buckets: Buckets
  pad_id: int
  paired: bool = False

  def __call__(self, examples: Sequence[Example]) -> Batch:
    """Collates examples in their order and appends padding rows.

    A collective operation: all processes must call it, as they agree on the padded sizes.

    Raises:
      ValueError: there are more examples than rows, or one exceeds the largest bucket.
    """
    if len(examples) > self.rows:
      raise ValueError(f"{len(examples)} examples do not fit a batch of {self.rows} rows")
    fullest = max((len(example.grids) for example in examples), default=0)
    *needed, most = hosts.max_over_processes(*_max_sizes(examples), fullest)
    sizes = self.buckets.choose(Sizes(*needed))
    rows = [*examples, *[self._padding_row()] * (self.rows - len(examples))]
    grids = [row.grids for row in rows]
    record_ids = tuple(row.id for row in rows)
    row = np.arange(self.rows)
    views = np.where(row < len(examples), row ^ 1, row) if self.paired else None
    return Batch(
      record_ids=record_ids,
      record_hashes=record_hashes(self.dataset, record_ids, [row.occurrence for row in rows]),
      index=np.array([row.index for row in rows]),
      questions=tuple(row.question for row in rows),
      image_files=tuple(row.image_files for row in rows),
      actor=self._prompts([row.actor for row in rows], grids, sizes.actor),
      judge=self._prompts([row.judge for row in rows], grids, sizes.judge),
      judge_tails=tuple(row.judge_tail for row in rows),
      packed_images=self._pack_images(rows, sizes.patches, most) if sizes.patches else None,
      views=views,
    )

  def _padding_row(self) -> Example:
    prompt = np.full(1, self.pad_id, np.int32)
    return Example(
      index=-1,
      id="",
      question="",
      image_files=(),
      actor=prompt,
      judge=prompt,
      judge_tail=(),
      patches=np.zeros((0, self.model.patch_dim), np.float32),
      grids=np.zeros((0, 3), np.int32),
    )

  def _prompts(
    self, tokens: Sequence[np.ndarray], grids: Sequence[np.ndarray], size: int
  ) -> models.Prompt:
    return padded_prompts(
      model=self.model, tokens=tokens, grids=grids, size=size, pad_id=self.pad_id
    )

  def _pack_images(self, rows: Sequence[Example], size: int, most: int) -> models.Images:
    patches, grids = [row.patches for row in rows], [row.grids for row in rows]
    # Rounded up to a power of two, as programs are compiled for each number in use.
    return self.model.pack_images(patches, grids, size, rounded_up(most, 1))


def number_occurrences(
  examples: Sequence[Example], seen: collections.Counter[str]
) -> list[Example]:
  """Numbers repeated records within a training step, so that each repetition is sampled anew.

  A record repeats in a step when the batch is larger than the data set, or spans the end of an
  epoch. Occurrences are counted in the order of the stream, so the numbers do not depend on which
  process reads a record. A collective operation: all processes must call it.

  Args:
    examples: this process's examples of one batch.
    seen: occurrences of each record id in earlier batches of the step; updated in place.

  Returns:
    The examples with their `occurrence`.
  """
  parts = hosts.gather_json([(example.position, example.id) for example in examples])
  numbers = occurrences(parts, seen)[jax.process_index()]
  return [
    example._replace(occurrence=number) for example, number in zip(examples, numbers, strict=True)
  ]


def occurrences(
  parts: Sequence[Sequence[tuple[int, str]]], seen: collections.Counter[str]
) -> list[list[int]]:
  """Returns the occurrence numbers of each process's examples, for `number_occurrences`.

  Args:
    parts: for each process, the stream position and the record id of each of its examples.
    seen: see `number_occurrences`.
  """
  numbers = [[0] * len(part) for part in parts]
  stream = [
    (position, process, row, record_id)
    for process, part in enumerate(parts)
    for row, (position, record_id) in enumerate(part)
  ]
  for _, process, row, record_id in sorted(stream):
    numbers[process][row] = seen[record_id]
    seen[record_id] += 1
  return numbers


def padded_prompts(
  *,
  model: models.Model,
  tokens: Sequence[Int[np.ndarray, " P"]],
  grids: Sequence[Int[np.ndarray, "n 3"]],
  size: int,
  pad_id: int,
) -> models.Prompt:
  """Pads token sequences on the right to one length and computes their positions.

  Args:
    tokens: tokens of each prompt, at most `size`.
    grids: sizes of each prompt's images in patches, see `Example`.
    pad_id: token id used as padding.
  """
  ids = np.full((len(tokens), size), pad_id, np.int32)
  lengths = np.array([len(row) for row in tokens], np.int32)
  for row, row_tokens in enumerate(tokens):
    ids[row, : len(row_tokens)] = row_tokens
  return models.Prompt(ids, lengths, model.prompt_positions(ids, lengths, grids))


def _max_sizes(examples: Sequence[Example]) -> Sizes:
  """Returns the largest lengths among examples; without examples those of a padding row."""
  return Sizes(
    actor=max((len(example.actor) for example in examples), default=1),
    judge=max((len(example.judge) for example in examples), default=1),
    patches=max((len(example.patches) for example in examples), default=0),
  )


def _smallest_bucket(name: str, buckets: Sequence[int], needed: int) -> int:
  for size in buckets:
    if needed <= size:
      return size
  raise ValueError(f"{needed} does not fit the largest {name} bucket, {buckets[-1]}")
