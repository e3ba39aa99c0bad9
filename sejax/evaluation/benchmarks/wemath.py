r"""WeMath: 525 composite problems, each with its two or three one-step parts (1,740 rows).

Source: arXiv:2407.01284.

What a model does on the parts says why it is right or wrong on the whole; see `OUTCOMES`. The
headline is the strict score. Break-downs: accuracy by number of steps, by concept, and by domain,
where each of a domain's concepts weighs the same.

Forms: `ID`, `key`, `question`, `option` (one text), `answer`, `knowledge concept`, `image_path`
(JSON, hub), and the toolkit's table with options in columns and perhaps a `hint`. The domains of
concepts are in `knowledge_structure_nodes.json` beside the rows.

- `authors`: the set's own request for an answer's form, where rows have it, ends the prompt; a rule
  takes the letter behind the last "Answer". The toolkit without a model uses the same rule.
- `toolkit`: the letter rule, then a model; without one the authors' rule stands in.
- `strict`: as `toolkit`, but a letter that begins a word is none ("the answer is about 3").
"""

import dataclasses
import json
import pathlib
import re
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import Bool, Float

from sejax.evaluation import metrics
from sejax.evaluation.benchmarks import fields, letters
from sejax.evaluation.benchmarks.fields import Row
from sejax.evaluation.benchmarks.protocol import (
  SEPARATOR,
  Asking,
  Benchmark,
  Graded,
  Problem,
  Protocol,
  Scores,
  Share,
  breakdown,
  over_units,
  right_samples,
  shares,
  totals,
)
from sejax.text.equivalence import Prover

DOMAINS = "knowledge_structure_nodes.json"
_SPLIT = re.compile(r";\s*(?=[A-H]\s*\.)")
_LETTERS = fields.LETTERS[:8]


class Outcomes(NamedTuple):
  """How often each outcome comes, for each composite problem, as shares of its n samples.

  With m whether the composite problem is right, and s its parts:

  Attributes:
    ik: insufficient knowledge: not m, and a part is wrong.
    ig: inadequate generalization: not m, though all parts are right.
    cm: complete mastery: m, and all parts are right (loose: at least one).
    rm: rote memorization: m, and a part is wrong (loose: all are).
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
    """Returns the outcomes.

    Args:
      whole: whether the composite problem is right.
      all_parts: whether all its parts are.
      some_part: whether at least one is.
      strict: whether mastery needs all parts.
    """
    mastered = all_parts if strict else some_part
    each = (~whole & ~all_parts, ~whole & all_parts, whole & mastered, whole & ~mastered)
    return cls(*(outcome.mean(axis=1) for outcome in each))


def read_problem(row: Row) -> Problem:
  """Reads a row of any form."""
  options = fields.options_of_columns(row)
  if not options:
    texts = [part.partition(".") for part in _SPLIT.split(fields.text(row, "option"))]
    options = {letter.strip(): text.strip() for letter, _, text in texts}
  step = fields.text(row, "key")
  return Problem(
    id=key(row),
    question=fields.text(row, "question"),
    gold=fields.text(row, "answer").strip(),
    options=options,
    images=fields.images(row, "images", "image", "image_path"),
    tags={
      "step": step,
      "concept": fields.text(row, "knowledge concept", default="").strip() if _part(step) else "",
    },
    unit=fields.text(row, "ID"),
    extra={
      "hint": fields.text(row, "hint", default=""),
      "requirement": fields.text(row, "requirement", default=""),
    },
  )


def key(row: Row) -> str:
  """Returns the id of the problem of a row, composite problem and step."""
  if "ID" in row and "key" in row:
    return f"{row['ID']}/{row['key']}"
  return fields.text(row, "id")


def _part(step: str) -> bool:
  return not step.endswith("multi")


def toolkit_prompt(problem: Problem) -> str:
  """Returns hint, question and options."""
  lines = [f"Hint: {problem.extra['hint']}"] if problem.extra["hint"] else []
  lines += [f"Question: {problem.question}", "Options:"]
  lines += [f"{letter}. {text}" for letter, text in problem.options.items()]
  return "\n".join(lines)


def prompt(problem: Problem) -> str:
  """Returns the same and the set's request for two labelled sections, thought and answer."""
  return f"{toolkit_prompt(problem)}\n{problem.extra['requirement']}".rstrip("\n")


def rules(problem: Problem, response: str, *, whole_words: bool = False) -> str | None:
  """Returns the letter A to H that begins what follows the last "Answer".

  Args:
    problem: not looked at.
    response: the text.
    whole_words: whether the letter must be a word of its own, which the authors do not ask.
  """
  del problem
  answer = re.sub("[><:.]", "", response.rpartition("Answer")[2].strip()).strip()
  if not answer or answer[0] not in _LETTERS or (whole_words and answer[1:2].isalnum()):
    return None
  return answer[0]


def toolkit_find(problem: Problem, response: str) -> str | None:
  """Returns the letter of the letter rule."""
  return letters.read_letter(response, problem.options)


def strict_find(problem: Problem, response: str) -> str | None:
  """Returns the letter of the letter rule, of which the letter must be a word of its own."""
  return letters.read_letter(response, problem.options, whole_words=True)


def toolkit_rules(problem: Problem, response: str) -> str | None:
  """Returns the letter of the letter rule, else that of the authors' rule."""
  return toolkit_find(problem, response) or rules(problem, response)


