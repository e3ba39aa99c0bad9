"""The options that packages get, built from a configuration."""

import jax.numpy as jnp
import pytest

from configs import tiny
from sejax.config import parts
from sejax.learner import packing
from sejax.parallel import meshes


@pytest.fixture
def config():
  return tiny.get_config()


@pytest.mark.parametrize(("use", "repeats"), [(True, 3), (False, 0)])
def test_verdicts_on_each_trajectory(config, use, repeats):
  config.judge.update(use=use, num_judge_repeats=3)
  scoring = parts.scoring(config)
  assert (scoring.repeats, scoring.judged) == (repeats, use)
  assert parts.role_options(config).judge.repeats == 3  # --mode=sample may still ask it


def test_a_greedy_answer_is_one_and_the_actors(config):
  config.update(group_size=8)
  config.judge.temperature = 0.5
  options = parts.role_options(config).greedy()
  assert (options.actor.trajectories, options.actor.filters.temperature) == (1, 0.0)
  assert (options.judge.trajectories, options.judge.filters.temperature) == (1, 0.5)


def test_a_batch_is_cut_into_updates_and_these_into_what_fits(config):
  config.update(batch_size=24, mini_batch_size=12, group_size=5)
  config.actor.max_tokens, config.train.micro_batch_size = 30, 4
  sizes = parts.training(config).sizes
  assert (sizes.minibatches, sizes.micro_batch_size, sizes.block) == (2, 4, 16)
  mesh = meshes.create({"data": 1, "fsdp": 1, "tensor": 1})
  assert sizes.capacity(mesh, 11) == packing.Capacity(4 * 176, 16, 16)


@pytest.mark.parametrize(
  ("freeze", "rank", "trained"), [(False, 0, True), (True, 0, False), (False, 4, False)]
)
def test_the_vision_tower_is_trained_unless_frozen_or_adapted(config, freeze, rank, trained):
  config.train.freeze_vision, config.lora.rank = freeze, rank
  assert parts.training(config).trains_vision == trained


def test_the_precision_that_is_named_is_taken(config):
  config.model.dtype = "bfloat16"
  assert parts.compute(config).dtype == jnp.bfloat16
