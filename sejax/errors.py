"""Errors that people read, and how a value is quoted in them: at a readable length, in one line.

It imports nothing of sejax, so that every package may use it.
"""

# Characters of a value; a message of one line has room for one or two of them.
LONGEST = 120


class ConfigError(ValueError):
  """A configuration that cannot work; it names the field, its value and what would work."""


def shortened(text: object) -> str:
  """Returns a text as it is or, where it is too long to print, its beginning and its end."""
  text = str(text)
  if len(text) <= LONGEST:
    return text
  tail = (LONGEST - 3) // 2
  return f"{text[: LONGEST - 3 - tail]}...{text[-tail:]}"


def quoted(value: object) -> str:
  """Returns what Python writes for a value, a text with its quotes, at most `LONGEST` long."""
  return shortened(repr(value))


def said(error: BaseException) -> str:
  """Returns an error's message in one line, at most `LONGEST` long."""
  return shortened(" ".join(str(error).split()))
