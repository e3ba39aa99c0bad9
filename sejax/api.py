"""The functions for scripts: load a model, sample, vote and judge, reward texts, grade answers.

`import sejax` offers all of them; nothing heavy is imported before one is used.
"""

import dataclasses
import functools
import io
import os
from collections.abc import Sequence

import ml_collections
import numpy as np
import PIL.Image
from jaxtyping import Bool, Int

from sejax import config as config_lib
from sejax import models, rewards, rollout
from sejax.config import parts, paths, presets, validation
from sejax.data import batches, prepare
from sejax.errors import quoted
from sejax.parallel import environment
from sejax.rollout import sample as sample_lib
from sejax.rollout.sample import ScoredGroup
from sejax.text import answers
from sejax.text.equivalence import Prover

# A picture: a file, a data URI or base64 text, an encoded image, or an image of Pillow.
Image = str | os.PathLike | bytes | PIL.Image.Image


@dataclasses.dataclass(frozen=True, kw_only=True, eq=False)
class LoadedModel:
  """A model with its weights on this machine's devices, from `load_model`.

  Its programs are compiled at the first call for each shape, and kept with it.

  Attributes:
    config: how it samples and judges; complete.
    directory: what it was read from, with its processor and mesh.
    params: its weights, in the layout for decoding.
    judge_params: the Judge's weights: the same, unless `config.judge.path` is another model.
    roles: samplers of both roles.
  """

  config: ml_collections.ConfigDict
  directory: rollout.ModelDirectory
  params: models.Params
  judge_params: models.Params
  roles: rollout.Roles


def load_model(
  path: str | os.PathLike = "", config: ml_collections.ConfigDict | None = None
) -> LoadedModel:
  """Loads a model for `sample` and `vote_and_judge`.

  >>> model = load_model()
  >>> model.config.group_size, model.directory.model.context
  (8, 1024)

  Args:
    path: directory of weights, or a name on the Hugging Face hub; empty: that of the
      configuration, and without one, the bundled tiny model.
    config: a configuration, such as `configs/*.py` return; None: the defaults, with which a
      question has eight answers of at most 2,048 tokens.

  Raises:
    ValueError: there is no such model, or an option cannot work; the message names it.
  """
  environment.prepare()
  if config is None:
    config = config_lib.default() if path else presets.bundled()
  config = config.copy_and_resolve_references()
  config.model.path = os.fspath(path) or config.model.path
  config.judge.use = True
  validation.validate(config, reads_data=False)
  config_lib.expand_paths(config)
  paths.require_model(config)
  config = config_lib.with_local_inputs(config, ("model.path", "judge.path"), {})
  mesh = sample_lib.local_mesh()
  directory = parts.model_directory(config, mesh)
  judge = parts.judge_directory(config, mesh)
  if judge is not None:
    rollout.check_judge(directory, judge)
  params = directory.load(decoding=True)
  return LoadedModel(
    config=config,
    directory=directory,
    params=params,
    judge_params=params if judge is None else judge.load(decoding=True),
    roles=directory.roles(
      parts.sample_options(config).role_options, None if judge is None else judge.model
    ),
  )


def sample(
  model: LoadedModel,
  questions: Sequence[str],
  images: Sequence[Sequence[Image]] | None = None,
  *,
  seed: int = 0,
) -> list[list[str]]:
  """Samples `config.group_size` answers to each question.

  >>> model = load_model()
  >>> texts = sample(model, ["What is 2 + 3?", "What is 7 - 1?"])
  >>> [len(group) for group in texts]
  [8, 8]

  Args:
    model: from `load_model`.
    questions: texts in which `<image>` marks the place of each image; without any mark, the images
      come first.
    images: of each question; None: no question has any.
    seed: random seed; a question has the same answers whatever it is asked together with.

  Returns:
    The texts of each question, in the order of the questions.

  Raises:
    ValueError: a question is empty, or an image cannot be read.
  """
  texts: list[list[str]] = []
  rows = model.config.eval.batch_size
  examples = _examples(model, questions, images)
  for start in range(0, len(examples), rows):
    batch = _collate(model, examples[start : start + rows])
    features = model.roles.encode(model.params, batch)
    texts += model.roles.act(model.params, batch, features, seed=seed, step=0).texts
  return texts


def vote_and_judge(
  model: LoadedModel, question: str, images: Sequence[Image] = (), *, seed: int = 0
) -> ScoredGroup:
  """Samples answers to a question, lets them vote and the Judge read each; arXiv:2603.21289.

  >>> group = vote_and_judge(load_model(), "What is 2 + 3?")
  >>> len(group.trajectories), len(group.verdicts), len(group.advantages)
  (8, 8, 8)
  >>> 0 < max(group.vote_shares) <= 1
  True

  Args:
    model: from `load_model`.
    question: see `sample`.
    images: of the question.
    seed: random seed; the trajectories are those of `sample`.

  Returns:
    The trajectories with answers, shares of the votes, verdicts, scores, rewards and advantages.

  Raises:
    ValueError: as `sample`, or prompt and verdict do not fit the Judge's context.
  """
  batch = _collate(model, _examples(model, [question], [images]))
  model.roles.check_context(batch)
  return sample_lib.sample_group(
    model.roles,
    model.params,
    batch,
    parts.scoring(model.config),
    seed=seed,
    load_judge=lambda: model.judge_params,
  )


