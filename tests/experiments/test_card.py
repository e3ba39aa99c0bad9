"""The card script: what its parts print becomes one JSON line that names those that failed."""

import json
import os
import pathlib
import subprocess
import sys

import pytest

from experiments.speed import card

SCRIPT = pathlib.Path(card.__file__).with_name("card.sh")
PARTS = ["device", "sampling", "model", "attention", "main_job", "train_lora", "train_all"]


def leave(folder, name, text, status):
  (folder / f"{name}.log").write_text(text)
  (folder / f"{name}.status").write_text(f"{status}\n")


def test_merge(tmp_path):
  leave(tmp_path, "good", 'a table\n{"device": "x", "ms": {"xla": 1.5}}\nlast words\n', 0)
  leave(tmp_path, "half", '{"ms": null}\n', 1)
  leave(tmp_path, "broken", "Traceback:\n  file\nValueError: no room\n\n", 1)
  leave(tmp_path, "slow", "step 1\n", 124)
  leave(tmp_path, "killed", '{"ms": 2}\nstep 1\n', 137)
  leave(tmp_path, "silent", "{not json\n", 0)
  names = ["good", "half", "broken", "slow", "killed", "silent", "absent"]
  assert card.merge(tmp_path, names) == {
    "good": {"device": "x", "ms": {"xla": 1.5}},
    "half": {"ms": None},
    "killed": {"ms": 2},
    "failed": {
      "half": "exit status 1: nothing was printed",
      "broken": "exit status 1: ValueError: no room",
      "slow": "its time was over",
      "killed": "its time was over",
      "silent": "it printed no JSON line",
      "absent": "it did not end",
    },
  }


def test_accuracies_beside_those_of_a_cpu():
  held_out = {"pass_at_1": 0.44, "pass_at_1_error": 0.02, "maj_at_8": 0.3, "maj_at_8_error": 0.04}
  summary = {"steps": 18, "seconds": 60.04, "before": held_out, "after": held_out}
  found = card.accuracies(summary, compare=True)
  assert (found["steps"], found["seconds"]) == (18, 60.0)
  assert found["pass_at_1_before"] == {
    "percent": 44.0,
    "error": 2.0,
    "cpu_percent": 43.8,
    "cpu_error": 2.3,
    "agrees": True,
  }
  agree = {name: x["agrees"] for name, x in found.items() if isinstance(x, dict)}
  assert agree == {
    "pass_at_1_before": True,
    "maj_at_8_before": False,
    "pass_at_1_after": False,
    "maj_at_8_after": False,
  }
  alone = card.accuracies(summary, compare=False)
  assert alone["maj_at_8_after"] == {"percent": 30.0, "error": 4.0}


@pytest.fixture
def python(tmp_path):
  """A Python that runs only `card.py merge`; `model.py` fails, and others print their command."""
  file = tmp_path / "python"
  file.write_text(f"""#!/usr/bin/env bash
case "$*" in
  *" merge "*) exec {sys.executable} "$@" ;;
  *model.py*) echo "RuntimeError: out of memory"; exit 1 ;;
  *) printf '{{"ran": "%s"}}\\n' "$*" ;;
esac
""")
  file.chmod(0o755)
  return file


@pytest.mark.parametrize("flags", [[], ["--dry-run"]], ids=["card", "dry"])
def test_a_part_that_fails_is_named_and_the_others_run(python, tmp_path, flags):
  done = subprocess.run(
    ["bash", SCRIPT, *flags],
    env={"PATH": os.environ["PATH"], "PYTHON": str(python), "TMPDIR": str(tmp_path)},
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 1, done.stderr
  line = json.loads(done.stdout.splitlines()[-1])
  assert line.pop("failed") == {"model": "exit status 1: RuntimeError: out of memory"}
  assert list(line) == [name for name in PARTS if name != "model"]
  assert ("--size=dry" if flags else "--size=3b") in line["sampling"]["ran"]
  assert ("--min_memory_gib=94" in line["train_all"]["ran"]) == (not flags)
  assert [file.name for file in tmp_path.iterdir()] == ["python"]


def test_flags_that_are_none():
  done = subprocess.run(["bash", SCRIPT, "--fast"], capture_output=True, text=True, check=False)
  assert done.returncode == 2
  assert done.stderr == "card.sh takes --dry-run or nothing, not --fast\n"


def test_shellcheck_finds_nothing():
  tool = pathlib.Path(sys.executable).with_name("shellcheck")
  done = subprocess.run([tool, SCRIPT], capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stdout
