"""The command line: `python -m sejax.main --config=FILE --workdir=DIR [--config.a.b=x]`.

`--mode=sample` takes `--image`, `--question` and `--judge` in place of `--workdir`, and
`--mode=compile` takes `--topology`. A run of several processes is started once in each, with
`--distributed`, or with `--coordinator`, `--num_processes` and `--process_id`.

Whatever cannot work is said in one line on standard error, with exit status 2, mostly before
anything is compiled. Memory that runs out and a lost process give 3, Ctrl-C before the first step
130, and what a reward function raises its traceback.
"""

import errno
import importlib
import pathlib
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
from sejax.config import overrides, renames, validation
from sejax.config import workdir as workdir_lib
from sejax.errors import quoted, shortened
from sejax.parallel import environment, processes
from sejax.parallel.lock import Lock
from sejax.text import terminal

# What the configuration's overrides are looked for in; `_parse` fills it. By default that would be
# read when this module is imported, where a missing --flagfile is a traceback.
_ARGUMENTS: list[str] = []
_CONFIG = config_flags.DEFINE_config_file(
  "config", None, "The run's configuration file.", sys_argv=_ARGUMENTS
)
_WORKDIR = flags.DEFINE_string("workdir", None, "Where the run writes what it makes.")

_IMAGE = flags.DEFINE_multi_string("image", [], "For --mode=sample: a picture; may be repeated.")
_QUESTION = flags.DEFINE_string("question", "", "For --mode=sample: what to ask about the picture.")
_JUDGE = flags.DEFINE_bool(
  "judge", False, "For --mode=sample: let the Judge read what was sampled."
)

