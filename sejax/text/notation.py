r"""How answers are written: LaTeX, Unicode and plain text brought to one stream of tokens.

`spell_out` turns Unicode signs into LaTeX; `clean` removes what carries no value (dollar signs,
spacing commands, `\left`, text wrappers, degree marks) and joins digit groups; `tokenize` cuts the
rest into numbers, commands, names and symbols.
"""

import re
import unicodedata
from typing import NamedTuple

# One character -> LaTeX. NFKC does the rest (full-width digits, ligatures), but alone it would read
# 2½ as 21/2 and x² as x2.
# fmt: off
_CHARACTERS = str.maketrans({
  "½": " 1/2 ", "⅓": " 1/3 ", "⅔": " 2/3 ", "¼": " 1/4 ", "¾": " 3/4 ", "⅕": " 1/5 ", "⅛": " 1/8 ",
  "√": r"\sqrt ", "∛": r"\sqrt[3] ", "∞": r"\infty ", "°": r"^\circ ", "º": r"^\circ ",
  "˚": r"^\circ ",
  "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "∙": r"\cdot ", "±": r"\pm ",
  "÷": "/", "⁄": "/", "∕": "/", "−": "-", "–": "-", "—": "-", "∶": ":", "、": ",", "。": ".",
  "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "∪": r"\cup ", "∈": r"\in ",
  "∅": r"\emptyset ", "∠": r"\angle ", "△": r"\triangle ", "€": "", "£": "",
  "“": '"', "”": '"', "‘": "'", "’": "'", "′": "'",
  "π": r"\pi ", "α": r"\alpha ", "β": r"\beta ", "γ": r"\gamma ", "θ": r"\theta ",
  "λ": r"\lambda ", "φ": r"\phi ", "ω": r"\omega ",
})
# fmt: on
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_SUPERSCRIPT_RUN = re.compile(r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺]+")

# Words set upright are text or units; letters in other faces are symbols as before.
_UPRIGHT = "\x1e"
_UPRIGHT_COMMAND = re.compile(
  r"\\(?:text(?:bf|it|rm|sf|tt|up|normal)?|mathrm|mbox|hbox|operatorname)\s*\{([^{}]*)\}"
)
_FACE_COMMAND = re.compile(
  r"\\(?:math(?:bf|it|sf|tt|cal|bb|normal)|boldsymbol|bm|boxed|fbox|underline)(?![A-Za-z])"
)
_LETTERS = re.compile(r"(?<![\\A-Za-z])[A-Za-z]+")
_FRACTION_COMMAND = re.compile(r"\\(?:[dtc]|nice|s)frac(?![A-Za-z])")
_VALUELESS = re.compile(
  r"\\(?:left|right)(?![A-Za-z])\.?|\\[bB]igg?[lrm]?(?![A-Za-z])|\\[()\[\]]|\\\$|\$|\\!|[*`]{2,}"
  r"|\\(?:displaystyle|textstyle|limits|overline|overrightarrow|vec|hat|bar)(?![A-Za-z])"
  r"|\^\s*(?:\{\s*\x1e?o\s*\}|o(?![A-Za-z])|\{\s*\\circ\s*\}|\\(?:circ|degree)(?![A-Za-z]))"
  r"|\\(?:degree|deg)(?![A-Za-z])"
)
_SPACING = re.compile(r"(?<!\\)\\[,;:> ]|\\q?quad(?![A-Za-z])|~|\s+")
_REPEATING = re.compile(r"(?<!\d)(\d{0,12})\.(\d{0,12})\\(?:overline|bar|dot)\s*\{(\d{1,12})\}")
_COMMA_GROUPS = re.compile(r"(?<![\d.,])[1-9]\d{0,2}(?:,\d{3})+(?![\d,])")
# Inside brackets 1,234 is two coordinates, but no coordinate begins with a needless zero.
_ZERO_GROUPS = re.compile(r"(?<![\d.,])[1-9]\d{0,2}(?:,\d{3})*,0\d{2}(?:,\d{3})*(?![\d,])")
_SPACE_GROUPS = re.compile(r"(?<![\d.,])[1-9]\d{0,2}(?: \d{3})+(?![\d/])(?! ?/)")
_EDGES = ' \t\n,;:"`'

