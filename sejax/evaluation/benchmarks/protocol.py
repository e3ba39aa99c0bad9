"""What a benchmark is: how its rows are read, asked, graded and summed up, as plain functions.

A benchmark has one protocol or several, by name: `authors` is that of its authors, `toolkit` that
of the evaluation toolkit VLMEvalKit (arXiv:2407.11691), both with their quirks, and `strict`, where
there is one, the toolkit's read with more care. Where a protocol has a language model extract the
answer, a `Model` can be given; without one the protocol's own rules stand in, and results say so.
"""

import dataclasses
import pathlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple
from typing import Protocol as Interface

import numpy as np
from jaxtyping import Bool, Float

from sejax.errors import quoted, shortened
from sejax.evaluation import metrics
from sejax.evaluation.benchmarks import fields
from sejax.evaluation.benchmarks.fields import Row
from sejax.text import boxes
from sejax.text.equivalence import Prover

SEPARATOR = " / "  # between the values of a break-down by several tags


@dataclasses.dataclass(frozen=True)
class Problem:
  """A problem of a benchmark, whichever form it was read from.

  Attributes:
    id: names it within its set.
    question: as the set words it.
    gold: the right answer.
    kind: of answer, in the set's words; empty where it has one kind.
    options: letters and texts of a multiple choice; empty for others.
    images: encoded files, paths or `{bytes, path}`, as `sejax.data.columns` takes them.
    tags: names of break-downs, such as `subject`, and what the problem belongs to in each.
    unit: problems of one unit depend on each other, so that chance falls on units.
    extra: what else the set says of it that a prompt or a score uses.
  """

  id: str
  question: str
  gold: str
  kind: str = ""
  options: Mapping[str, str] = dataclasses.field(default_factory=dict)
  images: tuple[Any, ...] = ()
  tags: Mapping[str, str] = dataclasses.field(default_factory=dict)
  unit: str = ""
  extra: Mapping[str, str] = dataclasses.field(default_factory=dict)


class Stored(NamedTuple):
  """What a file holds of one problem's answers, n of each that it has.

  Attributes:
    id: the problem's.
    responses: texts; empty where only verdicts were kept.
    extractions: what was read from each response before, to be taken as it is.
    verdicts: whether each was right, where that is all that is known.
  """

  id: str
  responses: tuple[str, ...] = ()
  extractions: tuple[str, ...] | None = None
  verdicts: tuple[bool, ...] | None = None


@dataclasses.dataclass(frozen=True)
class Graded:
  """A problem with its n graded responses.

  Attributes:
    problem: the problem.
    responses: n texts.
    extractions: the answer read from each; None: none was found.
    extractors: what read each.
    right: whether each is right; None: it could not be decided in time, which counts as wrong.
  """

  problem: Problem
  responses: tuple[str, ...]
  extractions: tuple[str | None, ...]
  extractors: tuple[str, ...]
  right: tuple[bool | None, ...]


class Share(NamedTuple):
  """Right answers of `total`; a mean over samples, so perhaps not a whole number."""

  right: float
  total: int


class Scores(NamedTuple):
  """What a benchmark reports.

  Attributes:
    metrics: shares of one by name, with confidence intervals over units.
    counts: whole numbers behind them, as means over samples.
    breakdowns: shares by the name of the break-down and by its value.
  """

  metrics: dict[str, metrics.Interval]
  counts: dict[str, float]
  breakdowns: dict[str, dict[str, Share]]


class Model(Interface):
  """A language model that reads answers out of responses.

  Attributes:
    name: by which results name it.
  """

  name: str

  def __call__(self, prompts: Sequence[str], temperature: float) -> list[str]:
    """Returns a reply to each prompt."""
    ...


def nothing(problem: Problem, response: str) -> None:
  """Finds no answer: as `Asking.find`, a model is always asked."""
  del problem, response


@dataclasses.dataclass(frozen=True)
class Asking:
  """How a protocol has a language model read answers.

  Attributes:
    find: reads an answer before a model is asked; what it finds is final.
    query: the text that a model is asked.
    read: an answer out of the reply; None: the reply is of no use.
    unread: an answer out of the response, where no reply was of use.
    tries: of the model, the temperature rising by 0.5 from 0. After the last the answer is wrong;
      the toolkit would draw an option of a multiple choice by lot.
    dispute: what a model is asked of an answer that is not the gold one word for word, to reply 1
      where they agree; None: `Protocol.right` decides.
  """

  find: Callable[[Problem, str], str | None]
  query: Callable[[Problem, str], str]
  read: Callable[[Problem, str], str | None]
  unread: Callable[[Problem, str], str | None] = nothing
  tries: int = 5
  dispute: Callable[[Problem, str], str] | None = None


