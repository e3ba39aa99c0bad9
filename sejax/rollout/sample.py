"""Samples and scores trajectories for one question: `--mode=sample`.

    python -m sejax.main --mode=sample --config=FILE --image=FILE --question=TEXT [--judge]

Samples from the model in `config.model.path`. Progress is shown on standard error. Standard output
gets each trajectory's text, answer and share of the votes, and with `--judge` also its verdicts,
score, reward and advantage.
"""

import dataclasses
import os
import shutil
import sys
import time
from collections.abc import Callable, Sequence
from typing import NamedTuple, TextIO

import jax
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int

from sejax import models, rewards, rollout, storage
from sejax.data import batches, image_files, prepare
from sejax.data.records import Record, Source
from sejax.errors import shortened
from sejax.method.consistency import count_votes
from sejax.models.processor import Processor
from sejax.sampling import Progress

_PLAIN_SECONDS = 10  # between two lines of progress where standard error is not a terminal
_TAIL_TOKENS = 64  # last tokens of a sequence, shown while it grows


@dataclasses.dataclass(frozen=True, kw_only=True)
class Options:
  """Options of sampling and scoring.

  Attributes:
    role_options: sampling options of Actor and Judge.
    scoring: how texts become rewards.
    make_preparer: returns the preparer that turns the records of a source into prompts.
    seed: random seed of the samples.
  """

  role_options: rollout.RoleOptions
  scoring: rewards.Scoring
  make_preparer: Callable[[Source], prepare.Preparer]
  seed: int


def run(
  model_directory: rollout.ModelDirectory,
  options: Options,
  images: Sequence[str],
  question: str,
  *,
  judge: bool,
  judge_directory: rollout.ModelDirectory | None = None,
) -> None:
  """Samples and scores trajectories for one question and prints them, see `ask`."""
  group = ask(
    model_directory, options, images, question, judge=judge, judge_directory=judge_directory
  )
  _print(group)


class ScoredGroup(NamedTuple):
  """The G trajectories of one question with their scores; each field has G entries.

  Without a Judge, `verdicts`, `scores`, `rewards` and `advantages` are empty.

  Attributes:
    trajectories: texts.
    answers: extracted answers; None where none was found.
    vote_shares: share of the trajectories with the same answer, in [0, 1]; 0 without an answer.
    verdicts: texts of the verdicts, one per repeat.
    scores: scores parsed from the verdicts, in [0, 1]; None where no verdict is valid.
    rewards: the method's rewards.
    advantages: the method's advantages.
  """

  trajectories: tuple[str, ...]
  answers: tuple[str | None, ...]
  vote_shares: tuple[float, ...]
  verdicts: tuple[tuple[str, ...], ...] = ()
  scores: tuple[float | None, ...] = ()
  rewards: tuple[float, ...] = ()
  advantages: tuple[float, ...] = ()


def ask(
  model_directory: rollout.ModelDirectory,
  options: Options,
  images: Sequence[str],
  question: str,
  *,
  judge: bool,
  judge_directory: rollout.ModelDirectory | None = None,
) -> ScoredGroup:
  """Samples G trajectories for one question and, with `judge`, verdicts on them.

  Args:
    model_directory: the Actor's model, on `local_mesh`.
    images: image files, data URIs or base64 texts, in the question's order; may be empty.
    question: text in which `<image>` marks the place of each image; without any mark, the images
      come first.
    judge: whether to sample verdicts and compute rewards.
    judge_directory: the Judge's model; None is the Actor's.

  Raises:
    ValueError: the question is missing or an input cannot be read; the message names it.
  """
  if not question.strip():
    raise ValueError("--question is missing; say what to ask about the picture")
  source = _QuestionSource(question, images)
  example = _prepare(options.make_preparer(source))
  if isinstance(example, prepare.Dropped):
    raise ValueError(example.message)

  processor, seed = model_directory.processor, options.seed
  print("weights are read and programs compiled: no tokens for a while", file=sys.stderr)
  params = model_directory.load(decoding=True)
  batch = _batch_of_one(model_directory.model, processor, source.name, example)
  judge_model = None
  if judge_directory is not None:
    rollout.check_judge(model_directory, judge_directory)
    judge_model = judge_directory.model
  roles = model_directory.roles(options.role_options, judge_model)
  if judge:
    roles.check_context(batch)
  features = roles.encode(params, batch)

  watch = ProgressDisplay("trajectory", processor, options.role_options.actor.max_new_tokens)
  sampled = roles.act(params, batch, features, seed=seed, step=0, watch=watch)
  texts = tuple(sampled.texts[0])
  if not judge:
    (answers,), ids = rewards.read_answers([texts], options.scoring.reading)
    return ScoredGroup(texts, tuple(answers), _vote_shares(ids))
  watch = ProgressDisplay("verdict", processor, options.role_options.judge.max_new_tokens)
  if judge_directory is not None:
    del features
    params = judge_directory.load(decoding=True)
    features = roles.encode_for_judge(params, batch)
  judged = roles.judge_all(params, batch, features, sampled.texts, seed=seed, step=0, watch=watch)
  verdicts, truncated = rollout.by_candidate(judged, options.scoring.repeats)
  scored = rewards.score_groups(
    sampled.texts,
    verdicts,
    options.scoring,
    truncated,
    lengths=sampled.result.lengths,
    max_tokens=options.role_options.actor.max_new_tokens,
  )
  return _scored_group(texts, verdicts[0], scored)


