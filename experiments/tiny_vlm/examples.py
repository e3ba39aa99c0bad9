"""Figures as training rows: an Actor's answer and a Judge's readings of the same image.

Row i of step n is a pure function of seed, n and i, so a run that is resumed reads the same rows.
"""

import dataclasses
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import PIL.Image
from jaxtyping import Float32, Int32

from experiments.tiny_vlm import chains, readings, vocabulary
from sejax import models
from sejax.data import figures
from sejax.data.figures import problems
from sejax.data.figures.rng import Rng
from sejax.models.processor import ImagePatches, Processor
from sejax.text import messages, prompts


@dataclasses.dataclass(frozen=True)
class Lessons:
  """What a Judge is shown, and what of its readings is learnt. Shares are in a hundred.

  A solution that it is shown is right, of another image, or else has a slip.

  Attributes:
    right: share of right solutions.
    elsewhere: share of solutions of another image.
    compared: share of readings of which only the end is learnt, where two answers are compared;
      their solutions are right as often as not, and else as above.
    weight: of each token of that end in the loss.
  """

  right: int
  elsewhere: int
  compared: int
  weight: float


class Example(NamedTuple):
  """One prompt and its continuation.

  Attributes:
    images: patches and grid of its only image.
    prompt: its tokens.
    continuation: of the prompt.
    weights: of its tokens in the loss; 0: not learnt.
  """

  images: ImagePatches
  prompt: Int32[np.ndarray, " P"]
  continuation: Int32[np.ndarray, " T"]
  weights: Float32[np.ndarray, " T"]


class Texts(NamedTuple):
  """Prompts `[B,P]`, continuations `[B,1,T]` and the weights of their tokens in the loss."""

  prompt: models.Prompt
  tokens: Int32[np.ndarray, "B 1 T"]
  weights: Float32[np.ndarray, "B 1 T"]


class Batch(NamedTuple):
  """Rows of one step: the Actor's, then, on other images, the Judge's."""

  images: models.Images
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
    rng = Rng("corpus", number)
    yield from vocabulary.TURNS
    yield prompts.JUDGE_SYSTEM_SHORT
    yield prompts.judge_query(problem.question, problem.solution)
    for wrong in problem.wrong:
      yield "".join(readings.reading(problem.solution, problem.facts, wrong.answer, rng))


def actor_example(
  processor: Processor,
  problem: figures.Problem,
  rng: Rng,
  careless: int,
  *,
  chained: bool = False,
) -> Example:
  """Tokenizes a problem with its solution.

  Args:
    rng: decide whether the solution has a slip, and which.
    careless: share of solutions with a slip, in a hundred.
    chained: whether solutions are those of `chains`.
  """
  images = _images(processor, problem)
  prompt = processor.prompt(messages.actor_messages(problem.question, 1, ""), images.grids)
  text = chains.chain(problem, problem.facts, rng) if chained else problem.solution
  if careless and problem.wrong and rng.below(100) < careless:
    wrong = rng.choice(problem.wrong)
    text = chains.chain(problem, wrong.claims, rng) if chained else wrong.solution
  reply = _reply(processor, text)
  return Example(images, prompt.ids, reply, np.ones(len(reply), np.float32))


def judge_example(
  processor: Processor,
  problem: figures.Problem,
  rng: Rng,
  lessons: Lessons,
  *,
  chained: bool = False,
) -> Example:
  """Tokenizes a problem with the reading of a candidate solution.

  Args:
    rng: decide on candidate and wording.
    lessons: what is shown and learnt.
    chained: whether solutions are those of `chains`.
  """
  images = _images(processor, problem)
  asked = messages.judge_messages(problem.question, 1, prompts.JUDGE_SYSTEM_SHORT)
  prompt = processor.prompt(asked, images.grids)
  compared = lessons.compared and rng.below(100) < lessons.compared
  right = 50 if compared else lessons.right
  text, claimed = _candidate(problem, rng, right, lessons.elsewhere, chained)
  telling, end = readings.reading(problem.solution, problem.facts, claimed, rng)
  given = processor.tokenize_candidate(prompt.tail, text)
  reply = _reply(processor, telling + end)
  weights = np.full(len(given) + len(reply), lessons.weight, np.float32)
  weights[: len(given) + len(processor.encode_text(telling))] = 0 if compared else 1
  weights[: len(given)] = 0
  return Example(images, prompt.ids, np.concatenate([given, reply]), weights)


def _candidate(
  problem: figures.Problem, rng: Rng, right: int, elsewhere: int, chained: bool
) -> tuple[str, str]:
  """Returns a solution and its answer."""
  lot = rng.below(100)
  if lot < right or not problem.wrong:
    text = chains.chain(problem, problem.facts, rng) if chained else problem.solution
    return text, problem.answer
  if lot < right + elsewhere and (other := _of_another_picture(problem, rng, chained)):
    return other
  wrong = rng.choice(problem.wrong)
  text = chains.chain(problem, wrong.claims, rng) if chained else wrong.solution
  return text, str(wrong.answer)


def _of_another_picture(
  problem: figures.Problem, rng: Rng, chained: bool
) -> tuple[str, str] | None:
  """Returns a solution, and its answer, to the same question about another image."""
  family = figures.FAMILIES[problem.family]
  for _ in range(100):
    content = family.content(rng, problem.level)
    if problem.question in family.questions(content):
      facts = family.facts(content)
      write = chains.write if chained else problems.write_solution
      return write(family, content, facts, rng), str(facts["answer"])
  return None


def batch(
  config: models.Model,
  actor: Sequence[Example],
  judge: Sequence[Example],
  actor_sizes: Sizes,
  judge_sizes: Sizes,
) -> Batch:
  """Pads examples to one shape: that of the sizes, where all fit."""
  rows = [*actor, *judge]
  images = config.pack_images(
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


def _texts(config: models.Model, rows: Sequence[Example], sizes: Sizes) -> Texts:
  lengths = np.array([len(row.prompt) for row in rows], np.int32)
  ids = np.zeros((len(rows), sizes.prompt), np.int32)
  tokens = np.zeros((len(rows), 1, sizes.tokens), np.int32)
  weights = np.zeros(tokens.shape, np.float32)
  for r, row in enumerate(rows):
    end = len(row.continuation)
    ids[r, : len(row.prompt)] = row.prompt
    tokens[r, 0, :end] = row.continuation
    weights[r, 0, :end] = row.weights
  grids = [row.images.grids for row in rows]
  positions = config.prompt_positions(ids, lengths, grids)
  return Texts(models.Prompt(ids, lengths, positions), tokens, weights)
