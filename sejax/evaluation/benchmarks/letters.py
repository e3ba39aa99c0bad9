"""Option letters in responses."""

import re
from collections.abc import Mapping

NONE = "Z"  # stands for "none of the options"

_FAILED = "Failed to obtain answer via API"  # in the place of a response that could not be had
_REFUSALS = (
  "can't help with images of people",
  "can't process this file",
  "sorry, but without the image provided",
  "Cannot determine the answer",
)
_BLANKS = str.maketrans(dict.fromkeys(".()[],:;!*#{}", " "))
_LAST = 4  # tokens among which a lone letter is taken for the answer
# The toolkit takes any letter behind "answer is", even one that begins a word.
_ANSWER_IS = re.compile(r"answer\s+is\s+\**([A-D])", re.IGNORECASE)
_ANSWER_IS_WORD = re.compile(r"answer\s+is\s+\**([A-D])\b", re.IGNORECASE)


def read_letter(
  response: str, options: Mapping[str, str], *, whole_words: bool = False
) -> str | None:
  r"""Returns the option that a response chooses, by the evaluation toolkit's rule.

  It looks at whole tokens: braces are blanks, so `\boxed{C}` at the end is C; a letter that comes
  early in a long response is no choice; of two different letters none is, even where the last is
  the answer; the article "A" counts as option A; and in "the answer is about 3" so does the a of
  "about", unless `whole_words` are asked for.

  Args:
    response: the text.
    options: letters and the texts of their options.
    whole_words: whether a letter behind "answer is" must be a word, which the toolkit does not ask.

  Returns:
    A letter, `NONE` for a refusal or where the response itself says Z, or None: undecided.
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
  """Returns the only option whose text is in a response that is not much longer than them all."""
  if len(response) > 2 * sum(map(len, options.values())):
    return None
  found = [letter for letter, text in options.items() if text.lower() in response.lower()]
  return found[0] if len(found) == 1 else None
