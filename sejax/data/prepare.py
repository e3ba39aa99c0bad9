"""One record to one example: decoded, cut into patches and tokenized for both roles; host only."""

import dataclasses
import functools
from typing import NamedTuple, Self

import ml_collections
import numpy as np
import PIL.Image
from jaxtyping import Float32, Int32

from sejax.data import images
from sejax.data.records import BadRecord, Record, Source
from sejax.errors import shortened
from sejax.models.processor import Processor
from sejax.text import messages, prompts

# The kind of what is dropped for its size: expected in a good set, so not counted as bad.
TOO_LONG = "too long"
_UNUSABLE = "unusable prompt"


class Example(NamedTuple):
  """A record ready to be batched; its answer stays with the source.

  Attributes:
    index: place in the source, for `source.gold`.
    id: the record's.
    question: the record's text.
    pictures: the encoded images, for reports.
    actor: tokens of the Actor's prompt.
    judge: tokens of the Judge's prompt up to the candidate.
    judge_tail: what follows the candidate, for `Processor.continuation`.
    patches: of all images; both roles see the same.
    grids: of each image, see `ImagePatches`.
    turn: place in the stream that gave it; 0 outside of one.
    occurrence: how often the record occurred before in the same step, see
      `batches.number_occurrences`.
  """

  index: int
  id: str
  question: str
  pictures: tuple[bytes, ...]
  actor: Int32[np.ndarray, " P"]
  judge: Int32[np.ndarray, " P"]
  judge_tail: tuple[str | int, ...]
  patches: Float32[np.ndarray, "S patch_dim"]
  grids: Int32[np.ndarray, "n 3"]
  turn: int = 0
  occurrence: int = 0


class Dropped(NamedTuple):
  """A record that gives no example.

  Attributes:
    index: place in the source.
    id: the record's; where not even that could be read, its index.
    kind: to count by: a `BadRecord`'s, or `TOO_LONG`.
    message: what is wrong.
  """

  index: int
  id: str
  kind: str
  message: str

  @property
  def explanation(self) -> str:
    """What is wrong with which record; sources name it in their messages, decoders do not."""
    if self.message.startswith("record "):
      return self.message
    return f"record {shortened(self.id)}: {self.message}"


class Prompts(NamedTuple):
  """The tokens of a record's prompts, as in `Example`."""

  actor: Int32[np.ndarray, " P"]
  judge: Int32[np.ndarray, " P"]
  judge_tail: tuple[str | int, ...]


class Read(NamedTuple):
  """A record that gives an example, before its pictures are cut into patches.

  Attributes:
    record: as it is in the source.
    pictures: its decoded images.
    prompts: of both roles.
  """

  record: Record
  pictures: list[PIL.Image.Image]
  prompts: Prompts


@dataclasses.dataclass(frozen=True)
class Preparer:
  """Makes examples of a source's records; small when pickled, so that it travels to workers.

  Attributes:
    source: the records.
    directory: the model's, for `Processor.load`.
    min_pixels: smaller images are enlarged to this area; None keeps the directory's value.
    max_pixels: larger images are reduced to this area; None keeps the directory's value.
    prompt_limit: tokens of the Actor's prompt, image tokens included; longer ones are dropped.
    judge_limit: the same for the Judge's prompt up to the candidate.
    patch_limit: patches of a prompt's images; prompts with more are dropped.
    instruction: what the Actor is told about the form of its answer.
    include_instruction: whether the Judge reads that too, as in the released code.
    judge_system: the Judge's system prompt.
    judged: whether there is a Judge; without one the Actor's prompt stands for its own.
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

  @classmethod
  def of(cls, config: ml_collections.ConfigDict, source: Source) -> Self:
    """Returns what a configuration's `model.path`, `data`, `actor` and `judge` describe."""
    data = config.data
    return cls(
      source,
      config.model.path,
      data.min_pixels,
      data.max_pixels,
      data.prompt_limit,
      data.prompt_buckets[-1],
      data.patch_buckets[-1],
      config.actor.instruction,
      config.judge.include_instruction,
      config.judge.system
      or prompts.judge_system(prompts.Rubric(**config.judge.weights), config.judge.rubric),
    )

  @property
  def processor(self) -> Processor:
    """The model's processor, loaded once in each process."""
    return _processor(self.directory, self.min_pixels, self.max_pixels)

  def __call__(self, index: int) -> Example | Dropped:
    """Returns the example of a record, or why there is none."""
    read = self.read(index)
    if isinstance(read, Dropped):
      return read
    record = read.record
    try:
      patches, grids = self.processor.images(read.pictures)
    except ValueError as error:
      return Dropped(int(index), record.id, _UNUSABLE, str(error))
    return Example(
      int(index), record.id, record.question, record.images, *read.prompts, patches, grids
    )

  def read(self, index: int) -> Read | Dropped:
    """Returns all of a record's example but its patches, which take longest; or why there is none.

    Whether it can be used is known by then.
    """
    index = int(index)
    name = f"index {index}"
    try:
      record = self.source[index]
      record.id.encode()  # It is hashed, and may come from JSON with half a surrogate pair.
      name = record.id
      pictures = [self._picture(data) for data in record.images]
      grids = self.processor.grids([picture.size for picture in pictures])
      tokens = self._prompts(record, grids)
    except BadRecord as error:
      return Dropped(index, name, error.kind, str(error))
    except ValueError as error:
      return Dropped(index, name, _UNUSABLE, str(error))
    for what, size, limit in (
      ("Actor's prompt has {} tokens", len(tokens.actor), self.prompt_limit),
      ("Judge's prompt has {} tokens", len(tokens.judge), self.judge_limit),
      ("images have {} patches", int(grids.prod(axis=1).sum()), self.patch_limit),
    ):
      if size > limit:
        return Dropped(index, name, TOO_LONG, f"the {what.format(size)}; the limit is {limit}")
    return Read(record, pictures, tokens)

  def _prompts(self, record: Record, grids: Int32[np.ndarray, "n 3"]) -> Prompts:
    processor = self.processor
    asked = messages.actor_messages(record.question, len(grids), self.instruction)
    actor = processor.prompt(asked, grids).ids
    if not self.judged:
      return Prompts(actor, actor, ())
    judged = messages.judge_messages(
      record.question,
      len(grids),
      self.judge_system,
      include_instruction=self.include_instruction,
      instruction=self.instruction,
    )
    judge = processor.prompt(judged, grids)
    return Prompts(actor, judge.ids, judge.tail)

  def _picture(self, data: bytes) -> PIL.Image.Image:
    picture = images.decode(data)
    processor = self.processor.image_processor
    images.check_size(
      picture.size,
      processor.size["shortest_edge"],
      processor.size["longest_edge"],
      processor.patch_size * processor.merge_size,
    )
    return picture


@functools.cache
def _processor(directory: str, min_pixels: int | None, max_pixels: int | None) -> Processor:
  return Processor.load(directory, min_pixels, max_pixels)
