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
  "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "∙": r"\cdot ", "±": r"\pm ",
  "÷": "/", "⁄": "/", "∕": "/", "−": "-", "–": "-", "—": "-", "∶": ":", "、": ",", "。": ".",
  "≤": r"\le ", "≥": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "∪": r"\cup ", "∈": r"\in ",
  "∅": r"\emptyset ", "∠": " ", "△": " ", "€": "", "£": "",
  "“": '"', "”": '"', "‘": "'", "’": "'", "′": "'",
  "π": r"\pi ", "α": r"\alpha ", "β": r"\beta ", "γ": r"\gamma ", "θ": r"\theta ",
  "λ": r"\lambda ", "φ": r"\phi ", "ω": r"\omega ",
})
# fmt: on
_SUPERSCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺", "0123456789-+")
_SUPERSCRIPT_RUN = re.compile(r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺]+")

_TEXT_COMMAND = re.compile(
  r"\\(?:text(?:bf|it|rm|sf|tt|normal)?|math(?:rm|bf|it|sf|tt|cal|bb|normal)|mbox|hbox"
  r"|operatorname|boldsymbol|bm|boxed|fbox)\s*\{([^{}]*)\}"
)
_FRACTION_COMMAND = re.compile(r"\\[dtc]frac(?![A-Za-z])")
_VALUELESS = re.compile(
  r"\\(?:left|right)(?![A-Za-z])\.?|\\[bB]igg?[lrm]?(?![A-Za-z])"
  r"|\\(?:displaystyle|textstyle|limits)(?![A-Za-z])|\\\$|\$|\\!|[*`]{2,}"
  r"|\\[()\[\]]|\^\s*(?:\{\s*o\s*\}|o(?![A-Za-z]))|\^\s*\{\s*\\circ\s*\}|\^\s*\\(?:circ|degree)(?![A-Za-z])|\\(?:degree|deg)(?![A-Za-z])"
  r"|\\(?:angle|triangle|overline|overrightarrow|vec|hat|bar)(?![A-Za-z])"
)
_SPACING = re.compile(r"(?<!\\)\\[,;:> ]|\\q?quad(?![A-Za-z])|~|\s+")
_REPEATING = re.compile(r"(?<!\d)(\d{0,12})\.(\d{0,12})\\(?:overline|bar|dot)\s*\{(\d{1,12})\}")
_COMMA_GROUPS = re.compile(r"(?<![\d.,])[1-9]\d{0,2}(?:,\d{3})+(?![\d,])")
_SPACE_GROUPS = re.compile(r"(?<![\d.,])[1-9]\d{0,2}(?: \d{3})+(?![\d/])(?! ?/)")
_EDGES = " \t\n,;:'\"`"

_TOKEN = re.compile(
  r"(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|(?P<command>\\[A-Za-z]+|\\.)"
  r"|(?P<name>[A-Za-z]+)|(?P<symbol>[^\s])"
)


class Token(NamedTuple):
  """One token: its kind (number, command, name, symbol), its text, whether blanks come before."""

  kind: str
  text: str
  spaced: bool


def spell_out(text: str) -> str:
  """Returns `text` with Unicode signs in LaTeX and look-alikes folded; linear in its length."""
  if text.isascii():
    return text
  text = _SUPERSCRIPT_RUN.sub(lambda m: "^{" + m[0].translate(_SUPERSCRIPTS) + "}", text)
  return unicodedata.normalize("NFKC", text.translate(_CHARACTERS)).translate(_CHARACTERS)


def clean(text: str) -> str:
  """Returns spelled-out `text` without what carries no value; linear in its length."""
  if "\\" in text:
    text = _REPEATING.sub(_repeating_decimal, text)
    for _ in range(3):
      text, changed = _TEXT_COMMAND.subn(r" \1 ", text)
      if not changed:
        break
    text = _FRACTION_COMMAND.sub(r"\\frac", text).replace(r"\%", "%")
  text = _SPACING.sub(" ", _VALUELESS.sub("", text)).replace("{,}", ",")
  if "=" in text:
    text = text.replace("<=", r"\le ").replace(">=", r"\ge ").replace("!=", r"\ne ")
  if "(" not in text and "[" not in text and "\\{" not in text:
    text = _COMMA_GROUPS.sub(lambda m: m[0].replace(",", ""), text)
  text = _SPACE_GROUPS.sub(lambda m: m[0].replace(" ", ""), text)
  return text.strip(_EDGES).rstrip(_EDGES + ".")


def tokenize(text: str) -> list[Token]:
  """Cuts cleaned text into tokens; linear in its length."""
  tokens = []
  end = 0
  for match in _TOKEN.finditer(text):
    tokens.append(Token(match.lastgroup, match[0], match.start() > end))
    end = match.end()
  return tokens


def _repeating_decimal(match: re.Match) -> str:
  whole, fixed, period = match.groups()
  denominator = 10 ** len(fixed) * (10 ** len(period) - 1)
  numerator = int(whole + fixed + period) - int((whole + fixed) or 0)
  return rf"\frac{{{numerator}}}{{{denominator}}}"
