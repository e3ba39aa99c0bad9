"""What packed rows are worth: learning from replies of unequal lengths, packed and padded.

    python experiments/speed/learning.py --lengths=FILE [--distribution=mid]

A random decoder of 28M parameters with a vocabulary of 32k, fp32, and 16 prompts of 8 replies whose
lengths are the first of a file's (see `simulate.py`), scaled down by 16: at most 64 and 128 tokens.
Two optimizer steps with a KL penalty. Packed, it is the train loop's own `Learner.step`. Padded,
each reply takes the room of the longest, and log-probs by the policy that sampled and by the
reference are computed for all, as before rows were packed. Both sides in one run, the best of
several after a warm-up. Ends with one JSON line:

- `learning_speedup`: time padded over time packed.
- `real_share`, `padded_real_share`: of the tokens computed, those of prompts and replies.
- `update_difference`: norm of the difference of the two sides' parameters after a step, over that
  of the change; Adam makes much of the rounding of small gradients.
"""

import dataclasses
import json
import pathlib
import types
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from absl import app, flags
from jaxtyping import Array
from reference import make_config
from stopwatch import best_seconds

from configs import tiny
from sejax import method, models
from sejax.config import parts
from sejax.learner import optimizer
from sejax.learner.learner import Learner, make_updater
from sejax.learner.update import TrainState
from sejax.parallel import meshes
from sejax.parallel.programs import BackgroundCompiler
from sejax.rollout.collect import Rollout
from sejax.sampling import Filters

_LENGTHS = flags.DEFINE_string("lengths", None, "File of lengths.")
_DISTRIBUTION = flags.DEFINE_string("distribution", "mid", "Which of its distributions.")

SCALE, PROMPTS, MINIBATCHES, MICRO = 16, 16, 2, 2
PROMPT_TOKENS, REPLY = 1024 // SCALE, 2048 // SCALE
REPEATS = 2


def make_rollout(model: models.Model, lengths: np.ndarray, prompts: np.ndarray) -> Rollout:
  """Returns what a learner reads of a rollout, with random tokens."""
  rng = np.random.default_rng(0)
  ids = rng.integers(2, model.vocab_size - 4, (PROMPTS, PROMPT_TOKENS)).astype(np.int32)
  shape = (*lengths.shape, REPLY)
  mask = np.arange(REPLY) < lengths[..., None]
  positions = model.prompt_positions(ids, prompts, [np.zeros((0, 3), int)] * PROMPTS)
  return types.SimpleNamespace(
    batch=types.SimpleNamespace(
      actor=models.Prompt(ids, prompts.astype(np.int32), positions),
      packed_images=None,
      real=np.full(PROMPTS, True),
    ),
    result=types.SimpleNamespace(
      tokens=rng.integers(2, model.vocab_size - 4, shape).astype(np.int32),
      lengths=lengths,
      mask=mask,
      truncated=np.full(lengths.shape, False),
      behaviour_logp=np.full(shape, -np.log(model.vocab_size), np.float32),
    ),
    group=types.SimpleNamespace(advantage=rng.standard_normal(lengths.shape)),
    in_loss=np.full(PROMPTS, True),
    features=None,
  )


class Padded:
  """The same step on padded replies, with micro-batches of a fixed number of groups."""

  def __init__(
    self,
    model: models.Model,
    adamw: optax.GradientTransformation,
    loss: dict[str, Any],
    filters: Filters,
  ):
    self.model, self.adamw, self.loss = model, adamw, loss
    self.temperature = filters.temperature
    self.banned = np.isin(np.arange(model.vocab_size), filters.banned)
    self.score = jax.jit(
      lambda params, part: jax.lax.map(lambda x: self.logp(params, x).logp, part)
    )
    self.update = jax.jit(self.compute_update, donate_argnums=0)

  def logp(self, params: models.Params, micro: tuple) -> models.LogProbs:
    """Returns log-probs of a micro-batch."""
    prompt = models.Prompt(*micro[:2], jnp.moveaxis(micro[2], 1, 0))
    last, hidden = self.model.forward(params, prompt, None, micro[3])
    return self.model.logp(params, last, hidden, micro[3], self.temperature, self.banned)

  def compute_logprobs(self, params: models.Params, part: tuple) -> Array:
    """Returns log-probs of a mini-batch, cut into micro-batches."""
    return jax.lax.map(lambda micro: self.logp(params, micro).logp, part)

  def compute_update(self, state: TrainState, part: tuple, old: Array, ref: Array) -> TrainState:
    """Takes one optimizer step on a mini-batch, cut into micro-batches."""
    counts = method.denominators(part[4], REPLY)

    def loss(params, micro, old, ref):
      found = self.logp(params, micro)
      return method.policy_loss(
        found.logp,
        old,
        ref,
        micro[5],
        micro[4],
        behaviour_logp=micro[6],
        entropy=jax.lax.stop_gradient(found.entropy),
        denominators=counts,
        **self.loss,
      )[0]

    def add(total, inputs):
      grads = jax.grad(loss)(state.params, *inputs)
      return jax.tree.map(jnp.add, total, grads), None

    zeros = jax.tree.map(jnp.zeros_like, state.params)
    grads, _ = jax.lax.scan(add, zeros, (part, old, ref))
    updates, moments = self.adamw.update(grads, state.optimizer, state.params)
    return TrainState(jax.tree.map(jnp.add, state.params, updates), moments)

  def step(self, state: TrainState, initial: models.Params, rollout: Rollout) -> TrainState:
    """Scores and learns from a rollout."""
    batch, result = rollout.batch, rollout.result
    arrays = (
      batch.actor.ids,
      batch.actor.lengths,
      np.moveaxis(batch.actor.positions, 1, 0),
      result.tokens,
      result.mask,
      rollout.group.advantage.astype(np.float32),
      result.behaviour_logp,
    )
    cut = [x.reshape(MINIBATCHES, -1, MICRO, *x.shape[1:]) for x in arrays]
    found = [tuple(x[n] for x in cut) for n in range(MINIBATCHES)]
    old = [self.score(state.params, part) for part in found]
    ref = [self.score(initial, part) for part in found]
    for part, old_logp, ref_logp in zip(found, old, ref, strict=True):
      state = self.update(state, part, old_logp, ref_logp)
    return state


