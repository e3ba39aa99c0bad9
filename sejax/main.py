"""The command line: `python -m sejax.main --config=FILE --workdir=DIR [--config.a.b=x]`.

`--mode=sample` takes `--image`, `--question` and `--judge` instead of `--workdir`, and
`--mode=compile` takes `--topology`, or `--warm` with `--workdir`. With several processes, start the
same command in each, with `--distributed`, or with `--coordinator`, `--num_processes` and
`--process_id`.

Exit statuses:

- 0: success;
- 1: an unexpected error, with its traceback, also of a reward function; or, of `--mode=compile`, a
  program that does not fit into memory;
- 2: invalid input or a system error, with one line on standard error and mostly before anything is
  compiled;
- 3: out of memory, or another process of the run was lost;
- 130: Ctrl-C before the first step;
- 143, 129: SIGTERM or SIGHUP, after which a run saved its step before its last; the same command
  resumes it.
"""

import errno
import importlib
import re
import sys
import traceback
from collections.abc import Sequence
from typing import Any

import jax
import ml_collections
from absl import app, flags
from ml_collections import config_flags

from sejax import config as config_lib
from sejax import storage
from sejax.config import overrides, renames, validation
from sejax.config import workdir as workdir_lib
from sejax.errors import one_line, quoted, shortened
from sejax.parallel import environment, processes
from sejax.parallel.lock import Lock
from sejax.text import terminal

# The arguments in which ml_collections looks for overrides; `_parse` fills it. By default,
# ml_collections reads them when this module is imported, and a missing --flagfile is a traceback.
_ARGUMENTS: list[str] = []
_CONFIG = config_flags.DEFINE_config_file(
  "config", None, "The run's configuration file.", sys_argv=_ARGUMENTS
)
_WORKDIR = flags.DEFINE_string(
  "workdir", None, "Directory for checkpoints, logs and the exported model."
)

_IMAGE = flags.DEFINE_multi_string("image", [], "For --mode=sample: a picture; may be repeated.")
_QUESTION = flags.DEFINE_string("question", "", "For --mode=sample: what to ask about the picture.")
_JUDGE = flags.DEFINE_bool(
  "judge", False, "For --mode=sample: let the Judge read what was sampled."
)

_DISTRIBUTED = flags.DEFINE_bool(
  "distributed", False, "Join the processes described by the environment (TPU pods, SLURM, MPI)."
)
_COORDINATOR = flags.DEFINE_string("coordinator", None, "Of several processes: HOST:PORT of one.")
_NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "How many processes there are.")
_PROCESS_ID = flags.DEFINE_integer("process_id", None, "Which of them this is, from 0.")

_TOPOLOGY = flags.DEFINE_string(
  "topology",
  None,
  "For --mode=compile: TPUs by generation and shape, or GPUs of a node: v5e:8x8, h100:8.",
)
_PROGRAMS = flags.DEFINE_list(
  "programs", [], "For --mode=compile: only programs with one of these in their name."
)

_WARM = flags.DEFINE_bool(
  "warm",
  False,
  "For --mode=compile: compile for the devices that are here, and keep the programs in --workdir.",
)
_PUSH = flags.DEFINE_string(
  "push",
  None,
  "For --mode=export: upload the model to the Hugging Face hub as ORGANISATION/NAME.",
)

# The function `(config, workdir)` of each mode, imported only when it is called. Those of "compile"
# and "sample" have no workdir and take their own flags.
_MODES = {
  "compile": "sejax.config.modes.plan",
  "evaluate": "sejax.config.modes.evaluate",
  "export": "sejax.train.export",
  "inspect": "sejax.config.modes.inspect",
  "report": "sejax.config.modes.report",
  "rewards": "sejax.config.modes.reward",
  "sample": "sejax.config.modes.sample",
  "train": "sejax.train.run",
}
_MODE = flags.DEFINE_enum("mode", "train", sorted(_MODES), "Mode to run.")
_WARMS = "sejax.config.modes.warm"  # in place of that of "compile", with --warm
_FLAGS_OF = {
  "compile": (_TOPOLOGY, _PROGRAMS, _WARM),
  "export": (_PUSH,),
  "sample": (_IMAGE, _QUESTION, _JUDGE),
}

