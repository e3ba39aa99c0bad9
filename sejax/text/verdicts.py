r"""Verdicts: the score in [0, 1] that ends a Judge's evaluation.

The Judge is told to write `[BEGIN THOUGHT] ... [END THOUGHT]`, a JSON object with four numbers
between `[BEGIN SCORES]` and `[END SCORES]`, and one last line `\boxed{overall}` (arXiv:2603.21289).
What it quotes from a trajectory inside its closed thought is not read.
"""

import json
import math
import re
from collections.abc import Iterator

from sejax.text import boxes

KEY = "overall_score"
# What becomes of a verdict whose box is not the score of its own JSON object: the box counts, and
# such verdicts are counted; or it is invalid.
CONTRADICTORY = ("count", "invalid")

_THOUGHT_BEGIN = re.compile(r"\[begin thought\]", re.IGNORECASE)
_THOUGHT_END = re.compile(r"\[end thought\]", re.IGNORECASE)
_SCORES_BEGIN = re.compile(r"\[(?:begin )?scores\]", re.IGNORECASE)
_SCORES_END = re.compile(r"\[end scores\]", re.IGNORECASE)
_RELEASED_END = "[END SCORES]"
# Programming notations that float() also takes (0_8, nan, inf, 0x1p3) are no scores.
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?")
_MAX_NUMBER_CHARACTERS = 64
# A verdict of sane length has one or two; more would only cost time.
_MAX_BLOCKS = 16
_ROUNDING = 0.01 + 1e-9  # by which two roundings of a score to two decimals may differ
_DECODER = json.JSONDecoder()


def score(text: str, released: bool = False) -> float | None:
  r"""Returns the score of a verdict, or None where there is no valid one.

  The verdict is what the Judge writes after its thought: the last `\boxed{}` there, or else the
  last complete tagged JSON object, which must hold the score key. Only a finite number on the scale
  is valid; booleans, NaN, infinities, numbers off the scale, ratios, percentages, and boxes and
  objects that are cut off are not. Whether the whole verdict was cut at a limit, only who drew it
  knows, see `sejax.rewards.read_verdicts`. Tags are read in any case, and blanks may stand before
  the brace of a box. Linear in the length of the text.

  Args:
    text: what the Judge wrote.
    released: read as the released code does: boxes and tags anywhere in the text, a failed reading
      is 0.0, NaN passes through and anything off the scale is clamped.
  """
  if released:
    return _released_score(text)
  verdict = _after_thought(text)
  value = _to_number(_last_box(verdict))
  if value is None:
    value = _last_tagged_score(verdict)
  return value if value is not None and 0.0 <= value <= 1.0 else None


def contradicts(text: str) -> bool:
  """Whether a verdict's box and its own JSON object hold numbers that are not the same score.

  Args:
    text: what the Judge wrote; what it quotes inside its closed thought is left out.
  """
  verdict = _after_thought(text)
  box, tagged = _to_number(_last_box(verdict)), _last_tagged_score(verdict)
  return box is not None and tagged is not None and abs(box - tagged) > _ROUNDING


def _after_thought(text: str) -> str:
  """What stands behind the last closed thought; nothing where the thought is still open."""
  *_, behind = _THOUGHT_END.split(text)
  verdict, *reopened = _THOUGHT_BEGIN.split(behind, maxsplit=1)
  is_open = reopened and len(behind) == len(text)  # begun, and never closed
  return "" if is_open else verdict


def _last_box(text: str) -> str | None:
  """The content of the last box; where that is cut off, an earlier one does not stand in."""
  *_, inside = boxes.LOOSE_OPENER.split(text)
  return boxes.until_closed(inside, escapes=True) if len(inside) < len(text) else None


def _to_number(value: object) -> float | None:
  """A finite float from a JSON value or from text, or None."""
  if isinstance(value, str):
    value = value.strip().strip("$").strip()
    if len(value) > _MAX_NUMBER_CHARACTERS or not _NUMBER.fullmatch(value):
      return None
  elif isinstance(value, bool) or not isinstance(value, int | float):
    return None
  try:
    number = float(value)
  except OverflowError:
    return None
  return number if math.isfinite(number) else None


def _last_tagged_score(text: str) -> float | None:
  # Each block is read up to the next opening tag only, so the whole takes linear time.
  for block in _SCORES_BEGIN.split(text)[:0:-1][:_MAX_BLOCKS]:
    brace = _SCORES_END.split(block, maxsplit=1)[0].find("{")
    if brace < 0:
      continue
    try:
      scores, _ = _DECODER.raw_decode(block, brace)
    except (ValueError, RecursionError):
      continue
    return _to_number(scores.get(KEY))
  return None


def _released_score(text: str) -> float:
  _, found, inside = text.rpartition(boxes.OPENER)
  box = boxes.until_closed(inside, escapes=True) if found else None
  value = None if box is None else _clamped(box.strip().strip("$"))
  if value is not None:
    return value
  for block in _released_blocks(text):
    value = _released_json(block)
    if value is not None:
      return value
  return 0.0


def _released_blocks(text: str) -> Iterator[str]:
  """Where the scores may stand, in the order of trial: closed blocks, then open-ended ones."""
  tails = [text.split(tag, 1)[1] for tag in ("[BEGIN SCORES]", "[SCORES]") if tag in text]
  yield from (tail.split(_RELEASED_END, 1)[0] for tail in tails if _RELEASED_END in tail)
  yield from tails


def _released_json(block: str) -> float | None:
  """The score in the first object of a block (a missing key is 0); braces in strings count."""
  start = block.find("{")
  if start < 0:
    return None
  content = boxes.until_closed(block[start + 1 :], escapes=False)
  if content is None:
    return None
  try:
    return _clamped(json.loads("{" + content + "}").get(KEY, 0.0))
  except (ValueError, RecursionError):
    return None


def _clamped(value: object) -> float | None:
  try:
    number = float(value)
  except (TypeError, ValueError, OverflowError):
    return None
  return number if math.isnan(number) else min(max(number, 0.0), 1.0)
