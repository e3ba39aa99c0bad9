"""Whether an answer is right: grades, for metrics, benchmarks and supervision; never for votes.

One rule grades everywhere, `Prover.equal`. Votes use the canonical form alone, because their
equality must be transitive and the same on every machine.
"""

import concurrent.futures
import contextlib
import functools
import json
import os
import pathlib
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

from sejax.errors import quoted
from sejax.text import answers, statements
from sejax.text.canonical import canonical

_PROGRAM = pathlib.Path(__file__).with_name("symbolic.py")
_COMMAND = re.compile(r"\\[A-Za-z]+")
# What has a letter in it is no number: e is as likely option E, in lower case, as Euler's number.
_NAME = re.compile(r"[A-Za-z]")
_FUNCTIONS = "sqrt|frac|sin|cos|tan|cot|sec|csc|log|exp|arc"
_WORD = re.compile(rf"(?<![\\A-Za-z])(?!{_FUNCTIONS})[A-Za-z]{{3,}}")
_UNIT = re.compile(r"\\(?:text|mathrm|mbox|begin|end)\s*\{[^{}]*\}")  # or an environment
_LONGEST = 1000  # characters of an answer; what is longer is a text
# Arithmetic that means one thing to all: no commas, percents or names.
_ARITHMETIC = re.compile(r"(?:[0-9.+\-*/(){}^\s]|\\(?:[dt]?frac|sqrt|pi|cdot|times)(?![A-Za-z]))*")
# Numbers that differ by more do not agree after math_verify's rounding to 1e-6.
_FAR, _FAR_OFF = 1e-5, 1e-9  # absolute, and relative, as floats round
_OPTION = re.compile(r"[A-H]")
_OPTION_I = re.compile(r"\W*I\W*")  # which math_verify takes for the imaginary unit
# What math_verify computes though it is no arithmetic: times, dates, ranges, numbers to a base,
# and words of two letters, which are products to it; with primes it does nothing.
_NO_ARITHMETIC = (
  re.compile(r"[0-9]{1,2}:[0-5][0-9]"),
  re.compile(r"[0-9]+([-/.])[0-9]+\1[0-9]+"),
  re.compile(r"[0-9.]+-[0-9.]+"),
  re.compile(r"[0-9A-Fa-f]+_\{?[0-9]+\}?"),
  re.compile(r"[A-Za-z]{2,}|[A-Za-z]+'+"),
)
# What ends a process that has done nothing wrong: Ctrl-C in a terminal ends all of its programs.
_FROM_OUTSIDE = (signal.SIGINT, signal.SIGTERM)
_REMEMBERED = 2**16  # pairs; those of a few hundred steps


