"""Output outlives its reader and any encoding of the terminal."""

import os
import subprocess
import sys

import pytest

SHOUT = """
import sys
from sejax.text import terminal
terminal.prepare()
print("√2 中文 \\udc80")
print("∠", file=sys.stderr)
for _ in range(20_000):
  print("and so on")
print("to the end", file=sys.stderr)
"""


def run(program, **options):
  return subprocess.run([sys.executable, *program], capture_output=True, check=False, **options)


@pytest.mark.parametrize("encoding", ["ascii", "latin-1", "cp1252", "utf-8"])
def test_any_character_is_written(encoding):
  done = run(["-c", SHOUT], env=os.environ | {"PYTHONIOENCODING": encoding})
  assert done.returncode == 0, done.stderr
  first = done.stdout.split(b"\n")[0]
  text = "√2 中文" if encoding == "utf-8" else r"\u221a2 \u4e2d\u6587"
  assert first == f"{text} \\udc80".encode()
  assert done.stderr.endswith(b"to the end\n")


def test_what_nobody_reads_goes_nowhere():
  reader, writer = os.pipe()
  process = subprocess.Popen([sys.executable, "-c", SHOUT], stdout=writer, stderr=subprocess.PIPE)
  os.close(writer)
  assert os.read(reader, 8)
  os.close(reader)
  _, error = process.communicate()
  assert process.returncode == 0
  assert b"Traceback" not in error
  assert b"BrokenPipeError" not in error
  assert error.endswith(b"to the end\n")


@pytest.mark.long
def test_trajectories_are_shown_on_any_terminal():
  """Whatever a model writes, in whatever encoding the terminal has."""
  show = """
import sys
from sejax import main
from sejax.rollout import sample
answered = sample.ScoredGroup(("x = √2 \\ud83d",), ("∠A = 60°",), (1.0,))
sample.ask = lambda *_, **options: answered
sys.exit(main.main(["sejax", "--mode=sample", "--config=configs/tiny.py", "--question=?"]))
"""
  done = run(["-c", show], env=os.environ | {"PYTHONIOENCODING": "ascii", "PYTHONPATH": "."})
  assert done.returncode == 0, done.stderr
  expected = (
    b"--- trajectory 1\nx = \\u221a2 \\ufffd\nanswer \\u2220A = 60\\xb0, vote share 1.000\n"
  )
  assert done.stdout == expected


def test_help_may_be_cut_off():
  command = f"{sys.executable} -m sejax.main --help | head -n 1"
  done = subprocess.run(command, shell=True, capture_output=True, text=True, check=False)
  assert done.stdout.count("\n") == 1
  assert done.stderr == ""
