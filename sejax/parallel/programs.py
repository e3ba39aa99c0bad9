"""Programs: functions with all that their compilation depends on, declared once.

A run calls a program, and planning lowers the same program for hardware that is absent, so that
the two cannot differ.
"""

import dataclasses
import functools
import math
import os
import time
from collections.abc import Callable, Hashable
from concurrent import futures
from typing import Any, NamedTuple, Self

import jax
from jax.sharding import Mesh

from sejax import storage


@dataclasses.dataclass(frozen=True)
class Program:
  """A pure function of arrays, compiled once for each combination of argument shapes.

  Attributes:
    function: part of the program's identity, so equal programs must hold the same object.
    donate: positions of the arguments whose buffers the results may reuse.
    out_shardings: shardings of the results, as for `jax.jit`; not part of equality, since the
      function, its static values and its arguments decide them.
    static: keyword arguments that are compiled into the program.
  """

  function: Callable
  donate: tuple[int, ...] = ()
  out_shardings: Any = dataclasses.field(default=None, compare=False)
  static: tuple[tuple[str, Hashable], ...] = ()

  @classmethod
  def of(
    cls,
    function: Callable,
    *,
    donate: tuple[int, ...] = (),
    out_shardings: Any = None,
    **static: Hashable,
  ) -> Self:
    """Returns the program of a function, with the keyword arguments compiled in."""
    return cls(function, donate, out_shardings, tuple(sorted(static.items())))

  def __call__(self, *args: Any) -> Any:
    """Calls the function as `jax.jit` does: compiled for new shapes, layouts and precisions.

    Args:
      *args: pytrees of arrays.
    """
    return self._jitted(*args)

  def lower(self, *args: Any) -> jax.stages.Lowered:
    """Traces the program, without compiling it.

    Args:
      *args: pytrees of arrays, or of `jax.ShapeDtypeStruct` with a sharding.
    """
    return self._jitted.lower(*args)

  def eval_shape(self, *args: Any) -> Any:
    """Returns the results as `jax.ShapeDtypeStruct`, with the shardings that are declared."""
    shapes = jax.eval_shape(functools.partial(self.function, **dict(self.static)), *args)
    return shapes if self.out_shardings is None else with_shardings(shapes, self.out_shardings)

  @functools.cached_property
  def _jitted(self) -> Callable:
    return jax.jit(
      functools.partial(self.function, **dict(self.static)),
      donate_argnums=self.donate,
      out_shardings=self.out_shardings,
    )


