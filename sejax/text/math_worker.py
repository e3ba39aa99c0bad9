"""Values of written mathematics by sympy, as a program that is killed where that takes too long.

What sympy does with a hostile text can take for ever and cannot be interrupted from Python, so it
runs in a process of its own, see `equivalence.Prover`: a line of standard input asks for a function
by name, `[name, arguments, seconds]` in JSON, and a line of standard output holds its value. When
the time is over the system ends the process. Imports nothing of sejax, so that it starts quickly.
"""

import ast
import contextlib
import json
import math
import operator
import resource
import signal
import sys
from collections.abc import Callable

import latex2sympy2_extended
import math_verify

_MEMORY = 4 * 2**30  # bytes of address space
_OPERATORS: dict[type[ast.AST], Callable[..., float]] = {
  ast.Add: operator.add,
  ast.Sub: operator.sub,
  ast.Mult: operator.mul,
  ast.Div: operator.truediv,
  ast.Pow: operator.pow,
  ast.UAdd: operator.pos,
  ast.USub: operator.neg,
}


def verify(gold: str, answer: str) -> bool:
  """Whether two texts of mathematics have one value, by `math_verify`."""
  sides = [math_verify.parse(f"${text}$", parsing_timeout=None) for text in (gold, answer)]
  return all(sides) and math_verify.verify(*sides, timeout_seconds=None)


def latex_value(text: str) -> float | None:
  """Returns the real number that a LaTeX text stands for; None where it is none."""
  return _finite(latex2sympy2_extended.latex2sympy(text).evalf())


def expression_value(text: str) -> float | None:
  """Returns the value of plain arithmetic such as `3*(1/4)`; None where it is something else."""
  return _finite(_evaluate(ast.parse(text.strip(), mode="eval").body))


def _evaluate(node: ast.AST) -> float:
  match node:
    case ast.Constant(value) if type(value) in (int, float):
      return value
    case ast.BinOp(left, kind, right):
      return _OPERATORS[type(kind)](_evaluate(left), _evaluate(right))
    case ast.UnaryOp(kind, operand):
      return _OPERATORS[type(kind)](_evaluate(operand))
  raise ValueError(f"{type(node).__name__} is no arithmetic")


def _finite(value: object) -> float | None:
  number = float(value)
  return number if math.isfinite(number) else None


FUNCTIONS = {f.__name__: f for f in (verify, latex_value, expression_value)}


def main() -> None:
  """Answers questions until standard input ends."""
  replies, sys.stdout = sys.stdout, sys.stderr  # Libraries print as they like.
  with contextlib.suppress(ValueError, OSError):  # Some systems have no such limit.
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
  for line in sys.stdin:
    name, arguments, seconds = json.loads(line)
    signal.setitimer(signal.ITIMER_REAL, seconds)  # Its signal has no handler: it ends the process.
    try:
      value = FUNCTIONS[name](*arguments)
    except Exception:  # parsers and sympy raise whatever they like at what is no mathematics
      value = None
    signal.setitimer(signal.ITIMER_REAL, 0)
    print(json.dumps(value), file=replies, flush=True)


if __name__ == "__main__":
  main()
