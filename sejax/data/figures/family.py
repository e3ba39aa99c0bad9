"""The interface of a family of figures (dots, clocks, ...) and the problems it generates."""

import abc
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from sejax.data.figures.board import Board
from sejax.data.figures.rng import Rng

LEVELS = (0, 1, 2)

# Intermediate results by name, in the order in which one reads them from the image, and last the
# key "answer". Called `facts` where they are true, `claims` where they are those of a solution.
Claims = Mapping[str, int | str]


class Wrong(NamedTuple):
  """A wrong solution: it makes one typical mistake, a slip, and is consistent otherwise.

  Attributes:
    solution: text in the same format as a right solution.
    answer: the wrong final answer.
    slip: name of the mistake.
    claims: intermediate results, named as in the problem's facts. Other names belong to a wrong
      method, such as adding sides that should be multiplied.
  """

  solution: str
  answer: str
  slip: str
  claims: Claims


@dataclasses.dataclass(frozen=True)
class Problem:
  r"""A generated problem.

  Attributes:
    family: name of the family.
    level: difficulty, one of `LEVELS`.
    question: a short sentence.
    answer: the gold answer.
    solution: a right solution, `<think>...</think>\boxed{answer}`.
    facts: true intermediate results; the last is `answer`.
    wrong: solutions with typical mistakes; none ends in the gold answer.
    content: text that identifies the problem apart from its wording and looks. Problems of equal
      content are in the same split.
  """

  family: str
  level: int
  image: UInt8[np.ndarray, "size size 3"]
  question: str
  answer: str
  solution: str
  facts: Claims
  wrong: tuple[Wrong, ...]
  content: str


class Family(abc.ABC):
  """Generator of one kind of problem.

  A problem is determined by its content: a tuple of ints, strings and such tuples, whose meaning is
  up to the family. Question, answer and split depend on the content alone.
  """

  name: str

  @abc.abstractmethod
  def content(self, rng: Rng, level: int) -> tuple:
    """Samples the content of a problem."""

  @abc.abstractmethod
  def draw(self, board: Board, content: Any, rng: Rng) -> None:
    """Draws a problem; `rng` chooses colours and sizes that do not change the answer."""

  @abc.abstractmethod
  def questions(self, content: Any) -> tuple[str, ...]:
    """Returns all wordings of the question."""

  @abc.abstractmethod
  def facts(self, content: Any) -> Claims:
    """Returns the true intermediate results and the answer."""

  @abc.abstractmethod
  def slips(self, content: Any, rng: Rng) -> Iterator[tuple[str, Claims]]:
    """Yields typical mistakes: a name, and the claims that follow from it.

    The caller discards mistakes that happen to give the right answer.
    """

  @abc.abstractmethod
  def phrasings(self, content: Any, claims: Claims) -> tuple[str, ...]:
    """Returns all wordings of a chain of thought that makes these claims."""


def solution(thought: str, answer: object) -> str:
  """Formats a solution as `sejax.text.answers.format_ok` requires."""
  return f"<think>{thought}</think>\\boxed{{{answer}}}"
