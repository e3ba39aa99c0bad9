"""Compiled programs, one for each function and shapes: counted, timed, and never made in secret."""

import functools
import time
from collections.abc import Callable, Hashable
from typing import Any

import jax


class Programs:
  """Compiles functions as they are first called with arguments of some shapes.

  A program refuses arguments laid out otherwise than its first ones, where `jax.jit` would quietly
  compile again.

  Attributes:
    count: programs compiled so far.
    seconds: what compiling them took.
  """

  def __init__(self):
    self._compiled: dict[Hashable, Callable] = {}
    self.seconds = 0.0

  @property
  def count(self) -> int:
    """Programs compiled so far."""
    return len(self._compiled)

  def __call__(
    self,
    function: Callable,
    *args: Any,
    donate: tuple[int, ...] = (),
    out_shardings: Any = None,
    **static: Hashable,
  ) -> Any:
    """Calls `function(*args, **static)`, compiled.

    Args:
      function: of arrays; pure.
      *args: trees of arrays.
      donate: positions of those that may be overwritten.
      out_shardings: where the results lie.
      **static: what the program is made for.
    """
    leaves, treedef = jax.tree.flatten(args)
    shapes = tuple((x.shape, x.dtype) for x in leaves)
    key = (function, treedef, shapes, tuple(sorted(static.items(), key=lambda item: item[0])))
    if key not in self._compiled:
      start = time.perf_counter()
      jitted = jax.jit(
        functools.partial(function, **static), donate_argnums=donate, out_shardings=out_shardings
      )
      self._compiled[key] = jitted.lower(*args).compile()
      self.seconds += time.perf_counter() - start
    return self._compiled[key](*args)
