r"""WeMath: 525 composite problems, each with its two or three one-step parts (1,740 rows).

Source: arXiv:2407.01284.

The results on the parts explain why a composite problem is right or wrong, see `Outcomes`. The main
metric is the strict score. Breakdowns: accuracy by number of steps, by concept, and by domain, in
which all concepts have equal weight.

Row formats: `ID`, `key`, `question`, `option` (one text), `answer`, `knowledge concept`,
`image_path` (JSON, hub); and the toolkit's table with options in columns and an optional `hint`.
`knowledge_structure_nodes.json` beside the rows has the domain of each concept.

- `authors`: the prompt ends with the benchmark's instruction on the output format, if rows have
  one. A rule extracts the letter after the last "Answer"; so does the toolkit without a model.
- `toolkit`: the letter rule extracts, then a model. If none is given, the authors' rule replaces
  it.
- `strict`: as `toolkit`, but the letter must be a whole word, so that "the answer is about 3" does
  not choose A.
"""

import dataclasses
import functools
import json
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from sejax import storage
from sejax.evaluation import metrics
from sejax.evaluation.benchmarks import fields, letters
from sejax.evaluation.benchmarks.fields import Row
from sejax.evaluation.benchmarks.protocol import (
  SEPARATOR,
  Benchmark,
  Graded,
  ModelExtraction,
  Problem,
  Protocol,
  Scores,
  Share,
  breakdown,
  cluster_interval,
  right_samples,
  shares,
  totals,
)
from sejax.text.equivalence import Prover

DOMAINS = "knowledge_structure_nodes.json"
_SPLIT = re.compile(r";\s*(?=[A-H]\s*\.)")
_LETTERS = fields.LETTERS[:8]


class Outcomes(NamedTuple):
  """Frequency of the four outcomes of each composite problem, as fractions of its n samples.

  Attributes:
    ik: insufficient knowledge: the composite problem is wrong, and so is a part.
    ig: inadequate generalization: the composite problem is wrong, but all parts are right.
    cm: complete mastery: the composite problem and all parts are right (loose: at least one part).
    rm: rote memorization: the composite problem is right, but a part is wrong (loose: all parts).
  """

  ik: Float[np.ndarray, " problems"]
  ig: Float[np.ndarray, " problems"]
  cm: Float[np.ndarray, " problems"]
  rm: Float[np.ndarray, " problems"]

  @classmethod
  def of(
    cls,
    whole: Bool[np.ndarray, "problems n"],
    all_parts: Bool[np.ndarray, "problems n"],
    some_part: Bool[np.ndarray, "problems n"],
    *,
    strict: bool,
  ) -> "Outcomes":
    """Computes the outcomes.

    Args:
      whole: whether the composite problem is right, in each sample.
      all_parts: whether all its parts are right.
      some_part: whether at least one part is right.
      strict: whether complete mastery requires all parts.
    """
    mastered = all_parts if strict else some_part
    return cls(
      ik=(~whole & ~all_parts).mean(axis=1),
      ig=(~whole & all_parts).mean(axis=1),
      cm=(whole & mastered).mean(axis=1),
      rm=(whole & ~mastered).mean(axis=1),
    )


def read_problem(row: Row) -> Problem:
  """Converts a row of any of the files in `BENCHMARK.files` to a problem."""
  options = fields.options_of_columns(row)
  if not options:
    texts = [part.partition(".") for part in _SPLIT.split(fields.text(row, "option"))]
    options = {letter.strip(): text.strip() for letter, _, text in texts}
  step = fields.text(row, "key")
  return Problem(
    id=problem_id(row),
    question=fields.text(row, "question"),
    gold=fields.text(row, "answer").strip(),
    options=options,
    images=fields.images(row, "images", "image", "image_path"),
    tags={
      "step": step,
      "concept": fields.text(row, "knowledge concept", default="").strip()
      if _is_part(step)
      else "",
    },
    cluster=fields.text(row, "ID"),
    extra={
      "hint": fields.text(row, "hint", default=""),
      "requirement": fields.text(row, "requirement", default=""),
    },
  )


