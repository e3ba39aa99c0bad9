"""Parsers of `--config.FIELD=VALUE` that accept values which ml_collections refuses.

`None` (or `none`) unsets an optional number or switch; `sejax.config.validation` refuses it where a
field must have a value. An empty text stands for an empty tuple, and a dictionary literal sets a
whole section.
"""

import ast

import ml_collections
from absl import flags
from ml_collections import config_flags
from ml_collections.config_flags import tuple_parser

SECTION = "section"  # flag type of whole sections, beside absl's own types for fields


def register() -> None:
  """Registers the parsers with ml_collections; call it before flags are parsed."""
  config_flags.register_flag_parser_for_type(int, _OptionalInteger())
  config_flags.register_flag_parser_for_type(float, _OptionalFloat())
  config_flags.register_flag_parser_for_type(bool, _OptionalBoolean())
  config_flags.register_flag_parser_for_type(tuple, _Tuple())
  config_flags.register_flag_parser_for_type(ml_collections.ConfigDict, _Section())


def _is_none(argument: object) -> bool:
  return isinstance(argument, str) and argument.strip().casefold() == "none"


class _OptionalInteger(flags.IntegerParser):
  """Parses a whole number or `None`."""

  def parse(self, argument: str | int) -> int | None:
    return None if _is_none(argument) else super().parse(argument)


class _OptionalFloat(flags.FloatParser):
  """Parses a number or `None`."""

  def parse(self, argument: str | float) -> float | None:
    return None if _is_none(argument) else super().parse(argument)


class _OptionalBoolean(flags.BooleanParser):
  """Parses true, false or `None`."""

  def parse(self, argument: str | int) -> bool | None:
    return None if _is_none(argument) else super().parse(argument)


class _Tuple(tuple_parser.TupleParser):
  """Parses a tuple; an empty text is the empty one."""

  def parse(self, argument: object) -> tuple:
    return () if isinstance(argument, str) and not argument.strip() else super().parse(argument)


class _Section(flags.ArgumentParser):
  """Parses a section from a dictionary literal, such as `{'square': 1.0}`."""

  def parse(self, argument: str | ml_collections.ConfigDict) -> ml_collections.ConfigDict:
    if isinstance(argument, ml_collections.ConfigDict):  # the default
      return argument
    try:
      return ml_collections.ConfigDict(dict(ast.literal_eval(argument)))
    except (SyntaxError, TypeError, ValueError):
      raise ValueError("it is not a dictionary") from None

  def flag_type(self) -> str:
    return SECTION