def local_mesh() -> Mesh:
  """Returns a mesh of all local devices along `tensor`, as a single prompt cannot be split."""
  return Mesh(np.array(jax.local_devices())[None], ("data", "tensor"))


def _scored_group(
  texts: tuple[str, ...], verdicts: Sequence[Sequence[str]], scored: rewards.Scored
) -> ScoredGroup:
  """Converts the only group of a batch to plain Python values."""
  scores = zip(scored.verdicts.scores[0].tolist(), scored.verdicts.valid[0], strict=True)
  return ScoredGroup(
    trajectories=texts,
    answers=tuple(scored.answers[0]),
    vote_shares=_vote_shares(scored.answer_ids),
    verdicts=tuple(tuple(repeats) for repeats in verdicts),
    scores=tuple(score if valid else None for score, valid in scores),
    rewards=tuple(np.asarray(scored.group.reward[0]).tolist()),
    advantages=tuple(np.asarray(scored.group.advantage[0]).tolist()),
  )


class _QuestionSource:
  """A source of records that holds the one question."""

  name = "sample"

  def __init__(self, question: str, images: Sequence[str]):
    self._question, self._images = question, images

  def __len__(self) -> int:
    return 1

  def __getitem__(self, index: int) -> Record:
    return Record(self._question, self._question, tuple(map(_read, self._images)))

  def gold(self, index: int) -> None:
    return None


class ProgressDisplay:
  """Shows the progress of one group's sequences on standard error; a callback for `Sampler`.

  On a terminal, each sequence has a line with its latest words, redrawn at each call. Elsewhere,
  one line about all sequences is written every ten seconds.
  """

  def __init__(self, name: str, processor: Processor, limit: int, stream: TextIO | None = None):
    self._name, self._processor, self._limit = name, processor, limit
    self._stream = stream or sys.stderr
    self._drawn_before = False
    self._last = time.monotonic()

  def __call__(self, progress: Progress) -> None:
    """Shows the first group's tokens sampled so far."""
    tokens, lengths = progress.tokens, progress.lengths
    if self._stream.isatty():
      self._draw(tokens[0], lengths[0])
    elif time.monotonic() - self._last >= _PLAIN_SECONDS:
      self._last = time.monotonic()
      longest, total = lengths[0].max(), lengths[0].sum()
      self._write(f"{self._name}: {longest} of at most {self._limit} tokens, {total} in all\n")

  def _draw(self, tokens: Int[np.ndarray, "G R"], lengths: Int[np.ndarray, " G"]) -> None:
    """Redraws one line per sequence, with ANSI codes: cursor up, then erase each line."""
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
  """Replaces control characters, because a model's text might contain terminal commands."""
  return "".join(c if c.isprintable() or c in "\n\t" else "\N{REPLACEMENT CHARACTER}" for c in text)


def _read(path: str) -> bytes:
  """Returns the encoded image of a file, a data URI or a base64 text."""
  inline = image_files.decode_inline(path)
  if inline is not None:
    return inline
  if not os.path.isfile(path):  # `pathlib.Path.is_file` raises if the text is too long for a path.
    raise ValueError(f"--image={shortened(path)} is not a file")
  return storage.Path(path).read_bytes()


def _prepare(preparer: prepare.Preparer) -> prepare.Example | prepare.Dropped:
  """Prepares the only record without training's limits: the model's context alone limits it."""
  unlimited = dataclasses.replace(
    preparer, prompt_limit=sys.maxsize, judge_limit=sys.maxsize, patch_limit=sys.maxsize
  )
  return unlimited(0)


def _batch_of_one(
  model: models.Model, processor: Processor, dataset: str, example: prepare.Example
) -> batches.Batch:
  """Returns a batch of one example, in the smallest shapes that hold it."""
  multiple = model.patch_multiple
  buckets = batches.Buckets(
    prompt=(max(len(example.actor), len(example.judge)),),
    patch=(-(-len(example.patches) // multiple) * multiple,),
  )
  collate = batches.Collator(
    model=model, dataset=dataset, rows=1, buckets=buckets, pad_id=processor.pad_id
  )
  return collate([example])


def _print(group: ScoredGroup) -> None:
  """Prints each trajectory with its answer, vote share and, if judged, verdicts and scores."""
  for g, (text, answer, share) in enumerate(
    zip(group.trajectories, group.answers, group.vote_shares, strict=True)
  ):
    print(f"--- trajectory {g + 1}\n{printable(text)}")
    found = "no answer" if answer is None else f"answer {printable(answer)}"
    print(f"{found}, vote share {share:.3f}", flush=True)
    if not group.verdicts:
      continue
    for verdict in group.verdicts[g]:
      print(f"verdict:\n{printable(verdict)}")
    score = "unreadable" if group.scores[g] is None else f"{group.scores[g]:.3f}"
    figures = f"reward {group.rewards[g]:.3f}, advantage {group.advantages[g]:+.3f}"
    print(f"score {score}, {figures}\n")


def _vote_shares(answer_ids: Int[np.ndarray, "1 G"]) -> tuple[float, ...]:
  """Returns the share of the group that gave each trajectory's answer."""
  shares = np.asarray(count_votes(answer_ids).count[0]) / answer_ids.shape[1]
  return tuple(shares.tolist())
