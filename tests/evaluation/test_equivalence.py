"""Equal values are found however they are written, and nothing takes longer than its time."""

import threading
import time

import pytest

from sejax.evaluation import equivalence
from sejax.evaluation.equivalence import Prover

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
  ],
)
def test_other_values(answer, gold, prover):
  assert prover.equal(answer, gold) is False


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


def test_a_worker_that_cannot_start_is_an_error(monkeypatch, tmp_path):
  program = tmp_path / "broken.py"
  program.write_text("import no_such_module")
  monkeypatch.setattr(equivalence, "_PROGRAM", program)
  with Prover(workers=1) as prover, pytest.raises(OSError, match="is math-verify installed"):
    prover.latex_value("1")
