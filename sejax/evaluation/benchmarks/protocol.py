"""The types that define a benchmark, and what several benchmarks share.

A `Benchmark` says how to read the rows of a published set; a `Protocol` how to prompt the model and
how to extract, grade and aggregate answers. Both consist of plain functions. Protocols by name:

- `authors`: the protocol of the benchmark's authors, including its quirks.
- `toolkit`: that of the evaluation toolkit VLMEvalKit (arXiv:2407.11691), including its quirks.
- `strict`: the toolkit's without its most lenient rules.

Some protocols use a language model to extract answers. If none is given, the protocol's rules
extract them instead, and the results say so.
"""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple
from typing import Protocol as Interface

import numpy as np
from jaxtyping import Bool, Float

from sejax import storage
from sejax.errors import ConfigError, quoted, shortened
from sejax.evaluation import metrics
from sejax.evaluation.benchmarks import fields
from sejax.evaluation.benchmarks.fields import Row
from sejax.text import boxes
from sejax.text.equivalence import Prover

SEPARATOR = " / "  # between the values in a breakdown by several tags


@dataclasses.dataclass(frozen=True)
class Problem:
  """A problem of a benchmark.

  Attributes:
    id: identifies the problem within its benchmark.
    question: the original text.
    gold: the gold answer.
    kind: type of the answer, as the benchmark names it; empty if there is only one type.
    options: texts of a multiple-choice problem by letter; empty for free answers.
    images: encoded files, paths or `{bytes, path}`, as `sejax.data.columns` takes them.
    tags: category of the problem by breakdown, e.g. `{"subject": "algebra"}`.
    cluster: problems of a cluster, such as variants of a question, are not independent, so
      confidence intervals resample clusters. Empty: the problem is its own cluster.
    extra: further fields of the benchmark that its prompts or scores use.
  """

  id: str
  question: str
  gold: str
  kind: str = ""
  options: Mapping[str, str] = dataclasses.field(default_factory=dict)
  images: tuple[Any, ...] = ()
  tags: Mapping[str, str] = dataclasses.field(default_factory=dict)
  cluster: str = ""
  extra: Mapping[str, str] = dataclasses.field(default_factory=dict)


class StoredAnswers(NamedTuple):
  """The n responses to one problem that a file of predictions contains.

  Attributes:
    id: id of the problem.
    responses: n texts; empty if only verdicts are stored.
    extractions: the answer that was extracted from each response; None if not stored.
    verdicts: whether each response is right, if that is all that is stored, else None.
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
    extractions: the answer extracted from each response; None if there is none.
    extractors: what extracted each: the name of a model, or one of `sejax.evaluation.grading`.
    right: whether each response is right; None (undecided within the limits) counts as wrong.
  """

  problem: Problem
  responses: tuple[str, ...]
  extractions: tuple[str | None, ...]
  extractors: tuple[str, ...]
  right: tuple[bool | None, ...]


class Share(NamedTuple):
  """Number of right answers, which is fractional as a mean over samples, out of `total`."""

  right: float
  total: int


class Scores(NamedTuple):
  """Metrics of a benchmark.

  Attributes:
    metrics: fractions in [0, 1] by name, with confidence intervals.
    counts: the counts behind them by name, averaged over samples.
    breakdowns: accuracy by the name of a breakdown and by category.
  """

  metrics: dict[str, metrics.Interval]
  counts: dict[str, float]
  breakdowns: dict[str, dict[str, Share]]


class Model(Interface):
  """A language model that extracts answers from responses.

  Attributes:
    name: as reported in the results.
  """

  name: str

  def __call__(self, prompts: Sequence[str], temperature: float) -> list[str]:
    """Samples one reply to each prompt."""
    ...


def no_answer(problem: Problem, response: str) -> None:
  """Extracts no answer; as `ModelExtraction.rule`, it makes the model see every response."""
  del problem, response


@dataclasses.dataclass(frozen=True)
class ModelExtraction:
  """How a protocol uses a language model to extract answers, and perhaps to judge them.

  Attributes:
    rule: extracts an answer from a response; only if it returns None is the model asked.
    prompt: prompt of the model for a response.
    parse: extracts the answer from the model's reply; None discards the reply.
    fallback: extracts an answer from a response if all replies were discarded.
    max_attempts: replies to sample for a response, at temperatures 0, 0.5, 1, ... If all are
      discarded, the answer is wrong; the toolkit would choose a random option instead.
    judge_prompt: prompt that asks whether an answer agrees with the gold answer, to be replied to
      with 1 or 0. It is used for answers that differ literally. None: `Protocol.is_right` decides.
  """

  rule: Callable[[Problem, str], str | None]
  prompt: Callable[[Problem, str], str]
  parse: Callable[[Problem, str], str | None]
  fallback: Callable[[Problem, str], str | None] = no_answer
  max_attempts: int = 5
  judge_prompt: Callable[[Problem, str], str] | None = None


@dataclasses.dataclass(frozen=True)
class Protocol:
  """How to prompt for, extract, grade and aggregate answers.

  Attributes:
    prompt: text of the prompt, after the images.
    extract: extracts an answer from a response by rules.
    is_right: whether an answer is right; None if undecided.
    scores: aggregates all problems; raises ValueError if none can be scored.
    headline: name of the main metric.
    model_extraction: how a model extracts answers; None if the protocol only has rules.
    includes: whether a problem is part of the protocol.
  """

  prompt: Callable[[Problem], str]
  extract: Callable[[Problem, str], str | None]
  is_right: Callable[[Problem, str, Prover], bool | None]
  scores: Callable[[Sequence[Graded]], Scores]
  headline: str = "accuracy"
  model_extraction: ModelExtraction | None = None
  includes: Callable[[Problem], bool] = lambda problem: True


