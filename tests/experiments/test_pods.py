"""The launch scripts: free of faults that shellcheck knows, and every flag they give is taken."""

import os
import pathlib
import shlex
import shutil
import string
import subprocess
import sys

import pytest
import yaml

pytestmark = pytest.mark.long

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
  fake(tmp_path, "srun", 'printf "%q " "$@"; echo; exit "$STATUS"')
  path = fake(tmp_path, "scontrol", 'echo "scontrol $*"')
  given = {"DATA": "data", "WORKDIR": "gs://my-bucket/7b", "PATH": path}
  given |= {"SLURM_NNODES": "2", "SLURM_JOB_ID": "7"}
  stopped = run("gpu_node.sh", **given, STATUS="143")
  assert stopped.returncode == 143
  started, queued = stopped.stdout.splitlines()
  command = shlex.split(started)
  assert {"--distributed", "--config.train.micro_batch_size=16"} <= {*command}
  assert_taken(command)
  assert queued == "scontrol requeue 7"
  for status in (0, 1, 2, 3, 130):
    over = run("gpu_node.sh", **given, STATUS=str(status))
    assert over.returncode == status
    assert "scontrol" not in over.stdout


SKY = sorted((PODS / "sky").glob("*.yaml"))


@pytest.mark.parametrize("file", SKY, ids=lambda path: path.stem)
def test_skypilot_tasks_start_a_run(file):
  task = yaml.safe_load(file.read_text())
  assert task["envs"]["BUCKET"] is None  # must be given
  variables = {**task["envs"], "BUCKET": "my-bucket"}
  lines = task["run"].replace("\\\n", " ").strip().split("\n")
  command = shlex.split(string.Template(lines[-1]).substitute(variables))
  assert "--workdir=gs://my-bucket/runs/geometry3k_7b" in command
  assert ("--distributed" in command) == task["resources"]["accelerators"].startswith("tpu")
  assert_taken(command)


@pytest.mark.parametrize("file", SKY, ids=lambda path: path.stem)
def test_skypilot_tasks_start_again_what_may_succeed_then(file):
  task = yaml.safe_load(file.read_text())
  recovery = task["resources"]["job_recovery"]
  assert recovery["recover_on_exit_codes"] == [3, 134, 137, 143]
  assert recovery["max_restarts_on_errors"] <= 5
  assert "uv venv -q --clear " in task["setup"]


@pytest.mark.parametrize("file", SKY, ids=lambda path: path.stem)
def test_skypilot_takes_the_tasks(file):
  sky = pytest.importorskip("sky", reason="pip install skypilot")
  task = yaml.safe_load(file.read_text())
  read = sky.Task.from_yaml_config(task, env_overrides=[("BUCKET", "my-bucket")])
  (resources,) = read.resources
  assert resources.use_spot
  assert resources.job_recovery["recover_on_exit_codes"] == [3, 134, 137, 143]
  assert str(resources.cloud) == "GCP"


def test_xpk_starts_a_run(tmp_path):
  path = fake(tmp_path, "xpk", 'printf "%q " "$@"')
  done = run("xpk.sh", "--dry-run", CLUSTER="c", BUCKET="my-bucket", PATH=path)
  assert done.returncode == 0, done.stderr
  given = shlex.split(done.stdout)
  assert given[:2] == ["workload", "create"]
  assert given[-1] == "--dry-run"
  assert "--restart-on-exit-codes=3,134,137,143" in given
  (text,) = (word for word in given if word.startswith("--command="))
  install, _, command = text.removeprefix("--command=").partition(" && ")
  assert install == "pip install -q '.[tpu,gcs]'"
  assert_taken(shlex.split(command))


def test_xpk_takes_the_workload(tmp_path):
  xpk = shutil.which("xpk")
  if xpk is None:
    pytest.skip("pip install xpk")
  manifest = tmp_path / "manifest.yaml"
  flags = ["--dry-run", "--skip-validation", "--project=p", "--zone=us-west4-a"]
  flags += [f"--output-manifest-file={manifest}"]
  done = run("xpk.sh", *flags, CLUSTER="c", BUCKET="b", HOME=str(tmp_path))
  assert done.returncode == 0, done.stdout
  (made,) = [part for part in yaml.safe_load_all(manifest.read_text()) if part]
  assert made["kind"] == "JobSet"
  assert "--workdir=gs://b/runs/geometry3k_7b" in manifest.read_text()
