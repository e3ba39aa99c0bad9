r"""How answers are written: LaTeX, Unicode and plain text brought to one stream of tokens.

`spell_out` turns Unicode signs into LaTeX; `clean` removes what carries no value (dollar signs,
spacing commands, `\left`, text wrappers); `tokenize` cuts the rest into numbers, commands, names
and symbols. What is removed leaves a blank, so nothing joins that did not stand together as
written.
"""

import re
import unicodedata
from typing import NamedTuple

from sejax.text import numerals

# One character -> LaTeX. NFKC does the rest (full-width digits, ligatures), but alone it would read
# 2½ as 21/2, x² as x2, 101₂ as 1012 and ①② as 12.
_FRACTIONS = "½⅓⅔¼¾⅕⅖⅗⅘⅙⅚⅐⅛⅜⅝⅞⅑⅒"
_ENCLOSED = range(0x2460, 0x249C)  # ① to ⒛
# fmt: off
_CHARACTERS = str.maketrans({
  "√": r"\sqrt ", "∛": r"\sqrt[3] ", "∞": r"\infty ", "º": "°", "˚": "°", "∘": r"\circ ",
  "×": r"\times ", "·": r"\cdot ", "⋅": r"\cdot ", "∙": r"\cdot ", "±": r"\pm ",
  "÷": "/", "⁄": "/", "∕": "/", "−": "-", "–": "-", "—": "-", "∶": ":", "、": ",", "。": ".",
  "≤": r"\le ", "⩽": r"\le ", "⩾": r"\ge ", "∨": r"\lor ", "⟂": r"\perp ", "‖": r"\parallel ",
  "「": "[", "」": "]", "《": "[", "》": "]", "\u2010": "-", "\u2011": "-", "∓": r"\mp ",
  "≥": r"\ge ", "≠": r"\ne ", "≈": r"\approx ", "∪": r"\cup ", "∈": r"\in ",
  "∅": r"\emptyset ", "∠": r"\angle ", "△": r"\triangle ", "Δ": r"\Delta ",
  "€": " ", "£": " ", "¥": " ",
  "⊥": r"\perp ", "∥": r"\parallel ", "∣": "|", "【": "[", "】": "]",
  "ℝ": r"\mathbb{R} ", "ℂ": r"\mathbb{C} ", "ℕ": r"\mathbb{N} ", "ℤ": r"\mathbb{Z} ",
  "ℚ": r"\mathbb{Q} ",
  "“": '"', "”": '"', "‘": "'", "’": "'", "′": "'",
  "π": r"\pi ", "α": r"\alpha ", "β": r"\beta ", "γ": r"\gamma ", "θ": r"\theta ",
  "λ": r"\lambda ", "φ": r"\phi ", "ω": r"\omega ",
} | {
  fraction: f" {unicodedata.normalize('NFKC', fraction)} ".replace("⁄", "/")
  for fraction in _FRACTIONS
} | {
  chr(code): rf"\enclosed{{{unicodedata.normalize('NFKC', chr(code)).strip('().')}}} "
  for code in _ENCLOSED
})
# fmt: on
_SCRIPTS = str.maketrans("⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺₀₁₂₃₄₅₆₇₈₉", "0123456789-+0123456789")
_SUPERSCRIPT_RUN = re.compile(r"[⁰¹²³⁴⁵⁶⁷⁸⁹⁻⁺]+")
_SUBSCRIPT_RUN = re.compile(r"[₀₁₂₃₄₅₆₇₈₉]+")
# Behind the letter of an option, these are no comma, point or ratio: A、60°, A．60°, A：60°.
# With a second such letter they are: A、B.
_OPTION_MARK = re.compile(
  r"\A\s*([A-HＡ-Ｈ])\s*(?:[、．]|(：))(?!.*(?<![A-Za-z])[A-HＡ-Ｈ](?:[、．：]|\s*。?\s*\Z))\s*",
  re.DOTALL,
)

