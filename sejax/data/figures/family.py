"""What a family of figures is, and what it says of a picture."""

import abc
import dataclasses
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import UInt8

from sejax.data.figures.bits import Bits
from sejax.data.figures.board import Board

LEVELS = (0, 1, 2)

# What is read in a picture step by step, in reading order, ending in "answer"; `facts` where it is
# true, `claims` where a solution says so.
Claims = Mapping[str, int | str]


class Wrong(NamedTuple):
  """A solution with a slip.

  Attributes:
    solution: its text, in the form of a right one and true to the slip to the end.
    answer: where it arrives.
    slip: the slip's name.
    claims: what it says, under the names of the problem's facts; a claim of another name belongs to
      another way of solving, as where sides are added that should be multiplied.
  """

  solution: str
  answer: str
  slip: str
  claims: Claims


@dataclasses.dataclass(frozen=True)
class Problem:
  r"""A drawn problem.

  Attributes:
    family: the name of its family.
    level: its difficulty, one of `LEVELS`.
    image: the picture.
    question: a short sentence.
    answer: the gold answer.
    solution: `<think>`, the steps, `</think>\boxed{answer}`.
    facts: what the picture shows, step by step; the last is `answer`.
    wrong: solutions with typical slips; none ends in the gold answer.
    content: a text that names everything which makes the problem but its wording and its looks.
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
  """A kind of figure. A content is a tuple of ints, strings and tuples of them."""

  name: str

  @abc.abstractmethod
  def content(self, bits: Bits, level: int) -> tuple:
    """Returns a random content: what decides question, answer and split."""

  @abc.abstractmethod
  def draw(self, board: Board, content: Any, bits: Bits) -> None:
    """Draws a content; the bits decide on looks that do not matter to the answer."""

  @abc.abstractmethod
  def questions(self, content: Any) -> tuple[str, ...]:
    """Returns the ways to ask."""

  @abc.abstractmethod
  def facts(self, content: Any) -> Claims:
    """Returns what the picture shows."""

  @abc.abstractmethod
  def slips(self, content: Any, bits: Bits) -> Iterator[tuple[str, Claims]]:
    """Yields names and claims of slips; one that arrives at the right answer does not count."""

  @abc.abstractmethod
  def tellings(self, content: Any, claims: Claims) -> tuple[str, ...]:
    """Returns the ways to tell the claims."""


def solution(telling: str, answer: object) -> str:
  """Returns a solution in the form that `sejax.text.answers.format_ok` asks for."""
  return f"<think>{telling}</think>\\boxed{{{answer}}}"
