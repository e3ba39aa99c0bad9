"""Messages of errors: values are shortened, and every message is one line."""

import ast
import pathlib

import pytest

import sejax
from sejax import config, errors, method
from sejax.config import presets, validation
from sejax.data import figures
from sejax.evaluation.benchmarks import fields
from sejax.models import hub
from sejax.text import answers

LONG = "x" * 722_000
ROOT = pathlib.Path(sejax.__file__).parent
# Modules whose errors are caught within the package.
INTERNAL = ("data/figures/board.py", "data/figures/font.py")


def test_short_values_are_as_python_writes_them():
  assert errors.quoted("it's") == '"it\'s"'
  assert errors.quoted(["7", None]) == "['7', None]"
  assert errors.quoted("x" * 118) == f"'{'x' * 118}'"
  assert errors.shortened("x" * 120) == "x" * 120
  assert errors.shortened(pathlib.Path("a/b")) == "a/b"


def test_long_values_keep_beginning_and_end():
  text = errors.quoted("begin" + "x" * 722_000 + "end")
  assert len(text) == 120
  assert text.startswith("'beginx")
  assert "x...x" in text
  assert text.endswith("xend'")
  assert len(errors.shortened("x" * 121)) == 120
  assert len(errors.quoted({"a": [b"x"] * 1000})) == 120


def test_a_value_that_a_field_cannot_have():
  error = errors.OptionError("lora.alpha", "x" * 200, "above 0")
  assert (error.field, error.value, error.wanted) == ("lora.alpha", "x" * 200, "above 0")
  assert str(error) == f"config.lora.alpha={errors.quoted('x' * 200)} must be above 0"
  assert isinstance(error, config.ConfigError)


def test_an_errors_text_is_cut_to_one_line():
  error = ValueError("a\n b " + "x" * 100)
  assert errors.one_line(error) == "a b " + "x" * 100
  assert errors.one_line(error, 20) == "a b xxxxx...xxxxxxxx"


def _validate(**fields):
  changed = config.default()
  changed.update_from_flattened_dict(fields)
  validation.validate(changed)


@pytest.mark.parametrize(
  "refuse",
  [
    lambda: _validate(**{"data.source": LONG}),
    lambda: _validate(**{"judge.rubric": LONG}),
    lambda: _validate(**{"data.prompt_buckets": tuple(range(9000, 0, -1))}),
    lambda: _validate(**{"method.advantage": LONG}),
    lambda: figures.Mixture({LONG: 1.0}),
    lambda: figures.source(LONG),
    lambda: presets.apply(config.default(), LONG),
    lambda: hub.require_directory("config.model.path", LONG),
    lambda: fields.parsed(LONG + "("),
    lambda: fields.first(dict.fromkeys(map(str, range(9999))), "question"),
    lambda: answers.vote_ids([], equivalence=LONG),
    lambda: method.group([[0, 0]], [[True] * 2], [[0.0] * 2], [[True] * 2], advantage=LONG),
  ],
)
def test_messages_hold_no_long_value(refuse):
  with pytest.raises(ValueError, match=r"\.\.\.") as caught:
    refuse()
  assert len(str(caught.value)) <= 300


def test_no_error_quotes_a_value_in_another_way():
  for file in sorted(ROOT.rglob("*.py")):
    if file.relative_to(ROOT).as_posix() in INTERNAL:
      continue
    for raised in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
      if not isinstance(raised, ast.Raise):
        continue
      for part in ast.walk(raised):
        if isinstance(part, ast.FormattedValue) and part.conversion == ord("r"):
          # An object of our own says what it is; of a file's bytes the first few are shown.
          assert ast.unparse(part.value) in ("self", "data[:8]"), (file, part.lineno)