def problem_id(row: Row) -> str:
  """Returns the id of the problem that a row belongs to, `<composite problem>/<step>`."""
  if "ID" in row and "key" in row:
    return f"{row['ID']}/{row['key']}"
  return fields.text(row, "id")


def _is_part(step: str) -> bool:
  return not step.endswith("multi")


def toolkit_prompt(problem: Problem) -> str:
  """Returns the hint (if any), the question and the options."""
  lines = [f"Hint: {problem.extra['hint']}"] if problem.extra["hint"] else []
  lines += [f"Question: {problem.question}", "Options:"]
  lines += [f"{letter}. {text}" for letter, text in problem.options.items()]
  return "\n".join(lines)


def prompt(problem: Problem) -> str:
  """Returns the toolkit's prompt and the benchmark's instruction to label thought and answer."""
  return f"{toolkit_prompt(problem)}\n{problem.extra['requirement']}".rstrip("\n")


def extract(problem: Problem, response: str, *, whole_words: bool = False) -> str | None:
  """Extracts the letter A to H directly after the last "Answer", by the authors' rule.

  Args:
    problem: unused.
    response: the text.
    whole_words: require the letter to be a whole word; the authors do not.
  """
  del problem
  answer = re.sub("[><:.]", "", response.rpartition("Answer")[2].strip()).strip()
  if not answer or answer[0] not in _LETTERS or (whole_words and answer[1:2].isalnum()):
    return None
  return answer[0]


def toolkit_rule(problem: Problem, response: str, *, whole_words: bool = False) -> str | None:
  """Extracts the letter by the toolkit's letter rule.

  Args:
    problem: the problem.
    response: the response to it.
    whole_words: see `letters.read_letter`; True for the protocol `strict`.
  """
  return letters.read_letter(response, problem.options, whole_words=whole_words)


def toolkit_extract(problem: Problem, response: str, *, whole_words: bool = False) -> str | None:
  """Extracts the letter by the toolkit's letter rule, else by the authors' rule.

  Args:
    problem: the problem.
    response: the response to it.
    whole_words: see `toolkit_rule` and `extract`.
  """
  return toolkit_rule(problem, response, whole_words=whole_words) or extract(
    problem, response, whole_words=whole_words
  )


def extraction_prompt(problem: Problem, response: str) -> str:
  """Returns the prompt of the model that extracts the letter."""
  listed = "\n".join(f"{letter}. {text}" for letter, text in problem.options.items())
  return (
    "Which option is closest to what a response to a multiple-choice question says? Reply with its"
    f" letter alone, or {letters.NONE} where none is.\n\nQuestion: {problem.question}\n"
    f"Options:\n{listed}\n\nResponse: {response}\n\nLetter:"
  )


def is_right(problem: Problem, answer: str, prover: Prover) -> bool:
  """Whether the letter is the gold letter."""
  del prover
  return answer == problem.gold


def with_domains(problems: list[Problem], folder: storage.Path) -> list[Problem]:
  """Adds a tag with the domain of each problem's concept, if the folder has the file of domains."""
  path = folder / DOMAINS
  if not path.is_file():
    return problems
  nodes = json.loads(path.read_bytes())
  nodes = nodes.values() if isinstance(nodes, dict) else nodes
  domains = {node["full node"].rpartition("_")[2].strip(): node["root2"] for node in nodes}
  return [
    dataclasses.replace(
      problem, tags={**problem.tags, "domain": domains.get(problem.tags["concept"], "")}
    )
    for problem in problems
  ]


