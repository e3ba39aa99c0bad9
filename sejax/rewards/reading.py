"""From the texts of a batch to what the rewards are made of (arXiv:2603.21289), on the host.

Strings end here: texts become vote ids, format flags and scores, `[B, G]` arrays for the jitted
kernel.
"""

from collections.abc import Sequence
from typing import NamedTuple

import ml_collections
import numpy as np
from jaxtyping import Bool, Float32, Int32

from sejax import method
from sejax.text import answers, verdicts


class Verdicts(NamedTuple):
  """What was read from the verdicts on B groups of G trajectories.

  Attributes:
    scores: the mean of a trajectory's valid verdicts, in [0, 1]; 0 where there is none.
    valid: whether there is one.
    truncated: how many were cut at the limit of tokens.
    contradictory: how many have a box that is not the score of their own JSON object.
  """

  scores: Float32[np.ndarray, "B G"]
  valid: Bool[np.ndarray, "B G"]
  truncated: Int32[np.ndarray, "B G"]
  contradictory: Int32[np.ndarray, "B G"]

  def counts(self) -> dict[str, Int32[np.ndarray, " B"]]:
    """Returns how many verdicts on each group are truncated, and contradictory."""
    return {
      "truncated_verdicts": self.truncated.sum(axis=1),
      "contradictory_verdicts": self.contradictory.sum(axis=1),
    }


class Scored(NamedTuple):
  """What was read from the texts of B groups of G trajectories, and what the method made of it.

  Attributes:
    answers: as read; None where nothing could be.
    answer_ids: equal numbers for equal answers of a group, `ABSTAIN` for none.
    format_ok: whether the output format was kept.
    verdicts: what the Judge said; None without a Judge.
    group: rewards and advantages.
  """

  answers: list[list[str | None]]
  answer_ids: Int32[np.ndarray, "B G"]
  format_ok: Bool[np.ndarray, "B G"]
  verdicts: Verdicts | None
  group: method.Group


def score_groups(
  responses: Sequence[Sequence[str]],
  verdict_texts: Sequence[Sequence[Sequence[str]]],
  config: ml_collections.ConfigDict,
  truncated: Sequence[Sequence[Sequence[bool]]] | None = None,
) -> Scored:
  """Reads answers and verdicts and computes rewards and advantages (arXiv:2603.21289).

  Args:
    responses: B groups of G trajectories.
    verdict_texts: for each trajectory what the Judge wrote, once per repeat; not looked at where
      `config.judge.use` is false.
    config: the run's configuration; `answers`, `judge` and `method` are used.
    truncated: whether each verdict was cut at the limit; None: none was.

  Returns:
    What was read, and the rewards and advantages.

  Raises:
    ValueError: groups differ in size, or an option is unknown or out of its range.
  """
  extracted, answer_ids = read_answers(responses, config)
  format_ok = np.array([[answers.format_ok(text) for text in group] for group in responses], bool)
  read, judged = None, (None, None)
  if config.judge.use:
    read = read_verdicts(verdict_texts, config.judge, truncated)
    judged = (read.scores, read.valid)
  group = method.group(answer_ids, format_ok, *judged, **config.method)
  return Scored(extracted, answer_ids, format_ok, read, group)


def read_answers(
  responses: Sequence[Sequence[str]], config: ml_collections.ConfigDict
) -> tuple[list[list[str | None]], Int32[np.ndarray, "B G"]]:
  """Returns the answer of every trajectory and, per group, equal answers by equal numbers.

  Raises:
    ValueError: groups differ in size, or an option of `config.answers` is unknown.
  """
  read = config.answers
  extracted = [
    [answers.extract(text, released=read.released_extraction) for text in group]
    for group in responses
  ]
  ids = answers.vote_ids(extracted, equivalence=read.equivalence, unparsable=read.unparsable)
  return extracted, ids


def read_verdicts(
  texts: Sequence[Sequence[Sequence[str]]],
  options: ml_collections.ConfigDict,
  truncated: Sequence[Sequence[Sequence[bool]]] | None = None,
) -> Verdicts:
  """Reads the verdicts on B groups of G trajectories, several on each.

  One that was cut at the limit of tokens is not the Judge's last word, and so not valid, whatever
  can be read from it; nor, with `contradictory="invalid"`, is one whose box is not the score of its
  own JSON object. As the released code reads (`released_reading`), both are taken as they are.

  Args:
    texts: for each trajectory what the Judge wrote, once per repeat.
    options: `config.judge`.
    truncated: whether each was cut; None: none was.
  """
  shape = (len(texts), len(texts[0]) if texts else 0)
  read = Verdicts(
    np.zeros(shape, np.float32),
    np.zeros(shape, bool),
    np.zeros(shape, np.int32),
    np.zeros(shape, np.int32),
  )
  for b, g in np.ndindex(shape):
    repeats = texts[b][g]
    cut = [False] * len(repeats) if truncated is None else truncated[b][g]
    contradictory = [verdicts.contradicts(text) for text in repeats]
    scores = [verdicts.score(text, released=options.released_reading) for text in repeats]
    if not options.released_reading:
      refused = contradictory if options.contradictory == "invalid" else [False] * len(repeats)
      scores = [
        None if was_cut or is_refused else score
        for score, was_cut, is_refused in zip(scores, cut, refused, strict=True)
      ]
    usable = [score for score in scores if score is not None]
    read.valid[b, g] = bool(usable)
    read.scores[b, g] = sum(usable) / len(usable) if usable else 0.0
    read.truncated[b, g], read.contradictory[b, g] = sum(cut), sum(contradictory)
  return read
