"""Finds the value that an answer states in a sentence or a worked solution; for grading only.

An answer is the content of a box, but some models box a whole sentence. Grading knows the value it
looks for; voting does not, so votes compare sentences as text.
"""

import re

_COMMAND = re.compile(r"\\[A-Za-z]+")
_WORD = re.compile(r"[^\W\d_]{3,}")  # in any script
_NUMBER = re.compile(
  r"\\[dt]?frac\s*\{-?\d+\}\s*\{\d+\}|(?:(?<![\w)}])-)?\d+(?:,\d{3})*(?:\.\d+)?(?:/\d+)?", re.ASCII
)
_EQUALS = re.compile(r"(?<![<>!=\\])=(?!=)")
# The operator must precede a number, so that 5 m/s and 3-sided are not calculations. No comma may
# follow, so that the equals sign belongs to it: p(0) = 1/2, p(1) = 0 is not a calculation either.
_CALCULATION = re.compile(
  r"[\d)}）].*?(?:[-+*/×÷]|\\(?:times|cdot|div)(?![A-Za-z]))\s*\(?(?:\d|\\[dt]?frac)"
  r"[^,;$，；。、]*\Z",
  re.DOTALL,
)
_BEFORE_VALUE = " \t$(*[{"  # characters allowed between an equals sign and its value
# The number is only part of a longer expression: 2\sqrt{3}, 2x.
_CONTINUES = re.compile(r"\s*(?:[-+*/^_({\\×÷]|[A-Za-z](?![A-Za-z]))")
# A subject without numbers, a verb, and a value without words.
_SENTENCE = re.compile(
  r"\s*(?P<subject>[^\W\d_](?:[^\W\d_]|['’,\s])*?)"
  r"(?:\s(?:is|are|equals|est|es|ist)(?::\s*|\s+)|(?:等于|为|是)\s*)"
  r"(?P<value>\S.*?)\s*[.。]?\s*"
)
# Words of subjects that deny the value, or state it as one of several.
_DOUBT = re.compile(
  r"\b(?:not|no|never|neither|nor|none|or|either|and|one|if|unless|between|than)\b|n['’]t\b"
  r"|[不非没未或和若]|之一|如果",
  re.IGNORECASE,
)
_OPTION_WITH_CHINESE_REASON = re.compile(r"\s*\(?([A-H])\)?\s*[。．]\s*(?=[\u4e00-\u9fff])")


def stated_value(answer: str) -> str | None:
  """Returns the value that a sentence or a worked solution states; None if that is unclear.

  Three forms are read:

  - `The ratio is 13/28.`: a subject without numbers, a verb and one value;
  - `158 - 66 = 92, so there are 92.`: the last number is the result of the last calculation;
  - `B。不是 A`: the letter of an option, a full stop, and its reason in Chinese.

  Takes time quadratic in the length of the answer.
  """
  option = _OPTION_WITH_CHINESE_REASON.match(answer)
  if option:
    return option[1]
  sentence = _SENTENCE.fullmatch(answer)
  if sentence and not _DOUBT.search(sentence["subject"]) and not _has_words(sentence["value"]):
    return sentence["value"]
  return _calculated_value(answer) if _has_words(answer) else None


def _has_words(text: str) -> bool:
  return _WORD.search(_COMMAND.sub(" ", text)) is not None


def _calculated_value(solution: str) -> str | None:
  """Returns the last number of a solution if it is also the result of its last calculation."""
  *sides, end = _EQUALS.split(solution)
  while len(sides) > 1 and _NUMBER.fullmatch(sides[-1].strip()):
    sides.pop()  # 2/5 \times 1/3 = 2/15 = 4/30
  if not sides or not _CALCULATION.search(sides[-1]):
    return None
  end = end.lstrip(_BEFORE_VALUE)
  result = _NUMBER.match(end)
  if result is None or _CONTINUES.match(end, result.end()):
    return None
  return result[0] if _NUMBER.findall(end)[-1] == result[0] else None
