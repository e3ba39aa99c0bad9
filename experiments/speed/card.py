"""What `card.sh` needs beside the scripts that it runs: the device, the main job, the merged JSON.

    python experiments/speed/card.py device [--dry_run]
    python experiments/speed/card.py main_job --run_dir=DIR [--dry_run]
    python experiments/speed/card.py merge --folder=DIR NAME...

`device` prints what the measurements run on, and fails where that is no GPU. `main_job` trains the
bundled model as the README's main job does and compares its held-out accuracy with that of a CPU.
`merge` reads what each part left in the folder, its output in `NAME.log` and its exit status in
`NAME.status`, and prints one JSON line of all; the exit status is 1 if a part failed.
"""

import importlib.metadata
import json
import pathlib
import shutil
import subprocess
import sys
from collections.abc import Sequence
from typing import Any

from absl import app, flags

_DRY_RUN = flags.DEFINE_bool("dry_run", False, "On the CPU, as short as can be.")
_FOLDER = flags.DEFINE_string("folder", None, "Of what the parts left.")
_RUN_DIR = flags.DEFINE_string("run_dir", None, "Workdir of the main job.")

ROOT = pathlib.Path(__file__).resolve().parents[2]
_TIMED_OUT = (124, 137)  # exit statuses of `timeout`, by its first signal and by its last
# Of the main job (18 steps, 128 held-out problems) on two CPU cores: means and standard errors.
CPU = {
  "before": {"pass_at_1": (0.438, 0.023), "maj_at_8": (0.575, 0.042)},
  "after": {"pass_at_1": (0.595, 0.031), "maj_at_8": (0.635, 0.041)},
}


def device() -> dict[str, Any]:
  """Returns the device, its driver, and the versions of jax.

  Raises:
    ValueError: no GPU is here, and it is no dry run.
  """
  import jax  # Late, as `merge` needs none.

  found = jax.devices()[0]
  if found.platform != "gpu" and not _DRY_RUN.value:
    raise ValueError(
      f"jax finds no GPU, only {found.device_kind}; install jax[cuda13], or give --dry-run"
    )
  driver = None
  if shutil.which("nvidia-smi"):
    query = ["nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"]
    done = subprocess.run(query, capture_output=True, text=True, check=False)
    driver = (done.stdout.splitlines() or [None])[0]
  versions = {name: importlib.metadata.version(name) for name in ("jax", "jaxlib")}
  return {"device": found.device_kind, "driver": driver, **versions}


def main_job(workdir: str, *, dry_run: bool) -> dict[str, Any]:
  """Trains the bundled model; returns its held-out accuracy, beside that of a CPU.

  Raises:
    subprocess.CalledProcessError: the run failed; what it printed says why.
  """
  command = [sys.executable, "-m", "sejax.main", f"--config={ROOT / 'configs' / 'tiny.py'}"]
  command.append(f"--workdir={workdir}")
  if dry_run:
    command += [
      "--config.train.steps=2",
      "--config.batch_size=4",
      "--config.mini_batch_size=2",
      "--config.train.micro_batch_size=2",
      "--config.model.unroll=False",
      "--config.eval.num_problems=4",
    ]
  subprocess.run(command, check=True)
  summary = json.loads((pathlib.Path(workdir) / "summary.json").read_text(encoding="utf-8"))
  return accuracies(summary, compare=not dry_run)


def accuracies(summary: dict[str, Any], *, compare: bool) -> dict[str, Any]:
  """Returns the held-out accuracies of a run, in percent with standard errors.

  Args:
    summary: content of the run's `summary.json`.
    compare: put those of a CPU beside them, and whether each is within two standard errors of the
      difference. The problems are the same on both, so that these errors are rather too large.
  """
  result = {"steps": summary["steps"], "seconds": round(summary["seconds"], 1)}
  for part, by_name in CPU.items():
    for name, (cpu, cpu_error) in by_name.items():
      mean, error = summary[part][name], summary[part][f"{name}_error"]
      found = {"percent": round(100 * mean, 1), "error": round(100 * error, 1)}
      if compare:
        found |= {"cpu_percent": round(100 * cpu, 1), "cpu_error": round(100 * cpu_error, 1)}
        found["agrees"] = abs(mean - cpu) <= 2 * (error**2 + cpu_error**2) ** 0.5
      result[f"{name}_{part}"] = found
  return result


def last_json(text: str) -> dict[str, Any] | None:
  """Returns the last line of a text that is a JSON object; None if there is none."""
  for line in reversed(text.splitlines()):
    if line.startswith("{"):
      try:
        return json.loads(line)
      except json.JSONDecodeError:
        continue
  return None


def reason(status: int, text: str) -> str:
  """Returns why a part failed, in one line, from its exit status and what it printed."""
  if status in _TIMED_OUT:
    return "its time was over"
  if not status:
    return "it printed no JSON line"
  lines = [line for line in text.splitlines() if line.strip() and not line.startswith("{")]
  return f"exit status {status}: {lines[-1].strip()[:200] if lines else 'nothing was printed'}"


def merge(folder: pathlib.Path, names: Sequence[str]) -> dict[str, Any]:
  """Returns the figures of all parts by name, and in `failed` the reasons of those that failed.

  A part that failed late may have both.
  """
  parts, failed = {}, {}
  for name in names:
    log, status = folder / f"{name}.log", folder / f"{name}.status"
    if not status.exists():
      failed[name] = "it did not end"
      continue
    text, code = log.read_text(encoding="utf-8", errors="replace"), int(status.read_text())
    found = last_json(text)
    if found is not None:
      parts[name] = found
    if code or found is None:
      failed[name] = reason(code, text)
  return parts | {"failed": failed}


def main(argv: list[str]) -> int:
  """Does what the first argument says, prints a JSON line, and returns the exit status."""
  match argv[1:]:
    case ["device"]:
      try:
        result = device()
      except ValueError as error:
        print(f"card.py: {error}", file=sys.stderr)
        return 2
    case ["main_job"]:
      result = main_job(_RUN_DIR.value, dry_run=_DRY_RUN.value)
    case ["merge", *names]:
      result = merge(pathlib.Path(_FOLDER.value), names)
    case _:
      print("card.py: give one of device, main_job and merge", file=sys.stderr)
      return 2
  print(json.dumps(result))
  return 1 if result.get("failed") else 0


if __name__ == "__main__":
  app.run(main)