_TOKEN = re.compile(
  r"(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|(?P<command>\\[A-Za-z]+|\\.)"
  r"|(?P<name>\x1e?[A-Za-z]+)|(?P<symbol>[^\s\x1e])"
)


class Token(NamedTuple):
  r"""One token of an answer.

  Attributes:
    kind: number, command, name or symbol.
    text: as written.
    spaced: whether blanks come before.
    upright: whether a name stood in `\\text{}` or the like.
  """

  kind: str
  text: str
  spaced: bool = False
  upright: bool = False


def spell_out(text: str) -> str:
  """Returns `text` with Unicode signs in LaTeX and look-alikes folded; linear in its length."""
  if text.isascii():
    return text
  text = _SUPERSCRIPT_RUN.sub(lambda m: "^{" + m[0].translate(_SUPERSCRIPTS) + "}", text)
  return unicodedata.normalize("NFKC", text.translate(_CHARACTERS)).translate(_CHARACTERS)


def clean(text: str) -> str:
  """Returns spelled-out `text` without what carries no value; linear in its length."""
  text = text.replace(_UPRIGHT, " ")
  if "\\" in text:
    text = _REPEATING.sub(_repeating_decimal, text)
    for _ in range(3):
      text, changed = _UPRIGHT_COMMAND.subn(_mark_upright, text)
      if not changed:
        break
    text = _FRACTION_COMMAND.sub(r"\\frac", _FACE_COMMAND.sub(" ", text)).replace(r"\%", "%")
  text = _SPACING.sub(" ", _VALUELESS.sub("", text)).replace("{,}", ",")
  if "=" in text:
    text = text.replace("<=", r"\le ").replace(">=", r"\ge ").replace("!=", r"\ne ")
  groups = _ZERO_GROUPS if "(" in text or "[" in text or "\\{" in text else _COMMA_GROUPS
  text = groups.sub(lambda m: m[0].replace(",", ""), text)
  text = _SPACE_GROUPS.sub(lambda m: m[0].replace(" ", ""), text)
  return _strip(text)


def plain(text: str) -> str:
  """Returns cleaned text without the marks of upright words."""
  return " ".join(text.replace(_UPRIGHT, "").split()).replace("( ", "(").replace(" )", ")")


def tokenize(text: str) -> list[Token]:
  """Cuts cleaned text into tokens; linear in its length."""
  tokens = []
  end = 0
  for match in _TOKEN.finditer(text):
    word = match[0].lstrip(_UPRIGHT)
    tokens.append(Token(match.lastgroup, word, match.start() > end, len(word) < len(match[0])))
    end = match.end()
  return tokens


def _mark_upright(match: re.Match) -> str:
  words = match[1].replace(_UPRIGHT, "")
  return " " + _LETTERS.sub(lambda m: _UPRIGHT + m[0], words) + " "


def _strip(text: str) -> str:
  """Strips quotes, a final dot and braces around the whole; dots that stand for more stay."""
  text = text.strip(_EDGES)
  if text.endswith(".") and not text.endswith(".."):
    text = text[:-1].rstrip(_EDGES)
  if len(text) > 1 and text[0] == text[-1] == "'":
    text = text[1:-1]
  if text.startswith("{") and text.find("}") == len(text) - 1 and text.count("{") == 1:
    text = text[1:-1].strip(_EDGES) if "," not in text else text
  return text


def _repeating_decimal(match: re.Match) -> str:
  whole, fixed, period = match.groups()
  denominator = 10 ** len(fixed) * (10 ** len(period) - 1)
  numerator = int(whole + fixed + period) - int((whole + fixed) or 0)
  return rf"\frac{{{numerator}}}{{{denominator}}}"
