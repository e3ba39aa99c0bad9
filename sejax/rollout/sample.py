"""Samples and scores trajectories for one question: `--mode=sample`.

    python -m sejax.main --mode=sample --config=FILE --image=FILE --question=TEXT [--judge]

Samples from the model in `config.model.path`. Progress is shown on standard error. Standard output
gets each trajectory's text, answer and share of the votes, and with `--judge` also its verdicts,
score, reward and advantage.
"""

import collections
import dataclasses
import functools
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

from sejax import models, rewards, storage
from sejax.data import batches, image_files, prepare
from sejax.data.records import Record, Source
from sejax.errors import quoted
from sejax.method.consistency import count_votes
from sejax.models.processor import Processor
from sejax.rollout.model_directory import ModelDirectory, check_judge
from sejax.rollout.roles import RoleOptions, Roles, by_candidate
from sejax.sampling import Progress, Sampler

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

  role_options: RoleOptions
  scoring: rewards.Scoring
  make_preparer: Callable[[Source], prepare.Preparer]
  seed: int


def run(
  model_directory: ModelDirectory,
  options: Options,
  images: Sequence[str],
  question: str,
  *,
  judge: bool,
  judge_directory: ModelDirectory | None = None,
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
  model_directory: ModelDirectory,
  options: Options,
  images: Sequence[str],
  question: str,
  *,
  judge: bool,
  judge_directory: ModelDirectory | None = None,
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
  examples = prepare_questions(options.make_preparer, [question], [images])
  processor = model_directory.processor
  print("weights are read and programs compiled: no tokens for a while", file=sys.stderr)
  params = model_directory.load(decoding=True)
  batch = collate(model_directory.model, processor, examples)
  judge_model = None
  if judge_directory is not None:
    check_judge(model_directory, judge_directory)
    judge_model = judge_directory.model
  roles = model_directory.roles(options.role_options, judge_model)
  load_judge = None
  if judge:
    roles.check_context(batch)
    load_judge = _loader(judge_directory, params)
  return sample_group(
    roles,
    params,
    batch,
    options.scoring,
    seed=options.seed,
    load_judge=load_judge,
    watch=functools.partial(ProgressDisplay, processor=processor),
  )


def _loader(directory: ModelDirectory | None, params: models.Params) -> Callable[[], models.Params]:
  """Returns what gives the Judge's weights: it reads them, or has those of the Actor."""
  return (lambda: params) if directory is None else functools.partial(directory.load, decoding=True)


def sample_group(
  roles: Roles,
  params: models.Params,
  batch: batches.Batch,
  scoring: rewards.Scoring,
  *,
  seed: int,
  load_judge: Callable[[], models.Params] | None,
  watch: Callable[..., Callable[[Progress], None]] | None = None,
) -> ScoredGroup:
  """Samples the trajectories of a batch of one question and, with a Judge, verdicts on them.

  Args:
    roles: samplers of both roles.
    params: the Actor's weights, in the layout for decoding.
    batch: of one row.
    scoring: how texts become rewards.
    seed: random seed of the samples.
    load_judge: returns the Judge's weights; called when the Actor has done. None: no Judge.
    watch: returns what shows the progress of `name` sequences of at most `limit` tokens.
  """

  def watched(name: str, sampler: Sampler) -> Callable[[Progress], None] | None:
    return watch and watch(name, limit=sampler.options.max_new_tokens)

  features = roles.encode(params, batch)
  sampled = roles.act(
    params, batch, features, seed=seed, step=0, watch=watched("trajectory", roles.actor)
  )
  texts = tuple(sampled.texts[0])
  if load_judge is None:
    (answers,), ids = rewards.read_answers([texts], scoring.reading)
    return ScoredGroup(texts, tuple(answers), _vote_shares(ids))
  judge = load_judge()
  if judge is not params:
    features = roles.encode_for_judge(judge, batch)
  judged = roles.judge_all(
    judge,
    batch,
    features,
    sampled.texts,
    seed=seed,
    step=0,
    watch=watched("verdict", roles.judge),
  )
  verdicts, truncated = by_candidate(judged, scoring.repeats)
  scored = rewards.score_groups(
    sampled.texts,
    verdicts,
    scoring,
    truncated,
    lengths=sampled.result.lengths,
    max_tokens=roles.actor.options.max_new_tokens,
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


class _Questions:
  """A source of records that holds given questions."""

  name = "sample"

  def __init__(self, questions: Sequence[str], images: Sequence[Sequence[str | bytes]]):
    self._questions, self._images = questions, images

  def __len__(self) -> int:
    return len(self._questions)

  def __getitem__(self, index: int) -> Record:
    question = self._questions[index]
    return Record(question, question, tuple(map(_read, self._images[index])))

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


def _read(image: str | bytes) -> bytes:
  """Returns the encoded image of a file, a data URI or a base64 text; bytes are one already."""
  if isinstance(image, bytes):
    return image
  inline = image_files.decode_inline(image)
  if inline is not None:
    return inline
  if not os.path.isfile(image):  # `pathlib.Path.is_file` raises if the text is too long for a path.
    raise ValueError(
      f"image {quoted(image)} is not a file; give one, or the image as a data URI or in base64"
    )
  return storage.Path(image).read_bytes()


def prepare_questions(
  make_preparer: Callable[[Source], prepare.Preparer],
  questions: Sequence[str],
  images: Sequence[Sequence[str | bytes]],
) -> list[prepare.Example]:
  """Tokenizes questions, without training's limits: the model's context alone limits them.

  Args:
    make_preparer: returns the preparer that turns the records of a source into prompts.
    questions: texts in which `<image>` marks the place of each image; without any mark, the images
      come first.
    images: of each question: encoded images, image files, data URIs or base64 texts.

  Raises:
    ValueError: an input cannot be read; the message names it.
  """
  preparer = dataclasses.replace(
    make_preparer(_Questions(questions, images)),
    prompt_limit=sys.maxsize,
    judge_limit=sys.maxsize,
    patch_limit=sys.maxsize,
  )
  examples = []
  for index in range(len(questions)):
    example = preparer(index)
    if isinstance(example, prepare.Dropped):
      raise ValueError(example.message)
    examples.append(example)
  return batches.number_occurrences(examples, collections.Counter())


def collate(
  model: models.Model, processor: Processor, examples: Sequence[prepare.Example]
) -> batches.Batch:
  """Returns a batch of examples, in the smallest shapes that hold them."""
  multiple = model.patch_multiple
  longest = max(max(len(example.actor), len(example.judge)) for example in examples)
  patches = max(len(example.patches) for example in examples)
  buckets = batches.Buckets(prompt=(longest,), patch=(-(-patches // multiple) * multiple,))
  into_batch = batches.Collator(
    model=model,
    dataset=_Questions.name,
    rows=len(examples),
    buckets=buckets,
    pad_id=processor.pad_id,
  )
  return into_batch(examples)


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