class Prover:
  """Worker processes that evaluate mathematics; a context manager, to be shared by threads.

  Whoever makes one owns it; leaving the context ends its processes. They are programs of their own
  that are started at the first question for them, never forks of this process and its threads, and
  they end by themselves where this process is killed, as their standard input is then closed.

  A question that is too long has no answer: None; nor has one whose time or memory is over, which
  ends its process, so that the next question gets a new one.

  Attributes:
    workers: how many questions are worked on at once.
    undecided: how many answers `grade` could not decide, so far.
  """

  def __init__(self, workers: int | None = None, seconds: float = 5.0):
    """Starts no process yet.

    Args:
      workers: processes; by default one per core, at most 8.
      seconds: for each question; the default is math_verify's own.
    """
    self.workers = workers or min(8, os.cpu_count() or 1)
    self.undecided = 0
    self._seconds = seconds
    self._decide_once = functools.lru_cache(_REMEMBERED)(self._decide)
    self._free: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
    for _ in range(self.workers):
      self._free.put(_Worker(seconds))

  def __enter__(self) -> "Prover":
    return self

  def __exit__(self, *error: object) -> None:
    workers = [self._free.get() for _ in range(self.workers)]
    for worker in workers:
      worker.stop()
      self._free.put(worker)

  def equal(self, answer: str, gold: str) -> bool | None:
    """Whether an answer has the value of the gold answer, however it is written.

    A pair is equal if any of three says so, each asked where those before it say no:

    1. the votes' key (`sejax.text.canonical`), which is the same for both sides;
    2. the rounding rule (`sejax.text.answers.grade`): where one side is a decimal and the other is
       not, they agree to the decimals given, also number for number in a tuple or list; a time of
       day on a clock of 12 hours is that on one of 24;
    3. `math_verify`, which also joins what votes keep apart: 120,115 is 120115 to it, and 0.5 is
       50%. It takes words for products of their letters, ratios for fractions and the letter I for
       the imaginary unit, so it is asked of none of these; nor of two times of day, which are
       ratios to it (10:30 as 5:15), nor of two numbers in plain arithmetic that differ, which are
       most wrong answers and would only cost time.

    An answer that is a sentence or a worked solution is taken for the value that it comes to
    (`sejax.text.statements`), unless its key already is the gold answer's.

    Args:
      answer: as it was read from a response.
      gold: the right answer.

    Returns:
      None where it was not decided: its time or memory was over, or a side is too long.
    """
    return self._decide_once(answer, gold)

  def grade(
    self, groups: Sequence[Sequence[str | None]], golds: Sequence[str]
  ) -> Bool[np.ndarray, "B G"]:
    """Returns which answers have the values of their gold answers.

    Equal pairs are decided once. What cannot be decided is not right; it is logged, and
    counted in `undecided`.

    Args:
      groups: B groups of G answers each; None where there is none, which is not right.
      golds: B right answers.
    """
    pairs = [
      [None if answer is None else (answer, gold) for answer in group]
      for group, gold in zip(groups, golds, strict=True)
    ]
    distinct = dict.fromkeys(pair for row in pairs for pair in row if pair)
    with concurrent.futures.ThreadPoolExecutor(self.workers) as threads:
      verdicts = threads.map(lambda pair: self.equal(*pair), distinct)
      right: dict[tuple[str, str] | None, bool | None] = {None: False}
      right |= zip(distinct, verdicts, strict=True)
    undecided = [pair for row in pairs for pair in row if right[pair] is None]
    if undecided:
      self.undecided += len(undecided)
      logging.warning(
        "%d answers could not be decided (over %d characters, or out of time or memory) and count "
        "as wrong, such as %s",
        len(undecided),
        _LONGEST,
        quoted(undecided[0][0]),
      )
    return np.array([[bool(right[pair]) for pair in row] for row in pairs], bool)

  def latex_value(self, text: str) -> float | None:
    """Returns the real number that a LaTeX text stands for; None where none is found in time."""
    if _NAME.search(_COMMAND.sub("", text)):
      return None
    return self._ask("latex_value", text)

  def expression_value(self, text: str) -> float | None:
    """Returns the value of plain arithmetic in Python's notation; None as in `latex_value`."""
    return self._ask("expression_value", text)

  def _decide(self, answer: str, gold: str) -> bool | None:
    if answers.grade(answer, gold):
      return True
    if _are_numbers_apart(answer, gold):
      return False
    conclusion = statements.conclusion(answer) if len(answer) <= _LONGEST else None
    if conclusion is not None:
      return self._decide(conclusion, gold)
    if (
      _WORD.search(_UNIT.sub("", f"{answer} {gold}"))
      or (":" in answer) != (":" in gold)
      or any(form.fullmatch(side.strip()) for form in _NO_ARITHMETIC for side in (answer, gold))
      or _is_option_i(answer, gold)
      or _are_options(answer, gold)
    ):
      return False
    return self._ask("verify", gold, answer)

  def _ask(self, function: str, *arguments: str) -> Any:
    if max(map(len, arguments)) > _LONGEST:
      return None
    worker = self._free.get()
    try:
      return worker.ask(function, arguments)
    except BaseException:  # Ctrl-C, say: the next question must not be given this one's answer.
      worker.stop()
      raise
    finally:
      self._free.put(worker)


def _is_option_i(*sides: str) -> bool:
  """Whether one side is the letter I alone, and there is none in the other."""
  bare = [_COMMAND.sub("", side) for side in sides]
  return any(_OPTION_I.fullmatch(side) and "I" not in other for side, other in (bare, bare[::-1]))


def _are_options(*sides: str) -> bool:
  """Whether both sides choose an option, which the votes' key tells apart: "A. 3" and "B. 3"."""
  return all(_OPTION.fullmatch(canonical(side)) for side in sides)


def _are_numbers_apart(*sides: str) -> bool:
  """Whether both sides are numbers in plain arithmetic, and clearly not the same."""
  if not all(map(_ARITHMETIC.fullmatch, sides)):
    return False
  one, other = (answers.number(side) for side in sides)
  if one is None or other is None:
    return False
  return abs(one - other) > _FAR + _FAR_OFF * abs(one)


class _Worker:
  """One process, started at the first question."""

  def __init__(self, seconds: float):
    self._seconds = seconds
    self._process: subprocess.Popen[str] | None = None

  def ask(self, function: str, arguments: tuple[str, ...]) -> Any:
    question = json.dumps([function, arguments, self._seconds]) + "\n"
    while True:
      if reply := self._reply(question):
        return json.loads(reply)
      status = self._process.wait()
      self.stop()
      if status >= 0:  # no signal: neither its time nor its memory was over
        raise OSError(f"{_PROGRAM} ended with status {status}; is math-verify installed?")
      if -status not in _FROM_OUTSIDE:
        return None

  def _reply(self, question: str) -> str:
    """Returns a line, or nothing where the process has ended."""
    if self._process is None:
      self._process = subprocess.Popen(
        [sys.executable, "-P", str(_PROGRAM)],  # -P: its folder holds no libraries
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        encoding="utf-8",
        start_new_session=True,  # A terminal's Ctrl-C is for the run, which may finish a step.
      )
    with contextlib.suppress(BrokenPipeError):  # It has ended, as the empty reply will show.
      self._process.stdin.write(question)
      self._process.stdin.flush()
    return self._process.stdout.readline()

  def stop(self) -> None:
    if self._process is not None:
      self._process.kill()
      self._process.wait()
      for pipe in (self._process.stdin, self._process.stdout):
        with contextlib.suppress(BrokenPipeError):  # what was not written is of no use any more
          pipe.close()
      self._process = None
