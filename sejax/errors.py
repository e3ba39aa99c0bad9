"""Errors that people read, and how a value is quoted in them: at a readable length, in one line.

It imports nothing of sejax, so that every package may use it.
"""

# Characters of a value; a message of one line has room for one or two of them.
LONGEST = 120


class ConfigError(ValueError):
  """A configuration that cannot work; it names the field, its value and what would work."""


class OptionError(ConfigError):
  """A field of the configuration with a value that it cannot have.

  Attributes:
    field: its dotted name.
    value: that is refused.
    wanted: what the value must be, to be read behind "must be".
  """

  def __init__(self, field: str, value: object, wanted: str):
    super().__init__(f"config.{field}={quoted(value)} must be {wanted}")
    self.field, self.value, self.wanted = field, value, wanted


def shortened(text: object, longest: int = LONGEST) -> str:
  """Returns a text as it is or, where it is too long to print, its beginning and its end."""
  text = str(text)
  if len(text) <= longest:
    return text
  tail = (longest - 3) // 2
  return f"{text[: longest - 3 - tail]}...{text[-tail:]}"


def quoted(value: object) -> str:
  """Returns what Python writes for a value, a text with its quotes, at most `LONGEST` long."""
  return shortened(repr(value))


def said(error: BaseException, longest: int = LONGEST) -> str:
  """Returns an error's message in one line, at most `longest` characters of it."""
  return shortened(" ".join(str(error).split()), longest)
