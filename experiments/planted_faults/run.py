"""Plants faults, one at a time in a copy of the checkout, and says which ones the tests see.

python -m experiments.planted_faults.run [--whole] [--only=TEXT]

Tests run until the first failure: first the files where it is most likely, then all. With
`--whole`, faults that the short run does not see are shown to all tests that `.ci/run` runs. Prints
a line for each fault, and a JSON line at the end.
"""

import argparse
import json
import pathlib
import re
import shutil
import subprocess
import sys
import tempfile

from experiments.planted_faults.faults import FAULTS, Fault

ROOT = pathlib.Path(__file__).parents[2]


def main() -> None:
  """Plants the faults and prints what came of them."""
  parser = argparse.ArgumentParser()
  parser.add_argument("--whole", action="store_true", help="also run what takes longer")
  parser.add_argument("--only", default="", help="only faults in files with this in their name")
  options = parser.parse_args()
  faults = [fault for fault in FAULTS if options.only in fault.file]
  found = {"short": 0, "whole": 0, "unseen": 0}
  for fault in faults:
    seen, test = look(fault, whole=options.whole)
    found[seen] += 1
    print(f"{fault.file}: {fault.what}: {seen} {test}", flush=True)
  print(json.dumps({"faults": len(faults)} | found))


def look(fault: Fault, *, whole: bool) -> tuple[str, str]:
  """Returns which run of the tests sees a fault, `unseen` if none does, and the failing test."""
  with tempfile.TemporaryDirectory() as folder:
    copy = pathlib.Path(folder) / "copy"
    shutil.copytree(
      ROOT, copy, ignore=shutil.ignore_patterns(".git", ".venv", "runs", "*.egg-info")
    )
    file = copy / "sejax" / fault.file
    text = file.read_text(encoding="utf-8")
    if text.count(fault.right) != 1:
      raise ValueError(
        f"{fault.file} holds {fault.right!r} {text.count(fault.right)} times, not once"
      )
    file.write_text(text.replace(fault.right, fault.wrong), encoding="utf-8")
    runs = [("short", ("-n", "0", *fault.tests)), ("short", ())]
    if whole:
      runs += [("whole", ("-m", "not slow and long"))]
    for name, arguments in runs:
      if test := first_failure(copy, arguments):
        return name, test
  return "unseen", ""


def first_failure(copy: pathlib.Path, arguments: tuple[str, ...]) -> str:
  """Returns the first test that fails or cannot be collected; empty if all pass."""
  command = [sys.executable, "-m", "pytest", "-x", "-p", "no:cacheprovider", *arguments]
  done = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False)
  if done.returncode == 0:
    return ""
  failed = re.search(r"^(?:FAILED|ERROR) (\S+)", done.stdout, re.MULTILINE)
  if failed is None:
    raise RuntimeError(f"no test ran: {done.stdout[-500:]}{done.stderr[-500:]}")
  return failed[1]


if __name__ == "__main__":
  main()
