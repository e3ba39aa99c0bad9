r"""Finds the last `\boxed{}` of a text and its closing brace, in linear time.

Braces of long texts are counted in numpy, so that even a text of nothing but braces is fast.
"""

import re

import numpy as np
from jaxtyping import Int32

OPENER = "\\boxed{"
LOOSE_OPENER = re.compile(r"\\boxed\s*\{")  # LaTeX allows white space before the brace.
_COMMAND = "\\boxed"
_NUM_TRIED_ONE_BY_ONE = 3  # boxes; more would make the time quadratic

# The content of a box and its closing brace, with braces nested up to three levels deep and escapes
# skipped. Possessive quantifiers (++) prevent backtracking.
_ATOM = r"[^{}\\]++|(?:\\.)++"
_SHALLOW_CONTENT = re.compile(
  rf"((?:{_ATOM}|\{{(?:{_ATOM}|\{{(?:{_ATOM}|\{{(?:{_ATOM})*+\}})*+\}})*+\}})*+)\}}", re.DOTALL
)
# With more opening braces than this in the next characters, numpy is faster than the expression.
_FEW_BRACES, _LOOK_AHEAD = 24, 256
# Byte -> change of brace depth as int8: 1 for an opening brace, -1 (255) for a closing one, else 0.
_DEPTH_CHANGES = bytes({ord("{"): 1, ord("}"): 255}.get(code, 0) for code in range(256))
_BACKSLASH = ord("\\")


def last_balanced(text: str) -> str | None:
  r"""Returns the content of the last box with balanced braces; None if there is none.

  Escaped braces are text. White space is allowed between `\boxed` and its brace.
  """
  end = len(text)
  for _ in range(_NUM_TRIED_ONE_BY_ONE):
    start = text.rfind(_COMMAND, 0, end)
    if start < 0:
      return None
    opener = LOOSE_OPENER.match(text, start)
    content = _content(text, opener.end()) if opener else None
    if content is not None:
      return content
    end = start
  # The last few boxes are cut off: check all the others at once.
  last_closing_brace = text.rfind("}")
  stop = min(end, max(last_closing_brace, 0))
  openers = [match.end() for match in LOOSE_OPENER.finditer(text, 0, stop)]
  if not openers:
    return None
  depth = _brace_depth(text, escapes=True)
  # A box whose brace opened depth d is closed if the depth after it falls below d.
  lowest_from_here = np.minimum.accumulate(depth[::-1])[::-1]
  braces = np.array(openers) - 1
  closed = braces[lowest_from_here[braces] < depth[braces]]
  if closed.size == 0:
    return None
  return until_closing_brace(text[closed[-1] + 1 :], escapes=True)


def until_closing_brace(text: str, escapes: bool) -> str | None:
  """Returns the text up to the first closing brace without an opening one; None if there is none.

  Args:
    text: the text after an opening brace.
    escapes: whether a backslash makes the next character plain text.
  """
  if "}" not in text:
    return None
  is_closed = _brace_depth(text, escapes) < 0
  end = int(is_closed.argmax())
  return text[:end] if is_closed[end] else None


def _content(text: str, start: int) -> str | None:
  """Returns the content of the box whose brace opens just before `start`; None if cut off."""
  stop = start + _LOOK_AHEAD
  if text.count("{", start, stop) - text.count("\\{", start, stop) <= _FEW_BRACES:
    shallow = _SHALLOW_CONTENT.match(text, start)
    if shallow:
      return shallow[1]
  return until_closing_brace(text[start:], escapes=True)


def _brace_depth(text: str, escapes: bool) -> Int32[np.ndarray, " characters"]:
  """Returns the number of open braces after each character."""
  has_escapes = escapes and ("\\{" in text or "\\}" in text)
  if has_escapes:
    text = text.replace("\\\\", "  ")  # of the same length, so that positions stay
  codes = text.encode("latin-1", "replace")  # one byte per character
  changes = np.frombuffer(codes.translate(_DEPTH_CHANGES), np.int8).astype(np.int32)
  if has_escapes:
    changes[1:] *= np.frombuffer(codes, np.uint8)[:-1] != _BACKSLASH
  return np.add.accumulate(changes, out=changes)
