"""Extracts the chosen option letter from a response to a multiple-choice question."""

import re
from collections.abc import Mapping

NONE = "Z"  # the letter for "none of the options"

_FAILED = "Failed to obtain answer via API"  # what the toolkit stores if a request failed
_REFUSALS = (
  "can't help with images of people",
  "can't process this file",
  "sorry, but without the image provided",
  "Cannot determine the answer",
)
_BLANKS = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
_LAST = 4  # a single letter counts if it is among so many last tokens
# The toolkit accepts any letter after "answer is", even one that begins a word.
_ANSWER_IS = re.compile(r"answer\s+is\s+\**([A-D])", re.IGNORECASE)
_ANSWER_IS_WORD = re.compile(r"answer\s+is\s+\**([A-D])\b", re.IGNORECASE)


def read_letter(
  response: str, options: Mapping[str, str], *, whole_words: bool = False
) -> str | None:
  r"""Extracts the chosen letter by the rule of VLMEvalKit.

  Quirks of that rule:

  - It looks at whole tokens, and braces are blanks: `\boxed{C}` at the end is C.
  - A letter far from the end of the response does not count.
  - If the response has several different letters, none counts, even if the last is the answer.
  - The article "A" counts as option A; so does the first letter of "about" in "the answer is about
    3", unless `whole_words` is set.

  Args:
    response: the text.
    options: texts of the options by letter.
    whole_words: require the letter after "answer is" to be a whole word; the toolkit does not.

  Returns:
    A letter; `NONE` if the response is a refusal or says Z; None if it cannot be decided.
  """
  if _FAILED in response:
    return None
  if any(refusal in response for refusal in _REFUSALS):
    return NONE
  tokens = response.translate(_BLANKS).split()
  found = [letter for letter in options if letter in tokens]
  if len(found) == 1 and tokens.index(found[0]) >= len(tokens) - _LAST:
    return found[0]
  if not found and NONE in tokens:
    return NONE
  named = (_ANSWER_IS_WORD if whole_words else _ANSWER_IS).search(response)
  if named and named[1].upper() in options:
    return named[1].upper()
  return _read_text(response, options)


def _read_text(response: str, options: Mapping[str, str]) -> str | None:
  """Returns the only option whose text occurs in a response, unless the response is long."""
  if len(response) > 2 * sum(map(len, options.values())):
    return None
  found = [letter for letter, text in options.items() if text.lower() in response.lower()]
  return found[0] if len(found) == 1 else None
