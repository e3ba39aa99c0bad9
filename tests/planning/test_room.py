"""How many rows are decoded at once, by device memory."""

import dataclasses

import pytest

from configs import tiny
from sejax import models
from sejax.config import parts, validation
from sejax.parallel import meshes
from sejax.planning import programs

GIB = 2**30


def planned(memory: float, **changes):
  """Returns the sampling options of Actor and Judge, and their decode calls."""
  config = tiny.get_config()
  config.update(batch_size=64)
  config.model.dtype = "bfloat16"
  config.data.prompt_buckets = (64,)
  config.actor.max_tokens = config.judge.max_tokens = 384
  config.train.response_buckets = (384,)
  config.update_from_flattened_dict(changes)
  validation.validate(config)
  step, model = parts.planned_step(config), models.load_config(config.model.path)
  mesh = meshes.create(config.mesh)
  step = programs.with_room(step, model, mesh, int(memory))
  calls = [
    call for call in programs.of_step(step, model, mesh) if call.name.endswith("decode, a token")
  ]
  return step.roles.actor, step.roles.judge, calls


@pytest.mark.long
def test_much_memory_holds_all_rows_to_their_limits():
  actor, judge, _ = planned(64 * GIB)
  assert actor.max_concurrent_rows is judge.max_concurrent_rows is None
  assert actor.cache_tokens == 64 * 8 * 384
  assert judge.cache_tokens == 64 * 8 * (576 + 384)  # and a candidate


@pytest.mark.long
@pytest.mark.parametrize("memory", [0.12 * GIB, 0.2 * GIB])
def test_what_is_decoded_at_once_fits_little_memory(memory):
  actor, judge, calls = planned(memory)
  rows = []
  for options, call, tokens in zip((actor, judge), calls, (384, 896), strict=True):
    rows.append(options.max_concurrent_rows or 64 * 8)
    assert 512 % rows[-1] == 0
    assert options.cache_tokens >= rows[-1] * tokens / 4
    assert call.alive_bytes < memory
  assert rows[0] >= rows[1] < 512


def test_what_the_user_gives_is_kept():
  actor, judge, _ = planned(64 * GIB, **{"actor.max_concurrent_rows": 24})
  assert (actor.max_concurrent_rows, judge.max_concurrent_rows) == (24, None)
  step = parts.planned_step(tiny.get_config())
  given = dataclasses.replace(step.roles.actor, cache_tokens=5000)
  step = dataclasses.replace(step, roles=dataclasses.replace(step.roles, actor=given))
  config = tiny.get_config()
  model, mesh = models.load_config(config.model.path), meshes.create(config.mesh)
  assert programs.with_room(step, model, mesh, GIB).roles.actor is given


def test_evaluation_keeps_no_training_state():
  config = tiny.get_config()
  config.model.dtype = "bfloat16"
  step = parts.planned_step(config)
  model, mesh = models.load_config(config.model.path), meshes.create(config.mesh)
  step = dataclasses.replace(step, batch_size=64, judged=False)
  training, evaluation = (
    programs.with_room(step, model, mesh, int(0.1 * GIB), trains=trains).roles.actor
    for trains in (True, False)
  )
  # Master weights and both moments, in fp32.
  assert evaluation.cache_tokens > training.cache_tokens
