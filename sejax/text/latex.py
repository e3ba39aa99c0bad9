r"""Normalizes the LaTeX, Unicode and plain-text notation of answers and splits them into tokens.

The three steps are `unicode_to_latex`; `clean`, which removes what does not change the value
(dollar signs, spacing commands, `\left`, text wrappers); and `tokenize`. Removed parts leave a
space, so that tokens that were written apart are not joined.
"""

import re
import unicodedata
from typing import NamedTuple

from sejax.text import numerals

# Unicode character -> LaTeX. NFKC normalizes all others (full-width digits, ligatures); without
# this table it would turn 2½ into 21/2, x² into x2, 101₂ into 1012 and ①② into 12.
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
# The mark after the letter of an option is not a comma, decimal point or ratio sign: A、60°,
# A．60°, A：60°. If a second such letter follows, it is: A、B.
_OPTION_MARK = re.compile(
  r"\A\s*([A-HＡ-Ｈ])\s*(?:[、．]|(：))(?!.*(?<![A-Za-z])[A-HＡ-Ｈ](?:[、．：]|\s*。?\s*\Z))\s*",
  re.DOTALL,
)

# Prefix of words that LaTeX sets upright, which are text or units; letters in other typefaces stay
# symbols. It is a character that regular expressions do not treat as white space.
UPRIGHT = "\x02"
_UPRIGHT_COMMAND = re.compile(
  r"(?:\\(?:text(?:bf|it|rm|sf|tt|up|normal)?|mathrm|mbox|hbox|operatorname)\s*\{"
  r"|\{\s*\\rm(?![A-Za-z]))([^{}]*)\}"
  r"|\\rm(?![A-Za-z])\s*([A-Za-z]+)\b"
)
_TYPEFACE_COMMAND = re.compile(
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
_NO_VALUE = re.compile(
  r"\\(?:left|right)(?![A-Za-z])\.?|\\[bB]igg?[lrm]?(?![A-Za-z])|(?<!\\)\\[()\[\]]|\\\$|\$|\\!"
  r"|\\(?:displaystyle|textstyle|limits)(?![A-Za-z])|(?<!\\)\\[,;:> ]|\\q?quad(?![A-Za-z])|~|\s+"
)
# \overline{AB} is the segment AB; a line over a single letter makes a different variable.
_OVERLINED_NAME = re.compile(r"\\overline\s*\{\s*(?=[A-Z]{2,}\s*\})")
_PARALLEL = re.compile(r"(?<=[A-Z])\s*(?://|\|\|)\s*(?=[A-Z])")  # AB // CD
_BAR = re.compile(r"\\(?:[lr]?vert|mid)(?![A-Za-z])")
_NAMED_FIGURE = re.compile(r"(?<![A-Za-z\\])(?:([Tt]riangle)|[Aa]ngle)\s+\x02?(?=[A-Z]+(?![a-z]))")
# \\[2pt] and plain TeX's \cr.
_ROW_BREAK = re.compile(
  r"\\\\\s*\[\s*-?[\d.]+\s*(?:pt|em|ex|mm|cm|in)\s*\]|\\(?:cr|tabularnewline)(?![A-Za-z])"
)
_EMPTY_BASE = re.compile(r"\{\}(?=\s*[\^'])")
_WORD_COMMAND = re.compile(
  r"\\(?:(lor|vee)|(mp)|(bot)|(not\s*=)|(vartriangle|measuredangle))(?![A-Za-z])"
)
# \vec{a} \times \vec{b}: a cross product depends on the order of its factors.
_CROSS = re.compile(
  r"(\\(?:vec|overrightarrow|mathbf|boldsymbol|bm)\s*(?:\{\s*[A-Za-z]+\s*\}|[A-Za-z])\s*)\\times(?![A-Za-z])"
)
# OR between two values; elsewhere it is the name of a segment.
_CAPITAL_WORD = re.compile(r"([\w)}\]°%,]\s+\x02?)(OR|AND|Or|And)(?=\s+[-+\w(\\{\[|])")
_TRIANGLE = re.compile(r"\\Delta\s*(?=[A-Z]{3}(?![A-Za-z]))")
_ALL_BACKSLASHES_DOUBLED = re.compile(r"(?:[^\\]|\\\\)*")
_STRIPPED = ' \t\n,;:"`'
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
    kind: "number", "command", "name" or "symbol"; "grouped" for `120,115`, which may be one number
      or two; "dotted" for `12.10.2024`, which is not a number.
    text: the token as written.
    spaced: whether white space precedes it.
    upright: whether it is a name that LaTeX sets upright, as in `\text{cm}`.
  """

  kind: str
  text: str
  spaced: bool = False
  upright: bool = False


def unicode_to_latex(text: str) -> str:
  """Replaces Unicode signs by LaTeX and variants of letters and digits by the plain ones.

  Takes time linear in the length of the text.
  """
  if text.isascii():
    return text
  text = _OPTION_MARK.sub(lambda m: m[1] + (": " if m[2] else ". "), text)
  text = _SUPERSCRIPT_RUN.sub(lambda m: "^{" + m[0].translate(_SCRIPTS) + "}", text)
  text = _SUBSCRIPT_RUN.sub(lambda m: "_{" + m[0].translate(_SCRIPTS) + "}", text)
  return unicodedata.normalize("NFKC", text.translate(_CHARACTERS)).translate(_CHARACTERS)


def clean(text: str) -> str:
  r"""Removes what does not change the value of an answer and unifies equivalent commands.

  The argument must come from `unicode_to_latex`. Takes time linear in its length.
  """
  text = text.replace(UPRIGHT, " ")
  # Escaped once too often: \\frac{1}{2}.
  if "\\\\" in text and _ALL_BACKSLASHES_DOUBLED.fullmatch(text):
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
    text = _TYPEFACE_COMMAND.sub(" ", text)
    text = _FRACTION_COMMAND.sub(r"\\frac", text).replace(r"\%", "%")
    text = _BAR.sub("|", text)
    text = _OVERLINED_NAME.sub("{", text).replace(r"\|", r"\parallel ")
    text = _WORD_COMMAND.sub(_usual_command, text)
    if r"\Delta" in text:
      text = _TRIANGLE.sub(r"\\triangle ", text)
    if "{}" in text:
      text = _EMPTY_BASE.sub("", text)
    text = _PRIME.sub(lambda m: "'" * max(m[0].count("prime"), m[0].count("'")), text)
  text = _DEGREE.sub("°", text)
  text = _NO_VALUE.sub(" ", text).replace("{,}", ",")
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


def without_marks(text: str) -> str:
  """Removes the marks of upright words from cleaned text and collapses white space."""
  return " ".join(text.replace(UPRIGHT, "").split()).replace("( ", "(").replace(" )", ")")


def tokenize(text: str) -> list[Token]:
  """Splits cleaned text into tokens; takes time linear in its length."""
  tokens = []
  end = 0
  for match in _TOKEN.finditer(text):
    word = match[0].lstrip(UPRIGHT)
    tokens.append(Token(match.lastgroup, word, match.start() > end, len(word) < len(match[0])))
    end = match.end()
  return _ungroup(tokens) if "," in text else tokens


def strip(text: str) -> str:
  """Strips white space, quotes, Markdown stars, a full stop and braces that enclose the text.

  An ellipsis at the end stays, and so do the braces of a set.
  """
  text = text.strip(_STRIPPED)
  if "*" in text:
    text = _EMPHASIS.sub("", text).strip(_STRIPPED)
    if len(text) > 2 and text[0] == text[-1] == "*":
      text = text[1:-1].strip(_STRIPPED)
  if text.endswith(".") and not text.endswith(".."):
    text = text[:-1].rstrip(_STRIPPED)
  if len(text) > 1 and text[0] == text[-1] == "'":
    text = text[1:-1]
  is_braced = text.startswith("{") and text.find("}") == len(text) - 1 and text.count("{") == 1
  if is_braced and "," not in text:
    text = text[1:-1].strip(_STRIPPED)
  return text


def _mark_upright(match: re.Match) -> str:
  words = (match[1] or match[2] or "").replace(UPRIGHT, "")
  return " " + _LETTERS.sub(lambda m: UPRIGHT + m[0], words) + " "


def _usual_command(match: re.Match) -> str:
  r"""Returns the usual command for a synonym, such as \perp for \bot."""
  either, minus_plus, perpendicular, _, figure = match.groups()
  if minus_plus:  # Alone it is the same as \pm; next to a \pm it is the opposite sign.
    return match[0] if r"\pm" in match.string else r"\pm"
  if figure:
    return {"vartriangle": r"\triangle", "measuredangle": r"\angle"}[figure]
  if either:
    return " or "
  return r"\perp" if perpendicular else r"\ne "


def _ungroup(tokens: list[Token]) -> list[Token]:
  """Replaces numbers with commas by the numbers that they mean, unless that is ambiguous."""
  if not any(token.kind == "grouped" for token in tokens):
    return tokens
  num_numbers = sum(
    token.kind in ("number", "grouped") and not _is_script(tokens, index)
    for index, token in enumerate(tokens)
  )
  in_brackets = any(token.text in ("(", "[", r"\{") for token in tokens)
  result = []
  for token in tokens:
    numbers = None
    if token.kind == "grouped":
      numbers = numerals.ungroup(
        token.text, is_only_number=num_numbers == 1, in_brackets=in_brackets
      )
    if numbers is None:
      result.append(token)
      continue
    for position, number in enumerate(numbers):
      if position > 0:
        result.append(Token("symbol", ","))
      result.append(token._replace(kind="number", text=number))
  return result


def _is_script(tokens: list[Token], index: int) -> bool:
  """Whether a token is an exponent or a subscript, as 2 in `1,200 cm^{2}`, not a further number."""
  before = [token.text for token in tokens[max(index - 2, 0) : index]]
  if before and before[-1] == "{":
    before.pop()
  return bool(before) and before[-1] in ("^", "_")
