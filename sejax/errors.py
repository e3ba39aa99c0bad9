"""Errors about the configuration, and functions that shorten values for one-line messages.

Imports nothing else of sejax, so that every package can use it.
"""

# Maximum characters of a value in a message, which has at most 300 characters in all.
LONGEST = 120


class ConfigError(ValueError):
  """The configuration cannot work; the message names the field, its value and what would work."""


class OptionError(ConfigError):
  """A configuration field has a value out of its range.

  Attributes:
    field: dotted name of the field, without `config.`.
    value: the refused value, shortened in the message.
    wanted: what the value must be, as the message says after "must be".
  """

  def __init__(self, field: str, value: object, wanted: str):
    super().__init__(f"config.{field}={quoted(value)} must be {wanted}")
    self.field, self.value, self.wanted = field, value, wanted


def shortened(text: object, longest: int = LONGEST) -> str:
  """Returns a text, with `...` for its middle if it is longer than `longest` characters."""
  text = str(text)
  if len(text) <= longest:
    return text
  tail = (longest - 3) // 2
  return f"{text[: longest - 3 - tail]}...{text[-tail:]}"


def quoted(value: object) -> str:
  """Returns the shortened `repr` of a value, so that texts have quotes."""
  return shortened(repr(value))


def one_line(error: BaseException, longest: int = LONGEST) -> str:
  """Returns an error's message on one line, shortened to `longest` characters."""
  return shortened(" ".join(str(error).split()), longest)
