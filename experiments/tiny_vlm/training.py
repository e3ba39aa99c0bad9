"""Pre-training of tiny models on the built-in figures, in pieces that can be resumed.

The Actor learns solutions and the Judge readings of right and wrong ones, by next-token prediction.
Every row is a function of seed and step, so that a run that was stopped goes on as if it had not.
"""

import concurrent.futures
import dataclasses
import json
import os
import pathlib
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import ml_collections
import optax
import optax.contrib
import orbax.checkpoint as ocp
import tqdm
from jaxtyping import Array

from experiments.tiny_vlm import examples, vocabulary
from sejax import models
from sejax.data import figures
from sejax.data.figures.rng import Rng
from sejax.models import qwen2_5_vl, qwen2_vl, qwen3_vl
from sejax.models.processor import Processor
from sejax.models.transformer.config import TextConfig


def get_config() -> ml_collections.ConfigDict:
  """Returns the recipe."""
  config = ml_collections.ConfigDict()
  config.seed = 0
  config.family = "qwen2_5_vl"  # of models
  config.start = ""  # model directory to go on from; empty: random weights, a new vocabulary
  config.steps = 1200
  config.stop = ml_collections.config_dict.placeholder(int)  # end at this step of them, if given
  config.rows = 64  # images in a batch
  config.learning_rate = 1e-3
  config.warmup = 100
  config.decay = 0.3  # the last share of the steps, in which the rate falls to nearly zero
  config.weight_decay = 0.05
  config.clip_norm = 1.0
  config.vocab_size = 640
  config.corpus = 4000  # problems from which the vocabulary is learnt
  # From a step on: how many of the images are for the Judge, the share of the Actor's solutions
  # that have a slip, and the Judge's `examples.Lessons`. Eyes come first. Then the Actor learns to
  # be careless, so that its samples of one image differ, are better together than alone, and have
  # something to unlearn. And nearly all solutions that are judged say nothing of the image, so
  # that a Judge must look for itself: one that is shown slips learns to repeat what it is shown but
  # for a detail, and so repeats the Actor. Half of its readings teach nothing but to tell equal
  # answers from others.
  config.phases = ((0, 16, 0, 50, 0, 0, 1.0), (400, 48, 35, 15, 85, 50, 4.0))
  config.chains = False  # solutions of many forms and lengths, see `chains`
  config.families = figures.LEARNABLE
  config.levels = figures.LEVELS
  config.checkpoint_every = 100
  return config


def model_config(family: str, processor: Processor, vocab_size: int) -> models.Model:
  """Returns a tiny architecture with every kind of block of the family's released models.

  Args:
    family: its `model_type`.
    processor: gives the ids of the image tokens.
    vocab_size: rows of the embedding.

  Raises:
    ValueError: there is no tiny architecture of the family.
  """
  text = TextConfig(
    vocab_size=vocab_size,
    hidden_size=192,
    intermediate_size=512,
    num_hidden_layers=4,
    num_attention_heads=6,
    num_key_value_heads=2,
    mrope_section=(4, 6, 6),
    # At the released 1,000,000 the lower frequencies cannot tell apart the 4 x 4 places.
    rope_theta=20.0,
    max_position_embeddings=1024,
    bos_token_id=processor.pad_id,
    eos_token_id=processor.eos_ids[0],
  )
  whole = {
    "tie_word_embeddings": True,
    "image_token_id": processor.image_pad_id,
    "video_token_id": processor.tokenizer.convert_tokens_to_ids("<|video_pad|>"),
    "vision_start_token_id": processor.vision_start_id,
    "vision_end_token_id": processor.vision_end_id,
    "remat": "everything",
    "unroll": True,
  }
  sizes = {"depth": 4, "num_heads": 4, "patch_size": vocabulary.PATCH}
  match family:
    case "qwen2_vl":
      vision = qwen2_vl.VisionConfig(**sizes, embed_dim=128, hidden_size=192)
      return qwen2_vl.Qwen2VL(vision, text, **whole)
    case "qwen2_5_vl":
      vision = qwen2_5_vl.VisionConfig(
        **sizes,
        hidden_size=128,
        intermediate_size=256,
        out_hidden_size=192,
        fullatt_block_indexes=(1, 3),
        window_size=28,
      )
      return qwen2_5_vl.Qwen25VL(vision, text, **whole)
    case "qwen3_vl":
      vision = qwen3_vl.VisionConfig(
        **sizes,
        hidden_size=128,
        intermediate_size=512,
        out_hidden_size=192,
        num_position_embeddings=64,
        deepstack_visual_indexes=(0, 1, 2),
      )
      text = dataclasses.asdict(text) | {"mrope_section": (6, 5, 5), "head_dim": 32}
      return qwen3_vl.Qwen3VL(vision, qwen3_vl.TextConfig(**text), **whole)
  raise ValueError(f"config.family={family} must be one of {', '.join(models.FAMILIES)}")