def reward(
  responses: Sequence[Sequence[str]],
  verdicts: Sequence[Sequence[str | Sequence[str]]] | None = None,
  config: ml_collections.ConfigDict | None = None,
  *,
  lengths: Int[np.ndarray, "B G"] | None = None,
) -> rewards.Scored:
  r"""Computes the method's rewards and advantages of given texts, without a model.

  >>> four, five = r"<think>2 + 2</think>\boxed{4}", r"<think>2 + 3</think>\boxed{5}"
  >>> scored = reward(
  ...   [[four, four, five, "no idea"]],
  ...   [[r"\boxed{0.98}", r"\boxed{0.9}", r"\boxed{0.1}", r"\boxed{0.1}"]],
  ... )
  >>> scored.answers, scored.answer_ids.tolist()
  ([['4', '4', '5', None]], [[0, 0, 1, -1]])
  >>> print(*(f"{value:.2f}" for value in scored.group.reward[0]))
  0.58 0.51 0.20 0.00

  Args:
    responses: B groups of G texts.
    verdicts: on each response, one text or M of them; None: there is no Judge.
    config: a configuration, such as `configs/*.py` return, for `answers`, `judge` and `method`;
      None: the defaults.
    lengths: tokens of each response, for options of the method that need them.

  Returns:
    Answers, votes, scores, and in `group` rewards and advantages, as arrays `[B, G]`.

  Raises:
    ValueError: groups differ in size, or an option is unknown or needs lengths.
  """
  config = config_lib.default() if config is None else config
  validation.validate(config, reads_data=False)
  groups = [
    [[text] if isinstance(text, str) else list(text) for text in group] for group in verdicts or ()
  ]
  repeats = max((len(texts) for group in groups for texts in group), default=0)
  scoring = dataclasses.replace(parts.scoring(config), repeats=repeats)
  with validation.options_of_section("method"):
    return rewards.score_groups(
      responses, groups, scoring, lengths=lengths, max_tokens=config.actor.max_tokens
    )


def grade(responses: Sequence[str | None], golds: Sequence[str]) -> Bool[np.ndarray, " N"]:
  r"""Tells which answers have the value of their gold answers, however they are written.

  >>> grade(["0.5", r"It is \boxed{\frac{2}{4}}.", "1/3", None], ["1/2"] * 4)
  array([ True,  True, False, False])

  Args:
    responses: texts with a `\boxed{}`, or answers alone; None is wrong.
    golds: the right answer of each.

  Raises:
    ValueError: there are more responses than gold answers, or fewer.
  """
  if len(responses) != len(golds):
    raise ValueError(f"{len(responses)} responses and {len(golds)} gold answers; give one for each")
  found = [
    None if response is None else answers.extract(response) or response for response in responses
  ]
  with Prover() as prover:
    return prover.grade([[answer] for answer in found], golds)[:, 0]


def _examples(
  model: LoadedModel, questions: Sequence[str], images: Sequence[Sequence[Image]] | None
) -> list[prepare.Example]:
  """Tokenizes questions with their images.

  Raises:
    ValueError: a question is empty, an image cannot be read, or there is not a list of images for
      each question.
  """
  if isinstance(questions, str):
    raise ValueError(f"questions={quoted(questions)} is a text; give a list of texts")
  images = [()] * len(questions) if images is None else images
  if len(images) != len(questions):
    raise ValueError(
      f"{len(questions)} questions and {len(images)} lists of images; give one for each question"
    )
  for number, question in enumerate(questions):
    if not question.strip():
      raise ValueError(f"question {number} is {quoted(question)}; give a text")
    if isinstance(images[number], Image):
      raise ValueError(f"the images of question {number} are not a list; give [image]")
  files = [[_encoded(image) for image in group] for group in images]
  make_preparer = functools.partial(parts.preparer, model.config)
  return sample_lib.prepare_questions(make_preparer, questions, files)


def _encoded(image: Image) -> str | bytes:
  """Returns an image as a text or an encoded file."""
  if isinstance(image, PIL.Image.Image):
    file = io.BytesIO()
    image.save(file, "png")
    return file.getvalue()
  return image if isinstance(image, bytes) else os.fspath(image)


def _collate(model: LoadedModel, examples: Sequence[prepare.Example]) -> batches.Batch:
  return sample_lib.collate(model.directory.model, model.directory.processor, examples)
