"""How the package is laid out: few rooms, imports one way, no torch and no tensorflow."""

import ast
import itertools
import pathlib
import re
import subprocess
import sys

import ml_collections
import pytest

from sejax import config as config_lib

PACKAGE = pathlib.Path(__file__).parents[1] / "sejax"

# Each level imports from its own and from those before it, in the order written within a level.
ORDER = (
  "errors",
  "flags",
  "storage",
  "assets",
  "method",
  "text",
  "parallel",
  "models",
  "sampling",
  "data",
  "rewards",
  "rollout",
  "learner",
  "monitoring",
  "reports",
  "evaluation",
  "planning",
  "config",
  "api",
  "setup",
  "train",
  "main",
)

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


@pytest.mark.long
def test_every_module_imports_without_torch_and_tensorflow():
  done = subprocess.run(
    [sys.executable, "-c", IMPORT_ALL], capture_output=True, text=True, check=False
  )
  assert done.returncode == 0, done.stderr


def test_the_command_line_starts_without_what_takes_seconds_to_import():
  code = (
    "import sys, sejax.config.launch; print(*{'transformers', 'sympy', 'grain'} & {*sys.modules})"
  )
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
  assert done.stdout == "\n"


def imports(path):
  """Yields the names of sejax's own modules and objects that a file imports."""
  for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
    if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith("sejax"):
      yield from (f"{node.module}.{alias.name}" for alias in node.names)
    elif isinstance(node, ast.Import):
      yield from (alias.name for alias in node.names if alias.name.startswith("sejax"))


def room(path):
  """Returns the package, or the loose module, that a file of sejax belongs to."""
  return path.relative_to(PACKAGE).parts[0].removesuffix(".py")


FILES = sorted(path for path in PACKAGE.rglob("*.py") if path != PACKAGE / "__init__.py")


def test_there_are_few_rooms_and_each_has_a_place_in_the_order():
  loose = {path.stem for path in PACKAGE.glob("*.py")} - {"__init__"}
  packages = {path.parent.name for path in PACKAGE.glob("*/__init__.py")}
  assert loose == {"api", "errors", "flags", "main", "setup", "train"}
  assert loose | packages == {*ORDER}
  assert len(packages - {"assets"}) <= 15  # which holds no code


def test_imports_go_one_way():
  backwards = [
    f"{path.relative_to(PACKAGE)} imports {name}"
    for path in FILES
    for name in imports(path)
    if room(path) in ORDER
    and (parts := name.split(".")[1:])
    and ORDER.index(parts[0]) > ORDER.index(room(path))
  ]
  assert backwards == []


def test_the_methods_formulas_import_nothing_of_sejax():
  names = [name for path in (PACKAGE / "method").rglob("*.py") for name in imports(path)]
  assert names != []
  assert {name.split(".")[1] for name in names} == {"method"}


SEE_ALL = {"api", "config", "main", "setup", "train"}  # of the configuration


def test_the_configuration_is_known_to_few():
  """Everything else is given its own section, or a dataclass of it."""
  importing = {
    room(path)
    for path, name in itertools.chain.from_iterable(((p, n) for n in imports(p)) for p in FILES)
    if name.split(".")[1:2] == ["config"]
  }
  assert importing == SEE_ALL


def configurations(path):
  """Yields the functions of a file with each parameter that is a ConfigDict, and the parameter."""
  for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
    if isinstance(node, ast.FunctionDef):
      arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
      for argument in arguments:
        if argument.annotation and "ConfigDict" in ast.unparse(argument.annotation):
          yield node, argument.arg


def fields_read(function, parameter):
  """Returns the fields of a parameter that a function reads, as attributes or by subscripts."""
  found = set()
  for node in ast.walk(function):
    if isinstance(node, ast.Attribute) and ast.unparse(node.value) == parameter:
      found.add(node.attr)
    if isinstance(node, ast.Subscript) and ast.unparse(node.value) == parameter:
      found |= {node.slice.value} if isinstance(node.slice, ast.Constant) else set()
  return found - set(dir(ml_collections.ConfigDict))


def all_sections(config):
  """Yields the names of the fields of each section, and of each section of a section."""
  for section in config.values():
    if isinstance(section, ml_collections.ConfigDict):
      yield set(section)
      yield from all_sections(section)


def test_a_function_reads_no_more_than_one_section():
  """No `config.model` and `config.data` below the setup: of a section, and of one alone."""
  sections = list(all_sections(config_lib.default()))
  read = [
    (f"{path.relative_to(PACKAGE)}:{function.lineno}", name, fields_read(function, name))
    for path in FILES
    if room(path) not in SEE_ALL
    for function, name in configurations(path)
  ]
  assert len(read) > 10
  assert [where for where, name, _ in read if name == "config"] == []
  wider = [
    (where, name, sorted(fields))
    for where, name, fields in read
    if not any(fields <= section for section in sections)
  ]
  assert wider == []


def test_tests_mirror_the_tree():
  tests = PACKAGE.parent / "tests"
  assert {path.parent.name for path in tests.glob("*/__init__.py")} <= {*ORDER, "experiments"}


def test_nothing_outside_models_names_a_family():
  """Neither a family's package nor the insides of its configuration or parameters."""
  families = {path.parent.name for path in PACKAGE.glob("models/*/model.py")}
  assert families == {"qwen2_vl", "qwen2_5_vl", "qwen3_vl"}
  naming = [
    f"{path.relative_to(PACKAGE)}: {name}"
    for path in FILES
    if room(path) != "models"
    for name in imports(path)
    if families & set(name.split("."))
  ]
  assert naming == []
  inside = re.compile(r"\.vision\.|\.text_config|\[\"(decoder|vision|lm_head)\"\]|model\.text\.")
  reading = [
    f"{path.relative_to(PACKAGE)}:{number}"
    for path in FILES
    if room(path) != "models"
    for number, line in enumerate(path.read_text(encoding="utf-8").split("\n"), 1)
    if inside.search(line)
  ]
  assert reading == []
