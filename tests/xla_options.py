"""Options of XLA that make the tests cheaper, as far as the installed XLA knows them."""

import jax


def is_known(name: str, value: int | bool) -> bool:
  """Whether XLA takes the option; it refuses to compile, or to start, with one it does not know."""
  try:
    jax.jit(lambda: 0, compiler_options={name: value}).lower().compile()
  except jax.errors.JaxRuntimeError as error:
    if "No such compile option" not in str(error):
      raise
    return False
  return True


def environment_flags(**options: int | bool) -> str:
  """Returns `XLA_FLAGS` of the options that are known, for another process."""
  known = {name: value for name, value in options.items() if is_known(name, value)}
  return " ".join(f"--{name}={str(value).lower()}" for name, value in known.items())


if __name__ == "__main__":
  # Loops come from XLA's older emitters, which are quicker, and which newer versions do not have.
  print(environment_flags(xla_cpu_use_fusion_emitters=False))
