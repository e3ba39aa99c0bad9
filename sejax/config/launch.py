"""Runs a mode of the command line, and turns what goes wrong into a line and an exit status."""

import errno
import importlib
import sys
import traceback
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

import jax
import ml_collections
from absl.flags import FLAGS

from sejax import config as config_lib
from sejax import storage
from sejax.config import arguments, overrides, validation
from sejax.config import workdir as workdir_lib
from sejax.errors import one_line
from sejax.flags import (
  COORDINATOR,
  DISTRIBUTED,
  IMAGE,
  JUDGE,
  MODE,
  MODES,
  NUM_PROCESSES,
  PROCESS_ID,
  PROGRAMS,
  PUSH,
  QUESTION,
  RUNS,
  TOPOLOGY,
  WARM,
  WORKDIR,
)
from sejax.parallel import environment, processes
from sejax.parallel.lock import Lock

_WARMS = "sejax.config.modes.warm"  # in place of that of "compile", with --warm


def launch(argv: Sequence[str]) -> int:
  """Parses flags, checks the configuration and runs the mode; returns the exit status.

  Args:
    argv: the name of the program, and its arguments.
  """
  environment.prepare()
  overrides.register()
  try:
    return _run_mode(arguments.parse(argv))
  except ValueError as error:
    return _refuse(one_line(error, longest=sys.maxsize))
  except OSError as error:
    return _refuse(_explain_system_error(error))
  except KeyboardInterrupt:
    resumes = FLAGS.is_parsed() and MODE.value in ("evaluate", "train")
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


def _run_mode(config: ml_collections.ConfigDict | None) -> int:
  """Checks the configuration and runs the mode; returns the exit status.

  Args:
    config: None where the mode needs none.

  Raises:
    ValueError: a flag or a field cannot work; the message names it.
  """
  if DISTRIBUTED.value or COORDINATOR.value:
    processes.join(COORDINATOR.value, NUM_PROCESSES.value, PROCESS_ID.value)
  mode = MODE.value
  if mode == "report":
    return _report()
  validation.validate(config, reads_data=mode != "compile")
  config_lib.expand_paths(config)
  if mode == "compile" and not WARM.value:
    return 0 if _call(config, TOPOLOGY.value, PROGRAMS.value) else 1
  if mode == "sample":
    images = [storage.expand("--image", image) for image in IMAGE.value]
    _call(config, images, QUESTION.value, judge=JUDGE.value)
    return 0
  workdir = workdir_lib.locate(WORKDIR.value, checkpoints=mode in ("export", "train"))
  if mode != "export":  # It only reads an existing run.
    workdir_lib.make(workdir)
  if mode in ("inspect", "rewards"):
    config_lib.save_if_new(config, workdir)
  if mode == "evaluate":
    _evaluate(config, workdir)
  elif mode == "export":
    _call(config, workdir, PUSH.value)
  else:
    return _call(config, workdir) or 0
  return 0


def exit_with(run: Callable[[], int]) -> NoReturn:
  """Exits this process with the status that a function returns, or 1 for any exception.

  With it end all other processes of the run, which would wait for this one.
  """
  try:
    status = run()
  except Exception as error:
    traceback.print_exc()
    processes.tell(f"{type(error).__name__}: {one_line(error)}, see its own console")
    status = 1
  processes.leave(status)


def _report() -> int:
  """Runs `--mode=report`, which reads the configurations that runs have saved."""
  workdir = workdir_lib.locate(WORKDIR.value, checkpoints=False)
  runs = [storage.Path(storage.expand("--runs", value)) for value in RUNS.value]
  if runs:
    workdir_lib.make(workdir)
  _call(workdir, runs)
  return 0


def _evaluate(config: ml_collections.ConfigDict, workdir: storage.Path) -> None:
  """Runs `--mode=evaluate`, which resumes an earlier evaluation in the same workdir."""
  with Lock(workdir):
    if not config.eval.predictions:
      config_lib.require_same(config, workdir, evaluates=True)
    config_lib.save_if_new(config, workdir)
    _call(config, workdir)


def _call(*given: Any, **options: Any) -> Any:
  """Imports and calls the mode's function.

  The imports take seconds, so they come after all checks of flags and configuration.
  """
  name = _WARMS if WARM.value else MODES[MODE.value].function
  module, _, function = name.rpartition(".")
  return getattr(importlib.import_module(module), function)(*given, **options)


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
    return arguments.shorten_words(error)
  where = error.filename or "the workdir or what the output goes to"
  resumes = MODE.value in ("evaluate", "train")
  advice = "rerun the same command to resume" if resumes else "try again"
  return f"{where} cannot be written ({error.strerror}); make room, then {advice}"
