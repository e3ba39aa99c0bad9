"""Options of XLA that make the tests cheaper, as far as the installed XLA knows them."""

import functools

import jax

_jit = jax.jit  # before a test puts another in its place
# Programs of the tests run once on a few numbers, so compiling them is the cost, and how fast they
# run is none: LLVM does not optimize, and loops come from XLA's older, quicker emitters, which
# newer versions no longer have.
_CHEAP_TO_COMPILE = {
  "xla_backend_optimization_level": 0,
  "xla_cpu_use_fusion_emitters": False,
}


@functools.cache
def is_known(name: str, value: int | bool) -> bool:
  """Whether XLA takes the option; it refuses to compile, or to start, with one it does not know."""
  try:
    _jit(lambda: 0, compiler_options={name: value}).lower().compile()
  except jax.errors.JaxRuntimeError as error:
    if "No such compile option" not in str(error):
      raise
    return False
  return True


def cheap_to_compile() -> dict[str, int | bool]:
  """Returns `compiler_options` for `jax.jit` that compile quickly."""
  return {name: value for name, value in _CHEAP_TO_COMPILE.items() if is_known(name, value)}


def environment_flags(**options: int | bool) -> str:
  """Returns `XLA_FLAGS` of the options that are known, for another process."""
  known = {name: value for name, value in options.items() if is_known(name, value)}
  return " ".join(f"--{name}={str(value).lower()}" for name, value in known.items())
