"""Grading responses by a benchmark's protocol: find or ask for the answer, then compare it."""

import concurrent.futures
from collections.abc import Iterator, Sequence

from sejax.evaluation.benchmarks.protocol import (
  Asking,
  Graded,
  Model,
  Problem,
  Protocol,
  Stored,
)
from sejax.text.equivalence import Prover

RULES, STORED, VERDICT = "rules", "stored extraction", "stored verdict"
_HOTTER = 0.5  # by which each further try of a model is hotter

# A problem, a response to it, and what was read from it: the answer and by whom.
_Pair = tuple[Problem, str]
_Read = tuple[str | None, str]


def grade(
  protocol: Protocol,
  answered: Sequence[tuple[Problem, Stored]],
  prover: Prover,
  model: Model | None = None,
) -> list[Graded]:
  """Grades the answers to some problems.

  Args:
    protocol: by which.
    answered: problems, each with its n responses.
    prover: compares values.
    model: reads answers where the protocol asks one; None: rules do, as the results then say.

  Returns:
    The problems in their order, graded.
  """
  pairs = [(problem, text) for problem, stored in answered for text in _unread(stored)]
  found = iter(_read_all(protocol, pairs, model))
  reads = [_stored_or_read(stored, found) for _, stored in answered]
  comparisons = [
    (problem, answer)
    for (problem, _), read in zip(answered, reads, strict=True)
    for answer, _ in read
  ]
  verdicts = iter(_compare_all(protocol, comparisons, prover, model))
  return [
    _graded(problem, stored, read, verdicts)
    for (problem, stored), read in zip(answered, reads, strict=True)
  ]


def _graded(
  problem: Problem, stored: Stored, read: list[_Read], verdicts: Iterator[bool | None]
) -> Graded:
  right = tuple(next(verdicts) for _ in read)
  if stored.verdicts is not None:
    number = len(stored.verdicts)
    return Graded(problem, ("",) * number, (None,) * number, (VERDICT,) * number, stored.verdicts)
  extractions, extractors = zip(*read, strict=True)
  return Graded(problem, stored.responses, extractions, extractors, right)


def _stored_or_read(stored: Stored, found: Iterator[_Read]) -> list[_Read]:
  if stored.extractions is None:
    return [next(found) for _ in _unread(stored)]
  return [(answer or None, STORED) for answer in stored.extractions]


def _unread(stored: Stored) -> tuple[str, ...]:
  """Returns the responses from which nothing was read before."""
  return stored.responses if stored.extractions is None else ()


def _read_all(protocol: Protocol, pairs: Sequence[_Pair], model: Model | None) -> list[_Read]:
  if model is None or protocol.asking is None:
    return [(protocol.rules(problem, response), RULES) for problem, response in pairs]
  asking = protocol.asking
  read = [(asking.find(problem, response), RULES) for problem, response in pairs]
  waiting = [place for place, (answer, _) in enumerate(read) if answer is None]
  for attempt in range(asking.tries):
    if not waiting:
      break
    replies = model([asking.query(*pairs[place]) for place in waiting], _HOTTER * attempt)
    for place, reply in zip(waiting, replies, strict=True):
      read[place] = (asking.read(pairs[place][0], reply), model.name)
    waiting = [place for place in waiting if read[place][0] is None]
  for place in waiting:
    if (answer := asking.unread(*pairs[place])) is not None:
      read[place] = (answer, RULES)
  return read


def _compare_all(
  protocol: Protocol,
  comparisons: Sequence[tuple[Problem, str | None]],
  prover: Prover,
  model: Model | None,
) -> list[bool | None]:
  if model is not None and protocol.asking and protocol.asking.dispute:
    return _ask_about_all(protocol.asking, comparisons, model)

  def compare(comparison: tuple[Problem, str | None]) -> bool | None:
    problem, answer = comparison
    return False if answer is None else protocol.right(problem, answer, prover)

  with concurrent.futures.ThreadPoolExecutor(prover.workers) as threads:
    return list(threads.map(compare, comparisons))


def _ask_about_all(
  asking: Asking, comparisons: Sequence[tuple[Problem, str | None]], model: Model
) -> list[bool]:
  """Returns verdicts: equal texts are right, about others the model is asked."""
  right = [
    answer is not None and answer.strip() == problem.gold.strip() for problem, answer in comparisons
  ]
  waiting = [
    place
    for place, (_, answer) in enumerate(comparisons)
    if answer is not None and not right[place]
  ]
  for attempt in range(asking.tries):
    if not waiting:
      break
    replies = model([asking.dispute(*comparisons[place]) for place in waiting], _HOTTER * attempt)
    clear = {
      place: reply.strip() == "1"
      for place, reply in zip(waiting, replies, strict=True)
      if reply.strip() in ("0", "1")
    }
    for place, verdict in clear.items():
      right[place] = verdict
    waiting = [place for place in waiting if place not in clear]
  return right
