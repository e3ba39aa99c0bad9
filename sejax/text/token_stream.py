"""A place in the tokens of an answer, and the ways to move it."""

from collections.abc import Callable
from typing import TypeVar

from sejax.text.exact import UnsupportedError
from sejax.text.notation import Token

MAX_DEPTH = 12

T = TypeVar("T")


class Cursor:
  """Reads tokens one after the other; what cannot be read raises `UnsupportedError`.

  Attributes:
    tokens: of the whole answer.
    index: of the next token.
    next: its text, or None at the end.
    depth: how many readings by `nested` are under way.
  """

  def __init__(self, tokens: list[Token]):
    self.tokens = list(tokens)
    self.depth = 0
    self.move(0)

  def move(self, index: int) -> None:
    """Goes to a token, or to the end."""
    self.index = index
    self.next = self.tokens[index].text if index < len(self.tokens) else None

  def token(self, offset: int = 0) -> Token:
    """Returns the token so many places from the next one; a nameless one beyond the ends."""
    index = self.index + offset
    return self.tokens[index] if 0 <= index < len(self.tokens) else Token("end", "")

  def split_token(self) -> Token:
    r"""Takes the first character of the next token and leaves the rest, as TeX does: `\frac12`."""
    token = self.token()
    self.tokens[self.index] = token._replace(text=token.text[1:], spaced=False)
    self.move(self.index)
    return token._replace(text=token.text[:1])

  def take(self) -> Token:
    """Returns the next token and steps over it."""
    if self.next is None:
      raise UnsupportedError("the answer ends too early")
    self.move(self.index + 1)
    return self.tokens[self.index - 1]

  def expect(self, text: str) -> None:
    """Steps over a token that must be there."""
    if self.next != text:
      raise UnsupportedError(f"expected {text}, found {self.next}")
    self.move(self.index + 1)

  def accept(self, text: str) -> bool:
    """Steps over a token if it is the next one."""
    if self.next != text:
      return False
    self.move(self.index + 1)
    return True

  def nested(self, read: Callable[[], T]) -> T:
    """Reads something inside something else, to a bounded depth."""
    self.depth += 1
    if self.depth > MAX_DEPTH:
      raise UnsupportedError(f"nested deeper than {MAX_DEPTH}")
    value = read()
    self.depth -= 1
    return value