def loss(params: models.Params, config: models.Model, batch: examples.Batch) -> tuple[Array, dict]:
  """Returns the mean negative log-prob of learnt tokens by weight, both roles together, in nats."""
  features = config.encode(params, batch.images)
  rows = batch.actor.tokens.shape[0]
  sums, counts = zip(
    _role(params, config, jax.tree.map(lambda x: x[:rows], features), batch.actor),
    _role(params, config, jax.tree.map(lambda x: x[rows:], features), batch.judge),
    strict=True,
  )
  each = {
    f"{role}_loss": s / c for role, s, c in zip(("actor", "judge"), sums, counts, strict=True)
  }
  return sum(sums) / sum(counts), each


def _role(
  params: models.Params,
  config: models.Model,
  features: models.Features,
  texts: examples.Texts,
) -> tuple[Array, Array]:
  last, hidden = config.forward(params, texts.prompt, features, texts.tokens)
  scored = config.logp(params, last, hidden, texts.tokens).logp
  return -(texts.weights * scored).sum(), texts.weights.sum()


def make_optimizer(config: ml_collections.ConfigDict) -> optax.GradientTransformation:
  """Muon for kernels and AdamW for the rest, the rate warmed up, held, and brought down at the end.

  Muon's updates have the size of AdamW's (`consistent_rms`), so that one rate serves both.
  """
  falling = int(config.steps * config.decay)
  schedule = optax.join_schedules(
    [
      optax.linear_schedule(0.0, config.learning_rate, config.warmup),
      optax.constant_schedule(config.learning_rate),
      optax.linear_schedule(config.learning_rate, 0.02 * config.learning_rate, falling),
    ],
    [config.warmup, config.steps - falling],
  )
  muon = optax.contrib.muon(
    schedule,
    weight_decay=config.weight_decay,
    adam_b2=0.98,
    consistent_rms=0.2,
    muon_weight_dimension_numbers=_matrices,
  )
  return optax.chain(optax.clip_by_global_norm(config.clip_norm), muon)


def _matrices(params: models.Params) -> Any:
  """Kernels, stacked over layers or not, are `[in, out]`; None: no matrix."""
  axes = optax.contrib.MuonDimensionNumbers(reduction_axis=-2, output_axis=-1)
  return jax.tree.map_with_path(lambda path, _: axes if path[-1].key == "kernel" else None, params)


class Phase(NamedTuple):
  """What batches hold from a step on.

  Attributes:
    start: the first step.
    judge_rows: images of which a solution is judged; the others are answered.
    careless: share of the answers that have a slip, in a hundred.
    lessons: of the Judge.
  """

  start: int
  judge_rows: int
  careless: int
  lessons: examples.Lessons


class Rows:
  """Batches by step."""

  def __init__(self, config: ml_collections.ConfigDict, processor: Processor):
    self._config, self._processor = config, processor
    self._phases = [
      Phase(start, rows, careless, examples.Lessons(*lessons))
      for start, rows, careless, *lessons in config.phases
    ]
    self._source = figures.source(
      families=dict.fromkeys(config.families, 1.0),
      levels=config.levels,
      length=config.steps * config.rows,
      seed=config.seed,
    )
    shown, first = range(1000), self._phases[0].lessons
    self._actor_sizes = examples.Sizes.of([self._actor(i, 0) for i in shown])
    self._judge_sizes = examples.Sizes.of([self._judge(i, first) for i in shown])

  def batches(self, model: models.Model, steps: range) -> Iterator[examples.Batch]:
    """Yields the batches of the steps, made a few ahead in a thread."""
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
      ahead = []
      for step in steps:
        ahead.append(pool.submit(self._batch, model, step))
        if len(ahead) > 3:
          yield ahead.pop(0).result()
      for future in ahead:
        yield future.result()

  def _batch(self, model: models.Model, step: int) -> examples.Batch:
    phase = next(phase for phase in reversed(self._phases) if phase.start <= step)
    indices = range(step * self._config.rows, (step + 1) * self._config.rows)
    cut = len(indices) - phase.judge_rows
    actor = [self._actor(index, phase.careless) for index in indices[:cut]]
    judge = [self._judge(index, phase.lessons) for index in indices[cut:]]
    return examples.batch(model, actor, judge, self._actor_sizes, self._judge_sizes)

  def _actor(self, index: int, careless: int) -> examples.Example:
    rng, problem = Rng("pretrain", self._config.seed, index), self._source.problem(index)
    return examples.actor_example(
      self._processor, problem, rng, careless, chained=self._config.chains
    )

  def _judge(self, index: int, lessons: examples.Lessons) -> examples.Example:
    rng, problem = Rng("pretrain", self._config.seed, index), self._source.problem(index)
    return examples.judge_example(
      self._processor, problem, rng, lessons, chained=self._config.chains
    )


