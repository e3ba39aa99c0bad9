"""Programs that are compiled before they are called."""

import threading

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from sejax.parallel import programs
from sejax.parallel.programs import Program, ProgramCache
from sejax.sampling import Filters, Options, Role, decode

pytestmark = pytest.mark.long


def double(x):
  return 2 * x


@pytest.fixture
def compiled_by(monkeypatch):
  """The threads that compiled something, in order."""
  threads, compiles = [], programs._compile

  def compile_here(*args):
    threads.append(threading.get_ident())
    return compiles(*args)

  monkeypatch.setattr(programs, "_compile", compile_here)
  return threads


def test_what_is_guessed_is_compiled_once_and_by_another_thread(compiled_by):
  program, cache = Program.of(double), ProgramCache(threads=1)
  device = jax.sharding.SingleDeviceSharding(jax.local_devices()[0])
  cache.guess(program, jax.ShapeDtypeStruct((3,), jnp.float32, sharding=device))
  assert cache.count == 0
  for _ in range(2):
    assert cache.call(program, jnp.ones(3)).tolist() == [2, 2, 2]
    cache.guess(program, jnp.ones(3))
  assert cache.count == 1
  assert len(compiled_by) == 1
  assert compiled_by[0] != threading.get_ident()


def test_nothing_is_guessed_without_a_free_thread(compiled_by, monkeypatch):
  go_on, compiles = threading.Event(), programs._compile

  def wait(*args):
    go_on.wait()
    return compiles(*args)

  program, cache = Program.of(double), ProgramCache(threads=1)
  monkeypatch.setattr(programs, "_compile", wait)
  cache.guess(program, jnp.ones(3))
  cache.guess(program, jnp.ones(4))
  go_on.set()
  assert cache.call(program, jnp.ones(4)).tolist() == [2, 2, 2, 2]
  assert cache.call(program, jnp.ones(3)).tolist() == [2, 2, 2]
  assert len(compiled_by) == 2
  assert compiled_by.count(threading.get_ident()) == 1
  without = ProgramCache()
  without.guess(program, jnp.ones(3))
  assert len(compiled_by) == 2


class Waiting(ProgramCache):
  """Waits for what is prepared, so that a test does not depend on time."""

  def __init__(self):
    super().__init__(threads=1)
    self.decoded, self.prepared = [], []

  def call(self, program, *args):
    if program.function is decode.decode_tokens:
      self.decoded.append(sizes(args))
    return super().call(program, *args)

  def guess(self, program, *args):
    super().guess(program, *args)
    for prepared in self.ahead._submitted.values():
      prepared.result()
    self.prepared.append(sizes(args))


def sizes(args):
  table = args[-1].table
  return table.prompt.shape, table.row_of_page.shape, table.row_of_member.shape


def test_decode_programs_are_forecast(tiny):
  """Shapes and shardings that are prepared are those that are called, or the call would fail."""
  options = Options(2, 8, Filters(), page_size=2, decode_steps=2, compile_threads=0)
  request = tiny.request(limits=np.array([[8, 2], [5, 3], [4, 4], [1, 0]]))
  ahead, plain = tiny.sampler(options), tiny.sampler(options)
  # Neither finds what other tests compiled, which would not be counted.
  ahead.compiled, plain.compiled = Waiting(), ProgramCache()
  found, expected = (
    sampler(tiny.params, request, seed=0, step=0, role=Role.ACTOR) for sampler in (ahead, plain)
  )
  np.testing.assert_array_equal(found.tokens, expected.tokens)
  np.testing.assert_array_equal(found.logp, expected.logp)
  assert found.stats.programs == expected.stats.programs
  # The first run is known to nobody; of the others most were forecast, one run before.
  later = set(ahead.compiled.decoded[1:]) - {ahead.compiled.decoded[0]}
  assert len(later & set(ahead.compiled.prepared)) / len(later) >= 0.5