@dataclasses.dataclass(frozen=True)
class Protocol:
  """How one problem is asked and one response graded, and what all of them come to.

  Attributes:
    prompt: the text that follows the images.
    rules: read an answer out of a response without a model.
    right: whether an answer is right; None: not decided.
    scores: of all problems; ValueError where there are none to score.
    headline: the name of the metric that is compared.
    asking: how a model reads answers; None: the protocol is rules alone.
    belongs: whether a problem is graded at all.
  """

  prompt: Callable[[Problem], str]
  rules: Callable[[Problem, str], str | None]
  right: Callable[[Problem, str, Prover], bool | None]
  scores: Callable[[Sequence[Graded]], Scores]
  headline: str = "accuracy"
  asking: Asking | None = None
  belongs: Callable[[Problem], bool] = lambda problem: True


def stored(row: Row, problem_id: str) -> Stored:
  """Reads a row of stored answers: `responses`, or one `response` under any of its names.

  Raises:
    ValueError: it has none, or they are no texts.
  """
  several = row.get("responses")
  names = ("response", "prediction", "raw", "model_answer")
  texts = several if several is not None else [str(fields.first(row, *names))]
  if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
    raise ValueError(
      f"the responses to {shortened(problem_id)} are {quoted(texts)}; they must be texts"
    )
  return Stored(problem_id, tuple(texts))


@dataclasses.dataclass(frozen=True)
class Benchmark:
  """A set and its protocols.

  Attributes:
    name: as `config.eval.sets` has it.
    files: where its rows may lie in the folder of sets, as patterns; the first one found counts.
    problem: reads a row of any form in which the set is published; ValueError for others.
    protocols: by name; a single one is used whatever name is asked for.
    key: the id of the problem that a row of stored answers is about; ValueError without one.
    expand: rows of stored answers out of one that is about several problems.
    stored: reads such a row, given the id of its problem.
    complete: adds to problems what other files in the folder of their rows say.
  """

  name: str
  files: tuple[str, ...]
  problem: Callable[[Row], Problem]
  protocols: Mapping[str, Protocol]
  key: Callable[[Row], str] = lambda row: fields.text(row, "id", "index")
  expand: Callable[[Row], list[Row]] = lambda row: [row]
  stored: Callable[[Row, str], Stored] = stored
  complete: Callable[[list[Problem], pathlib.Path], list[Problem]] = lambda problems, _: problems

  def protocol(self, name: str) -> tuple[str, Protocol]:
    """Returns a protocol with its name.

    Raises:
      ValueError: the set has several, and none of this name.
    """
    if len(self.protocols) == 1:
      return next(iter(self.protocols.items()))
    if name not in self.protocols:
      raise ValueError(
        f"config.eval.protocol={quoted(name)} is none of {self.name}'s: {', '.join(self.protocols)}"
      )
    return name, self.protocols[name]


def reply(problem: Problem, text: str) -> str | None:
  """Takes a model's whole reply for the answer."""
  del problem
  return text.strip() or None


def boxed(problem: Problem, response: str) -> str | None:
  r"""Returns the content of the last balanced `\boxed{}` of a response."""
  del problem
  return (boxes.last_balanced(response) or "").strip() or None


def shares(graded: Sequence[Graded]) -> Float[np.ndarray, " N"]:
  """Returns the share of right responses of each problem."""
  return metrics.pass_at_1(right_samples(graded))


def right_samples(graded: Sequence[Graded]) -> Bool[np.ndarray, "N n"]:
  """Returns whether each response is right; what could not be decided is not."""
  return np.array([[bool(each) for each in one.right] for one in graded], bool)


def over_units(graded: Sequence[Graded], values: Float[np.ndarray, " N"]) -> metrics.Interval:
  """Returns the mean of a value of each problem, with its interval over units."""
  places: dict[str, int] = {}
  units = [places.setdefault(one.problem.unit or one.problem.id, len(places)) for one in graded]
  sums, sizes = np.bincount(units, values), np.bincount(units)
  return metrics.bootstrap(lambda weights: metrics.mean(weights, sums, sizes), len(places))


def breakdown(graded: Sequence[Graded], *tags: str) -> dict[str, Share]:
  """Returns shares by the value of a tag, or of several joined, in order of values."""
  tagged = (
    ([one.problem.tags.get(tag, "") for tag in tags], share)
    for one, share in zip(graded, shares(graded), strict=True)
  )
  return totals((SEPARATOR.join(values), share) for values, share in tagged if all(values))


def totals(named: Iterable[tuple[str, float]]) -> dict[str, Share]:
  """Returns the sum and number of the values of each name, in order of names."""
  values: dict[str, list[float]] = {}
  for name, value in named:
    values.setdefault(name, []).append(float(value))
  return {name: Share(sum(each), len(each)) for name, each in sorted(values.items())}


def accuracy(*groups: tuple[str, ...]) -> Callable[[Sequence[Graded]], Scores]:
  """Returns the scores of a set whose metric is the share of right answers.

  Args:
    groups: of tags to break the accuracy down by.
  """

  def scores(graded: Sequence[Graded]) -> Scores:
    each = shares(graded)
    overall = over_units(graded, each)
    counts = {"right": float(each.sum()), "problems": len(each)}
    return Scores(
      {"accuracy": overall},
      counts,
      {" and ".join(tags): breakdown(graded, *tags) for tags in groups},
    )

  return scores
