"""What is said around an answer: lead-ins and remarks in English and Chinese, letters of options.

All functions take what `sejax.text.notation` has cleaned.
"""

import re

from sejax.text import vocabulary

_LEAD_IN = re.compile(
  r"\A(?:(?:the )?(?:correct |final |right )?(?:option|choice|answer)(?: is\b)?(?:\s*:\s*|\s+)"
  r"|(?:the )?point\s+(?=\()|either\s+(?=.*\bor\b)"
  r"|(?:about|around|approximately|roughly|exactly|approx\.?)\s+|\\sim\s*(?=[-\d])|大?约\s*"
  r"|\[?(?:故|所以|因此)?(?:(?:本题|最终|正确)的?)*(?:答案|选项)(?:应?为|是|选)?\]?\s*:?\s*"
  # In front of other than an option, the last of these is "choose".
  r"|(?:故|所以|因此|本题)?应?选择?\s*:?\s*(?=\(?\s*[A-H](?![A-Za-z])))(?=\S)",
  re.IGNORECASE,
)
_REMARK = re.compile(
  r"(?<=[\w}%°)])\s*(?:\(\s*\x02?(?:approx(?:\.|imately)?|rounded|exact"
  r"|(?:(?:correct |rounded )?to )?\w+ (?:d\.? ?p\.?|decimal places?|s\.? ?f\.?"
  r"|significant figures))\s*\)"
  r"|(?<=[\s\x02])approx(?:\.|imately)?)\s*\Z",
  re.IGNORECASE,
)
# The letter alone; [x] and {x} are parts of numbers, so there only the letters of options count.
_LETTER = re.compile(
  r"\(?\s*([A-Za-z])\s*\)?\s*[.:)]?|[\[{]\s*([A-Ja-j])\s*[\]}]|([A-H])\s*选?项", re.ASCII
)
# What stands behind (A) may not go on an expression or a list, as in (A)^2 and (A) or B.
_LETTER_WITH_TEXT = re.compile(
  r"(?:\(([A-H])\)(?P<colon>\s*:)?|([A-H])(?:[.)](?=\s)|(?P<mark>:)(?=\s|[A-Za-z][a-z])))\s*(?=\S)"
)
_GOES_ON = re.compile(
  r"[\^*/+=_!'|,;&<>)\]}~]|-(?!\d)|(?:or|and)\b|[或和与及且]"
  # Commands other than those that begin a value are operators and arrows.
  r"|\\(?!(?:[{]|frac|sqrt|binom|begin|infty|emptyset|varnothing|text|pm|log|ln|l[vV]ert"
  rf"|{'|'.join(sorted(vocabulary.SYMBOLS | vocabulary.FUNCTIONS))}"
  rf"|{'|'.join(sorted(name[1:] for name in vocabulary.NAMING))})(?![A-Za-z]))"
)
# Letters alone are further options: A. C
_MORE_LETTERS = re.compile(r"(?:[A-H](?![A-Za-z])|and\b|or\b|[\s,;&()\[\].或和与及且])+")
_NAME = re.compile(r"[A-Z]+(?![a-z])")  # (A)BC
# Behind A: may stand the coordinates of a point A, which words would not be; behind F:, a force.
_COORDINATES = re.compile(r"[(\[]|\\[{]|\\langle|(?!.*[A-Za-z]{4}).*[,;]", re.DOTALL)
_QUANTITY = re.compile(r"[-+]?\.?\d")
# A second label: the answer has parts, and its first letter is no option.
_LABEL = re.compile(r"\(?\b[A-Za-z]\s*[):]|\b[A-Z]\.(?!\w)", re.ASCII)


def lead_in(words: str) -> int:
  """Returns the number of characters that lead to the answer: `the answer is`, `答案：`."""
  match = _LEAD_IN.match(words)
  return match.end() if match else 0


def without_remark(text: str) -> str:
  """Returns an answer without a remark on its precision at its end: `12.57 (approx)`."""
  return _REMARK.sub("", text) if text[-1:] in (")", ".", "x", "X", "y", "Y") else text


def option(words: str) -> str | None:
  """Returns the letter of an option: alone in any of its forms, or in front of its text."""
  match = _LETTER.fullmatch(words)
  if match:
    return (match[1] or match[2] or match[3]).upper()
  match = _LETTER_WITH_TEXT.match(words)
  if match is None or _LABEL.search(words, match.end()):
    return None
  letter, rest = match[1] or match[3], words[match.end() :]
  is_close = words[match.end() - 1] == ")"
  if _GOES_ON.match(rest) or _MORE_LETTERS.fullmatch(rest) or (is_close and _NAME.match(rest)):
    return None
  if match["colon"] or match["mark"]:
    is_quantity = letter in "FGH" and _QUANTITY.match(rest)
    if is_quantity or _COORDINATES.match(rest):
      return None
  return letter
