r"""The Judge's score as an expectation, read from probabilities where a reply would state it.

Instead of generating an evaluation that ends in a score, the reply is forced to open with the score
tag, `\boxed{`, and the probabilities of the scores 0.0, 0.1 to 1.0 right there give

  score = sum_s p(s) s, with sum_s p(s) = 1 over these eleven scores.

Most tokenizers write a score as several tokens, so a probability is a product over the tokens at
which scores part. For Qwen's these are two: after the tag, 0 or 1; and after `0.`, the digit. A few
decode steps with forced tokens pass all of them.
"""

import dataclasses
import itertools
from typing import NamedTuple, Self

import numpy as np
from jaxtyping import Float32

from sejax.models.processor import Processor
from sejax.sampling import Options
from sejax.text import boxes

VALUES = tuple(n / 10 for n in range(11))
# Decode steps with the tokenizers of Qwen, by which programs are planned before one is read.
USUAL_STEPS = 3


class Fork(NamedTuple):
  """A place where scores part.

  Attributes:
    step: tokens after the tag before it.
    tokens: the next tokens, of which each belongs to one score or several.
  """

  step: int
  tokens: tuple[int, ...]


@dataclasses.dataclass(frozen=True)
class ScoreTag:
  """How a tokenizer writes the tag and the scores.

  Attributes:
    opening: tokens of the tag.
    forced: tokens after it that lead to the last fork.
    forks: all places where scores part, in their order.
    scores: tokens of each of `VALUES`, after the tag.
  """

  opening: tuple[int, ...]
  forced: tuple[int, ...]
  forks: tuple[Fork, ...]
  scores: tuple[tuple[int, ...], ...]

  @classmethod
  def of(cls, processor: Processor) -> Self:
    """Finds the tokens.

    Raises:
      ValueError: scores part at places that no single sequence of tokens passes.
    """
    written = [
      tuple(processor.encode_text(f"{boxes.OPENER}{value:.1f}").tolist()) for value in VALUES
    ]
    shared = len(
      list(itertools.takewhile(lambda column: len(set(column)) == 1, zip(*written, strict=False)))
    )
    scores = tuple(tokens[shared:] for tokens in written)
    next_tokens: dict[tuple[int, ...], dict[int, None]] = {}
    for tokens in scores:
      for n, token in enumerate(tokens):
        next_tokens.setdefault(tokens[:n], {})[token] = None
    places = sorted((place for place, found in next_tokens.items() if len(found) > 1), key=len)
    forced = places[-1] if places else ()
    if not places or any(forced[: len(place)] != place for place in places):
      raise ValueError(
        "judge.expected=True cannot read the scores 0.0 to 1.0 as this tokenizer writes them:"
        f" {scores}; generate verdicts, with judge.expected=False"
      )
    forks = tuple(Fork(len(place), tuple(next_tokens[place])) for place in places)
    return cls(opening=written[0][:shared], forced=forced, forks=forks, scores=scores)

  def options(self, options: Options) -> Options:
    """Returns the Judge's options for reading a score instead of generating a verdict."""
    return dataclasses.replace(
      options,
      max_new_tokens=len(self.forced) + 1,
      repeats=1,
      eos_ids=(),
      filters=dataclasses.replace(options.filters, top_k=None, top_p=1.0, min_p=0.0),
      forced=self.forced,
      watched=self.watched,
    )

  @property
  def watched(self) -> tuple[int, ...]:
    """Tokens whose log-probs are needed."""
    return tuple(dict.fromkeys(token for fork in self.forks for token in fork.tokens))

  def expectation(self, watched_logp: Float32[np.ndarray, "B G R W"]) -> Float32[np.ndarray, "B G"]:
    """Returns the expected scores, in [0, 1].

    Args:
      watched_logp: log-probs of the watched tokens after the tag, and after each forced token.
    """
    column = {token: n for n, token in enumerate(self.watched)}
    # Probability of each next token at each fork, among those that lead to a score.
    chances: dict[tuple[int, int], np.ndarray] = {}
    for fork in self.forks:
      logp = watched_logp[:, :, fork.step, [column[token] for token in fork.tokens]]
      weights = np.exp(logp.astype(np.float64) - logp.max(axis=-1, keepdims=True))
      weights /= weights.sum(axis=-1, keepdims=True)
      for n, token in enumerate(fork.tokens):
        chances[fork.step, token] = weights[..., n]
    score = np.zeros(watched_logp.shape[:2])
    for value, tokens in zip(VALUES, self.scores, strict=True):
      chance = np.ones_like(score)
      for fork in self.forks:
        if tokens[: fork.step] == self.forced[: fork.step]:
          chance = chance * chances[fork.step, tokens[fork.step]]
      score += value * chance
    return np.clip(score, 0.0, 1.0).astype(np.float32)
