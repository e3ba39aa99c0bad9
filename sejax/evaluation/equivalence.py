"""Whether an answer has the value of the gold answer, decided by sympy within a hard time limit."""

import contextlib
import json
import os
import pathlib
import queue
import re
import subprocess
import sys
from typing import Any

from sejax.text import answers

_PROGRAM = pathlib.Path(__file__).with_name("symbolic.py")
_COMMAND = re.compile(r"\\[A-Za-z]+")
_NAME = re.compile(r"[A-Za-df-z]")  # any letter but e: what has a variable in it is no number
_FUNCTIONS = "sqrt|frac|sin|cos|tan|cot|sec|csc|log|exp|arc"
_WORD = re.compile(rf"(?<![\\A-Za-z])(?!{_FUNCTIONS})[A-Za-z]{{3,}}")
_UNIT = re.compile(r"\\(?:text|mathrm|mbox)\s*\{[^{}]*\}")
_LONGEST = 1000  # characters of an answer; what is longer is a text


class Prover:
  """Worker processes that evaluate mathematics; a context manager, to be shared by threads.

  A question that is not answered in time has no answer: None. Then the next one gets a new process.

  Attributes:
    workers: how many questions are worked on at once.
  """

  def __init__(self, workers: int | None = None, seconds: float = 10.0):
    """Starts no process yet.

    Args:
      workers: processes; by default one per core, at most 8.
      seconds: for each question.
    """
    self.workers = workers or min(8, os.cpu_count() or 1)
    self._free: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
    for _ in range(self.workers):
      self._free.put(_Worker(seconds))

  def __enter__(self) -> "Prover":
    return self

  def __exit__(self, *error: object) -> None:
    for _ in range(self.workers):
      self._free.get().stop()

  def equal(self, answer: str, gold: str) -> bool | None:
    """Whether two answers have one value, however they are written; None: not decided.

    They have where `sejax.text.answers.grade` finds so, exactly or to the decimals of the side that
    is a decimal, and else where `math_verify` does. It takes words for products of their letters
    and ratios for fractions, so it is asked of neither.
    """
    if answers.grade(answer, gold):
      return True
    if _WORD.search(_UNIT.sub("", f"{answer} {gold}")) or (":" in answer) != (":" in gold):
      return False
    return self._ask("verify", gold, answer)

  def latex_value(self, text: str) -> float | None:
    """Returns the real number that a LaTeX text stands for; None where none is found in time."""
    if _NAME.search(_COMMAND.sub("", text)):
      return None
    return self._ask("latex_value", text)

  def expression_value(self, text: str) -> float | None:
    """Returns the value of plain arithmetic in Python's notation; None as in `latex_value`."""
    return self._ask("expression_value", text)

  def _ask(self, function: str, *arguments: str) -> Any:
    if max(map(len, arguments)) > _LONGEST:
      return None
    worker = self._free.get()
    try:
      return worker.ask(function, arguments)
    finally:
      self._free.put(worker)


class _Worker:
  """One process, started at the first question."""

  def __init__(self, seconds: float):
    self._seconds = seconds
    self._process: subprocess.Popen[str] | None = None

  def ask(self, function: str, arguments: tuple[str, ...]) -> Any:
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
      self._process.stdin.write(json.dumps([function, arguments, self._seconds]) + "\n")
      self._process.stdin.flush()
    reply = self._process.stdout.readline()
    if reply:
      return json.loads(reply)
    status = self._process.wait()
    self.stop()
    if status >= 0:  # no signal: neither its time nor its memory was over
      raise OSError(f"{_PROGRAM} ended with status {status}; is math-verify installed?")
    return None

  def stop(self) -> None:
    if self._process is not None:
      self._process.kill()
      self._process.wait()
      for pipe in (self._process.stdin, self._process.stdout):
        with contextlib.suppress(BrokenPipeError):  # what was not written is of no use any more
          pipe.close()
      self._process = None
