"""sejax needs neither torch nor tensorflow at run time."""

import subprocess
import sys

IMPORT_ALL = """
import importlib, pkgutil, sys
for name in ("torch", "torchvision"):
  sys.modules[name] = None  # importing it raises ImportError
import sejax
names = [m.name for m in pkgutil.walk_packages(sejax.__path__, "sejax.")]
assert len(names) > 10, names
for name in names:
  importlib.import_module(name)
# Not None as above: tensorflow-datasets would take that for a tensorflow that is there.
assert "tensorflow" not in sys.modules
"""


def test_every_module_imports_without_torch_and_tensorflow():
  done = subprocess.run(
    [sys.executable, "-c", IMPORT_ALL], capture_output=True, text=True, check=False
  )
  assert done.returncode == 0, done.stderr