def strict_rules(problem: Problem, response: str) -> str | None:
  """Returns the letter of `strict_find`, else that of the authors' rule, both as whole words."""
  return strict_find(problem, response) or rules(problem, response, whole_words=True)


def query(problem: Problem, response: str) -> str:
  """Returns what a model is asked that extracts."""
  listed = "\n".join(f"{letter}. {text}" for letter, text in problem.options.items())
  return (
    "Which option is closest to what a response to a multiple-choice question says? Reply with its"
    f" letter alone, or {letters.NONE} where none is.\n\nQuestion: {problem.question}\n"
    f"Options:\n{listed}\n\nResponse: {response}\n\nLetter:"
  )


def right(problem: Problem, answer: str, prover: Prover) -> bool:
  """Whether the letter is the gold one."""
  del prover
  return answer == problem.gold


def with_domains(problems: list[Problem], folder: pathlib.Path) -> list[Problem]:
  """Adds the domain of each one-step problem's concept, where the folder says which it is."""
  path = folder / DOMAINS
  if not path.is_file():
    return problems
  nodes = json.loads(path.read_text(encoding="utf-8"))
  nodes = nodes.values() if isinstance(nodes, dict) else nodes
  domains = {node["full node"].rpartition("_")[2].strip(): node["root2"] for node in nodes}
  return [
    dataclasses.replace(one, tags={**one.tags, "domain": domains.get(one.tags["concept"], "")})
    for one in problems
  ]


def scores(graded: Sequence[Graded]) -> Scores:
  """Returns scores and rates over the composite problems that are complete.

  Raises:
    ValueError: there is no composite problem with all its parts.
  """
  composite = _composites(graded)
  if not composite:
    raise ValueError("no composite problem of WeMath has responses to itself and to all its parts")
  whole, all_parts, some_part = (np.array(column) for column in zip(*composite, strict=True))
  figures, counts = {}, {"composite problems": len(composite)}
  for name, strict in (("strict", True), ("loose", False)):
    outcomes = Outcomes.of(whole, all_parts, some_part, strict=strict)
    figures |= {f"{k} {name}": v for k, v in _rates(outcomes).items()}
    counts |= {f"{k.upper()} {name}": float(v.sum()) for k, v in outcomes._asdict().items()}
  figures["accuracy"] = over_units(graded, shares(graded))
  breakdowns = {"steps": _steps(graded), "concept": breakdown(graded, "concept")}
  return Scores(figures, counts, breakdowns | {"domain": _domains(graded)})


def _composites(graded: Sequence[Graded]) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
  """Returns whether each composite problem, all its parts and any part are right, in n samples."""
  problems: dict[str, dict[str, np.ndarray]] = {}
  for one, each in zip(graded, right_samples(graded), strict=True):
    problems.setdefault(one.problem.unit, {})[one.problem.tags["step"]] = each
  found = []
  for steps in problems.values():
    whole = next((each for step, each in steps.items() if not _part(step)), None)
    parts = [each for step, each in steps.items() if _part(step)]
    if whole is not None and len(parts) == _number_of_parts(steps):
      found.append((whole, np.all(parts, axis=0), np.any(parts, axis=0)))
  return found


def _number_of_parts(steps: dict[str, np.ndarray]) -> int:
  """Returns the number that begins the steps' names: `2steps_1`, `3steps_multi`."""
  return int(next(iter(steps))[0])


def _rates(outcomes: Outcomes) -> dict[str, metrics.Interval]:
  number = len(outcomes.cm)
  figures = {
    "score": lambda w: metrics.mean(w, outcomes.cm + 0.5 * outcomes.ig),
    "IK": lambda w: metrics.mean(w, outcomes.ik),
    "IG": lambda w: metrics.mean(w, outcomes.ig),
    "CM": lambda w: metrics.mean(w, outcomes.cm),
    "RM": lambda w: metrics.mean(w, outcomes.rm, outcomes.rm + outcomes.cm),
  }
  return {name: metrics.bootstrap(figure, number) for name, figure in figures.items()}


def _steps(graded: Sequence[Graded]) -> dict[str, Share]:
  """Returns accuracy on one-step, two-step and three-step problems."""
  steps = [one.problem.tags["step"] for one in graded]
  names = ["S1" if _part(step) else f"S{step[0]}" for step in steps]
  return totals(zip(names, shares(graded), strict=True))


def _domains(graded: Sequence[Graded]) -> dict[str, Share]:
  """Returns the mean accuracy of each domain's concepts, of as many concepts."""
  concepts = breakdown(graded, "domain", "concept")
  return totals(
    (name.partition(SEPARATOR)[0], right / total) for name, (right, total) in concepts.items()
  )


_TOOLKIT = Protocol(
  prompt=toolkit_prompt,
  rules=toolkit_rules,
  right=right,
  scores=scores,
  headline="score strict",
  asking=Asking(find=toolkit_find, query=query, read=toolkit_find, tries=3),
)

BENCHMARK = Benchmark(
  name="wemath",
  files=("WeMath.tsv", "wemath/**/testmini[-.]*parquet", "wemath/testmini.json*"),
  problem=read_problem,
  protocols={
    "authors": Protocol(
      prompt=prompt, rules=rules, right=right, scores=scores, headline="score strict"
    ),
    "toolkit": _TOOLKIT,
    "strict": dataclasses.replace(
      _TOOLKIT,
      rules=strict_rules,
      asking=dataclasses.replace(_TOOLKIT.asking, find=strict_find, read=strict_find),
    ),
  },
  key=key,
  complete=with_domains,
)
