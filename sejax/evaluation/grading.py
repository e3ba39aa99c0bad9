"""Grades responses by a benchmark's protocol: extracts the answers, then compares them."""

import concurrent.futures
from collections.abc import Iterator, Sequence

from sejax.evaluation.benchmarks.protocol import (
  Graded,
  Model,
  ModelExtraction,
  Problem,
  Protocol,
  StoredAnswers,
)
from sejax.text.equivalence import Prover

# Extractors that are not models, as the results name them.
RULES, STORED, VERDICT = "rules", "stored extraction", "stored verdict"
_TEMPERATURE_STEP = 0.5  # added with each further attempt of a model

_Response = tuple[Problem, str]  # a response with the problem it answers
_Extraction = tuple[str | None, str]  # the answer, and what extracted it


def grade(
  protocol: Protocol,
  answered: Sequence[tuple[Problem, StoredAnswers]],
  prover: Prover,
  model: Model | None = None,
) -> list[Graded]:
  """Grades the responses to some problems.

  Args:
    protocol: how to extract and compare answers.
    answered: problems, each with its n responses.
    prover: compares mathematical values.
    model: extracts answers if the protocol uses a model; None uses the protocol's rules instead.

  Returns:
    The graded problems in the same order.
  """
  responses = [(problem, text) for problem, stored in answered for text in _to_extract(stored)]
  extracted = iter(_extract_all(protocol, responses, model))
  extractions = [_stored_or_next(stored, extracted) for _, stored in answered]
  answers = [
    (problem, answer)
    for (problem, _), row in zip(answered, extractions, strict=True)
    for answer, _ in row
  ]
  verdicts = iter(_compare_all(protocol, answers, prover, model))
  return [
    _graded(problem, stored, row, verdicts)
    for (problem, stored), row in zip(answered, extractions, strict=True)
  ]


def _graded(
  problem: Problem,
  stored: StoredAnswers,
  extractions: list[_Extraction],
  verdicts: Iterator[bool | None],
) -> Graded:
  """Returns a graded problem; takes one verdict for each extraction from the iterator."""
  right = tuple(next(verdicts) for _ in extractions)
  if stored.verdicts is not None:
    n = len(stored.verdicts)
    return Graded(
      problem=problem,
      responses=("",) * n,
      extractions=(None,) * n,
      extractors=(VERDICT,) * n,
      right=stored.verdicts,
    )
  answers, extractors = zip(*extractions, strict=True)
  return Graded(
    problem=problem,
    responses=stored.responses,
    extractions=answers,
    extractors=extractors,
    right=right,
  )


def _stored_or_next(stored: StoredAnswers, extracted: Iterator[_Extraction]) -> list[_Extraction]:
  """Returns a problem's stored extractions, or else takes one per response from the iterator."""
  if stored.extractions is None:
    return [next(extracted) for _ in _to_extract(stored)]
  return [(answer or None, STORED) for answer in stored.extractions]


def _to_extract(stored: StoredAnswers) -> tuple[str, ...]:
  """Returns the responses of a problem that have no stored extraction."""
  return stored.responses if stored.extractions is None else ()


def _extract_all(
  protocol: Protocol, responses: Sequence[_Response], model: Model | None
) -> list[_Extraction]:
  """Extracts an answer from each response, by rules or with a model as the protocol says."""
  if model is None or protocol.model_extraction is None:
    return [(protocol.extract(problem, text), RULES) for problem, text in responses]
  extraction = protocol.model_extraction
  extracted = [(extraction.rule(problem, text), RULES) for problem, text in responses]
  pending = [index for index, (answer, _) in enumerate(extracted) if answer is None]
  for attempt in range(extraction.max_attempts):
    if not pending:
      break
    prompts = [extraction.prompt(*responses[index]) for index in pending]
    replies = model(prompts, _TEMPERATURE_STEP * attempt)
    for index, reply in zip(pending, replies, strict=True):
      problem, _ = responses[index]
      extracted[index] = (extraction.parse(problem, reply), model.name)
    pending = [index for index in pending if extracted[index][0] is None]
  for index in pending:
    answer = extraction.fallback(*responses[index])
    if answer is not None:
      extracted[index] = (answer, RULES)
  return extracted


def _compare_all(
  protocol: Protocol,
  answers: Sequence[tuple[Problem, str | None]],
  prover: Prover,
  model: Model | None,
) -> list[bool | None]:
  """Returns whether each answer is right; None if undecided."""
  extraction = protocol.model_extraction
  if model is not None and extraction is not None and extraction.judge_prompt is not None:
    return _grade_with_model(extraction, answers, model)

  def compare(pair: tuple[Problem, str | None]) -> bool | None:
    problem, answer = pair
    return False if answer is None else protocol.is_right(problem, answer, prover)

  with concurrent.futures.ThreadPoolExecutor(prover.workers) as threads:
    return list(threads.map(compare, answers))


def _grade_with_model(
  extraction: ModelExtraction, answers: Sequence[tuple[Problem, str | None]], model: Model
) -> list[bool]:
  """Accepts answers that equal the gold answer literally, and lets the model judge the others."""
  right = [
    answer is not None and answer.strip() == problem.gold.strip() for problem, answer in answers
  ]
  pending = [
    index for index, (_, answer) in enumerate(answers) if answer is not None and not right[index]
  ]
  for attempt in range(extraction.max_attempts):
    if not pending:
      break
    prompts = [extraction.judge_prompt(*answers[index]) for index in pending]
    replies = model(prompts, _TEMPERATURE_STEP * attempt)
    undecided = []
    for index, reply in zip(pending, replies, strict=True):
      if reply.strip() in ("0", "1"):
        right[index] = reply.strip() == "1"
      else:
        undecided.append(index)
    pending = undecided
  return right
