r"""Reads verdicts: the score in [0, 1] at the end of a Judge's reply.

The Judge is asked to write `[BEGIN THOUGHT] ... [END THOUGHT]`, then a JSON object with four scores
between `[BEGIN SCORES]` and `[END SCORES]`, then a last line `\boxed{overall}` (arXiv:2603.21289).
The thought may quote boxes and scores from the trajectory, so nothing is read from inside it.
"""

import json
import math
import re
from collections.abc import Iterator

from sejax.text import boxes

KEY = "overall_score"
# A verdict whose box contradicts its own JSON object: "count" uses the box and only counts such
# verdicts in a metric, "invalid" treats the verdict as invalid.
CONTRADICTORY = ("count", "invalid")

_THOUGHT_BEGIN = re.compile(r"\[begin thought\]", re.IGNORECASE)
_THOUGHT_END = re.compile(r"\[end thought\]", re.IGNORECASE)
_SCORES_BEGIN = re.compile(r"\[(?:begin )?scores\]", re.IGNORECASE)
_SCORES_END = re.compile(r"\[end scores\]", re.IGNORECASE)
_RELEASED_END = "[END SCORES]"
# float() would also accept 0_8, nan and inf, which are not scores.
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]{1,4})?")
_MAX_NUMBER_CHARACTERS = 64
_MAX_BLOCKS = 16  # A normal verdict has one block of scores; hostile ones must not cost time.
_ROUNDING = 0.01 + 1e-9  # largest difference of two roundings of a score to two decimals
_DECODER = json.JSONDecoder()


def score(text: str, released: bool = False) -> float | None:
  r"""Returns the score of a verdict; None if it has no valid one.

  The score is the content of the last `\boxed{}` after the thought. If that is not a finite number,
  it is `overall_score` in the last complete JSON object between score tags. Only a number in [0, 1]
  is valid; booleans, NaN, infinities, ratios, percentages, and boxes and objects that are cut off
  are not. Tags are read in any case, and white space is allowed before the brace of a box. Takes
  time linear in the length of the text.

  This cannot tell whether the reply was cut off at the token limit, see
  `sejax.rewards.read_verdicts`.

  Args:
    text: the Judge's reply.
    released: follow the paper's released code: boxes and tags count anywhere in the text, an
      unreadable score is 0.0, NaN is returned, and numbers outside of [0, 1] are clamped.
  """
  if released:
    return _released_score(text)
  verdict = _after_thought(text)
  value = _to_number(_last_box(verdict))
  if value is None:
    value = _last_tagged_score(verdict)
  return value if value is not None and 0.0 <= value <= 1.0 else None


def contradicts(text: str) -> bool:
  """Whether the box and the JSON object of a Judge's reply hold different scores.

  Scores that only differ by rounding to two decimals are not different.
  """
  verdict = _after_thought(text)
  box, tagged = _to_number(_last_box(verdict)), _last_tagged_score(verdict)
  return box is not None and tagged is not None and abs(box - tagged) > _ROUNDING


def _after_thought(text: str) -> str:
  """Returns the text after the last closed thought; empty if the only thought is still open."""
  *closed, rest = _THOUGHT_END.split(text)
  verdict, *open_thought = _THOUGHT_BEGIN.split(rest, maxsplit=1)
  if open_thought and not closed:
    return ""
  return verdict


def _last_box(text: str) -> str | None:
  """Returns the content of the last box; None if it is cut off, even if there are earlier ones."""
  *before, rest = boxes.LOOSE_OPENER.split(text)
  return boxes.until_closing_brace(rest, escapes=True) if before else None


def _to_number(value: object) -> float | None:
  """Returns a finite number from a JSON value or a text; None for anything else."""
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
  """Returns the score in the last complete JSON object between score tags."""
  # Each block ends at the next opening tag, so that all of them together take linear time.
  _, *blocks = _SCORES_BEGIN.split(text)
  for block in blocks[::-1][:_MAX_BLOCKS]:
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
  _, opener, rest = text.rpartition(boxes.OPENER)
  box = boxes.until_closing_brace(rest, escapes=True) if opener else None
  value = None if box is None else _clamped(box.strip().strip("$"))
  if value is not None:
    return value
  for block in _released_blocks(text):
    value = _released_json(block)
    if value is not None:
      return value
  return 0.0


def _released_blocks(text: str) -> Iterator[str]:
  """Yields the texts that may hold the scores, closed blocks first, as the released code does."""
  tails = [text.split(tag, 1)[1] for tag in ("[BEGIN SCORES]", "[SCORES]") if tag in text]
  yield from (tail.split(_RELEASED_END, 1)[0] for tail in tails if _RELEASED_END in tail)
  yield from tails


def _released_json(block: str) -> float | None:
  """Returns the score in the first JSON object of a block; 0 if the object has no score.

  As in the released code, braces inside of JSON strings are counted as braces.
  """
  start = block.find("{")
  if start < 0:
    return None
  content = boxes.until_closing_brace(block[start + 1 :], escapes=False)
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
