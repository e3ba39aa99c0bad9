"""Time of an update with each policy objective, over that with `grpo`.

    python experiments/speed/objectives.py

One mini-batch of the main job (`configs/tiny.py`, 16 figures of 8 trajectories), sampled once, on
one machine; the best of several updates after a warm-up, the objectives in turn. Prints a line for
each and ends with one JSON line, `relative`: an objective's seconds over those of `grpo`.
"""

import dataclasses
import json
import pathlib
import tempfile

import jax
import jax.numpy as jnp
import ml_collections
from absl import app, flags
from stopwatch import best_seconds

from configs import tiny
from sejax import method
from sejax import setup as setup_lib
from sejax.config import parts
from sejax.learner import learner
from sejax.monitoring.timing import Clock
from sejax.rollout.collect import SamplingWeights

_REPEATS = flags.DEFINE_integer("repeats", 7, "timed updates of each objective", lower_bound=1)


def main(argv: list[str]) -> None:
  """Samples, updates and prints."""
  del argv
  config = tiny.get_config()
  config.batch_size = config.mini_batch_size
  config.loss.kl_coef = 0.01
  config.eval.num_problems = 0
  config.log.compilation_cache = False
  with tempfile.TemporaryDirectory() as folder:
    setup = setup_lib.set_up(config, pathlib.Path(folder), Clock())
    with setup.prover:
      measure(config, setup)


def measure(config: ml_collections.ConfigDict, setup: setup_lib.TrainSetup) -> None:
  """Times the updates of one rollout by every objective."""
  initial = setup.initial_weights
  state = setup.learner.updater.init(setup.load_trained())
  weights = SamplingWeights(setup.learner.policy_params(state.params), initial.judge_params)
  data = setup_lib.pipeline(config, setup.preparer, ())
  rollout = setup.collector.collect_rollout(weights, data, 0)
  groups, (part,) = setup.learner.minibatches(rollout)
  scored = [
    micro._replace(
      on_policy=jnp.bool_(False),
      # A little off policy, so that clips are taken.
      old_logp=micro.ref_logp + 0.1 * jax.random.normal(jax.random.key(0), micro.ref_logp.shape),
    )
    for micro in setup.learner.micro_batches(groups, part, None, 0, 0)
  ]
  options = parts.training(config)

  def update_by(objective: str):
    updater = learner.make_updater(
      dataclasses.replace(options, loss=config.loss.to_dict() | {"objective": objective}),
      initial.model,
      compute=parts.compute(config),
      filters=setup.roles.actor.options.filters,
      steps=1,
      mesh=setup.mesh,
    )
    state = updater.init(setup.load_trained())

    def update():
      nonlocal state
      state, _ = jax.block_until_ready(updater.update(state, None, scored, part.counts))

    return update

  seconds = best_seconds({name: update_by(name) for name in method.OBJECTIVES}, _REPEATS.value)
  relative = {name: value / seconds["grpo"] for name, value in seconds.items()}
  for name, value in seconds.items():
    print(f"{name:<10}{value:8.3f} s{relative[name]:8.3f}")
  print(json.dumps({"relative": {name: round(value, 3) for name, value in relative.items()}}))


if __name__ == "__main__":
  app.run(main)
