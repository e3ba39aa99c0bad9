"""Equal values are found however they are written, and nothing takes longer than its time."""

import contextlib
import os
import pathlib
import signal
import subprocess
import sys
import threading
import time

import numpy as np
import pytest

from sejax.errors import quoted
from sejax.text import equivalence
from sejax.text.equivalence import Prover

SECONDS = 1.0


@pytest.fixture(scope="module")
def prover():
  with Prover(workers=1, seconds=SECONDS) as started:
    warm_up(started)
    yield started


def warm_up(prover):
  """Lets sympy load its parts, which it does when they are first used; that takes time, too."""
  deadline = time.monotonic() + 30
  while prover.equal(r"\sqrt{8}+x", r"x+2\sqrt{2}") is not True:
    assert time.monotonic() < deadline


@pytest.mark.parametrize(
  ("answer", "gold"),
  [
    ("840", "840"),
    (r"\frac{2}{3}", "2/3"),
    ("2 1/2", "2.5"),
    ("8.94", r"4 \sqrt { 5 }"),
    (r"x+x", "2x"),
    ("(x+1)^2", "x^2+2x+1"),
    (r"\cos(0)", "1"),
    ("y=-2x+5", "y = 5-2x"),
    ("(2,-2)", "(2, -2)"),
    ("Sep", "sep"),
    # Votes keep these apart; for grades the word of math_verify holds.
    ("120,115", "120115"),
    ("0.5", r"50\%"),
    (r"\cos(0)", "1.0"),
    ("0.33333331", "0.33333332"),
    (r"\text{E}", "E"),
    ("e", "2.718282"),
    # Number for number, to the decimals given.
    ("(0.6, 2.667]", r"(\frac{3}{5}, \frac{8}{3}]"),
    (r"\frac13, \sqrt3", "0.33, 1.732"),
    (r"\begin{pmatrix} 0.33 \\ 0.2 \end{pmatrix}", r"\begin{pmatrix} 1/3 \\ 1/5 \end{pmatrix}"),
    (r"\{0.67, 0.33\}", r"\{\frac13, \frac23\}"),
    ("x = 0.33, y = 0.67", "x = 1/3, y = 2/3"),
    (r"2.315 \times 10^{-3}", r"\frac{1}{432}"),
    ("8:34 p.m.", "20:34"),
    ("12:05 AM", "0:05"),
    # Sentences and solutions.
    ("The final ratio is 13/28.", "13/28"),
    ("AB的长为5", "5"),
    ("B。因为A不对", "B"),
    ("So there are 3 + 10 = 13 birds, 13 in all.", "13"),
    (r"\frac{2}{5} \times \frac{1}{3} = \frac{6}{45} = \frac{2}{15} 吨", "2/15"),
    ("It is 3 or -1", "-1 or 3"),
    ("6:4", "3:2"),
  ],
)
def test_equal_values(answer, gold, prover):
  assert prover.equal(answer, gold) is True


@pytest.mark.parametrize(
  ("answer", "gold"),
  [
    ("2 2/3", "2"),
    ("A", "B"),
    ("(2,-2)", "(2,2)"),
    (r"\frac{1}{300}", r"\frac{1}{900}"),
    # Not products of letters, and no fraction.
    ("cat", "act"),
    ("3:2", "3/2"),
    ("", "3"),
    # Option E is not Euler's number, nor option I the imaginary unit.
    ("2.718282", "E"),
    (r"\text{(E)}", "2.718282"),
    (r"\sqrt{-1}", "(I)"),
    ("1.00002", "1"),
    ("-5", "5"),
    ("1234567", "1234568"),
    ("(0.5, 2.69)", r"(\frac12, \frac83)"),
    ("(0.33, 2)", r"[\frac13, 2)"),
    ("(0.33, 2)", "(0.333, 2)"),
    ("2^{0.3}", r"2^{\frac13}"),
    (r"1.5 \times 10^3", "1520"),
    ("8:34 a.m.", "20:34"),
    ("8:34", "20:34"),
    ("10:30", "5:15"),
    ("The answer is not 5", "5"),
    ("between 3 and 5", "5"),
    ("3是5", "5"),
    ("答案不是5", "5"),
    ("width = 3 and height = 5", "5"),
    ("One of them is 5", "5"),
    ("The value is 5, or 7", "5"),
    ("We get 3 + 4 = 7, not 8", "8"),
    ("We get 3 + 4 = 7, not 8", "7"),
    ("3 * 4 = 12x for all", "12"),
    ("p(1) = p(5) = 1/4, p(0) = 1/2, and p = 0 otherwise", "0"),
  ],
)
def test_other_values(answer, gold, prover):
  assert prover.equal(answer, gold) is False


