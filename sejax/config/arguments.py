"""Parses the arguments of the command line: flags, and the configuration with its overrides."""

import re
import traceback
from collections.abc import Sequence
from typing import Any

import ml_collections
from absl import flags

from sejax import config as config_lib
from sejax import storage
from sejax.config import overrides, renames
from sejax.errors import one_line, quoted, shortened
from sejax.flags import (
  ARGUMENTS,
  CONFIG,
  COORDINATOR,
  DISTRIBUTED,
  MODE,
  MODES,
  NUM_PROCESSES,
  PROCESS_ID,
  PROGRAMS,
  TOPOLOGY,
  WARM,
  WORKDIR,
)

_FREE_SECTION = "rewards.options"

# What the value of a flag must be, by the type of the flag, for messages.
_KINDS = {
  "bool": "true or false",
  "float": "a number",
  "int": "a whole number",
  overrides.SECTION: "set field by field, as in --config.model.path=DIR",
}


def parse(argv: Sequence[str]) -> ml_collections.ConfigDict | None:
  """Parses the flags and returns the configuration with its overrides.

  Raises:
    ValueError: a flag or the configuration file is wrong.
  """
  path, argv = _with_local_config(argv)
  no_file = "is not a file; give a configuration such as configs/*.py"
  if path is not None and not storage.Path(path.partition(":")[0]).is_file():
    raise ValueError(f"--config={shortened(path)} {no_file}")
  _check_overrides(argv)
  ARGUMENTS[:] = argv
  try:
    _forget_flags()
    rest = flags.FLAGS(argv)
    config = CONFIG.value
  except Exception as error:  # A configuration file is a program and may raise anything.
    raise ValueError(_explain_parse_error(error, path)) from None
  if len(rest) > 1:
    raise ValueError(f"unexpected argument {quoted(rest[1])}; flags are written --name=value")
  _check_flags(config)
  if type(config).__name__ == "_ErrorConfig":  # A flag file names a missing file.
    raise ValueError(f"--config={shortened(flags.FLAGS['config'].config_filename)} {no_file}")
  if not isinstance(config, ml_collections.ConfigDict | None):
    raise ValueError(
      f"--config={shortened(path)} gives {type(config).__name__}, which is not"
      " an ml_collections.ConfigDict"
    )
  return config


def _with_local_config(argv: Sequence[str]) -> tuple[str | None, list[str]]:
  """Expands `~` in the path of `--config`.

  Returns:
    The path, None without `--config`; and the arguments with the expanded path.
  """
  path, argv = None, list(argv)
  for index, argument in enumerate(argv):
    name, equals, value = argument.lstrip("-").partition("=")
    if name == "config" and argument.startswith("-"):
      if not equals and index + 1 < len(argv):  # --config FILE
        index, value = index + 1, argv[index + 1]
      if storage.is_remote(value):
        raise ValueError(f"--config={shortened(value)} must be a file of this machine")
      path = storage.expand("--config", value)
      argv[index] = f"--config={path}" if equals else path
  return path, argv


def _check_overrides(argv: Sequence[str]) -> None:
  """Checks that every `--config.FIELD` exists; ml_collections would name only its last part."""
  # The options of a reward function are a section without fields: it has its own names for them.
  fields = [*config_lib.flatten(config_lib.default()), _FREE_SECTION]
  for argument in argv:
    if given := re.match(r"--?(?:no)?config\.([^=]+)", argument):
      name = given[1]
      if name.startswith(f"{_FREE_SECTION}."):
        continue
      if name not in fields and not any(field.startswith(f"{name}.") for field in fields):
        raise ValueError(f"--config.{shortened(name)} {renames.explain(name)}")


def _check_flags(config: Any) -> None:
  """Checks that no flag is missing, and that none is given that the mode does not read."""
  if not (DISTRIBUTED.value or COORDINATOR.value):
    for flag in (NUM_PROCESSES, PROCESS_ID):
      if flag.present:
        raise ValueError(f"--{flag.name} is given without --coordinator=HOST:PORT")
  for name, mode in MODES.items():
    for flag in mode.own_flags:
      if flag.present and MODE.value != name:
        raise ValueError(f"--{flag.name} is for --mode={name}; the mode is {MODE.value}")
  required = {} if MODE.value == "report" else {"config": config}
  for flag in (TOPOLOGY, PROGRAMS):
    if flag.present and WARM.value:
      raise ValueError(f"--{flag.name} does not go with --warm, which compiles what is run here")
  if MODE.value == "compile" and not WARM.value:
    required["topology"] = TOPOLOGY.value
  elif MODE.value != "sample":
    required["workdir"] = WORKDIR.value
  for name, value in required.items():
    if value is None:
      raise ValueError(f"--{name} is missing; see --help")


def _forget_flags() -> None:
  """Resets the flags of an earlier call in this process, in which each override became a flag."""
  for name in [name for name in flags.FLAGS if name.startswith("config.")]:
    delattr(flags.FLAGS, name)
  flags.FLAGS.unparse_flags()


def _explain_parse_error(error: Exception, path: str | None) -> str:
  """Returns a message about a wrong flag or an error in the configuration file.

  Args:
    error: raised by absl, with the parser's error as its context; or by the configuration file.
    path: configuration file; None if a flag file names it.
  """
  if isinstance(error, UnicodeDecodeError):
    return f"a file of flags or of the configuration is not UTF-8 text ({error})"
  unknown = [name for name in ARGUMENTS if name.startswith(f"--config.{_FREE_SECTION}.")]
  if isinstance(error, AttributeError) and unknown:
    return (
      f"{shortened(unknown[-1])} is no option in {shortened(path)}; give all of them at once, as in"
      f" --config.{_FREE_SECTION}=\"{{'power': 0.5}}\""
    )
  if not isinstance(error, flags.Error | ValueError):
    return _explain_file_error(error, path)
  flag = re.match(r"flag --([\w.]+)=", str(error))
  if isinstance(error, flags.IllegalFlagValueError) and flag:
    if flag[1] == "config":
      # ml_collections re-raises a TypeError or ValueError with a traceback as its message.
      raised = error.__context__
      return _explain_file_error(raised.__context__ or raised, path)
    kind = _KINDS.get(flags.FLAGS[flag[1]].flag_type())
    given = str(error).removeprefix("flag ").removesuffix(f": {error.__context__}")
    if kind:
      return f"{shorten_words(given)} must be {kind}"
  if isinstance(error, flags.CantOpenFlagFileError):
    return f"--flagfile cannot be opened ({str(error).partition('flagfile: ')[2]})"
  return shorten_words(error)


def _explain_file_error(error: BaseException, path: str | None) -> str:
  """Returns a message about an error in the configuration file.

  It is the file's own message for a ValueError, and else the error with its line.
  """
  file = f"--config={shortened(path)}" if path else "the configuration"
  if isinstance(error, ValueError):
    return f"{file}: {error}"
  raised = f"{type(error).__name__}: {one_line(error, 150)}"
  hint = renames.explain_import(raised)
  if isinstance(error, SyntaxError):  # Its message contains the line.
    return f"{file}: {raised}{hint}"
  frames = traceback.extract_tb(error.__traceback__)
  own = [frame for frame in frames if path and frame.filename == path.partition(":")[0]]
  frame = own[-1] if own else frames[-1]
  return f"{file}: {raised}{hint} ({frame.filename}:{frame.lineno})"


def shorten_words(message: object) -> str:
  """Returns a message in one line with each word shortened, as it may quote long values."""
  return " ".join(map(shortened, str(message).split()))
