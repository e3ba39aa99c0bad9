"""Grading of answers against gold answers, for metrics, benchmarks and supervised rewards.

`Prover.equal` is the one rule that grades everywhere. Votes use the canonical form alone
(`sejax.text.canonical`), since their equality must be transitive and the same on every machine.
"""

import concurrent.futures
import contextlib
import functools
import json
import os
import queue
import re
import signal
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

import numpy as np
from absl import logging
from jaxtyping import Bool

from sejax import storage
from sejax.errors import quoted
from sejax.text import rounding, sentences
from sejax.text.canonical import canonical

_PROGRAM = storage.Path(__file__).with_name("math_worker.py")
_MAX_CHARACTERS = 1000  # Longer answers are not evaluated.
_COMMAND = re.compile(r"\\[A-Za-z]+")
_LETTER = re.compile(r"[A-Za-z]")
_FUNCTIONS = "sqrt|frac|sin|cos|tan|cot|sec|csc|log|exp|arc"
_WORD = re.compile(rf"(?<![\\A-Za-z])(?!{_FUNCTIONS})[A-Za-z]{{3,}}")
_TEXT_ARGUMENT = re.compile(r"\\(?:text|mathrm|mbox|begin|end)\s*\{[^{}]*\}")
# Arithmetic on which all readers agree: no commas, percent signs or names.
_ARITHMETIC = re.compile(r"(?:[0-9.+\-*/(){}^\s]|\\(?:[dt]?frac|sqrt|pi|cdot|times)(?![A-Za-z]))*")
# Numbers that differ by more than the sum of these are different to math_verify, which rounds to
# 1e-6; the relative part allows for rounding of floats.
_ABSOLUTE_TOLERANCE, _RELATIVE_TOLERANCE = 1e-5, 1e-9
_OPTION = re.compile(r"[A-H]")
_OPTION_I = re.compile(r"\W*I\W*")  # to math_verify the imaginary unit
# math_verify would compute with these, though they are not arithmetic: times, dates, ranges,
# numbers in a base, words of two letters (products to it), and names with primes, which it drops.
_NO_ARITHMETIC = (
  re.compile(r"[0-9]{1,2}:[0-5][0-9]"),
  re.compile(r"[0-9]+([-/.])[0-9]+\1[0-9]+"),
  re.compile(r"[0-9.]+-[0-9.]+"),
  re.compile(r"[0-9A-Fa-f]+_\{?[0-9]+\}?"),
  re.compile(r"[A-Za-z]{2,}|[A-Za-z]+'+"),
)
# A worker that one of these has ended was not out of time or memory: its call is repeated.
_EXTERNAL_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_CACHE_SIZE = 2**16  # pairs of answer and gold answer, those of a few hundred steps


class Prover:
  """Grades answers, evaluating mathematics in worker processes; a context manager.

  Threads may share it. Its creator owns the processes; leaving the context ends them. A worker is a
  separate program that is started at its first call, not a fork of this process and its threads. It
  ends by itself if this process is killed, since its standard input is closed then.

  The result of a call is None if its arguments are too long, if the libraries fail on them, or if
  it runs out of time or memory. A worker that ends in this way is replaced at the next call.

  Attributes:
    workers: number of worker processes.
    undecided: number of answers so far that `grade` could not decide.
  """

  def __init__(self, workers: int | None = None, seconds: float = 5.0):
    """Creates the pool; no process is started yet.

    Args:
      workers: number of processes; by default one per core, at most 8.
      seconds: time limit of each call; the default is that of math_verify.
    """
    self.workers = workers or min(8, os.cpu_count() or 1)
    self.undecided = 0
    self._seconds = seconds
    self._decide_once = functools.lru_cache(_CACHE_SIZE)(self._decide)
    self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
    for _ in range(self.workers):
      self._idle.put(_Worker(seconds))

  def __enter__(self) -> "Prover":
    return self

  def __exit__(self, *error: object) -> None:
    # A worker is taken from the queue only when its call has ended.
    workers = [self._idle.get() for _ in range(self.workers)]
    for worker in workers:
      worker.stop()
      self._idle.put(worker)

  def equal(self, answer: str, gold: str) -> bool | None:
    """Whether an answer has the value of the gold answer, however it is written.

    A pair is equal if any of three checks says so, in this order:

    1. the canonical forms are equal (`sejax.text.canonical`);
    2. the values are equal up to rounding (`sejax.text.rounding`);
    3. `math_verify` finds them equal. To it 120,115 is 120115 and 0.5 is 50%, which votes keep
       apart. It also takes words for products of their letters, ratios for fractions, times of day
       for ratios (10:30 for 5:15) and the letter I for the imaginary unit, so such answers are not
       passed to it. Neither are two different numbers in plain arithmetic: most wrong answers are,
       and would only cost time.

    An answer that is a sentence or a worked solution is replaced by the value that it states
    (`sejax.text.sentences`) after the second check.

    Args:
      answer: an answer, extracted from a response.
      gold: the right answer.

    Returns:
      None if undecided: out of time or memory, `math_verify` failed, or an answer is too long.
    """
    return self._decide_once(answer, gold)

  def grade(
    self, groups: Sequence[Sequence[str | None]], golds: Sequence[str]
  ) -> Bool[np.ndarray, "B G"]:
    """Returns which answers have the values of their gold answers.

    Each distinct pair is evaluated once. Undecided answers count as wrong; they are logged, and
    counted in `undecided`.

    Args:
      groups: B groups of G answers each; None for a missing answer, which is wrong.
      golds: B gold answers.
    """
    pairs = [
      [None if answer is None else (answer, gold) for answer in group]
      for group, gold in zip(groups, golds, strict=True)
    ]
    distinct = list(dict.fromkeys(pair for row in pairs for pair in row if pair is not None))
    with concurrent.futures.ThreadPoolExecutor(self.workers) as threads:
      results = threads.map(lambda pair: self.equal(*pair), distinct)
      is_right: dict[tuple[str, str] | None, bool | None] = dict(
        zip(distinct, results, strict=True)
      )
    is_right[None] = False
    undecided = [pair for row in pairs for pair in row if is_right[pair] is None]
    if undecided:
      self.undecided += len(undecided)
      logging.warning(
        "%d answers could not be decided (over %d characters, or out of time or memory) and count "
        "as wrong, such as %s",
        len(undecided),
        _MAX_CHARACTERS,
        quoted(undecided[0][0]),
      )
    return np.array([[bool(is_right[pair]) for pair in row] for row in pairs], bool)

  def latex_value(self, text: str) -> float | None:
    """Returns the real number that a LaTeX expression evaluates to; None if there is none.

    Expressions with letters have none: e may be the lower-case letter of an option.
    """
    if _LETTER.search(_COMMAND.sub("", text)):
      return None
    return self._call("latex_value", text)

  def expression_value(self, text: str) -> float | None:
    """Returns the value of arithmetic in Python's notation, such as `3*(1/4)`; None if none."""
    return self._call("expression_value", text)

  def _decide(self, answer: str, gold: str) -> bool | None:
    if rounding.equal_up_to_rounding(answer, gold):
      return True
    if _are_different_numbers(answer, gold):
      return False
    stated = sentences.stated_value(answer) if len(answer) <= _MAX_CHARACTERS else None
    if stated is not None:
      return self._decide(stated, gold)
    if not _may_math_verify(answer, gold):
      return False
    return self._call("verify", gold, answer)

  def _call(self, function: str, *arguments: str) -> Any:
    if max(map(len, arguments)) > _MAX_CHARACTERS:
      return None
    worker = self._idle.get()
    try:
      return worker.call(function, arguments)
    except BaseException:  # Such as Ctrl-C: the next call must not receive this one's reply.
      worker.stop()
      raise
    finally:
      self._idle.put(worker)


