"""A run of two processes: it is the run of one, and neither outlives the other."""

import json
import signal
import socket
import subprocess
import sys
import time

import pytest
import safetensors.numpy

from sejax.monitoring import writers
from tests import subprocesses

pytestmark = pytest.mark.long

CONFIG = subprocesses.ROOT / "configs" / "tiny.py"
CHANGES = {
  "batch_size": 8,
  "mini_batch_size": 4,
  "group_size": 4,
  "method.advantage": "gdpo",  # whitened over both processes
  "train.micro_batch_size": 4,
  "train.steps": 2,
  "data.figures.length": 6,  # so that a record occurs twice in a step, in one process or in both
  "eval.num_problems": 8,
  "eval.batch_size": 8,
  "mesh.data": 2,
  "mesh.fsdp": 2,
  "optimizer.learning_rate": 1e-3,
  "model.unroll": False,
  "log.compilation_cache": False,  # in the workdir; the tests have one for all runs
}


def start(workdir, devices, *arguments, **changes):
  command = [sys.executable, "-m", "sejax.main", f"--config={CONFIG}"]
  command += [f"--config.{name}={value}" for name, value in (CHANGES | changes).items()]
  return subprocess.Popen(
    [*command, f"--workdir={workdir}", *arguments],
    cwd=subprocesses.ROOT,
    env=subprocesses.environment(devices),
    stderr=subprocess.PIPE,
    stdout=subprocess.DEVNULL,
    text=True,
  )


def start_two(workdir, more=([], []), **changes):
  address = subprocesses.free_address()
  return [
    start(
      workdir,
      2,
      f"--coordinator={address}",
      "--num_processes=2",
      f"--process_id={number}",
      *more[number],
      **changes,
    )
    for number in range(2)
  ]


OVERLAP = {"train.overlap": 1, "loss.rollout_correction": "token_truncate"}


@pytest.fixture(
  scope="module",
  params=[
    pytest.param({}, id="in turns", marks=pytest.mark.slow),  # What the other does, and less.
    pytest.param(OVERLAP, id="overlapping"),
  ],
)
def workdirs(tmp_path_factory, request):
  """Of a run of one process with four devices, and one of two with two each."""
  root = tmp_path_factory.mktemp("processes")
  runs = [[start(root / "one", 4, **request.param)], start_two(root / "two", **request.param)]
  for process in (process for processes in runs for process in processes):
    _, error = process.communicate(timeout=500)
    assert process.returncode == 0, error[-3000:]
  return root / "one", root / "two"


@pytest.mark.long
def test_two_processes_make_the_run_of_one(workdirs):
  one, two = (list(writers.read(workdir / writers.METRICS)) for workdir in workdirs)
  assert [line["step"] for line in two] == [0, 1]
  for line, other in zip(one, two, strict=True):
    assert line.keys() == other.keys()
    for name, value in line.items():
      assert other[name] == pytest.approx(value, rel=2e-4, abs=2e-5), name
  one, two = (json.loads((workdir / "summary.json").read_text()) for workdir in workdirs)
  assert one["before"] == pytest.approx(two["before"])
  assert one["after"] == pytest.approx(two["after"])
  one, two = (
    safetensors.numpy.load_file(workdir / "model" / "model.safetensors") for workdir in workdirs
  )
  assert one.keys() == two.keys()
  for name, value in one.items():
    # A step of Adam is the learning rate, whichever way a gradient of rounding's size points.
    assert abs(two[name] - value).max() < 2 * 4 * CHANGES["optimizer.learning_rate"], name
    assert abs(two[name] - value).mean() < 0.02 * CHANGES["optimizer.learning_rate"], name


@pytest.mark.long
def test_a_run_goes_on_with_another_number_of_processes(tmp_path):
  peaceful, changing = tmp_path / "peaceful", tmp_path / "changing"
  parts = [(peaceful, 1, 3), (changing, 1, 1), (changing, 2, 2), (changing, 1, 3)]
  for workdir, processes, steps in parts:
    changes = {"train.steps": steps, "data.figures.length": 100, "judge.use": False}
    changes |= {"eval.num_problems": 0, "log.sample_groups": CHANGES["batch_size"]}
    started = start_two(workdir, **changes) if processes == 2 else [start(workdir, 4, **changes)]
    for process in started:
      _, error = process.communicate(timeout=500)
      assert process.returncode == 0, error[-3000:]
  expected, found = (list(writers.read(run / writers.METRICS)) for run in (peaceful, changing))
  assert [line["step"] for line in found] == [0, 1, 2]
  for line, other in zip(expected, found, strict=True):
    assert other == pytest.approx(line, rel=2e-4, abs=2e-5)
  groups, again = (
    [(line["step"], line["id"]) for line in writers.read(run / writers.GROUPS)]
    for run in (peaceful, changing)
  )
  assert len({record for _, record in groups}) == 3 * CHANGES["batch_size"]  # none was read twice
  # Process 0 keeps its own groups: of two processes half.
  half = [(step, record) for step, record in groups if step == 1 and (step, record) in again]
  assert len(half) == CHANGES["batch_size"] // 2
  assert sorted(again) == sorted([pair for pair in groups if pair[0] != 1] + half)


@pytest.mark.long
def test_a_killed_process_ends_the_other_with_a_message(tmp_path):
  first, second = start_two(tmp_path / "run", **{"train.steps": 1000, "eval.num_problems": 0})
  end = time.monotonic() + 300
  while not (tmp_path / "run" / writers.METRICS).exists():
    assert time.monotonic() < end
    assert first.poll() is None, first.communicate()
    time.sleep(0.1)
  second.send_signal(signal.SIGKILL)
  began = time.monotonic()
  _, error = first.communicate(timeout=120)
  assert time.monotonic() - began < 60
  assert first.returncode != 0
  assert "another process is gone" in error or "distributed service" in error


def test_a_process_that_cannot_go_on_says_why_and_ends_the_other(tmp_path):
  missing = ["--config.data.source=jsonl", f"--config.data.path={tmp_path / 'missing'}"]
  first, second = start_two(tmp_path / "run", ([], missing))
  _, error = second.communicate(timeout=120)
  assert second.returncode == 2
  reason = error.splitlines()[-1]
  assert reason.startswith("sejax: ")
  began = time.monotonic()
  _, error = first.communicate(timeout=120)
  told = f"sejax: process 1 on {socket.gethostname()} cannot go on: {reason[len('sejax: ') :]}"
  assert told in error.splitlines()
  assert time.monotonic() - began < 60
  assert first.returncode != 0
  assert "another process is gone" in error or "distributed service" in error