_FREE_SECTION = "rewards.options"

# What the value of a flag must be, by the type of the flag, for messages.
_KINDS = {
  "bool": "true or false",
  "float": "a number",
  "int": "a whole number",
  overrides.SECTION: "set field by field, as in --config.model.path=DIR",
}


def main(argv: Sequence[str] | None = None) -> int:
  """Parses flags, checks the configuration and runs the mode; returns the exit status."""
  environment.prepare()
  terminal.prepare()
  overrides.register()
  try:
    return _run_mode(_parse(sys.argv if argv is None else argv))
  except ValueError as error:
    return _refuse(one_line(error, longest=sys.maxsize))
  except OSError as error:
    return _refuse(_explain_system_error(error))
  except KeyboardInterrupt:
    resumes = flags.FLAGS.is_parsed() and _MODE.value in ("evaluate", "train")
    hint = "; rerun the same command to resume" if resumes else ""
    print(f"\nsejax: stopped by Ctrl-C{hint}", file=sys.stderr)
    return 130
  except MemoryError as error:
    return _report_out_of_memory(error)
  except jax.errors.JaxRuntimeError as error:
    if "RESOURCE_EXHAUSTED" in str(error):
      return _report_out_of_memory(error)
    if jax.process_count() == 1:
      raise
    traceback.print_exc()
    processes.show_last_words()
    lost = "this process cannot go on; perhaps another process is gone"
    print(f"sejax: {lost}: {one_line(error)}", file=sys.stderr)
    return 3


def _refuse(message: str) -> int:
  """Prints why the run cannot begin or go on; returns the exit status."""
  print(f"sejax: {message}", file=sys.stderr)
  processes.tell(message)
  return 2


