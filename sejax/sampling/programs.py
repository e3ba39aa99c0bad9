"""Cache of compiled programs that counts and times every compilation.

`jax.jit` compiles silently whenever a shape or a sharding changes. Here a program is compiled ahead
of time, so that the sampler can report how many there are and how long they took.
"""

import functools
import time
from collections.abc import Callable, Hashable
from typing import Any

import jax


class Programs:
  """Compiles each function once for every combination of argument shapes and static values.

  A compiled program raises an error for arguments with other shardings than those it was compiled
  for, where `jax.jit` would compile again.

  Attributes:
    count: programs compiled so far.
    seconds: time spent on compiling them.
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
    """Calls `function(*args, **static)` as a compiled program.

    Args:
      function: a pure function of arrays; the same object in every call.
      *args: pytrees of arrays.
      donate: positions in `args` whose buffers the results may reuse.
      out_shardings: shardings of the results, as for `jax.jit`.
      **static: values that are compiled into the program.
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