@pytest.mark.long
@pytest.mark.parametrize(
  "hostile", ["9^{9^{9^{9}}}", "1000000000!", "{" * 500, "1+" * 490 + "1", "x" * 100_000]
)
def test_a_hostile_answer_is_undecided_or_wrong_in_time_and_the_next_is_decided(hostile, prover):
  begin = time.monotonic()
  assert not prover.equal(hostile, "3")
  # Its time, and room for a busy machine; without a limit the first would never end.
  assert time.monotonic() - begin < SECONDS + 5
  warm_up(prover)


@pytest.mark.parametrize(
  ("text", "value"),
  [
    ("3*(1/4)", 0.75),
    ("-2**2", -4.0),
    ("1/0", None),
    ("True", None),
    ("2^3", None),
    ("'a'*5", None),
    ("__import__('os').getpid()", None),
    ("1e400", None),
    ("10**10**10", None),
  ],
)
def test_plain_arithmetic_is_evaluated_and_nothing_else(text, value, prover):
  assert prover.expression_value(text) == value


@pytest.mark.parametrize(
  ("text", "value"),
  [
    (r"\frac{5 \pi}{4}", 3.926990816987),
    ("$98$", 98.0),
    (r"\sqrt{-1}", None),
    ("2x", None),
    ("1,2", None),
    (r"\frac{", None),
  ],
)
def test_numbers_in_latex(text, value, prover):
  found = prover.latex_value(text)
  assert found is None if value is None else found == pytest.approx(value, rel=1e-12)


def test_threads_share_the_processes():
  with Prover(workers=2) as prover:
    values = [None] * 8

    def ask(n):
      values[n] = prover.latex_value(f"{n}^2")

    threads = [threading.Thread(target=ask, args=(n,)) for n in range(8)]
    for thread in threads:
      thread.start()
    for thread in threads:
      thread.join()
  assert values == [n**2 for n in range(8)]


def test_groups_are_graded_together(prover):
  groups = [[r"\cos(0)", None, "2"], ["8.94", "120,115", ""]]
  right = prover.grade(groups, ["1", r"4\sqrt{5}"])
  assert right.dtype == bool
  assert right.tolist() == [[True, False, False], [True, False, False]]
  assert prover.grade([], []).shape[0] == 0


def test_equal_pairs_are_asked_once(monkeypatch):
  with Prover(workers=1) as prover:
    asked = []
    monkeypatch.setattr(prover, "_call", lambda name, *sides: asked.append(sides) or True)
    right = prover.grade([["x_1", "x_2", "x_1"]] * 3, ["y", "y", "z"])
    assert right.all()
    assert prover.grade([["x_2", "x_1"]], ["y"]).all()
  assert sorted(asked) == [("y", "x_1"), ("y", "x_2"), ("z", "x_1"), ("z", "x_2")]


@pytest.mark.long
@pytest.mark.parametrize("hostile", ["9^{9^{9^{9}}}", "x+" * 600 + "1"])
def test_what_is_not_decided_is_wrong_counted_and_logged(hostile, caplog):
  with Prover(workers=1, seconds=0.5) as prover:
    right = prover.grade([[hostile, "3", "4"], ["5", hostile, hostile]], ["3", "5"])
    assert right.tolist() == [[False, True, False], [True, False, False]]
    assert prover.undecided == 3
    assert prover.grade([[hostile]], ["3"]).tolist() == [[False]]  # remembered
    assert prover.undecided == 4
  assert (
    "3 answers could not be decided (over 1000 characters, or out of time or memory) and count as "
    f"wrong, such as {quoted(hostile)}"
  ) in caplog.text


def test_numbers_are_graded_without_a_process(monkeypatch):
  def fail(*arguments):
    raise AssertionError(arguments)

  with Prover() as prover:
    monkeypatch.setattr(prover, "_call", fail)
    numbers = [str(n) for n in range(-20, 20)] + ["3.5", "0.25", "1000.125"]
    right = prover.grade([numbers] * len(numbers), numbers)
  assert np.array_equal(right, np.eye(len(numbers), dtype=bool))


