"""The method on a picture of one's own: trajectories, their votes, and what the Judge says.

    python -m sejax.main --mode=sample --config=FILE --image=FILE --question=TEXT [--judge]

`config.model.path` is a directory of weights. While tokens are drawn, standard error shows how the
trajectories grow; standard output then gets each one's text, answer and share of the votes, and
with `--judge` its verdict, score, reward and advantage too.
"""

import dataclasses
import os
import pathlib
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, TextIO

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int

from sejax import models, rewards, rollout
from sejax.data import batches, image_files, prepare
from sejax.data.records import Record, Source
from sejax.errors import shortened
from sejax.method.consistency import count_votes
from sejax.models.processor import Processor

_PLAIN_SECONDS = 10  # Between two lines of progress where there is no terminal.
_TAIL_TOKENS = 64  # Of a trajectory, shown while it grows.


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
  """How a question is answered.

  Attributes:
    roles: how Actor and Judge sample.
    scoring: how texts become rewards, with a Judge.
    make_preparer: of the source that holds the question.
    seed: of the samples.
  """

  roles: rollout.RoleOptions
  scoring: rewards.Scoring
  make_preparer: Callable[[Source], prepare.Preparer]
  seed: int


def run(
  policy: rollout.Policy, options: Options, images: Sequence[str], question: str, *, judge: bool
) -> None:
  """Samples trajectories for one question and prints what the method makes of them, see `ask`."""
  _print(ask(policy, options, images, question, judge=judge))


class Answered(NamedTuple):
  """What the method makes of one question; an entry for each of the G trajectories.

  Attributes:
    trajectories: their texts.
    answers: read from them; None where there is none.
    vote_shares: of the trajectories, how many give the same answer; 0 without an answer.
    verdicts: the Judge's words, of each of its repeats; without a Judge, the tuple is empty, and so
      are the next three.
    scores: read from the verdicts, in [0, 1]; None where none can be read.
    rewards: by the method.
    advantages: likewise.
  """

  trajectories: tuple[str, ...]
  answers: tuple[str | None, ...]
  vote_shares: tuple[float, ...]
  verdicts: tuple[tuple[str, ...], ...] = ()
  scores: tuple[float | None, ...] = ()
  rewards: tuple[float, ...] = ()
  advantages: tuple[float, ...] = ()


def ask(
  policy: rollout.Policy, options: Options, images: Sequence[str], question: str, *, judge: bool
) -> Answered:
  """Samples G trajectories for one question and, if asked, has the Judge read them.

  Args:
    policy: Actor and Judge, on `local_mesh`.
    options: how they answer.
    images: picture files, data URIs or base64, in the question's order; there may be none.
    question: the problem, `<image>` standing once for each image or not at all.
    judge: whether the Judge reads the trajectories.

  Raises:
    ValueError: what is missing or cannot be read, named.
  """
  if not question.strip():
    raise ValueError("--question is missing; say what to ask about the picture")
  asked = _Asked(question, images)
  example = _prepare(options.make_preparer(asked))
  if isinstance(example, prepare.Dropped):
    raise ValueError(example.message)

  processor, seed = policy.processor, options.seed
  print("weights are read and programs compiled: no tokens for a while", file=sys.stderr)
  params = policy.load(decoding=True)
  batch = _batch_of_one(policy.model, processor, asked.name, example)
  roles = policy.roles(options.roles)
  if judge:
    roles.check_context(batch)
  features = roles.encode(params, batch)

  watch = Progress("trajectory", processor, options.roles.actor.new_tokens)
  sampled = roles.act(params, batch, features, seed=seed, step=0, watch=watch)
  texts = tuple(sampled.texts[0])
  if not judge:
    (answers,), ids = rewards.read_answers([texts], options.scoring.reading)
    return Answered(texts, tuple(answers), _vote_shares(ids))
  watch = Progress("verdict", processor, options.roles.judge.new_tokens)
  judged = roles.judge_all(params, batch, features, sampled.texts, seed=seed, step=0, watch=watch)
  verdicts, truncated = rollout.by_candidate(judged, options.scoring.repeats)
  scored = rewards.score_groups(sampled.texts, verdicts, options.scoring, truncated)
  return _answered(texts, verdicts[0], scored)


def local_mesh() -> Mesh:
  """Returns the mesh for one question: it is one row, so all devices serve to split the weights."""
  return Mesh(np.array(jax.local_devices())[None], ("data", "tensor"))


def _answered(
  texts: tuple[str, ...], verdicts: Sequence[Sequence[str]], scored: rewards.Scored
) -> Answered:
  readable = zip(scored.verdicts.scores[0].tolist(), scored.verdicts.valid[0], strict=True)
  return Answered(
    texts,
    tuple(scored.answers[0]),
    _vote_shares(scored.answer_ids),
    tuple(map(tuple, verdicts)),
    tuple(score if valid else None for score, valid in readable),
    tuple(np.asarray(scored.group.reward[0]).tolist()),
    tuple(np.asarray(scored.group.advantage[0]).tolist()),
  )


