"""Worker program that evaluates mathematics with math_verify and sympy, for `equivalence.Prover`.

On hostile text sympy may run forever, and Python cannot interrupt it. So it runs in a process of
its own, which the operating system ends when the time limit is over. Each line of standard input is
a call `[function name, arguments, seconds]` in JSON; its result is one JSON line on standard
output. The program imports nothing of sejax, so that it starts quickly.
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
  """Whether `math_verify` finds two mathematical texts equal."""
  sides = [math_verify.parse(f"${text}$", parsing_timeout=None) for text in (gold, answer)]
  return all(sides) and math_verify.verify(*sides, timeout_seconds=None)


def latex_value(text: str) -> float | None:
  """Returns the real number that a LaTeX expression evaluates to; None if it is not finite."""
  return _finite(latex2sympy2_extended.latex2sympy(text).evalf())


def expression_value(text: str) -> float | None:
  """Returns the value of arithmetic in Python's notation, `3*(1/4)`; None if it is not finite."""
  return _finite(_evaluate(ast.parse(text.strip(), mode="eval").body))


def _evaluate(node: ast.AST) -> float:
  match node:
    case ast.Constant(value) if type(value) in (int, float):
      return value
    case ast.BinOp(left, kind, right):
      return _OPERATORS[type(kind)](_evaluate(left), _evaluate(right))
    case ast.UnaryOp(kind, operand):
      return _OPERATORS[type(kind)](_evaluate(operand))
  raise ValueError(f"{type(node).__name__} is not arithmetic")


def _finite(value: object) -> float | None:
  number = float(value)
  return number if math.isfinite(number) else None


FUNCTIONS = {f.__name__: f for f in (verify, latex_value, expression_value)}


def main() -> None:
  """Serves calls until standard input is closed; a call that raises returns null."""
  # Libraries may print, which must not mix with the replies.
  replies, sys.stdout = sys.stdout, sys.stderr
  with contextlib.suppress(ValueError, OSError):  # Some systems have no such limit.
    resource.setrlimit(resource.RLIMIT_AS, (_MEMORY, _MEMORY))
  for line in sys.stdin:
    name, arguments, seconds = json.loads(line)
    # SIGALRM has no handler here, so it ends the process, even inside of a C extension.
    signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
      value = FUNCTIONS[name](*arguments)
    except Exception:  # Parsers and sympy raise errors of any type on text that is not mathematics.
      value = None
    signal.setitimer(signal.ITIMER_REAL, 0)
    print(json.dumps(value), file=replies, flush=True)


if __name__ == "__main__":
  main()