# Words set upright are text or units; letters in other faces are symbols as before. The mark is a
# character that no regular expression takes for white space.
UPRIGHT = "\x02"
_UPRIGHT_COMMAND = re.compile(
  r"(?:\\(?:text(?:bf|it|rm|sf|tt|up|normal)?|mathrm|mbox|hbox|operatorname)\s*\{"
  r"|\{\s*\\rm(?![A-Za-z]))([^{}]*)\}"
  r"|\\rm(?![A-Za-z])\s*([A-Za-z]+)\b"
)
_FACE_COMMAND = re.compile(
  r"\\(?:math(?:bf|it|sf|tt|cal|normal)|boldsymbol|bm|boxed|fbox|underline)(?![A-Za-z])"
  r"|\\(?:text)?color\s*(?:\[[a-zA-Z]*\]\s*)?\{[^{}]*\}"
)
_LETTERS = re.compile(r"(?<![\\A-Za-z])[A-Za-z]+")
_FRACTION_COMMAND = re.compile(r"\\(?:[dtc]|nice|s)frac(?![A-Za-z])")
_DEGREE = re.compile(
  r"\^\s*(?:\{\s*\x02?o\s*\}|o(?![A-Za-z])|\{\s*(?:\\circ|°)\s*\}|\\(?:circ|degree)(?![A-Za-z])|°)"
  r"|\\(?:degree|deg|textdegree)(?![A-Za-z])|(?<=\d)\s*\\circ(?![A-Za-z])"
)
_PRIME = re.compile(r"\^\s*(?:\{\s*(?:(?:\\prime|')\s*)+\}|\\prime(?![A-Za-z]))")
_VALUELESS = re.compile(
  r"\\(?:left|right)(?![A-Za-z])\.?|\\[bB]igg?[lrm]?(?![A-Za-z])|(?<!\\)\\[()\[\]]|\\\$|\$|\\!"
  r"|\\(?:displaystyle|textstyle|limits)(?![A-Za-z])|(?<!\\)\\[,;:> ]|\\q?quad(?![A-Za-z])|~|\s+"
)
# A line over the name of a segment says no more than the name; over a variable it makes another.
_OVERLINED_NAME = re.compile(r"\\overline\s*\{\s*(?=[A-Z]{2,}\s*\})")
_PARALLEL = re.compile(r"(?<=[A-Z])\s*(?://|\|\|)\s*(?=[A-Z])")  # AB // CD
_BAR = re.compile(r"\\(?:[lr]?vert|mid)(?![A-Za-z])")
_NAMED_FIGURE = re.compile(r"(?<![A-Za-z\\])(?:([Tt]riangle)|[Aa]ngle)\s+\x02?(?=[A-Z]+(?![a-z]))")
# A row may end with a distance to the next, or with TeX's own command.
_ROW_BREAK = re.compile(
  r"\\\\\s*\[\s*-?[\d.]+\s*(?:pt|em|ex|mm|cm|in)\s*\]|\\(?:cr|tabularnewline)(?![A-Za-z])"
)
_EMPTY_BASE = re.compile(r"\{\}(?=\s*[\^'])")
_WORD_COMMAND = re.compile(
  r"\\(?:(lor|vee)|(mp)|(bot)|(not\s*=)|(vartriangle|measuredangle))(?![A-Za-z])"
)
# A cross product depends on the order of its vectors, so it is no product of numbers.
_CROSS = re.compile(
  r"(\\(?:vec|overrightarrow|mathbf|boldsymbol|bm)\s*(?:\{\s*[A-Za-z]+\s*\}|[A-Za-z])\s*)\\times(?![A-Za-z])"
)
# Between two values; elsewhere OR is a segment.
_CAPITAL_WORD = re.compile(r"([\w)}\]°%,]\s+\x02?)(OR|AND|Or|And)(?=\s+[-+\w(\\{\[|])")
_TRIANGLE = re.compile(r"\\Delta\s*(?=[A-Z]{3}(?![A-Za-z]))")
_DOUBLED = re.compile(r"(?:[^\\]|\\\\)*")
_EDGES = ' \t\n,;:"`'
_EMPHASIS = re.compile(r"\A[\s*]*\*\*|\*\*[\s*]*\Z")

_AND_OR = "或者|并且|[和与及或且]"
_TOKEN = re.compile(
  rf"(?P<grouped>{numerals.GROUPED})|(?P<dotted>\d+(?:\.\d+){{2,}})"
  r"|(?P<number>(?:\d+\.?\d*|\.\d+)(?:[eE][+-]?\d+)?)|(?P<command>\\[A-Za-z]+|\\.)"
  rf"|(?P<name>\x02?[A-Za-z]+|{_AND_OR}|[\u4e00-\u9fff]+?(?={_AND_OR}|[^\u4e00-\u9fff]|\Z))"
  r"|(?P<symbol>\*\*|[^\s\x02])"
)


