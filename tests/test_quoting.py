"""Values in messages are of a readable length."""

import pathlib

from sejax import quoting


def test_short_values_are_as_python_writes_them():
  assert quoting.quoted("it's") == '"it\'s"'
  assert quoting.quoted(["7", None]) == "['7', None]"
  assert quoting.quoted("x" * 118) == f"'{'x' * 118}'"
  assert quoting.shortened("x" * 120) == "x" * 120
  assert quoting.shortened(pathlib.Path("a/b")) == "a/b"


def test_long_values_keep_beginning_and_end():
  text = quoting.quoted("begin" + "x" * 722_000 + "end")
  assert len(text) == 120
  assert text.startswith("'beginx")
  assert "x...x" in text
  assert text.endswith("xend'")
  assert len(quoting.shortened("x" * 121)) == 120
  assert len(quoting.quoted({"a": [b"x"] * 1000})) == 120
