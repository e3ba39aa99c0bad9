"""The first page's commands as they stand: those that can run here run, the others are listed.

A small model stands in for those of the hub, and runs are cut to one short step.
"""

import re
import shutil
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest

import sejax
from sejax.models import weights
from tests.models import qwen_directory, torch_reference
from tests.subprocesses import ROOT
from tests.test_readme import blocks

README = ROOT / "README.md"
_SHORT = (
  "--config.train.steps=1",
  "--config.eval.num_problems=0",
  "--config.batch_size=2",
  "--config.mini_batch_size=2",
  "--config.train.micro_batch_size=2",
  "--config.group_size=2",
  "--config.actor.max_tokens=8",
  "--config.judge.max_tokens=8",
  "--config.train.response_buckets=(8,)",
)
# Commands that run, by a part of them, and what cuts them short; MODEL is the small one.
RUN = {
  "configs/tiny.py:empo": _SHORT,
  "--workdir=runs/mine": (*_SHORT, "--config.lora.rank=2", "--config.model.path=MODEL"),
  "--workdir=runs/tiny_mine": _SHORT,
  "--mode=sample": (*_SHORT[5:8], "--config.model.path=MODEL"),
}
# Those that do not run here, and why.
LISTED = {
  "pip install . &&": "`.ci/run` runs it, with the oldest and the newest Python",
  "pip install -e": "`.ci/run` runs it",
  "experiments.ablation.run": "45 minutes; its table is in experiments/ablation",
  "geometry3k_qwen2_5_vl_7b": "weights of 15 GB and a GPU of 80 GB",
  "--mode=evaluate": "data sets of the hub; tests/evaluation has a server that stands for it",
}
COMMANDS = [block for block in blocks(README) if not block.startswith("100%")]


def test_each_command_runs_or_is_listed():
  names = [*RUN, *LISTED]
  for command in COMMANDS:
    assert len([name for name in names if name in command]) == 1, command
  assert len(COMMANDS) == len(names)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
  """A folder with the checkout's configurations, pictures, and a small model on real vocabulary."""
  path = tmp_path_factory.mktemp("readme")
  (path / "configs").symlink_to(ROOT / "configs")
  pixels = np.random.default_rng(0).integers(0, 256, (2, 60, 90, 3), dtype=np.uint8)
  for name, image in zip(("a.png", "b.png"), pixels, strict=True):
    PIL.Image.fromarray(image).save(path / name)
  config = torch_reference.real_vocabulary_config()
  params = torch_reference.to_params(torch_reference.torch_model(config).state_dict(), config)
  weights.save(params, config, path / "MODEL", source=qwen_directory.write(path / "source"))
  return path


def _write_problems(folder):
  """Does what the page's own pictures begin with."""
  (command,) = [command for command in COMMANDS if "mkdir mine" in command]
  lines = [line for line in command.splitlines() if line.startswith(("mkdir", "echo"))]
  subprocess.run(["bash", "-ec", "\n".join(lines)], cwd=folder, check=True)


@pytest.mark.long
@pytest.mark.parametrize("part", RUN)
def test_commands_run(part, folder):
  (command,) = [command for command in COMMANDS if part in command]
  program = folder / "sejax"
  program.write_text(
    f'#!/bin/sh\nexec {sys.executable} -m sejax.main "$@" {" ".join(map(repr, RUN[part]))}\n'
  )
  program.chmod(0o755)
  # Each command by itself, whichever came before it.
  shutil.rmtree(folder / "mine", ignore_errors=True)
  if "mkdir mine" not in command:
    _write_problems(folder)
  command = command.replace("image=FILE", "image=a.png")
  done = subprocess.run(
    ["bash", "-ec", f"PATH={folder}:$PATH PYTHONPATH={ROOT}\nexport PATH PYTHONPATH\n{command}"],
    cwd=folder,
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  workdir = re.search(r"--workdir=(\S+)", command)
  if workdir:
    assert (folder / workdir[1] / "report.html").is_file()
    assert (folder / workdir[1] / "model" / "model.safetensors").is_file()
  else:
    assert done.stdout.count("verdict:") == 2


@pytest.mark.long
def test_the_lines_of_python_run(folder, monkeypatch):
  (lines,) = blocks(README, "python")
  monkeypatch.chdir(folder)
  load_model = sejax.load_model

  def load(path):
    assert path == "Qwen/Qwen2.5-VL-3B-Instruct"
    return load_model()

  monkeypatch.setattr(sejax, "load_model", load, raising=False)
  names = {}
  exec(lines, names)
  assert [len(group) for group in names["texts"]] == [8]
  assert list(names["texts"][0]) == list(names["group"].trajectories)
  np.testing.assert_allclose(names["scored"].group.reward[0], names["group"].rewards, rtol=1e-6)
  assert len(names["right"]) == 8