def main(argv: list[str]) -> None:
  """Times both sides and prints."""
  del argv
  read = json.loads(pathlib.Path(_LENGTHS.value).read_text(encoding="utf-8"))
  lengths = -(-np.array(read[_DISTRIBUTION.value]["reply"][:PROMPTS]) // SCALE)
  prompts = np.minimum(-(-np.array(read["prompt_tokens"][:PROMPTS]) // SCALE), PROMPT_TOKENS)
  config = tiny.get_config()
  config.update(batch_size=PROMPTS, mini_batch_size=PROMPTS // MINIBATCHES)
  config.actor.max_tokens, config.train.micro_batch_size = REPLY, MICRO
  config.train.freeze_vision, config.train.response_buckets = False, ()
  config.model.update(unroll=False, remat="nothing")
  options = parts.training(config)
  model, mesh = make_config(5, 32_000), meshes.create(config.mesh)
  filters = parts.role_options(config).actor.filters
  updater = make_updater(
    options,
    model,
    compute=parts.compute(config),
    filters=filters,
    steps=100,
    mesh=mesh,
  )
  initial = model.init(jax.random.key(0))
  learner = Learner(
    updater=updater,
    mesh=mesh,
    frozen=initial,
    adapters=None,
    sizes=options.sizes,
    penalty=True,
    seed=0,
    mask_truncated=False,
    encode=None,
    compiler=BackgroundCompiler(0),
  )
  rollout = make_rollout(model, lengths, prompts)
  padded = Padded(
    dataclasses.replace(
      model,
      remat=options.remat,
      query_chunk=options.query_chunk,
      logits_chunk=options.logits_chunk,
    ),
    optimizer.make(options.optimizer, 100),
    dict(options.loss),
    filters,
  )
  states = {}

  def packed_step():
    states["packed"], _ = jax.block_until_ready(
      learner.step(updater.init(initial), rollout, 0).finish()
    )

  def padded_step():
    states["padded"] = jax.block_until_ready(padded.step(updater.init(initial), initial, rollout))

  seconds = best_seconds({"packed": packed_step, "padded": padded_step}, REPEATS)
  _, minibatches = learner.minibatches(rollout)
  computed = sum(x.packing.sequence.size for part in minibatches for x in part.rows)
  real = int(lengths.sum() + prompts.sum())
  difference = distance(states["packed"], states["padded"])
  change = distance(states["packed"], updater.init(initial))
  for name, value in seconds.items():
    print(f"{name:<8}{value:8.2f} s")
  result = {
    "distribution": _DISTRIBUTION.value,
    "learning_speedup": round(seconds["padded"] / seconds["packed"], 3),
    "real_share": round(real / computed, 3),
    "padded_real_share": round(real / (PROMPTS * (PROMPT_TOKENS + 8 * REPLY)), 3),
    "update_difference": round(difference / change, 6),
  }
  print(json.dumps(result))


def distance(one: TrainState, other: TrainState) -> float:
  """Returns the norm of the difference of two states' parameters."""
  return float(optax.tree.norm(jax.tree.map(jnp.subtract, one.params, other.params)))


if __name__ == "__main__":
  flags.mark_flag_as_required("lengths")
  app.run(main)
