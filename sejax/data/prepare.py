"""Turns one record into a training example: decodes images, cuts patches, tokenizes; host only."""

import dataclasses
import functools
import os
from typing import NamedTuple

import numpy as np
import PIL.Image
from jaxtyping import Float32, Int32

from sejax.data import images, records, views
from sejax.data.records import BadRecord, Record, Source
from sejax.models.processor import Processor
from sejax.text import messages, prompts

# Kind of a record that exceeds a size limit. Good data sets have some, so it does not count as bad.
TOO_LONG = "too long"
_UNUSABLE = "unusable prompt"


class Example(NamedTuple):
  """A tokenized record with its image patches, ready to be batched. Its gold answer is not in it.

  Attributes:
    index: position in the source, to look up `source.gold`.
    id: the record's id.
    question: the record's text.
    image_files: encoded image files, for reports.
    actor: tokens of the Actor's prompt.
    judge: tokens of the Judge's prompt up to where the candidate solution is inserted.
    judge_tail: what follows the candidate, for `Processor.tokenize_candidate`.
    patches: patches of all images in order; both roles see the same.
    grids: size of each image in patches (time, height, width), see `ImagePatches`.
    position: position in the pipeline's stream of records; 0 outside of a pipeline.
    occurrence: number of earlier occurrences of the same record in a training step, see
      `batches.number_occurrences`.
    view: what differs in the other view of the record, see `with_views`; None without one.
  """

  index: int
  id: str
  question: str
  image_files: tuple[bytes, ...]
  actor: Int32[np.ndarray, " P"]
  judge: Int32[np.ndarray, " P"]
  judge_tail: tuple[str | int, ...]
  patches: Float32[np.ndarray, "S patch_dim"]
  grids: Int32[np.ndarray, "n 3"]
  position: int = 0
  occurrence: int = 0
  view: "View | None" = None


class View(NamedTuple):
  """Another view of a record; the fields are those of `Example`."""

  image_files: tuple[bytes, ...]
  actor: Int32[np.ndarray, " P"]
  judge: Int32[np.ndarray, " P"]
  judge_tail: tuple[str | int, ...]
  patches: Float32[np.ndarray, "S patch_dim"]
  grids: Int32[np.ndarray, "n 3"]


def with_views(example: Example) -> list[Example]:
  """Returns the examples of a record: itself and, if there is one, its other view after it."""
  if example.view is None:
    return [example]
  plain = example._replace(view=None)
  return [plain, plain._replace(**example.view._asdict())]


class Dropped(NamedTuple):
  """A record that could not be turned into an example, and why.

  Attributes:
    index: position in the source.
    id: the record's id, or `index <i>` if the id could not be read.
    kind: category for counting: that of a `BadRecord`, or `TOO_LONG`.
    message: what is wrong, without the record's id.
  """

  index: int
  id: str
  kind: str
  message: str

  @property
  def explanation(self) -> str:
    """The message with the id of the record in front."""
    return records.about_record(self.id, self.message)


class Prompts(NamedTuple):
  """Prompt tokens of both roles; the fields are those of `Example`."""

  actor: Int32[np.ndarray, " P"]
  judge: Int32[np.ndarray, " P"]
  judge_tail: tuple[str | int, ...]


class Tokenized(NamedTuple):
  """A usable record, decoded and tokenized, before its images are cut into patches.

  Attributes:
    record: the record as the source returned it.
    images: its images as PIL images, in the order of the `<image>` marks.
    prompts: tokens for both roles.
  """

  record: Record
  images: list[PIL.Image.Image]
  prompts: Prompts