def train(
  config: ml_collections.ConfigDict,
  workdir: str | os.PathLike,
  *,
  minutes: float | None = None,
  export: bool = False,
) -> None:
  """Trains, or goes on training, and writes the model directory `WORKDIR/model`.

  Args:
    config: the recipe, as `get_config` returns it.
    workdir: of checkpoints and the model.
    minutes: stop after so long, with a checkpoint; another call goes on. None: train to the end.
    export: write the model of the last checkpoint, and train no further.

  Raises:
    ValueError: the workdir is that of another recipe, or was trained beyond `config.stop`.
  """
  workdir = pathlib.Path(workdir).resolve()
  files = pathlib.Path(config.start) if config.start else workdir / "processor"
  require_recipe(config, workdir)
  if not config.start and not (files / "tokenizer.json").exists():
    source = figures.source(length=config.corpus, seed=config.seed)
    problems = (source.problem(index) for index in range(config.corpus))
    vocabulary.write(files, examples.corpus(problems), config.vocab_size)
  processor = Processor.load(files)
  if config.start:
    model, params = models.load(config.start)
    # Stored in bf16, and for inference: trained in float32, and block by block.
    model = dataclasses.replace(model, remat="everything", unroll=True)
  else:
    model = model_config(config.family, processor, config.vocab_size)
    params = model.init(jax.random.key(config.seed))
  optimizer = make_optimizer(config)
  state = {"params": params, "optimizer": optimizer.init(params)}
  options = ocp.CheckpointManagerOptions(max_to_keep=3, keep_period=200)
  with ocp.CheckpointManager(workdir / "checkpoints", options=options) as manager:
    start = 0
    if (latest := manager.latest_step()) is not None:
      state = manager.restore(latest, args=ocp.args.StandardRestore(state))
      start = latest
      if start > _last(config):
        raise ValueError(
          f"{workdir} is at step {start}, beyond {_last(config)}; take another workdir"
        )
    if not export:
      rows = Rows(config, processor)
      state = _train(
        config, model, optimizer, rows, state, range(start, _last(config)), manager, minutes
      )
  params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), state["params"])
  models.save(params, model, workdir / "model", source=files)


def require_recipe(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
  """Saves the recipe with a new workdir, or checks that it is that of the workdir.

  Raises:
    ValueError: it is another one; `stop` and how often is saved may differ.
  """
  file = workdir / "recipe.json"
  recipe = json.loads(json.dumps(config.to_dict() | {"stop": None, "checkpoint_every": None}))
  if not file.exists():
    workdir.mkdir(parents=True, exist_ok=True)
    file.write_text(json.dumps(recipe, indent=2) + "\n", encoding="utf-8")
    return
  saved = json.loads(file.read_text(encoding="utf-8"))
  if differing := [name for name in recipe if recipe[name] != saved.get(name)]:
    raise ValueError(
      f"{workdir} was begun with another {', '.join(differing)}; take another workdir"
    )


def _last(config: ml_collections.ConfigDict) -> int:
  """Returns the number of steps that are trained."""
  return config.steps if config.stop is None else min(config.stop, config.steps)


def _train(
  config: ml_collections.ConfigDict,
  model: models.Model,
  optimizer: optax.GradientTransformation,
  rows: Rows,
  state: dict[str, Any],
  steps: range,
  manager: ocp.CheckpointManager,
  minutes: float | None,
) -> dict[str, Any]:
  @jax.jit
  def update(state, batch):
    (_, each), grads = jax.value_and_grad(loss, has_aux=True)(state["params"], model, batch)
    updates, moments = optimizer.update(grads, state["optimizer"], state["params"])
    return {"params": optax.apply_updates(state["params"], updates), "optimizer": moments}, each

  began = time.monotonic()
  with tqdm.tqdm(total=steps.stop, initial=steps.start) as bar:
    for step, batch in zip(steps, rows.batches(model, steps), strict=True):
      state, each = update(state, batch)
      shown = {name: f"{float(value):.4f}" for name, value in each.items()}
      bar.set_postfix(shown)
      bar.update()
      last = step + 1 == steps.stop
      late = minutes is not None and time.monotonic() - began > 60 * minutes
      if (step + 1) % config.checkpoint_every == 0 or last or late:
        manager.save(step + 1, args=ocp.args.StandardSave(state))
        bar.write(f"step {step + 1}: {shown}")
      if late:
        break
  manager.wait_until_finished()
  return state