def _run_mode(config: ml_collections.ConfigDict) -> int:
  """Checks the configuration and runs the mode; returns the exit status.

  Raises:
    ValueError: a flag or a field cannot work; the message names it.
  """
  if _DISTRIBUTED.value or _COORDINATOR.value:
    processes.join(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
  mode = _MODE.value
  validation.validate(config, reads_data=mode != "compile")
  config_lib.expand_paths(config)
  if mode == "compile" and not _WARM.value:
    return 0 if _call(config, _TOPOLOGY.value, _PROGRAMS.value) else 1
  if mode == "sample":
    images = [storage.expand("--image", image) for image in _IMAGE.value]
    _call(config, images, _QUESTION.value, judge=_JUDGE.value)
    return 0
  workdir = workdir_lib.locate(_WORKDIR.value, checkpoints=mode in ("export", "train"))
  if mode not in ("export", "report"):  # These only read an existing run.
    workdir_lib.make(workdir)
  if mode in ("inspect", "rewards"):
    config_lib.save_if_new(config, workdir)
  if mode == "evaluate":
    _evaluate(config, workdir)
  elif mode == "export":
    _call(config, workdir, _PUSH.value)
  else:
    return _call(config, workdir) or 0
  return 0


def _guarded() -> int:
  """Runs `main` and turns any exception into exit status 1.

  `processes.leave` can then end this process, and with it all other processes of the run.
  """
  try:
    return main()
  except Exception as error:
    traceback.print_exc()
    processes.tell(f"{type(error).__name__}: {one_line(error)}, see its own console")
    return 1


def _evaluate(config: ml_collections.ConfigDict, workdir: storage.Path) -> None:
  """Runs `--mode=evaluate`, which resumes an earlier evaluation in the same workdir."""
  with Lock(workdir):
    if not config.eval.predictions:
      config_lib.require_same(config, workdir, evaluates=True)
    config_lib.save_if_new(config, workdir)
    _call(config, workdir)


def _call(*arguments: Any, **options: Any) -> Any:
  """Imports and calls the mode's function.

  The imports take seconds, so they come after all checks of flags and configuration.
  """
  module, _, function = (_WARMS if _WARM.value else _MODES[_MODE.value]).rpartition(".")
  return getattr(importlib.import_module(module), function)(*arguments, **options)


def _report_out_of_memory(error: BaseException) -> int:
  """Prints what to do about memory; returns the exit status."""
  if jax.process_count() > 1:
    traceback.print_exception(error)
  message = f"out of memory ({one_line(error)}); {config_lib.LESS_MEMORY}"
  print(f"sejax: {message}", file=sys.stderr)
  processes.tell(message)
  return 3


def _explain_system_error(error: OSError) -> str:
  """Returns a one-line message, which says what to do if the disk is full."""
  if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
    return _shorten_words(error)
  where = error.filename or "the workdir or what the output goes to"
  resumes = _MODE.value in ("evaluate", "train")
  advice = "rerun the same command to resume" if resumes else "try again"
  return f"{where} cannot be written ({error.strerror}); make room, then {advice}"


def _parse(argv: Sequence[str]) -> ml_collections.ConfigDict:
  """Parses the flags and returns the configuration with its overrides.

  Raises:
    ValueError: a flag or the configuration file is wrong.
  """
  path, argv = _with_local_config(argv)
  no_file = "is not a file; give a configuration such as configs/*.py"
  if path is not None and not storage.Path(path.partition(":")[0]).is_file():
    raise ValueError(f"--config={shortened(path)} {no_file}")
  _check_overrides(argv)
  _ARGUMENTS[:] = argv
  try:
    _forget_flags()
    rest = flags.FLAGS(argv)
    config = _CONFIG.value
  except Exception as error:  # A configuration file is a program and may raise anything.
    raise ValueError(_explain_parse_error(error, path)) from None
  if len(rest) > 1:
    raise ValueError(f"unexpected argument {quoted(rest[1])}; flags are written --name=value")
  _check_flags(config)
  if type(config).__name__ == "_ErrorConfig":  # A flag file names a missing file.
    raise ValueError(f"--config={shortened(flags.FLAGS['config'].config_filename)} {no_file}")
  if not isinstance(config, ml_collections.ConfigDict):
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
  if not (_DISTRIBUTED.value or _COORDINATOR.value):
    for flag in (_NUM_PROCESSES, _PROCESS_ID):
      if flag.present:
        raise ValueError(f"--{flag.name} is given without --coordinator=HOST:PORT")
  for mode, own in _FLAGS_OF.items():
    for flag in own:
      if flag.present and _MODE.value != mode:
        raise ValueError(f"--{flag.name} is for --mode={mode}; the mode is {_MODE.value}")
  required = {"config": config}
  for flag in (_TOPOLOGY, _PROGRAMS):
    if flag.present and _WARM.value:
      raise ValueError(f"--{flag.name} does not go with --warm, which compiles what is run here")
  if _MODE.value == "compile" and not _WARM.value:
    required["topology"] = _TOPOLOGY.value
  elif _MODE.value != "sample":
    required["workdir"] = _WORKDIR.value
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
  unknown = [name for name in _ARGUMENTS if name.startswith(f"--config.{_FREE_SECTION}.")]
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
      return f"{_shorten_words(given)} must be {kind}"
  if isinstance(error, flags.CantOpenFlagFileError):
    return f"--flagfile cannot be opened ({str(error).partition('flagfile: ')[2]})"
  return _shorten_words(error)


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


def _shorten_words(message: object) -> str:
  """Returns a message in one line with each word shortened, as it may quote long values."""
  return " ".join(map(shortened, str(message).split()))


if __name__ == "__main__":
  app.define_help_flags()
  processes.leave(_guarded())