def read_stored(row: Row, problem_id: str) -> StoredAnswers:
  """Reads a row of predictions: a list `responses`, or one `response` under any common name.

  Raises:
    ValueError: the row has no response, or one that is not text.
  """
  texts = row.get("responses")
  if texts is None:
    texts = [str(fields.first(row, "response", "prediction", "raw", "model_answer"))]
  if not isinstance(texts, list) or not texts or not all(isinstance(text, str) for text in texts):
    raise ValueError(
      f"the responses to {shortened(problem_id)} are {quoted(texts)}; they must be texts"
    )
  return StoredAnswers(problem_id, tuple(texts))


@dataclasses.dataclass(frozen=True)
class Benchmark:
  """A published set of problems, how to read its files, and its protocols.

  Attributes:
    name: name in `config.eval.sets`.
    files: glob patterns of its files in `config.eval.sets_path`; the first that matches is used.
    hub: published name on the Hugging Face hub; None where there is none.
    read_problem: reads a row in any form in which the set is published; raises ValueError for
      other rows.
    protocols: by name; if there is only one, it is used for every name.
    problem_id: id of the problem that a row of predictions belongs to; raises ValueError if the row
      has none.
    expand_stored: splits a row of predictions about several problems into one row per problem.
    read_stored: reads a row of predictions, given the id of its problem.
    complete_problems: adds information from other files in the folder of the rows.
  """

  name: str
  files: tuple[str, ...]
  read_problem: Callable[[Row], Problem]
  protocols: Mapping[str, Protocol]
  hub: str | None = None
  problem_id: Callable[[Row], str] = lambda row: fields.text(row, "id", "index")
  expand_stored: Callable[[Row], list[Row]] = lambda row: [row]
  read_stored: Callable[[Row, str], StoredAnswers] = read_stored
  complete_problems: Callable[[list[Problem], storage.Path], list[Problem]] = (
    lambda problems, folder: problems
  )

  def protocol(self, name: str) -> tuple[str, Protocol]:
    """Returns the name and the protocol to use for a requested name.

    Raises:
      ConfigError: the benchmark has several protocols, and none of this name.
    """
    if len(self.protocols) == 1:
      return next(iter(self.protocols.items()))
    if name not in self.protocols:
      raise ConfigError(
        f"config.eval.protocol={quoted(name)} is none of {self.name}'s: {', '.join(self.protocols)}"
      )
    return name, self.protocols[name]


def whole_reply(problem: Problem, text: str) -> str | None:
  """Returns the whole reply of a model as the answer."""
  del problem
  return text.strip() or None


def boxed(problem: Problem, response: str) -> str | None:
  r"""Returns the content of the last balanced `\boxed{}` of a response."""
  del problem
  return (boxes.last_balanced(response) or "").strip() or None


def shares(graded: Sequence[Graded]) -> Float[np.ndarray, " N"]:
  """Returns the fraction of right responses to each problem."""
  return metrics.pass_at_1(right_samples(graded))


def right_samples(graded: Sequence[Graded]) -> Bool[np.ndarray, "N n"]:
  """Returns whether each response is right; undecided responses count as wrong."""
  return np.array([[bool(verdict) for verdict in item.right] for item in graded], bool)


def cluster_interval(graded: Sequence[Graded], values: Float[np.ndarray, " N"]) -> metrics.Interval:
  """Returns the mean over problems with a bootstrap interval that resamples clusters."""
  names = [item.problem.cluster or item.problem.id for item in graded]
  indices = {name: index for index, name in enumerate(dict.fromkeys(names))}
  clusters = [indices[name] for name in names]
  sums, sizes = np.bincount(clusters, values), np.bincount(clusters)
  return metrics.bootstrap(lambda weights: metrics.mean(weights, sums, sizes), len(indices))


def breakdown(graded: Sequence[Graded], *tags: str) -> dict[str, Share]:
  """Returns accuracy by the value of a tag, or by the values of several tags, sorted by value.

  Problems without one of the tags are left out.
  """
  tagged = (
    ([item.problem.tags.get(tag, "") for tag in tags], share)
    for item, share in zip(graded, shares(graded), strict=True)
  )
  return totals((SEPARATOR.join(values), share) for values, share in tagged if all(values))


def totals(named: Iterable[tuple[str, float]]) -> dict[str, Share]:
  """Sums and counts the values of each name, sorted by name."""
  grouped: dict[str, list[float]] = {}
  for name, value in named:
    grouped.setdefault(name, []).append(float(value))
  return {name: Share(sum(values), len(values)) for name, values in sorted(grouped.items())}


def accuracy(*groups: tuple[str, ...]) -> Callable[[Sequence[Graded]], Scores]:
  """Returns a `Protocol.scores` function whose only metric is accuracy.

  Args:
    groups: each a tuple of tags by which accuracy is broken down.
  """

  def scores(graded: Sequence[Graded]) -> Scores:
    accuracies = shares(graded)
    return Scores(
      metrics={"accuracy": cluster_interval(graded, accuracies)},
      counts={"right": float(accuracies.sum()), "problems": len(accuracies)},
      breakdowns={" and ".join(tags): breakdown(graded, *tags) for tags in groups},
    )

  return scores