class Token(NamedTuple):
  r"""One token of an answer.

  Attributes:
    kind: number, command, name or symbol; grouped for `120,115`, which may be one number or two;
      dotted for `12.10.2024`, which is none.
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
  text = _OPTION_MARK.sub(lambda m: m[1] + (": " if m[2] else ". "), text)
  text = _SUPERSCRIPT_RUN.sub(lambda m: "^{" + m[0].translate(_SCRIPTS) + "}", text)
  text = _SUBSCRIPT_RUN.sub(lambda m: "_{" + m[0].translate(_SCRIPTS) + "}", text)
  return unicodedata.normalize("NFKC", text.translate(_CHARACTERS)).translate(_CHARACTERS)


def clean(text: str) -> str:
  """Returns spelled-out `text` without what carries no value; linear in its length."""
  text = text.replace(UPRIGHT, " ")
  if "\\\\" in text and _DOUBLED.fullmatch(text):  # escaped once too often, in all its commands
    text = text.replace("\\\\", "\\")
  text = numerals.rewrite(text.replace("$-$", "-"))
  if "\\" in text:
    if "\\\\" in text or r"\cr" in text or r"\tab" in text:
      text = _ROW_BREAK.sub(r"\\\\ ", text)
    text = text.rstrip(" \t\n\\")
    for _ in range(3):
      text, changed = _UPRIGHT_COMMAND.subn(_mark_upright, text)
      if not changed:
        break
    if r"\times" in text:
      text = _CROSS.sub(r"\1\\cross ", text)
    text = _FRACTION_COMMAND.sub(r"\\frac", _FACE_COMMAND.sub(" ", text)).replace(r"\%", "%")
    text = _OVERLINED_NAME.sub("{", _BAR.sub("|", text)).replace(r"\|", r"\parallel ")
    text = _WORD_COMMAND.sub(_same_command, text)
    if r"\Delta" in text:
      text = _TRIANGLE.sub(r"\\triangle ", text)
    if "{}" in text:
      text = _EMPTY_BASE.sub("", text)
    text = _PRIME.sub(lambda m: "'" * max(m[0].count("prime"), m[0].count("'")), text)
  text = _VALUELESS.sub(" ", _DEGREE.sub("°", text)).replace("{,}", ",")
  if "OR" in text or "AND" in text or "Or" in text or "And" in text:
    text = _CAPITAL_WORD.sub(lambda m: m[1] + m[2].lower(), text)
  if "+/-" in text:
    text = text.replace("+/-", r"\pm ")
  if "//" in text or "||" in text:
    text = _PARALLEL.sub(r" \\parallel ", text)
  if "ngle" in text:
    text = _NAMED_FIGURE.sub(lambda m: r"\triangle " if m[1] else r"\angle ", text)
  if "=" in text:
    text = text.replace("<=", r"\le ").replace(">=", r"\ge ").replace("!=", r"\ne ")
  return strip(text)


def plain(text: str) -> str:
  """Returns cleaned text without the marks of upright words."""
  return " ".join(text.replace(UPRIGHT, "").split()).replace("( ", "(").replace(" )", ")")


def tokenize(text: str) -> list[Token]:
  """Cuts cleaned text into tokens; linear in its length."""
  tokens = []
  end = 0
  for match in _TOKEN.finditer(text):
    word = match[0].lstrip(UPRIGHT)
    tokens.append(Token(match.lastgroup, word, match.start() > end, len(word) < len(match[0])))
    end = match.end()
  return _ungroup(tokens) if "," in text else tokens


def strip(text: str) -> str:
  """Strips quotes, stars, a final dot and braces around the whole; dots for more stay."""
  text = text.strip(_EDGES)
  if "*" in text:
    text = _EMPHASIS.sub("", text).strip(_EDGES)
    if len(text) > 2 and text[0] == text[-1] == "*":
      text = text[1:-1].strip(_EDGES)
  if text.endswith(".") and not text.endswith(".."):
    text = text[:-1].rstrip(_EDGES)
  if len(text) > 1 and text[0] == text[-1] == "'":
    text = text[1:-1]
  if text.startswith("{") and text.find("}") == len(text) - 1 and text.count("{") == 1:
    text = text[1:-1].strip(_EDGES) if "," not in text else text
  return text


def _mark_upright(match: re.Match) -> str:
  words = (match[1] or match[2] or "").replace(UPRIGHT, "")
  return " " + _LETTERS.sub(lambda m: UPRIGHT + m[0], words) + " "


def _same_command(match: re.Match) -> str:
  """Returns the usual command for one of the same meaning."""
  either, sign, perpendicular, _, figure = match.groups()
  if sign:  # Alone, it is plus-minus; beside another, its opposite.
    return match[0] if r"\pm" in match.string else r"\pm"
  if figure:
    return {"vartriangle": r"\triangle", "measuredangle": r"\angle"}[figure]
  return " or " if either else r"\perp" if perpendicular else r"\ne "


def _ungroup(tokens: list[Token]) -> list[Token]:
  """Turns numbers with commas into the numbers that they stand for, where that is certain."""
  places = [i for i, token in enumerate(tokens) if token.kind == "grouped"]
  if not places:
    return tokens
  scripts = ("^", "_")
  # Exponents and indices are no further numbers of the answer: 1,200 cm^{2}.
  before = ["", "", *(token.text for token in tokens)]
  numbers = [
    i
    for i, token in enumerate(tokens)
    if token.kind in ("number", "grouped")
    and not (before[i + 1] in scripts or (before[i + 1] == "{" and before[i] in scripts))
  ]
  in_brackets = any(token.text in ("(", "[", r"\{") for token in tokens)
  result = []
  for token in tokens:
    parts = None
    if token.kind == "grouped":
      parts = numerals.ungroup(token.text, len(numbers) == 1, in_brackets)
    if parts is None:
      result.append(token)
      continue
    for part in parts:
      if result and part is not parts[0]:
        result.append(Token("symbol", ","))
      result.append(token._replace(kind="number", text=part))
  return result
