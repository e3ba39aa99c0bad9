"""What the README files say: links lead somewhere, options exist, commands are taken."""

import pathlib
import re
import shlex

import pytest
from ml_collections import config_dict

from sejax import config as config_lib
from sejax.config import arguments as arguments_lib
from sejax.config import validation
from sejax.evaluation import benchmarks

ROOT = pathlib.Path(__file__).parents[1]
FILES = [ROOT / "README.md", *sorted((ROOT / "configs").glob("*.md"))]
FILES += [ROOT / "sejax" / "README.md", *sorted((ROOT / "experiments").rglob("README.md"))]
NAMES = [str(file.relative_to(ROOT)) for file in FILES]


def text(file):
  return file.read_text(encoding="utf-8")


def anchors(file):
  """Returns the anchors of a file's headings, as GitHub makes them."""
  headings = re.findall(r"^#+ (.+)$", text(file), re.MULTILINE)
  return {re.sub(r"[^\w -]", "", heading).lower().replace(" ", "-") for heading in headings}


def blocks(file, language=""):
  """Returns the fenced blocks of a language; empty: of commands and output."""
  fenced = re.findall(r"^ *```(\w*)\n(.*?)^ *```$", text(file), re.MULTILINE | re.DOTALL)
  return [block for name, block in fenced if name == language]


def commands(file):
  """Returns the arguments of each `sejax` or `sejax.main` in a block of commands."""
  lines = "".join(blocks(file)).replace("\\\n", " ").splitlines()
  found = [re.search(r"(?:^ *|\bpython -m )sejax(?:\.main)? (-.*)", line) for line in lines]
  # Brackets are for what may be left out.
  return [shlex.split(match[1]) for match in found if match and "[" not in match[1]]


def test_the_first_page_is_short():
  assert len(text(ROOT / "README.md").splitlines()) <= 200


@pytest.mark.parametrize("file", FILES, ids=NAMES)
def test_links_lead_somewhere(file):
  links = re.findall(r"\]\(([^)\s]+)\)", text(file))
  for link in links:
    if link.startswith("http"):
      continue
    path, _, anchor = link.partition("#")
    target = (file.parent / path).resolve() if path else file
    assert target.exists(), link
    assert not anchor or anchor in anchors(target), link


def test_every_option_is_explained_with_its_default():
  rows = re.findall(
    r"^\| `([\w.]+)` \| (.*?) \| \S.* \|$", text(ROOT / "configs" / "README.md"), re.MULTILINE
  )
  said = {name: default.replace("\\|", "|") for name, default in rows}
  families = "data.figures.families."
  for name, value in config_lib.flatten(config_lib.default()).items():
    if name.startswith(families):
      assert name.removeprefix(families) in text(ROOT / "configs" / "README.md"), name
      continue
    if isinstance(value, config_dict.FieldReference):
      value = value.get()
    shown = f'"{value}"' if isinstance(value, str) else repr(value)
    assert said.pop(name) == f"`{shown}`" or name == "actor.instruction", name
  free = {"data.figures.families.NAME", "rewards.options"}
  sections = (*config_lib.default(), "")
  assert {name for name in said if name.partition(".")[0] in sections} == free


@pytest.mark.long
@pytest.mark.parametrize("arguments", [x for file in FILES for x in commands(file)], ids=" ".join)
def test_commands_are_taken(arguments, monkeypatch):
  monkeypatch.chdir(ROOT)
  config = arguments_lib.parse(["sejax", *arguments])
  validation.validate(config, reads_data=False)


def test_the_files_of_benchmarks_are_listed():
  rows = re.findall(
    r"^\| `(\w+)` \| (.*) \|$", text(ROOT / "experiments/benchmarks/README.md"), re.MULTILINE
  )
  said = {name: tuple(re.findall(r"`([^`]+)`", files)) for name, files in rows}
  for name, benchmark in benchmarks.BENCHMARKS.items():
    assert said[name] == tuple(benchmark.files)