class _Asked:
  """The one question, as a source of records."""

  name = "sample"

  def __init__(self, question: str, images: Sequence[str]):
    self._question, self._images = question, images

  def __len__(self) -> int:
    return 1

  def __getitem__(self, index: int) -> Record:
    return Record(self._question, self._question, tuple(map(_read, self._images)))

  def gold(self, index: int) -> None:
    return None


class Progress:
  """Shows on standard error how the members of one group grow.

  On a terminal each has a line with its last words, drawn anew after each run of tokens; elsewhere
  a line for all of them is written now and then.
  """

  def __init__(self, name: str, processor: Processor, limit: int, stream: TextIO | None = None):
    self._name, self._processor, self._limit = name, processor, limit
    self._stream = stream or sys.stderr
    self._drawn_before = False
    self._last = time.monotonic()

  def __call__(self, tokens: Int[np.ndarray, "B G R"], lengths: Int[np.ndarray, "B G"]) -> None:
    """Shows the first group; `Sampler` calls it with what it has drawn so far."""
    if self._stream.isatty():
      self._draw(tokens[0], lengths[0])
    elif time.monotonic() - self._last >= _PLAIN_SECONDS:
      self._last = time.monotonic()
      longest, total = lengths[0].max(), lengths[0].sum()
      self._write(f"{self._name}: {longest} of at most {self._limit} tokens, {total} in all\n")

  def _draw(self, tokens: Int[np.ndarray, "G R"], lengths: Int[np.ndarray, " G"]) -> None:
    width = shutil.get_terminal_size().columns
    lines = [f"\x1b[{len(lengths)}A"] if self._drawn_before else []
    for number, (row, length) in enumerate(zip(tokens, lengths, strict=True), 1):
      head = f"{self._name} {number} {length:>5} "
      tail = self._processor.decode(row[max(0, length - _TAIL_TOKENS) : length])
      # Half the width, as characters of some scripts take two columns.
      tail = printable(tail.replace("\n", " "))[-max(1, (width - len(head)) // 2) :]
      lines.append(f"\x1b[2K{head}{tail}\n")
    self._write("".join(lines))
    self._drawn_before = True

  def _write(self, text: str) -> None:
    self._stream.write(text)
    self._stream.flush()


def printable(text: str) -> str:
  """Returns the text without what would steer a terminal; a model may write anything."""
  return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)


def _read(path: str) -> bytes:
  inline = image_files.decode_inline(path)
  if inline is not None:
    return inline
  if not os.path.isfile(path):  # pathlib's raises where a text is too long for a path
    raise ValueError(f"--image={shortened(path)} is no file")
  return pathlib.Path(path).read_bytes()


def _prepare(preparer: prepare.Preparer) -> prepare.Example | prepare.Dropped:
  """Prepares without the limits of training: one prompt may be as long as the model's context."""
  unlimited = dataclasses.replace(
    preparer, prompt_limit=sys.maxsize, judge_limit=sys.maxsize, patch_limit=sys.maxsize
  )
  return unlimited(0)


def _batch_of_one(
  model: models.Model, processor: Processor, dataset: str, example: prepare.Example
) -> batches.Batch:
  """Batches an example in shapes that are just large enough."""
  multiple = model.patch_multiple
  buckets = batches.Buckets(
    prompt=(max(len(example.actor), len(example.judge)),),
    patch=(-(-len(example.patches) // multiple) * multiple,),
  )
  collate = batches.Collator(
    model=model, dataset=dataset, rows=1, buckets=buckets, pad_id=processor.pad_id
  )
  return collate([example])


def _print(answered: Answered) -> None:
  for g, (text, answer, share) in enumerate(
    zip(answered.trajectories, answered.answers, answered.vote_shares, strict=True)
  ):
    print(f"--- trajectory {g + 1}\n{printable(text)}")
    found = "no answer" if answer is None else f"answer {printable(answer)}"
    print(f"{found}, vote share {share:.3f}", flush=True)
    if not answered.verdicts:
      continue
    for verdict in answered.verdicts[g]:
      print(f"verdict:\n{printable(verdict)}")
    score = "unreadable" if (given := answered.scores[g]) is None else f"{given:.3f}"
    figures = f"reward {answered.rewards[g]:.3f}, advantage {answered.advantages[g]:+.3f}"
    print(f"score {score}, {figures}\n")


def _vote_shares(answer_ids: Int[np.ndarray, "1 G"]) -> tuple[float, ...]:
  shares = np.asarray(count_votes(answer_ids).count[0]) / answer_ids.shape[1]
  return tuple(shares.tolist())