def workers_of(pid):
  """Returns the numbers of the worker processes that a process has."""
  found = []
  for folder in pathlib.Path("/proc").glob("[0-9]*"):
    with contextlib.suppress(FileNotFoundError, ProcessLookupError):  # it has just ended
      parent = (folder / "stat").read_text().rpartition(") ")[2].split()[1]
      if int(parent) == pid and "math_worker.py" in (folder / "cmdline").read_text():
        found.append(int(folder.name))
  return found


def wait_for_the_end_of(pid):
  deadline = time.monotonic() + 10
  with contextlib.suppress(FileNotFoundError, ProcessLookupError):
    while pathlib.Path(f"/proc/{pid}/cmdline").read_text():  # empty where it only waits for us
      assert time.monotonic() < deadline
      time.sleep(0.01)


@pytest.mark.long
def test_what_is_ended_from_outside_is_started_again():
  others = workers_of(os.getpid())
  with Prover(workers=1) as prover:
    assert prover.latex_value("2^2") == 4
    (worker,) = {*workers_of(os.getpid())} - {*others}
    os.kill(worker, signal.SIGINT)  # as a terminal does to all of its programs
    wait_for_the_end_of(worker)
    assert prover.latex_value("2^3") == 8
  assert prover.latex_value("2^4") == 16  # and so is what was closed
  prover.__exit__()
  assert workers_of(os.getpid()) == others


OWNER = """
import os, signal, sys
from sejax.text.equivalence import Prover
prover = Prover(workers=1)
prover.latex_value("2^2")
print("ready", flush=True)
sys.stdin.readline()
"""


@pytest.mark.long
@pytest.mark.parametrize("end", [signal.SIGKILL, signal.SIGTERM, signal.SIGINT])
def test_no_process_outlives_its_owner(end):
  owner = subprocess.Popen(
    [sys.executable, "-c", OWNER],
    stdin=subprocess.PIPE,
    stdout=subprocess.PIPE,
    stderr=subprocess.DEVNULL,
    text=True,
  )
  with owner:
    assert owner.stdout.readline() == "ready\n"
    (worker,) = workers_of(owner.pid)
    owner.send_signal(end)
  wait_for_the_end_of(worker)


def test_a_worker_that_cannot_start_is_an_error(monkeypatch, tmp_path):
  program = tmp_path / "broken.py"
  program.write_text("import no_such_module")
  monkeypatch.setattr(equivalence, "_PROGRAM", program)
  with Prover(workers=1) as prover, pytest.raises(OSError, match="is math-verify installed"):
    prover.latex_value("1")


@pytest.mark.parametrize(
  ("answer", "gold"),
  [
    ("2 2/3", "4/3"),
    (r"2\frac{2}{3}", r"\frac{4}{3}"),
    ("A. 3", "B. 3"),
    ("A) 5", "C) 5"),
    ("on", "no"),
    ("us", "su"),
    ("AB", "BA"),
    ("101_2", "101_3"),
    ("101_2", "101"),
    ("A'", "A"),
    ("12.10.2024", "12.1.2024"),
    ("12/10/2024", "6/5/2024"),
    ("2024-10-12", "2002"),
    ("10-15", "-5"),
    ("2/3/4", "1/6"),
    (r"\begin{pmatrix}1\\2\end{pmatrix}", r"\begin{pmatrix}1\\3\end{pmatrix}"),
  ],
)
def test_what_math_verify_would_compute_is_not_asked(prover, answer, gold):
  assert prover.equal(answer, gold) is False
  assert prover.equal(gold, answer) is False


def test_matrices_are_asked(prover):
  entries = (r"\cos 0\\2", r"1\\2")
  assert prover.equal(*(rf"\begin{{pmatrix}}{rows}\end{{pmatrix}}" for rows in entries)) is True


@pytest.mark.long
def test_a_question_that_was_interrupted_leaves_no_answer_behind(monkeypatch):
  """Its process had the question, and would have given its answer to the next one."""
  with equivalence.Prover(workers=1) as prover:
    assert prover.latex_value("2^2") == 4

    def sent_and_interrupted(self, request):
      self._process.stdin.write(request)
      self._process.stdin.flush()
      raise KeyboardInterrupt

    monkeypatch.setattr(equivalence._Worker, "_send", sent_and_interrupted)
    with pytest.raises(KeyboardInterrupt):
      prover.latex_value("3^2")
    monkeypatch.undo()
    assert prover.latex_value("5^2") == 25
