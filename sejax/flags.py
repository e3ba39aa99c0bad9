"""The flags of the command line, its modes, and what `--help` says of them.

Light to import: help is shown before jax is imported, which takes a second.
"""

import re
import textwrap
from collections.abc import Sequence
from typing import NamedTuple

from absl import flags
from ml_collections import config_flags

# The arguments in which ml_collections looks for overrides; `config.arguments.parse` fills it. By
# default, ml_collections reads them when this module is imported, and a missing --flagfile is a
# traceback.
ARGUMENTS: list[str] = []
CONFIG = config_flags.DEFINE_config_file(
  "config", None, "The configuration, a Python file: configs/*.py.", sys_argv=ARGUMENTS
)
WORKDIR = flags.DEFINE_string(
  "workdir", None, "Folder for checkpoints, logs, the report and the trained model."
)

IMAGE = flags.DEFINE_multi_string("image", [], "A picture; may be given several times.")
QUESTION = flags.DEFINE_string("question", "", "What to ask about the picture.")
JUDGE = flags.DEFINE_bool("judge", False, "Let the Judge read what was sampled.")

DISTRIBUTED = flags.DEFINE_bool(
  "distributed", False, "Join the processes that the environment describes (TPU pods, SLURM, MPI)."
)
COORDINATOR = flags.DEFINE_string("coordinator", None, "HOST:PORT of one of the processes.")
NUM_PROCESSES = flags.DEFINE_integer("num_processes", None, "How many processes there are.")
PROCESS_ID = flags.DEFINE_integer("process_id", None, "Which of them this is, from 0.")

TOPOLOGY = flags.DEFINE_string(
  "topology", None, "TPUs by generation and shape, or GPUs of a node: v5e:8x8, h100:8."
)
PROGRAMS = flags.DEFINE_list("programs", [], "Only programs with one of these in their name.")
WARM = flags.DEFINE_bool(
  "warm", False, "Compile for the devices that are here, and keep the programs in --workdir."
)
PUSH = flags.DEFINE_string(
  "push", None, "Upload the model to the Hugging Face hub as ORGANISATION/NAME."
)
RUNS = flags.DEFINE_list("runs", [], "Workdirs to compare, on a page that --workdir gets.")


class Mode(NamedTuple):
  """A mode of the command line.

  Attributes:
    function: dotted name of the function `(config, workdir)`, imported only when it is called.
      Those of `compile`, `report` and `sample` take what they read of these, and their own flags.
    does: what it does, in a line.
    example: arguments of an example.
    own_flags: flags that no other mode has.
  """

  function: str
  does: str
  example: str
  own_flags: tuple[flags.FlagHolder, ...] = ()


MODES = {
  "train": Mode(
    "sejax.train.run",
    "Trains a model without labels; a stopped run goes on where it stopped.",
    "--config=configs/tiny.py --workdir=runs/tiny",
  ),
  "report": Mode(
    "sejax.config.modes.report",
    "Writes the page about a run, also while it runs; or compares runs.",
    "--mode=report --workdir=runs/compared --runs=runs/tiny,runs/tiny_empo",
    (RUNS,),
  ),
  "sample": Mode(
    "sejax.config.modes.sample",
    "Answers one question several times, and judges the answers.",
    '--mode=sample --config=configs/tiny.py --image=FILE --question="What is x?" --judge',
    (IMAGE, QUESTION, JUDGE),
  ),
  "inspect": Mode(
    "sejax.config.modes.inspect",
    "Writes a page about a set of problems: what is read, and what cannot be.",
    "--mode=inspect --config=configs/tiny.py --workdir=runs/data --config.data.source=jsonl"
    " --config.data.path=mine/problems.jsonl",
  ),
  "evaluate": Mode(
    "sejax.config.modes.evaluate",
    "Grades a model, or stored responses, on benchmarks.",
    "--mode=evaluate --config=configs/sample.py --workdir=runs/scores"
    " --config.eval.sets=mathvision --config.eval.sets_path=hub --config.model.path=MODEL",
  ),
  "export": Mode(
    "sejax.train.export",
    "Writes the model of the last checkpoint, or uploads it.",
    "--mode=export --config=configs/tiny.py --workdir=runs/tiny",
    (PUSH,),
  ),
  "rewards": Mode(
    "sejax.config.modes.reward",
    "Computes the rewards of recorded answers and verdicts, without a model.",
    "--mode=rewards --config=configs/worked_example.py --workdir=runs/example",
  ),
  "compile": Mode(
    "sejax.config.modes.plan",
    "Says what a training step takes of the memory of devices that need not be here.",
    "--mode=compile --config=configs/geometry3k_qwen2_5_vl_7b.py --topology=v5e:8x8"
    " --config.mesh.fsdp=16 --config.mesh.tensor=4",
    (TOPOLOGY, PROGRAMS, WARM),
  ),
}
MODE = flags.DEFINE_enum(
  "mode", "train", sorted(MODES), "One of the modes above; `train` by default."
)
_GENERAL = (CONFIG, WORKDIR, MODE)
_PROCESSES = (DISTRIBUTED, COORDINATOR, NUM_PROCESSES, PROCESS_ID)

flags.DEFINE_bool("help", False, "Show this.", short_name="h")
_ASKS_FOR_HELP = ("--help", "-help", "--h", "-h")

_HELP = """\
sejax: vision-language models that improve without labels, by judging themselves.

Usage: sejax [--mode=MODE] --config=FILE --workdir=DIR [--config.SECTION.FIELD=VALUE ...]
   or: python -m sejax.main, with the same arguments

Modes, with an example each:
{modes}
Flags:
{general}
  --config.SECTION.FIELD=VALUE
      Any option of the configuration; configs/README.md explains them all.

Several processes start the same command each, with --distributed, or with the others of these:
{processes}
Exit statuses:
  0  done
  1  an unexpected error, with its traceback; --mode=compile: a program does not fit into memory
  2  a mistake in what was given, or an error of the system, told in one line
  3  out of memory, or another process of the run was lost
  143, 129  stopped by SIGTERM or SIGHUP after a step, which is saved; 0 after one Ctrl-C, likewise
  130  stopped by Ctrl-C before the first step, or by a second one
In every case the same command resumes the run.
"""


def asks_for_help(arguments: Sequence[str]) -> bool:
  """Whether one of the arguments is `--help` or `-h`."""
  return any(argument in _ASKS_FOR_HELP for argument in arguments)


def help_text() -> str:
  """Returns what `--help` shows: modes with examples, flags, and exit statuses."""
  modes = "\n".join(
    f"  {name}\n      {mode.does}\n{_wrapped(mode.example)}{_listed(mode.own_flags, 6)}"
    for name, mode in MODES.items()
  )
  return _HELP.format(modes=modes, general=_listed(_GENERAL), processes=_listed(_PROCESSES))


def _wrapped(example: str) -> str:
  """Returns the command of an example in lines that a shell takes as one."""
  lines = textwrap.wrap(
    f"sejax {example}",
    88,
    initial_indent=" " * 6,
    subsequent_indent=" " * 8,
    break_on_hyphens=False,
  )
  return " \\\n".join(lines) + "\n"


def _listed(holders: Sequence[flags.FlagHolder], indent: int = 2) -> str:
  """Returns a line for each flag, with what it is."""
  lines = []
  for holder in holders:
    # Without what absl adds to it: the choices in front, or how to give several values.
    text = re.sub(r"^<.*>: |;\s+repeat this option .*$", "", flags.FLAGS[holder.name].help)
    lines.append(f"{' ' * indent}--{holder.name:<14} {text}\n")
  return "".join(lines)
