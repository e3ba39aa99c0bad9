"""Two processes train in a bucket, without a disk that they share."""

import io
import os
import signal
import subprocess
import sys
import time

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sejax.data.figures.source import Figures
from sejax.monitoring import writers
from tests import subprocesses
from tests.parallel.test_processes import CONFIG, start, start_two

MODEL = subprocesses.ROOT / "sejax" / "assets" / "tiny_vlm"
CHANGES = {
  "method.advantage": "standardized",
  "train.steps": 3,
  "judge.use": False,  # whose programs take as long to compile as the Actor's
  "checkpoint.every": 1,
  "eval.num_problems": 0,
}


def finish(processes):
  for process in processes:
    _, error = process.communicate(timeout=500)
    assert process.returncode == 0, error[-3000:]


def is_saving(workdir):
  """Whether a checkpoint has objects in the bucket, and is not whole yet."""
  system, root = fsspec.core.url_to_fs(os.fspath(workdir / "checkpoints"))
  names = [name.removeprefix(f"{root}/") for name in system.find(root)]
  steps = {name.split("/")[0] for name in names if name.count("/") > 1}
  return any(f"{step}/commit_success.txt" not in names for step in steps)


def results(workdir):
  """Returns all that a run must leave the same."""
  found = {name: list(writers.read(workdir / name)) for name in (writers.METRICS, writers.GROUPS)}
  return found | {"model": (workdir / "model" / "model.safetensors").read_bytes()}


def run_mode(mode, workdir):
  command = [sys.executable, "-m", "sejax.main", f"--config={CONFIG}", f"--workdir={workdir}"]
  return subprocess.run(
    [*command, f"--mode={mode}"],
    cwd=subprocesses.ROOT,
    env=subprocesses.environment(1),
    capture_output=True,
    text=True,
    check=False,
  )


def put_problems(path):
  """Writes drawn problems as a file of a data set; returns the fields that name it."""
  source = Figures()
  records = [source[index] for index in range(20)]
  table = {
    "images": [[{"bytes": record.images[0], "path": None}] for record in records],
    "problem": [record.question for record in records],
  }
  file = io.BytesIO()
  pq.write_table(pa.table(table), file)
  path.mkdir(parents=True)
  (path / "train.parquet").write_bytes(file.getvalue())
  return {"data.source": "parquet", "data.path": path}


def put_model(path):
  """Copies the bundled model; returns the field that names it."""
  path.mkdir(parents=True)
  for file in MODEL.iterdir():
    (path / file.name).write_bytes(file.read_bytes())
  return {"model.path": path}


@pytest.mark.long
def test_a_run_that_is_killed_while_it_saves_goes_on_with_the_same_bits(
  bucket, monkeypatch, tmp_path
):
  monkeypatch.setenv("SEJAX_CACHE", str(tmp_path / "cache"))
  peaceful, workdir = bucket / "peaceful", bucket / "run"
  changes = CHANGES | put_model(bucket / "model") | put_problems(bucket / "problems")
  finish(start_two(peaceful, **changes))

  killed = start_two(workdir, **changes)
  while not is_saving(workdir):
    assert all(process.poll() is None for process in killed), "nothing was caught while saving"
    time.sleep(0.005)
  for process in killed:
    process.send_signal(signal.SIGKILL)
  for process in killed:
    process.communicate()
  assert len(list(writers.read(workdir / writers.METRICS))) < CHANGES["train.steps"]
  assert (workdir / "lock.json").exists()

  finish(start_two(workdir, **changes))
  assert results(workdir) == results(peaceful)
  assert not (workdir / "lock.json").exists()

  reported = run_mode("report", workdir)
  assert reported.returncode == 0, reported.stderr
  page = (workdir / "report.html").read_text()
  assert "majority_share" in page
  before = results(workdir)["model"]
  (workdir / "model" / "config.json").unlink()
  finish([start(workdir, 4, "--mode=export", **changes)])
  assert results(workdir)["model"] == before
  assert (workdir / "model" / "config.json").exists()