def _may_math_verify(answer: str, gold: str) -> bool:
  """Whether math_verify reads both sides as they are meant, see `Prover.equal`."""
  if _WORD.search(_TEXT_ARGUMENT.sub("", f"{answer} {gold}")):
    return False
  if (":" in answer) != (":" in gold):
    return False
  for side in (answer, gold):
    if any(pattern.fullmatch(side.strip()) for pattern in _NO_ARITHMETIC):
      return False
  if _is_option_i(answer, gold) or _is_option_i(gold, answer):
    return False
  # "A. 3" and "B. 3" are different options, which math_verify would compare by their numbers.
  are_options = all(_OPTION.fullmatch(canonical(side)) for side in (answer, gold))
  return not are_options


def _is_option_i(side: str, other: str) -> bool:
  """Whether `side` is the letter I alone and the other side has no letter I."""
  side, other = _COMMAND.sub("", side), _COMMAND.sub("", other)
  return _OPTION_I.fullmatch(side) is not None and "I" not in other


def _are_different_numbers(answer: str, gold: str) -> bool:
  """Whether both sides are numbers in plain arithmetic that clearly differ."""
  if not (_ARITHMETIC.fullmatch(answer) and _ARITHMETIC.fullmatch(gold)):
    return False
  answer_value, gold_value = rounding.real_value(answer), rounding.real_value(gold)
  if answer_value is None or gold_value is None:
    return False
  tolerance = _ABSOLUTE_TOLERANCE + _RELATIVE_TOLERANCE * abs(answer_value)
  return abs(answer_value - gold_value) > tolerance


class _Worker:
  """One worker process, started at its first call."""

  def __init__(self, seconds: float):
    self._seconds = seconds
    self._process: subprocess.Popen[str] | None = None

  def call(self, function: str, arguments: tuple[str, ...]) -> Any:
    """Returns the result of a function of `math_worker`; None if out of time or memory."""
    request = json.dumps([function, arguments, self._seconds]) + "\n"
    while True:
      if reply := self._send(request):
        return json.loads(reply)
      status = self._process.wait()
      self.stop()
      if status >= 0:  # It ended by itself, so neither time nor memory was over.
        raise OSError(f"{_PROGRAM} ended with status {status}; is math-verify installed?")
      if -status not in _EXTERNAL_SIGNALS:
        return None

  def _send(self, request: str) -> str:
    """Sends a request; returns the line of the reply, empty if the process has ended."""
    if self._process is None:
      self._process = subprocess.Popen(
        # -P: modules of this folder must not shadow those that the worker imports.
        [sys.executable, "-P", str(_PROGRAM)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
        start_new_session=True,  # Ctrl-C must not reach it: the run may still finish its step.
      )
    with contextlib.suppress(BrokenPipeError):  # It has ended; the empty reply tells.
      self._process.stdin.write(request)
      self._process.stdin.flush()
    return self._process.stdout.readline()

  def stop(self) -> None:
    if self._process is not None:
      self._process.kill()
      self._process.wait()
      for pipe in (self._process.stdin, self._process.stdout):
        with contextlib.suppress(BrokenPipeError):  # Closing flushes what nobody reads any more.
          pipe.close()
      self._process = None