_DISTRIBUTED = flags.DEFINE_bool(
  "distributed", False, "Join the processes that the environment tells of (TPU pods, SLURM, MPI)."
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

# The function `(config, workdir)` that runs each mode, imported when it is wanted. "compile" and
# "sample" write nothing and take flags of their own.
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
_FLAGS_OF = {"compile": (_TOPOLOGY, _PROGRAMS), "sample": (_IMAGE, _QUESTION, _JUDGE)}

# What a value must be, by what absl says of one that is not.
_KINDS = {
  "invalid literal for int": "a whole number",
  "could not convert string to float": "a number",
  "Non-boolean argument": "true or false",
  "as a ConfigDict": "set field by field, as in --config.model.path=DIR",
}
_MODE = flags.DEFINE_enum("mode", "train", sorted(_MODES), "What to do.")


def main(argv: Sequence[str] | None = None) -> int:
  """Parses flags, checks the configuration and runs the mode; returns the exit status."""
  environment.prepare()
  terminal.prepare()
  overrides.register()
  try:
    config = _parse(sys.argv if argv is None else argv)
    if _DISTRIBUTED.value or _COORDINATOR.value:
      processes.join(_COORDINATOR.value, _NUM_PROCESSES.value, _PROCESS_ID.value)
    validation.validate(config, reads_data=_MODE.value != "compile")
    config_lib.expand_paths(config)
    if _MODE.value == "compile":
      return 0 if _run(config, _TOPOLOGY.value, _PROGRAMS.value) else 1
    if _MODE.value == "sample":
      images = [workdir_lib.local_path("--image", image) for image in _IMAGE.value]
      _run(config, images, _QUESTION.value, judge=_JUDGE.value)
    else:
      workdir = workdir_lib.locate(_WORKDIR.value, checkpoints=_MODE.value in ("export", "train"))
      if _MODE.value not in ("export", "report"):  # which read what a run has made
        workdir_lib.make(workdir)
      if _MODE.value in ("inspect", "rewards"):
        config_lib.save_if_new(config, workdir)
      if _MODE.value == "evaluate":
        _evaluate(config, workdir)
      else:
        _run(config, workdir)
  except ValueError as error:
    print(f"sejax: {_one_line(error)}", file=sys.stderr)
    return 2
  except OSError as error:
    print(f"sejax: {_of_the_system(error)}", file=sys.stderr)
    return 2
  except KeyboardInterrupt:
    resumes = flags.FLAGS.is_parsed() and _MODE.value in ("evaluate", "train")
    goes_on = "; the same command goes on" if resumes else ""
    print(f"\nsejax: stopped by Ctrl-C{goes_on}", file=sys.stderr)
    return 130
  except MemoryError as error:
    return _out_of_memory(error)
  except jax.errors.JaxRuntimeError as error:
    if "RESOURCE_EXHAUSTED" in str(error):
      return _out_of_memory(error)
    if jax.process_count() == 1:
      raise
    traceback.print_exc()
    said = "this process cannot go on; perhaps another process is gone"
    print(f"sejax: {said}: {_one_line(error)[:200]}", file=sys.stderr)
    return 3
  return 0


def _guarded() -> int:
  """Runs `main`; whatever it raises ends this process, and with it all others of the run."""
  try:
    return main()
  except Exception:
    traceback.print_exc()
    return 1


def _evaluate(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
  """Evaluates on benchmarks; one process at a time writes to a workdir."""
  with Lock(workdir):
    if not config.eval.predictions:
      config_lib.require_same(config, workdir, evaluates=True)
    config_lib.save_if_new(config, workdir)
    _run(config, workdir)


def _run(*arguments: Any, **options: Any) -> Any:
  """Runs the mode; its module, which takes seconds to import, comes when all else is in order."""
  module, _, function = _MODES[_MODE.value].rpartition(".")
  return getattr(importlib.import_module(module), function)(*arguments, **options)


def _out_of_memory(error: BaseException) -> int:
  if jax.process_count() > 1:
    traceback.print_exception(error)
  said = _one_line(error)[:160]
  print(f"sejax: out of memory ({said}); {config_lib.LESS_MEMORY}", file=sys.stderr)
  return 3


def _of_the_system(error: OSError) -> str:
  """Says what the system refused, and of a full disk what to do."""
  if error.errno not in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG):
    return _short_words(error)
  where = error.filename or "the workdir or what the output goes to"
  goes_on = " the same command goes on" if _MODE.value in ("evaluate", "train") else " try again"
  return f"{where} cannot be written ({error.strerror}); make room, then{goes_on}"


def _parse(argv: Sequence[str]) -> ml_collections.ConfigDict:
  """Returns the configuration; whatever is wrong with the flags or its file is a ValueError."""
  path, argv = None, list(argv)
  for place, argument in enumerate(argv):
    name, equals, value = argument.lstrip("-").partition("=")
    if name == "config" and argument.startswith("-"):
      if not equals and place + 1 < len(argv):  # --config FILE
        place, value = place + 1, argv[place + 1]
      path = workdir_lib.local_path("--config", value)
      argv[place] = f"--config={path}" if equals else path
  no_file = "is no file; give a configuration such as configs/*.py"
  if path is not None and not pathlib.Path(path.partition(":")[0]).is_file():
    raise ValueError(f"--config={shortened(path)} {no_file}")
  _ARGUMENTS[:] = argv
  try:
    _forget_flags()
    rest = flags.FLAGS(argv)
    config = _CONFIG.value
  except (AttributeError, KeyError) as error:
    raise ValueError(_unknown_field(argv, str(error))) from None
  except Exception as error:  # a configuration file is a program and may raise anything
    raise ValueError(_cause(error)) from None
  if len(rest) > 1:
    raise ValueError(f"unexpected argument {quoted(rest[1])}; flags are written --name=value")
  needed = {"config": config}
  if _MODE.value == "compile":
    needed["topology"] = _TOPOLOGY.value
  elif _MODE.value != "sample":
    needed["workdir"] = _WORKDIR.value
  if not (_DISTRIBUTED.value or _COORDINATOR.value):
    for flag in (_NUM_PROCESSES, _PROCESS_ID):
      if flag.present:
        raise ValueError(f"--{flag.name} is given without --coordinator=HOST:PORT")
  for mode, own in _FLAGS_OF.items():
    for flag in own:
      if flag.present and _MODE.value != mode:
        raise ValueError(f"--{flag.name} is for --mode={mode}; the mode is {_MODE.value}")
  for name, value in needed.items():
    if value is None:
      raise ValueError(f"--{name} is missing; see --help")
  if type(config).__name__ == "_ErrorConfig":  # of a flag file that names a missing one
    raise ValueError(f"--config={shortened(flags.FLAGS['config'].config_filename)} {no_file}")
  if not isinstance(config, ml_collections.ConfigDict):
    raise ValueError(
      f"--config={shortened(path)} gives {type(config).__name__}, which is no"
      " ml_collections.ConfigDict"
    )
  return config


def _forget_flags() -> None:
  """Forgets what an earlier call in this process was given; each override became a flag."""
  for name in [name for name in flags.FLAGS if name.startswith("config.")]:
    delattr(flags.FLAGS, name)
  flags.FLAGS.unparse_flags()


def _unknown_field(argv: Sequence[str], message: str) -> str:
  """Names the override behind a complaint of ml_collections, which names the leaf only."""
  named = re.search(r"'(\w+)", message)
  for argument in argv:
    path = argument.lstrip("-").partition("=")[0]
    if named and named[1] in path.split("."):
      return f"--{shortened(path)} {renames.explain(path.removeprefix('config.'))}"
  return message


def _cause(error: Exception) -> str:
  """Says what is wrong with a flag or in the configuration file, where a traceback tells of it."""
  if isinstance(error, UnicodeDecodeError):
    return f"a file of flags or of the configuration is no UTF-8 text ({error})"
  if not isinstance(error, flags.Error):
    return f"{type(error).__name__}: {error}{renames.explain_import(str(error))}"
  head, trace, told = str(error).partition("Traceback (most recent call last):")
  if trace:
    file, line = re.findall(r'File "(.+?)", line (\d+)', told)[-1]
    last = told.strip().splitlines()[-1]
    flag = head.partition(": ")[0].removeprefix("flag ")
    # The configuration's own complaint says all; whatever else it raises is a fault at some line.
    own = last.startswith("ValueError: ")
    where = "" if own else f" ({file}:{line})"
    return f"{flag}: {last.removeprefix('ValueError: ')}{renames.explain_import(last)}{where}"
  if isinstance(error, flags.CantOpenFlagFileError):
    return f"--flagfile cannot be opened ({head.partition('flagfile: ')[2]})"
  for complaint, kind in _KINDS.items():
    if complaint in head:
      return f"{_short_words(head.partition(': ')[0].removeprefix('flag '))} must be {kind}"
  return _short_words(head)


def _short_words(message: object) -> str:
  """Returns what absl or the system says, whose quotes may be of any length, in a short line."""
  return " ".join(map(shortened, str(message).split()))


def _one_line(error: BaseException) -> str:
  return " ".join(str(error).split())


if __name__ == "__main__":
  app.define_help_flags()
  processes.leave(_guarded())
