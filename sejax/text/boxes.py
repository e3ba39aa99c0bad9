r"""Boxes: finding the last `\boxed{}` of a text and where its braces close, in linear time.

Brace counting over long texts runs in numpy: a hostile text of braces alone costs microseconds.
"""

import re

import numpy as np
from jaxtyping import Int32

OPENER = "\\boxed{"
LOOSE_OPENER = re.compile(r"\\boxed\s*\{")  # as LaTeX reads it
_COMMAND = "\\boxed"
_LAST_BOXES = 3  # looked at one by one; more would make the time quadratic

# The inside of a box up to its closing brace, three levels of braces deep, escapes skipped; the
# possessive quantifiers keep it linear.
_ATOM = r"[^{}\\]++|(?:\\.)++"
_SHALLOW_CONTENT = re.compile(
  rf"((?:{_ATOM}|\{{(?:{_ATOM}|\{{(?:{_ATOM}|\{{(?:{_ATOM})*+\}})*+\}})*+\}})*+)\}}", re.DOTALL
)
# With more braces than this ahead, counting them in numpy beats the expression.
_FEW_BRACES, _LOOK_AHEAD = 24, 256
# Byte -> change of brace depth as int8: 1 for an opening, -1 for a closing brace, else 0.
_STEPS = bytes({ord("{"): 1, ord("}"): 255}.get(code, 0) for code in range(256))
_BACKSLASH = ord("\\")


def last_balanced(text: str) -> str | None:
  r"""Returns the content of the last box whose braces balance, or None.

  Escaped braces are text, and blanks may stand between `\boxed` and its brace.
  """
  end = len(text)
  for _ in range(_LAST_BOXES):
    start = text.rfind(_COMMAND, 0, end)
    if start < 0:
      return None
    opener = LOOSE_OPENER.match(text, start)
    content = _content(text, opener.end()) if opener else None
    if content is not None:
      return content
    end = start
  # Many boxes in a row are cut off: weigh the rest of them all at once.
  last_brace = text.rfind("}")
  openers = [m.end() for m in LOOSE_OPENER.finditer(text, 0, min(end, max(last_brace, 0)))]
  if not openers:
    return None
  depth = _depth(text, escapes=True)
  # A box opened at depth d closes when the depth first falls to d - 1 again.
  lowest_after = np.minimum.accumulate(depth[::-1])[::-1]
  before = np.array(openers) - 1
  closed = before[lowest_after[before] < depth[before]]
  return until_closed(text[closed[-1] + 1 :], escapes=True) if closed.size else None


def until_closed(text: str, escapes: bool) -> str | None:
  """Returns what stands in front of the brace that closes one brace more than were opened.

  Args:
    text: what follows an opening brace.
    escapes: whether a backslash makes the character behind it plain text.

  Returns:
    That part, or None where no such brace comes.
  """
  if "}" not in text:
    return None
  closed = _depth(text, escapes) < 0
  end = int(closed.argmax())
  return text[:end] if closed[end] else None


def _content(text: str, start: int) -> str | None:
  stop = start + _LOOK_AHEAD
  if text.count("{", start, stop) - text.count("\\{", start, stop) <= _FEW_BRACES:
    shallow = _SHALLOW_CONTENT.match(text, start)
    if shallow:
      return shallow[1]
  return until_closed(text[start:], escapes=True)


def _depth(text: str, escapes: bool) -> Int32[np.ndarray, " characters"]:
  """Depth of braces behind each character of a text."""
  has_escapes = escapes and ("\\{" in text or "\\}" in text)
  if has_escapes:
    text = text.replace("\\\\", "  ")  # same length, so positions stay
  codes = text.encode("latin-1", "replace")  # one byte a character
  steps = np.frombuffer(codes.translate(_STEPS), np.int8).astype(np.int32)
  if has_escapes:
    steps[1:] *= np.frombuffer(codes, np.uint8)[:-1] != _BACKSLASH
  return np.add.accumulate(steps, out=steps)
