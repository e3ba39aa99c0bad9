"""Phrases around an answer, English and Chinese: lead-ins, remarks on precision, option letters.

All functions take text that `sejax.text.latex.clean` has simplified.
"""

import re

from sejax.text import vocabulary

_LEAD_IN = re.compile(
  r"\A(?:(?:the )?(?:correct |final |right )?(?:option|choice|answer)(?: is\b)?(?:\s*:\s*|\s+)"
  r"|(?:the )?point\s+(?=\()|either\s+(?=.*\bor\b)"
  r"|(?:about|around|approximately|roughly|exactly|approx\.?)\s+|\\sim\s*(?=[-\d])|大?约\s*"
  r"|\[?(?:故|所以|因此)?(?:(?:本题|最终|正确)的?)*(?:答案|选项)(?:应?为|是|选)?\]?\s*:?\s*"
  # The last of these means "choose", so it must come before the letter of an option.
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
# A letter alone. [x] and {x} are the integer and the fractional part of x, so in these brackets
# only letters that options have are accepted.
_OPTION = re.compile(
  r"\(?\s*([A-Za-z])\s*\)?\s*[.:)]?|[\[{]\s*([A-Ja-j])\s*[\]}]|([A-H])\s*选?项", re.ASCII
)
# A letter with the text of the option after it.
_OPTION_WITH_TEXT = re.compile(
  r"(?:\(([A-H])\)(?P<colon>\s*:)?|([A-H])(?:[.)](?=\s)|(?P<mark>:)(?=\s|[A-Za-z][a-z])))\s*(?=\S)"
)
# The text after (A) continues an expression or a list instead: (A)^2, (A) or B.
_CONTINUES = re.compile(
  r"[\^*/+=_!'|,;&<>)\]}~]|-(?!\d)|(?:or|and)\b|[或和与及且]"
  # Commands that begin no value are operators and arrows.
  r"|\\(?!(?:[{]|frac|sqrt|binom|begin|infty|emptyset|varnothing|text|pm|log|ln|l[vV]ert"
  rf"|{'|'.join(sorted(vocabulary.SYMBOLS | vocabulary.FUNCTIONS))}"
  rf"|{'|'.join(sorted(name[1:] for name in vocabulary.NAME_COMMANDS))})(?![A-Za-z]))"
)
# Nothing but further options: A. C
_MORE_OPTIONS = re.compile(r"(?:[A-H](?![A-Za-z])|and\b|or\b|[\s,;&()\[\].或和与及且])+")
_NAME = re.compile(r"[A-Z]+(?![a-z])")  # (A)BC
# After "A:" the coordinates of a point A, which contain no words; after "F:" a force.
_COORDINATES = re.compile(r"[(\[]|\\[{]|\\langle|(?!.*[A-Za-z]{4}).*[,;]", re.DOTALL)
_QUANTITY = re.compile(r"[-+]?\.?\d")
# A second label: the answer has parts, and its first letter is not an option.
_LABEL = re.compile(r"\(?\b[A-Za-z]\s*[):]|\b[A-Z]\.(?!\w)", re.ASCII)


def lead_in_length(text: str) -> int:
  """Returns the length of a phrase that introduces the answer (`the answer is`); 0 if none."""
  match = _LEAD_IN.match(text)
  return match.end() if match else 0


def without_remark(text: str) -> str:
  """Removes a remark on precision from the end of an answer: `12.57 (approx)`."""
  may_end_in_remark = text[-1:] in (")", ".", "x", "X", "y", "Y")
  return _REMARK.sub("", text) if may_end_in_remark else text


def option_letter(text: str) -> str | None:
  """Returns the letter of a multiple-choice option, `B`, `(b)` or `B. 60°`; None for others."""
  match = _OPTION.fullmatch(text)
  if match:
    return (match[1] or match[2] or match[3]).upper()
  match = _OPTION_WITH_TEXT.match(text)
  if match is None or _LABEL.search(text, match.end()):
    return None
  letter, rest = match[1] or match[3], text[match.end() :]
  if _CONTINUES.match(rest) or _MORE_OPTIONS.fullmatch(rest):
    return None
  is_directly_behind_bracket = text[match.end() - 1] == ")"
  if is_directly_behind_bracket and _NAME.match(rest):
    return None
  if match["colon"] or match["mark"]:
    is_quantity = letter in "FGH" and _QUANTITY.match(rest)
    if is_quantity or _COORDINATES.match(rest):
      return None
  return letter
