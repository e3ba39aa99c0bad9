"""Figures as training rows: an Actor's answer and a Judge's readings of the same picture.

Row i of step n is a pure function of seed, n and i, so a run that is resumed reads the same rows.
"""

from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import PIL.Image
from jaxtyping import Bool, Int32

from experiments.tiny_vlm import readings, vocabulary
from sejax import messages
from sejax.data import figures
from sejax.data.figures.bits import Bits
from sejax.data.figures.family import solution
from sejax.models import qwen2_5_vl as qwen
from sejax.models.qwen2_5_vl.processor import ImagePatches, Processor
from sejax.text import prompts


class Example(NamedTuple):
  """One prompt and its continuation.

  Attributes:
    images: the picture.
    prompt: its tokens.
    continuation: of the prompt.
    taught: the last so many of its tokens are learnt.
  """

  images: ImagePatches
  prompt: Int32[np.ndarray, " P"]
  continuation: Int32[np.ndarray, " T"]
  taught: int


class Texts(NamedTuple):
  """Prompts `[B,P]`, continuations `[B,1,T]` and which of their tokens are learnt."""

  prompt: qwen.Prompt
  tokens: Int32[np.ndarray, "B 1 T"]
  taught: Bool[np.ndarray, "B 1 T"]


class Batch(NamedTuple):
  """Rows of one step: the Actor's, then, on other pictures, the Judge's."""

  images: qwen.Images
  actor: Texts
  judge: Texts


class Sizes(NamedTuple):
  """Tokens of a prompt and of a continuation, at most."""

  prompt: int
  tokens: int

  @classmethod
  def of(cls, examples: Sequence[Example]) -> "Sizes":
    """Returns sizes that hold all examples."""
    return cls(
      max(len(e.prompt) for e in examples),
      max(len(e.continuation) for e in examples),
    )

  def holding(self, examples: Sequence[Example], step: int = 8) -> "Sizes":
    """Returns these sizes where they hold all examples, or else the next multiples of a step.

    So nearly all batches have one shape, and the rare longer one is not cut.
    """
    needed = Sizes.of(examples)
    return Sizes(
      *(n if m <= n else -(-m // step) * step for n, m in zip(self, needed, strict=True))
    )


def corpus(problems: Iterable[figures.Problem]) -> Iterator[str]:
  """Yields every kind of text about the problems, for learning a vocabulary."""
  for number, problem in enumerate(problems):
    bits = Bits("corpus", number)
    yield from vocabulary.TURNS
    yield prompts.JUDGE_SYSTEM_SHORT
    yield prompts.judge_query(problem.question, problem.solution)
    for wrong in problem.wrong:
      yield readings.reading(problem.solution, problem.facts, wrong.answer, bits)


def actor_example(processor: Processor, problem: figures.Problem) -> Example:
  """Tokenizes a problem with its solution."""
  images = _images(processor, problem)
  prompt = processor.prompt(messages.actor_messages(problem.question, 1, ""), images.grids)
  reply = _reply(processor, problem.solution)
  return Example(images, prompt.ids, reply, len(reply))


def judge_example(
  processor: Processor, problem: figures.Problem, bits: Bits, right: int, elsewhere: int
) -> Example:
  """Tokenizes a problem with the reading of a candidate solution.

  Args:
    processor: of the model.
    problem: the problem.
    bits: decide on candidate and wording.
    right: solutions in a hundred that are right.
    elsewhere: solutions in a hundred that are of another picture; all others have a slip.
  """
  images = _images(processor, problem)
  asked = messages.judge_messages(problem.question, 1, prompts.JUDGE_SYSTEM_SHORT)
  prompt = processor.prompt(asked, images.grids)
  text, claimed = _candidate(problem, bits, right, elsewhere)
  evaluation = readings.reading(problem.solution, problem.facts, claimed, bits)
  reply = _reply(processor, evaluation)
  continuation = np.concatenate([processor.continuation(prompt.tail, text), reply])
  return Example(images, prompt.ids, continuation, len(reply))


def _candidate(problem: figures.Problem, bits: Bits, right: int, elsewhere: int) -> tuple[str, str]:
  """Returns a solution and its answer."""
  lot = bits.below(100)
  if right <= lot < right + elsewhere and (other := _of_another_picture(problem, bits)):
    return other
  if lot >= right and problem.wrong:
    wrong = bits.choice(problem.wrong)
    return wrong.solution, str(wrong.answer)
  return problem.solution, problem.answer


def _of_another_picture(problem: figures.Problem, bits: Bits) -> tuple[str, str] | None:
  """Returns a solution, and its answer, to the same question about another picture."""
  family = figures.FAMILIES[problem.family]
  for _ in range(100):
    content = family.content(bits, problem.level)
    if problem.question in family.questions(content):
      facts = family.facts(content)
      answer = str(facts["answer"])
      return solution(bits.choice(family.tellings(content, facts)), answer), answer
  return None


def batch(
  config: qwen.Config,
  actor: Sequence[Example],
  judge: Sequence[Example],
  actor_sizes: Sizes,
  judge_sizes: Sizes,
) -> Batch:
  """Pads examples to one shape: that of the sizes, where all fit."""
  rows = [*actor, *judge]
  images = qwen.pack_images(
    config.vision,
    [e.images.patches for e in rows],
    [e.images.grids for e in rows],
    max(len(e.images.patches) for e in rows),
  )
  return Batch(
    images,
    _texts(config, actor, actor_sizes.holding(actor)),
    _texts(config, judge, judge_sizes.holding(judge)),
  )


def _images(processor: Processor, problem: figures.Problem) -> ImagePatches:
  return processor.images([PIL.Image.fromarray(problem.image)])


def _reply(processor: Processor, text: str) -> Int32[np.ndarray, " T"]:
  return np.append(processor.encode_text(text), np.int32(processor.eos_ids[0]))


def _texts(config: qwen.Config, rows: Sequence[Example], sizes: Sizes) -> Texts:
  lengths = np.array([len(row.prompt) for row in rows], np.int32)
  ids = np.zeros((len(rows), sizes.prompt), np.int32)
  tokens = np.zeros((len(rows), 1, sizes.tokens), np.int32)
  taught = np.zeros(tokens.shape, bool)
  for r, row in enumerate(rows):
    end = len(row.continuation)
    ids[r, : len(row.prompt)] = row.prompt
    tokens[r, 0, :end] = row.continuation
    taught[r, 0, end - row.taught : end] = True
  grids = [row.images.grids for row in rows]
  positions = qwen.prompt_positions(config, ids, lengths, grids)
  return Texts(qwen.Prompt(ids, lengths, positions), tokens, taught)