def scores(graded: Sequence[Graded]) -> Scores:
  """Returns scores and outcome rates over the composite problems whose parts were all graded.

  Raises:
    ValueError: there is no such composite problem.
  """
  composite = _composites(graded)
  if not composite:
    raise ValueError("no composite problem of WeMath has responses to itself and to all its parts")
  whole, all_parts, some_part = (np.array(column) for column in zip(*composite, strict=True))
  intervals, counts = {}, {"composite problems": len(composite)}
  for name, strict in (("strict", True), ("loose", False)):
    outcomes = Outcomes.of(whole, all_parts, some_part, strict=strict)
    intervals |= {f"{k} {name}": v for k, v in _rates(outcomes).items()}
    counts |= {f"{k.upper()} {name}": float(v.sum()) for k, v in outcomes._asdict().items()}
  intervals["accuracy"] = cluster_interval(graded, shares(graded))
  breakdowns = {
    "steps": _steps(graded),
    "concept": breakdown(graded, "concept"),
    "domain": _domains(graded),
  }
  return Scores(metrics=intervals, counts=counts, breakdowns=breakdowns)


def _composites(graded: Sequence[Graded]) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
  """Returns whether each complete composite problem, all its parts, and any part are right.

  Each is an array over the n samples.
  """
  problems: dict[str, dict[str, np.ndarray]] = {}  # by composite problem and step
  for item, right in zip(graded, right_samples(graded), strict=True):
    problems.setdefault(item.problem.cluster, {})[item.problem.tags["step"]] = right
  composites = []
  for steps in problems.values():
    whole = next((right for step, right in steps.items() if not _is_part(step)), None)
    parts = [right for step, right in steps.items() if _is_part(step)]
    if whole is not None and len(parts) == _number_of_parts(steps):
      composites.append((whole, np.all(parts, axis=0), np.any(parts, axis=0)))
  return composites


def _number_of_parts(steps: dict[str, np.ndarray]) -> int:
  """Returns the number of parts, with which the names of steps begin: `2steps_1`."""
  return int(next(iter(steps))[0])


def _rates(outcomes: Outcomes) -> dict[str, metrics.Interval]:
  rates = {
    "score": lambda w: metrics.mean(w, outcomes.cm + 0.5 * outcomes.ig),
    "IK": lambda w: metrics.mean(w, outcomes.ik),
    "IG": lambda w: metrics.mean(w, outcomes.ig),
    "CM": lambda w: metrics.mean(w, outcomes.cm),
    "RM": lambda w: metrics.mean(w, outcomes.rm, outcomes.rm + outcomes.cm),
  }
  return {name: metrics.bootstrap(rate, len(outcomes.cm)) for name, rate in rates.items()}


def _steps(graded: Sequence[Graded]) -> dict[str, Share]:
  """Returns accuracy on one-step, two-step and three-step problems."""
  steps = [item.problem.tags["step"] for item in graded]
  names = ["S1" if _is_part(step) else f"S{step[0]}" for step in steps]
  return totals(zip(names, shares(graded), strict=True))


def _domains(graded: Sequence[Graded]) -> dict[str, Share]:
  """Returns the accuracy of each domain, as the mean over its concepts."""
  concepts = breakdown(graded, "domain", "concept")
  return totals(
    (name.partition(SEPARATOR)[0], right / total) for name, (right, total) in concepts.items()
  )


def _toolkit(*, whole_words: bool) -> Protocol:
  rule = functools.partial(toolkit_rule, whole_words=whole_words)
  return Protocol(
    prompt=toolkit_prompt,
    extract=functools.partial(toolkit_extract, whole_words=whole_words),
    is_right=is_right,
    scores=scores,
    headline="score strict",
    model_extraction=ModelExtraction(
      rule=rule, prompt=extraction_prompt, parse=rule, max_attempts=3
    ),
  )


BENCHMARK = Benchmark(
  name="wemath",
  files=("WeMath.tsv", "wemath/**/testmini[-.]*parquet", "wemath/testmini.json*"),
  hub="We-Math/We-Math",
  read_problem=read_problem,
  protocols={
    "authors": Protocol(
      prompt=prompt, extract=extract, is_right=is_right, scores=scores, headline="score strict"
    ),
    "toolkit": _toolkit(whole_words=False),
    "strict": _toolkit(whole_words=True),
  },
  problem_id=problem_id,
  complete_problems=with_domains,
)