@dataclasses.dataclass(frozen=True, kw_only=True)
class Preparer:
  """Function from the index of a record to its `Example`.

  Worker processes receive it pickled, so it holds the path of the processor, not the processor.

  Attributes:
    source: the records.
    directory: model directory, for `Processor.load`.
    min_pixels: smaller images are enlarged to this area; None uses the model directory's value.
    max_pixels: larger images are reduced to this area; None uses the model directory's value.
    prompt_limit: maximum tokens of the Actor's prompt, including image tokens; records with more
      are dropped.
    judge_limit: the same for the Judge's prompt up to the candidate.
    patch_limit: maximum patches of all images of a record; records with more are dropped.
    instruction: text of the Actor's prompt that asks for the output format.
    include_instruction: whether the Judge's prompt repeats `instruction`, as in the released code.
    judge_system: system prompt of the Judge.
    judged: whether a Judge reads the trajectories; without one, the Actor's prompt fills the
      Judge's fields of an example.
    view: how pictures change in a second view; None makes none.
  """

  source: Source
  directory: str
  min_pixels: int | None
  max_pixels: int | None
  prompt_limit: int
  judge_limit: int
  patch_limit: int
  instruction: str = prompts.ACTOR_INSTRUCTION
  include_instruction: bool = False
  judge_system: str = dataclasses.field(default_factory=prompts.judge_system)
  judged: bool = True
  view: views.Options | None = None

  @property
  def processor(self) -> Processor:
    """The model's processor, loaded once per process."""
    return load_processor(self.directory, self.min_pixels, self.max_pixels)

  def __call__(self, index: int, passes: int = 0) -> Example | Dropped:
    """Returns the example of a record, or why it was dropped.

    Args:
      passes: earlier passes over the records, of which each has other views.
    """
    tokenized = self.tokenize(index)
    if isinstance(tokenized, Dropped):
      return tokenized
    record = tokenized.record
    try:
      patches, grids = self.processor.images(tokenized.images)
    except ValueError as error:
      return Dropped(int(index), record.id, _UNUSABLE, str(error))
    return Example(
      index=int(index),
      id=record.id,
      question=record.question,
      image_files=record.images,
      **tokenized.prompts._asdict(),
      patches=patches,
      grids=grids,
      view=None if self.view is None else self._other_view(tokenized, passes),
    )

  def _other_view(self, tokenized: Tokenized, passes: int) -> View:
    """Returns the other view of a record.

    Pictures stay as they are where the changed ones exceed a limit or cannot be used, as one whose
    sides differ by as much as they may can.
    """
    record = tokenized.record
    try:
      files = tuple(
        views.change(image, self.view, record=record.id, occurrence=passes, number=number)
        for number, image in enumerate(tokenized.images)
      )
      patches, grids = self.processor.images([self._decode(file) for file in files])
      tokens = self._prompts(record, grids)
      is_usable = self._excess(tokens, grids) is None
    except (ValueError, OSError):
      is_usable = False
    if not is_usable:
      files, tokens = record.images, tokenized.prompts
      patches, grids = self.processor.images(tokenized.images)
    return View(files, **tokens._asdict(), patches=patches, grids=grids)

  def tokenize(self, index: int) -> Tokenized | Dropped:
    """Does everything for a record except cutting its images into patches, the slowest part.

    Bad records and size limits are found here, so that records can be counted without patches.
    """
    index = int(index)
    record_id = f"index {index}"
    try:
      record = self.source[index]
      record.id.encode()  # It is hashed, and JSON may hold half a surrogate pair.
      record_id = record.id
      decoded = [self._decode(file) for file in record.images]
      grids = self.processor.grids([image.size for image in decoded])
      tokens = self._prompts(record, grids)
    except BadRecord as error:
      return Dropped(index, error.record_id or record_id, error.kind, error.message)
    except ValueError as error:
      return Dropped(index, record_id, _UNUSABLE, str(error))
    if excess := self._excess(tokens, grids):
      return Dropped(index, record_id, TOO_LONG, excess)
    return Tokenized(record, decoded, tokens)

  def _excess(self, tokens: Prompts, grids: Int32[np.ndarray, "n 3"]) -> str | None:
    """Returns which size limit a record exceeds; None if it fits."""
    patches = int(grids.prod(axis=1).sum())
    for what, size, limit, option in (
      ("Actor's prompt has {} tokens", len(tokens.actor), self.prompt_limit, "prompt_limit"),
      ("Judge's prompt has {} tokens", len(tokens.judge), self.judge_limit, "prompt_buckets"),
      ("images have {} patches", patches, self.patch_limit, "patch_buckets"),
    ):
      if size > limit:
        return f"the {what.format(size)}; the limit is {limit}, by config.data.{option}"
    return None

  def _prompts(self, record: Record, grids: Int32[np.ndarray, "n 3"]) -> Prompts:
    processor = self.processor
    actor_messages = messages.actor_messages(record.question, len(grids), self.instruction)
    actor = processor.prompt(actor_messages, grids).ids
    if not self.judged:
      return Prompts(actor=actor, judge=actor, judge_tail=())
    judge_messages = messages.judge_messages(
      record.question,
      len(grids),
      self.judge_system,
      include_instruction=self.include_instruction,
      instruction=self.instruction,
    )
    judge = processor.prompt(judge_messages, grids)
    return Prompts(actor=actor, judge=judge.ids, judge_tail=judge.tail)

  def _decode(self, file: bytes) -> PIL.Image.Image:
    image = images.decode(file)
    processor = self.processor.image_processor
    images.check_size(
      image.size,
      processor.size["shortest_edge"],
      processor.size["longest_edge"],
      processor.patch_size * processor.merge_size,
    )
    return image


def load_processor(directory: str, min_pixels: int | None, max_pixels: int | None) -> Processor:
  """Returns the processor of a model directory, read once per process; see `Processor.load`."""
  return _load_processor(os.path.abspath(directory), directory, min_pixels, max_pixels)


@functools.cache
def _load_processor(
  absolute_path: str, directory: str, min_pixels: int | None, max_pixels: int | None
) -> Processor:
  # Only a cache key: after os.chdir, the same relative path is another directory.
  del absolute_path
  return Processor.load(directory, min_pixels, max_pixels)
