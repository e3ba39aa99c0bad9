r"""Rewrites numerals to plain digits: digit groups, decimal commas, repeating decimals, exponents.

Groups of digits are joined only if they cannot be separate numbers. `1,000` and `12,345.6` are one
number if the answer has no other; `120,115` may be one number or two, so it stays as it is; `0,05`
can only be a decimal, since a list would not contain 05.
"""

import re
from collections.abc import Sequence

# Separators that LaTeX users write only within one number: 1{,}000 and 1,\!000.
_MARKED_GROUPS = re.compile(
  r"(?<![\d.,])\d{1,3}(?:(?:\{,\}|,\s?\\!\s?|\\!,\s?)\d{3})+(?!\d)(?:\.\d+)?"
)
_MARKED_DECIMAL = re.compile(r"(?<![\d.,])(\d{1,12})\{,\}(\d{1,12})(?![\d,{])")
_NO_DIGIT = re.compile(r"[^\d.]+")
# Spaces separate the groups of one number in 1 000 and 10 045: a second number would not begin
# with a zero.
_SPACED_GROUPS = re.compile(
  r"(?<![\d.,])(?<!\d )[1-9]\d{0,2}(?:(?: |\\,)\d{3})*(?: |\\,)0\d\d(?:(?: |\\,)\d{3})*"
  r"(?![\d/])(?! ?/)"
)
_REPEATING = re.compile(
  r"(?<!\d)(?!(?<=\d,)\d{3}\.)(\d{0,12})\.(\d{0,12})\\(?:overline|bar|dot)\s*\{(\d{1,12})\}(?!\s*\d)"
)
# 1.5 x 10^3 and 1.5x10^3; an x with a space on one side only is a variable.
_POWER_OF_TEN = re.compile(r"(?<=\d)(?:[xX]|\s+[xX]\s+)(?=10\s*\^)")

# Numbers with commas, which may be one number or two; the tokenizer reads each as one token.
GROUPED = r"(?<![\d.,])(?:[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?|\d{1,12},0\d{1,12})(?![.,]?\d)"
_THOUSANDS = re.compile(r"[1-9]\d{0,2}(?:,\d{3})+(?:\.\d+)?")
_AMBIGUOUS = re.compile(r"\d{3},[1-9]\d\d")


def rewrite(text: str) -> str:
  r"""Rewrites those numerals of a LaTeX text that are unambiguous; takes linear time."""
  if "\\" in text:
    text = _REPEATING.sub(_repeating_decimal, text)
  if "," in text:
    text = _MARKED_GROUPS.sub(lambda m: _NO_DIGIT.sub("", m[0]), text)
    text = _MARKED_DECIMAL.sub(r"\1.\2", text)
  text = _SPACED_GROUPS.sub(lambda m: _NO_DIGIT.sub("", m[0]), text)
  return _POWER_OF_TEN.sub(r"\\times ", text) if "x" in text or "X" in text else text


def ungroup(grouped: str, *, is_only_number: bool, in_brackets: bool) -> Sequence[str] | None:
  """Returns the numbers, in plain digits, that a numeral with commas means; None if ambiguous.

  Args:
    grouped: a match of `GROUPED`.
    is_only_number: whether the answer has no other number.
    in_brackets: whether the answer has brackets, where commas separate coordinates: (1,234).
  """
  is_thousands = _THOUSANDS.fullmatch(grouped) is not None
  if is_thousands and ",0" in grouped:
    return [grouped.replace(",", "")]
  if in_brackets:
    return grouped.split(",") if is_thousands else None
  if not is_only_number or _AMBIGUOUS.fullmatch(grouped):
    return None
  return [grouped.replace(",", "" if is_thousands else ".")]


def _repeating_decimal(match: re.Match) -> str:
  r"""Returns a repeating decimal such as `0.1\overline{6}` as a fraction."""
  whole, fixed, period = match.groups()
  denominator = 10 ** len(fixed) * (10 ** len(period) - 1)
  numerator = int(whole + fixed + period) - int((whole + fixed) or 0)
  return rf"\frac{{{numerator}}}{{{denominator}}}"
