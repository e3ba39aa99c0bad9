"""What docstrings say of public functions is what their signatures and bodies say."""

import ast
import pathlib
import re

import pytest

ROOT = pathlib.Path(__file__).parents[1]
CONSTRUCTORS = ("__init__", "__post_init__")


def public(body, above=()):
  """Yields public classes and functions, each with the classes that it stands in."""
  for node in body:
    if isinstance(node, ast.ClassDef | ast.FunctionDef) and not node.name.startswith("_"):
      yield node, above
    if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
      yield from public(node.body, (*above, node))
    if isinstance(node, ast.FunctionDef) and node.name in (*CONSTRUCTORS, "__call__"):
      yield node, above


def parameters(function, above):
  """Returns the parameters in the order of the signature."""
  of = function.args
  starred = [[of.vararg] if of.vararg else [], of.kwonlyargs, [of.kwarg] if of.kwarg else []]
  found = sum(starred, of.posonlyargs + of.args)
  is_static = any(getattr(node, "id", "") == "staticmethod" for node in function.decorator_list)
  return found[1:] if above and not is_static else found


def section(text, title):
  """Returns a section's entries by the names that they begin with."""
  found = re.search(rf"^{title}:\n((?:  .*\n?|\n)+)", text, re.MULTILINE)
  return re.findall(r"^  \**(\w+):", found[1], re.MULTILINE) if found else []


def raised(node):
  """Yields the names of exceptions that a body raises itself, functions inside it left out."""
  for child in ast.iter_child_nodes(node):
    if isinstance(child, ast.FunctionDef | ast.Lambda | ast.ClassDef):
      continue
    if isinstance(child, ast.Raise) and isinstance(child.exc, ast.Call):
      yield ast.unparse(child.exc.func).rpartition(".")[2]
    yield from raised(child)


@pytest.mark.parametrize("package", sorted({p.parent for p in (ROOT / "sejax").rglob("*.py")}))
def test_docstrings_match_what_they_describe(package):
  for file in package.glob("*.py"):
    module = ast.parse(file.read_text(encoding="utf-8"))
    assert ast.get_docstring(module), file
    for node, above in public(module.body):
      where = f"{file.relative_to(ROOT)}:{node.lineno} {node.name}"
      text = ast.get_docstring(node) or ""
      # A constructor may be explained by its class, as may what all methods of a class raise.
      outer = " ".join(ast.get_docstring(outer) or "" for outer in (module, *above))
      assert text or node.name in CONSTRUCTORS, where
      if isinstance(node, ast.ClassDef):
        continue
      names = [parameter.arg for parameter in parameters(node, above)]
      # What a name and a type say already has no entry.
      described = section(text, "Args")
      assert described == [name for name in names if name in described], where
      untyped = [p.arg for p in parameters(node, above) if p.annotation is None]
      assert not untyped, (where, untyped)
      for error in {*raised(node)} - {"NotImplementedError"}:
        # One that is explained elsewhere says where.
        assert error in text + outer or "see `" in text, (where, error)
