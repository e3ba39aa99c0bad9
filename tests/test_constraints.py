"""The files of tested versions: they have every package that sejax asks for, as it asks for it."""

import ast
import re

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.subprocesses import ROOT

FILES = {"python3.11.txt": "3.11", "python3.12.txt": "3.12"}


def requirements():
  """Returns what `setup.py` asks for, for itself and its tests."""
  tree = ast.parse((ROOT / "setup.py").read_text(encoding="utf-8"))
  (call,) = [
    node
    for node in ast.walk(tree)
    if getattr(node, "func", None) is not None and ast.unparse(node.func) == "setuptools.setup"
  ]
  given = {keyword.arg: keyword.value for keyword in call.keywords}
  extras = ast.literal_eval(given["extras_require"])
  texts = ast.literal_eval(given["install_requires"]) + extras["test"]
  return [Requirement(text) for text in texts]


@pytest.mark.parametrize("name", FILES)
def test_tested_versions_are_allowed_ones(name):
  text = (ROOT / "tests" / "constraints" / name).read_text(encoding="utf-8")
  tested = {
    canonicalize_name(package): version
    for package, version in re.findall(r"^([\w.-]+)==(\S+)$", text, re.MULTILINE)
  }
  assert len(tested) > 100
  for requirement in requirements():
    if requirement.marker and not requirement.marker.evaluate({"python_version": FILES[name]}):
      continue
    assert requirement.specifier.contains(tested[canonicalize_name(requirement.name)]), requirement
