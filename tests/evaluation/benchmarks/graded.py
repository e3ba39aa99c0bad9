"""Graded problems made of verdicts, for tests of scores."""

from sejax.evaluation.benchmarks.protocol import Graded, Problem


def graded(problem_id, verdicts, **fields):
  """Returns a problem with as many responses as verdicts."""
  problem = Problem(id=problem_id, question="", gold="", **fields)
  number = len(verdicts)
  return Graded(problem, ("",) * number, (None,) * number, ("rules",) * number, tuple(verdicts))
