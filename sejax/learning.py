"""The second half of a step (arXiv:2603.21289): log-probs and updates."""

import jax
import ml_collections
import numpy as np
from jaxtyping import Float

from sejax import experience, minibatches, optimizer, update
from sejax import run as run_lib
from sejax.checkpoint import Checkpoints
from sejax.models import qwen2_5_vl as qwen
from sejax.parallel import hosts
from sejax.run import Run


def learn(
  config: ml_collections.ConfigDict,
  run: Run,
  state: update.TrainState,
  lived: experience.Experience,
) -> tuple[update.TrainState, list[update.Metrics]]:
  """Updates the policy by the mini-batches of a step, see `method.grpo_loss`.

  Log-probs of the policy that sampled are computed for all of them before the first update.

  Args:
    config: the run's.
    run: what stays.
    state: donated.
    lived: the step's experience.

  Returns:
    The new state, and each update's metrics, still on the devices.
  """
  parts, advantages = minibatches_of(config, run, lived)
  sampled = run_lib.policy(run, state.params)
  old = [run.updater.score(sampled, part) for part in parts]
  del sampled  # Without adapters it is the state's, which is donated.
  reference = [run.updater.score(run.models.frozen, part) for part in parts]
  frozen = None if run.adapters is None else run.models.frozen
  reports = []
  for batch in zip(parts, old, reference, advantages, strict=True):
    state, report = run.updater.update(state, frozen, *batch)
    reports.append(report)
  return state, reports


def check_gradients(
  config: ml_collections.ConfigDict, state: update.TrainState, checkpoints: Checkpoints
) -> None:
  """Ends a run whose gradients are not finite, step after step.

  Raises:
    ValueError: naming the last good checkpoint.
  """
  in_a_row, total = (int(count) for count in optimizer.skipped(state.optimizer))
  if in_a_row >= config.optimizer.max_skipped:
    checkpoints.wait()
    raise ValueError(
      f"the gradient was not finite in the last {in_a_row} optimizer steps ({total} in all);"
      f" config.optimizer.max_skipped is {config.optimizer.max_skipped}; the last good checkpoint"
      f" is of step {checkpoints.latest}"
    )


def minibatches_of(
  config: ml_collections.ConfigDict, run: Run, lived: experience.Experience
) -> tuple[list[update.Minibatch], list[Float[jax.Array, "M b G"]]]:
  """Returns a step's mini-batches and their advantages, on the mesh.

  Args:
    config: the run's.
    run: what stays.
    lived: the step's experience.
  """
  count = config.batch_size // config.mini_batch_size
  micro = config.mini_batch_size // config.train.micro_batch_size
  size = minibatches.response_size(
    int(lived.result.lengths.max()), config.actor.max_tokens, config.train.response_buckets
  )

  def cut(rows: np.ndarray, axis: int = 0) -> list[jax.Array]:
    return minibatches.cut(run.mesh, rows, count, micro, axis)

  prompt, images = lived.batch.actor, lived.batch.images
  features = None
  if images is not None and not run_lib.vision_is_trained(config):
    seen = run.roles.encode(run.models.frozen, lived.batch)
    features = hosts.to_host(hosts.to_mesh(run.mesh, seen))
    images = None
  ids, lengths = cut(prompt.ids), cut(prompt.lengths)
  positions = cut(prompt.positions, axis=1)
  tokens = cut(lived.result.tokens[..., :size])
  mask = cut(experience.mask(lived, size, truncated=not config.train.mask_truncated))
  pictures = [None] * count
  if images is not None:
    pictures = [qwen.Images(*fields) for fields in zip(*map(cut, images), strict=True)]
  seen = [None] * count if features is None else cut(features)
  parts = [
    update.Minibatch(qwen.Prompt(ids[n], lengths[n], positions[n]), pictures[n], seen[n], *rows)
    for n, rows in enumerate(zip(tokens, mask, strict=True))
  ]
  return parts, cut(experience.advantage(lived).astype(np.float32))
