"""The launch scripts: free of faults that shellcheck knows, and every flag they give is taken."""

import os
import pathlib
import shlex
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
PODS = ROOT / "experiments" / "pods"
SCRIPTS = sorted(PODS.glob("*.sh"))


def run(script, *arguments, **environment):
  return subprocess.run(
    ["bash", str(PODS / script), *arguments],
    env={"PATH": os.environ["PATH"], **environment},
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=60,
    check=False,
  )


def fake(folder, name, body):
  """Puts a command in the place of one that is not here; returns a PATH with it."""
  file = folder / name
  file.write_text(f"#!/usr/bin/env bash\n{body}\n")
  file.chmod(0o755)
  return f"{folder}:{os.environ['PATH']}"


def assert_taken(command):
  """Checks that all flags are taken, and the configuration that they make.

  The topology, which is looked at last, is none, so nothing more is done.
  """
  command = [word for word in command if word != "--distributed"]
  command = [sys.executable, *command[command.index("-m") :]]
  done = subprocess.run(
    [*command, "--mode=compile", "--topology=none"],
    cwd=ROOT,
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.stderr.startswith("sejax: --topology=none must be"), done.stderr


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_finds_nothing(script):
  tool = pathlib.Path(sys.executable).with_name("shellcheck")
  done = subprocess.run([tool, script], capture_output=True, text=True, check=False)
  assert done.returncode == 0, done.stdout


def test_gpu_node(tmp_path):
  python = fake(tmp_path, "python", 'printf "%q " "$@"').split(":")[0] + "/python"
  given = {"DATA": "data", "WORKDIR": "runs/7b", "PYTHON": python}
  done = run("gpu_node.sh", "--config.lora.rank=8", **given)
  assert done.returncode == 0, done.stderr
  command = shlex.split(done.stdout)
  assert command[-3:] == ["--config.data.path=data", "--workdir=runs/7b", "--config.lora.rank=8"]
  assert_taken(command)


def test_gpu_nodes_under_slurm(tmp_path):
  fake(tmp_path, "srun", 'printf "%q " "$@"; echo')
  path = fake(tmp_path, "scontrol", 'echo "scontrol $*"')
  given = {"DATA": "data", "WORKDIR": str(tmp_path / "run"), "PATH": path}
  slurm = {"SLURM_NNODES": "2", "SLURM_JOB_ID": "7"}
  started, queued = run("gpu_node.sh", **given | slurm).stdout.splitlines()
  command = shlex.split(started)
  assert {"--distributed", "--config.train.micro_batch_size=16"} <= {*command}
  assert_taken(command)
  assert queued == "scontrol requeue 7"
  (tmp_path / "run").mkdir()
  (tmp_path / "run" / "summary.json").touch()
  assert "scontrol" not in run("gpu_node.sh", **given | slurm).stdout


def test_tpu_pod(tmp_path):
  log = tmp_path / "commands"
  path = fake(tmp_path, "gcloud", f'echo "$*" >> {log}; echo ACTIVE')
  given = {"ZONE": "z", "BUCKET": "b", "PATH": path}
  for verb in ("create", "run", "stop", "delete"):
    done = run("tpu_pod.sh", verb, **given)
    assert done.returncode == 0, done.stderr
  commands = log.read_text().splitlines()
  assert "queued-resources create sejax" in commands[0]
  assert "queued-resources delete sejax" in commands[-1]
  started = next(line for line in commands if "-m sejax.main" in line)
  command = shlex.split(started.partition("nohup ")[2].partition(">")[0])
  assert {"--distributed", "--config.mesh.tensor=4", "--workdir=bucket/runs/geometry3k_7b"} <= {
    *command
  }
  assert_taken(command)


def test_verbs_that_are_none():
  done = run("tpu_pod.sh", "fly", ZONE="z", BUCKET="b")
  assert done.returncode == 2
  assert "fly is none of create, install, run" in done.stderr