def rounded_up(n: int, steps: int) -> int:
  """Rounds a size up to one of `steps` between each two powers of two; small sizes stay.

  Every shape compiles a program, so there are few of them.
  """
  unit = 1 << max((n - 1).bit_length() - 1 - (steps.bit_length() - 1), 0)
  return -(-n // unit) * unit


class ProgramCache:
  """Compiles programs ahead of time, and counts and times their compilation.

  `jax.jit` compiles silently whenever a shape or a sharding changes. A program compiled here raises
  an error for arguments with other shardings than those of its first call.

  Attributes:
    ahead: compiles programs for later calls.
    seconds: time that calls waited for compilation.
  """

  def __init__(self, threads: int = 0):
    """Compiles nothing yet.

    Args:
      threads: of `ahead`.
    """
    self.ahead, self.seconds = BackgroundCompiler(threads), 0.0
    self._compiled: dict[Hashable, jax.stages.Compiled] = {}

  @property
  def count(self) -> int:
    """Programs called or added so far."""
    return len(self._compiled)

  def call(self, program: Program, *args: Any) -> Any:
    """Calls the program, after compiling it if the shapes are new.

    Args:
      *args: pytrees of arrays.
    """
    return self.add(program, *args)(*args)

  def add(self, program: Program, *args: Any) -> jax.stages.Compiled:
    """Returns the compiled program, after compiling it if the shapes are new.

    Args:
      *args: pytrees of arrays, or of `jax.ShapeDtypeStruct` with a sharding.
    """
    key = _key(program, args)
    if key not in self._compiled:
      start = time.perf_counter()
      self._compiled[key] = self.ahead.take(program, *args) or _compile(program, args)
      self.seconds += time.perf_counter() - start
    return self._compiled[key]

  def guess(self, program: Program, *args: Any) -> None:
    """Compiles a program that may be called later in a thread, unless all threads are busy.

    Args:
      *args: pytrees of arrays, or of `jax.ShapeDtypeStruct` with a sharding.
    """
    if self.ahead.is_free and _key(program, args) not in self._compiled:
      self.ahead.submit(program, *args)


def compile_threads(asked: int | None, mesh: Mesh, *, guesses: bool = False) -> int:
  """Returns how many threads may compile in advance.

  Where several processes use GPUs there are none: they share the work of choosing kernels, so that
  a program which only one of them compiles would wait for the others forever.

  Args:
    asked: number that the user gave; None is half as many as there are cores.
    guesses: whether some of the programs are never called; then None is 0 on CPUs, whose cores are
      the devices.
  """
  platform = mesh.devices.flat[0].platform
  if platform == "gpu" and jax.process_count() > 1:
    return 0
  if asked is not None:
    return asked
  return 0 if guesses and platform == "cpu" else max((os.cpu_count() or 1) // 2, 1)


class BackgroundCompiler:
  """Compiles programs in threads, for calls that come later.

  `jax.jit` finds what was compiled here, for arguments of the same shapes and shardings.

  Attributes:
    threads: 0 compiles nothing.
  """

  def __init__(self, threads: int):
    """Starts no thread yet.

    Args:
      threads: 0 compiles nothing.
    """
    self.threads = threads
    self._pool = futures.ThreadPoolExecutor(threads) if threads else None
    self._submitted: dict[Hashable, futures.Future[jax.stages.Compiled]] = {}
    self._runs: dict[Hashable, futures.Future[None]] = {}

  @property
  def is_free(self) -> bool:
    """Whether a thread has nothing to compile."""
    return sum(not compiling.done() for compiling in self._submitted.values()) < self.threads

  def submit(self, program: Program, *args: Any) -> None:
    """Compiles a program when a thread is free; does nothing if it was submitted before.

    Args:
      *args: pytrees of arrays, or of `jax.ShapeDtypeStruct` with a sharding.
    """
    key = _key(program, args)
    if self._pool is None or key in self._submitted:
      return
    self._submitted[key] = self._pool.submit(_compile, program, shapes_of(args))

  def take(self, program: Program, *args: Any) -> jax.stages.Compiled | None:
    """Returns a submitted program, waiting for its compilation; None if no thread has begun it."""
    compiling = self._submitted.pop(_key(program, args), None)
    return None if compiling is None or compiling.cancel() else compiling.result()

  def run(self, key: Hashable, submit: Callable[[], None]) -> None:
    """Runs a function that submits programs in a thread, as tracing their shapes takes time, too.

    Args:
      key: identifies what it submits; does nothing for a key that was given before.
    """
    if self._pool is not None and key not in self._runs:
      self._runs[key] = self._pool.submit(submit)

  def wait(self) -> None:
    """Waits until all programs are compiled. Errors are left to their calls, which raise them."""
    futures.wait(self._runs.values())
    futures.wait(list(self._submitted.values()))

  def close(self) -> None:
    """Drops programs that no thread has begun: an exiting interpreter would wait for them."""
    if self._pool is not None:
      self._pool.shutdown(wait=False, cancel_futures=True)


def _key(program: Program, args: tuple[Any, ...]) -> Hashable:
  leaves, treedef = jax.tree.flatten(args)
  return program, treedef, tuple((x.shape, x.dtype) for x in leaves)


def _compile(program: Program, args: tuple[Any, ...]) -> jax.stages.Compiled:
  return program.lower(*args).compile()


def keep_programs(workdir: storage.Path) -> None:
  """Lets jax keep all compiled programs in a workdir, for restarts and for copies of the folder."""
  jax.config.update("jax_compilation_cache_dir", os.fspath(workdir / "compilation_cache"))
  jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
  # With these, the folder's path is in the key of every program, and a copy of it is of no use.
  jax.config.update("jax_persistent_cache_enable_xla_caches", "none")


class ProgramCall(NamedTuple):
  """A call of a program with the shapes of its arguments, to compile it and to count its memory.

  Arrays are `jax.ShapeDtypeStruct` with a sharding. An array that occurs in several places must be
  one object, whose bytes are counted once.

  Attributes:
    name: what it does, for reports.
    program: what is called.
    args: its arguments.
    alive: trees of arrays that are on the devices when the call starts, perhaps arguments too.
    trips: how often its outermost loops run at most, if the data decides when they end. Reports
      then give the cost of one trip, with its share of what is outside of the loop.
  """

  name: str
  program: Program
  args: tuple[Any, ...]
  alive: tuple[Any, ...] = ()
  trips: int = 1

  @property
  def alive_bytes(self) -> int:
    """Bytes on each device when the call starts, its arguments among them."""
    return bytes_per_device((self.args, self.alive))


def bytes_per_device(tree: Any) -> int:
  """Returns the bytes that arrays, as `jax.ShapeDtypeStruct`, take on each device.

  The same object counts once.
  """
  arrays = {id(x): x for x in jax.tree.leaves(tree)}
  return sum(math.prod(x.sharding.shard_shape(x.shape)) * x.dtype.itemsize for x in arrays.values())


def shapes_of(tree: Any) -> Any:
  """Returns arrays as `jax.ShapeDtypeStruct` with their shardings; donated ones will do."""
  return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=x.sharding), tree)


def with_shardings(shapes: Any, shardings: Any) -> Any:
  """Returns a tree of `jax.ShapeDtypeStruct` with shardings: one for all, or a tree of the same."""
  if isinstance(shardings, jax.sharding.Sharding):
    shardings = jax.tree.map(lambda _: shardings, shapes)
  return jax.tree.map(
    lambda x, sharding: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding),
    shapes,
    shardings,
  )
