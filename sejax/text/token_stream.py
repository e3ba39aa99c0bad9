"""Token stream with lookahead and backtracking, the base class of the answer parsers."""

from collections.abc import Callable
from typing import TypeVar

from sejax.text.algebra import UnsupportedError
from sejax.text.latex import Token

MAX_DEPTH = 12

T = TypeVar("T")


class TokenStream:
  """Steps through the tokens of an answer; raises `UnsupportedError` where they do not parse.

  Attributes:
    tokens: all tokens of the answer.
    index: index of the next token.
    next: text of the next token; None at the end.
    depth: current nesting depth, the number of calls of `nested` in progress.
  """

  def __init__(self, tokens: list[Token]):
    self.tokens = list(tokens)
    self.depth = 0
    self.seek(0)

  def seek(self, index: int) -> None:
    """Moves to the token at an index; `len(tokens)` is the end."""
    self.index = index
    self.next = self.tokens[index].text if index < len(self.tokens) else None

  def peek(self, offset: int = 0) -> Token:
    """Returns the token at `offset` from the next one; `Token("end", "")` outside the answer."""
    index = self.index + offset
    return self.tokens[index] if 0 <= index < len(self.tokens) else Token("end", "")

  def split_token(self) -> Token:
    r"""Takes the first character of the next token and leaves the rest, as TeX does: `\frac12`."""
    token = self.peek()
    self.tokens[self.index] = token._replace(text=token.text[1:], spaced=False)
    self.seek(self.index)
    return token._replace(text=token.text[:1])

  def take(self) -> Token:
    """Returns the next token and steps over it."""
    if self.next is None:
      raise UnsupportedError("the answer ends too early")
    self.seek(self.index + 1)
    return self.tokens[self.index - 1]

  def expect(self, text: str) -> None:
    """Steps over the next token, which must be `text`."""
    if self.next != text:
      raise UnsupportedError(f"expected {text}, found {self.next}")
    self.seek(self.index + 1)

  def accept(self, text: str) -> bool:
    """Steps over the next token if it is `text`; returns whether it did."""
    if self.next != text:
      return False
    self.seek(self.index + 1)
    return True

  def nested(self, read: Callable[[], T]) -> T:
    """Calls a parsing method one level deeper; raises `UnsupportedError` beyond `MAX_DEPTH`."""
    self.depth += 1
    if self.depth > MAX_DEPTH:
      raise UnsupportedError(f"nested deeper than {MAX_DEPTH}")
    value = read()
    self.depth -= 1
    return value
