r"""Numbers as they are written: digit groups, decimal commas, repeating decimals, powers of ten.

Digits join only where one number alone can be meant. `1,000` and `12,345.6` are numbers in the
ordinary form, if they are the only number of the answer; `120,115` may be one number or two, so it
is neither; `0,05` can only be a decimal, since no number of a list is written 05.
"""

import re
from collections.abc import Sequence

# Marks that stand between digits of one number only: 1{,}000 and 1,\!000.
_MARKED_GROUPS = re.compile(
  r"(?<![\d.,])\d{1,3}(?:(?:\{,\}|,\s?\\!\s?|\\!,\s?)\d{3})+(?!\d)(?:\.\d+)?"
)
_MARKED_DECIMAL = re.compile(r"(?<![\d.,])(\d{1,12})\{,\}(\d{1,12})(?![\d,{])")
_NO_DIGIT = re.compile(r"[^\d.]+")
# Blanks join the groups of 1 000 and 10 045: no other number begins with a needless zero.
_SPACED_GROUPS = re.compile(
  r"(?<![\d.,])(?<!\d )[1-9]\d{0,2}(?:(?: |\\,)\d{3})*(?: |\\,)0\d\d(?:(?: |\\,)\d{3})*"
  r"(?![\d/])(?! ?/)"
)
_REPEATING = re.compile(
  r"(?<!\d)(?!(?<=\d,)\d{3}\.)(\d{0,12})\.(\d{0,12})\\(?:overline|bar|dot)\s*\{(\d{1,12})\}(?!\s*\d)"
)
# 1.5 x 10^3; a letter set close to one side only is a variable.
_POWER_OF_TEN = re.compile(r"(?<=\d)(?:[xX]|\s+[xX]\s+)(?=10\s*\^)")

# The only commas that a tokenizer need look at: all of these are numbers, or two numbers.
GROUPED = r"(?<![\d.,])(?:[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?|\d{1,12},0\d{1,12})(?![.,]?\d)"
_THOUSANDS = re.compile(r"[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?")
_DOUBTFUL = re.compile(r"\d{3},[1-9]\d\d")


def rewrite(text: str) -> str:
  r"""Returns LaTeX with numbers in plain digits, as far as the number alone decides; linear."""
  if "\\" in text:
    text = _REPEATING.sub(_repeating_decimal, text)
  if "," in text:
    text = _MARKED_GROUPS.sub(lambda m: _NO_DIGIT.sub("", m[0]), text)
    text = _MARKED_DECIMAL.sub(r"\1.\2", text)
  text = _SPACED_GROUPS.sub(lambda m: _NO_DIGIT.sub("", m[0]), text)
  return _POWER_OF_TEN.sub(r"\\times ", text) if "x" in text or "X" in text else text


def ungroup(grouped: str, alone: bool, in_brackets: bool) -> Sequence[str] | None:
  """Returns the numbers that a number with commas stands for; None where that is in doubt.

  Args:
    grouped: what `GROUPED` matches.
    alone: whether it is the only number of the answer.
    in_brackets: whether the answer has brackets, where a comma separates coordinates: (1,234).
  """
  is_thousands = _THOUSANDS.fullmatch(grouped) is not None
  if is_thousands and ",0" in grouped:
    return [grouped.replace(",", "")]
  if in_brackets:
    return grouped.split(",") if is_thousands else None
  if not alone or _DOUBTFUL.fullmatch(grouped):
    return None
  return [grouped.replace(",", "" if is_thousands else ".")]


def _repeating_decimal(match: re.Match) -> str:
  whole, fixed, period = match.groups()
  denominator = 10 ** len(fixed) * (10 ** len(period) - 1)
  numerator = int(whole + fixed + period) - int((whole + fixed) or 0)
  return rf"\frac{{{numerator}}}{{{denominator}}}"
