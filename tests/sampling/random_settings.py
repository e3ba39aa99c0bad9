"""Compares the sampler in random settings with a plain one; test_random_settings runs it.

The plain sampler reads all tokens anew for each that it draws: no cache, no batches, no mesh.

Arguments: a file with weights and prompts, as `on_mesh` reads it; a file to write the evictions of
each setting to; a seed; and the number of settings.
"""

import dataclasses
import functools
import json
import pathlib
import sys
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from sejax import models
from sejax.models import qwen2_5_vl as qwen
from sejax.models.transformer import generation
from sejax.sampling import Filters, Finish, Options, Request, Role, Sampler, keys, record_hashes
from sejax.sampling import filters as filters_lib
from tests.sampling.on_mesh import unflatten

PROMPTS, MOST_MEMBERS, MOST_GIVEN, MOST_NEW = 8, 6, 6, 16
MESHES = ((1, 1, 1), (2, 1, 1), (1, 4, 1), (1, 2, 2), (2, 2, 2), (1, 1, 2))


class Setting(NamedTuple):
  """What is sampled, and how."""

  options: Options
  mesh: tuple[int, int, int]
  layered_cache: bool
  order: np.ndarray
  given: np.ndarray | None
  given_lengths: np.ndarray | None
  limits: np.ndarray | None


def draw_setting(rng: np.random.Generator) -> Setting:
  """Draws a setting; half of the options that are off by default are off."""

  def maybe(value):
    return value if rng.random() < 0.5 else None

  mesh = MESHES[rng.integers(len(MESHES))]
  trajectories, repeats = int(rng.integers(1, 4)), int(rng.integers(1, 3))
  members = trajectories * repeats
  new_tokens = int(rng.integers(2, MOST_NEW + 1))
  filters = Filters(
    temperature=float(rng.choice([0.0, 0.7, 1.0, 1.3])),
    top_k=maybe(int(rng.integers(1, 60))),
    top_p=maybe(float(rng.uniform(0.3, 1))) or 1.0,
    min_p=maybe(float(rng.uniform(0, 0.1))) or 0.0,
    banned=tuple(rng.choice(120, 5, replace=False).tolist()),
  )
  options = Options(
    trajectories,
    new_tokens,
    filters,
    tuple(rng.choice(120, int(rng.integers(0, 12)), replace=False).tolist()),
    pad_id=int(rng.integers(0, 5)),
    repeats=repeats,
    max_concurrent_rows=maybe(int(rng.integers(8, PROMPTS * members + 8))),
    cache_tokens=maybe(int(rng.integers(1, 80))),
    page_size=int(rng.choice([1, 2, 3, 4, 8, 64])),
    decode_steps=int(rng.choice([1, 2, 3, 5, 8, 18])),
    pack=bool(rng.random() < 0.7),
  )
  rows = multiple_of(int(rng.integers(1, PROMPTS + 1)), mesh[0] * mesh[1])
  order = rng.permutation(PROMPTS)[:rows]
  given = maybe(rng.integers(2, 100, (rows, trajectories, MOST_GIVEN)).astype(np.int32))
  lengths = None if given is None else rng.integers(0, MOST_GIVEN + 1, (rows, trajectories))
  limits = maybe(rng.integers(0, new_tokens + 1, (rows, members)))
  return Setting(options, mesh, bool(rng.random() < 0.3), order, given, lengths, limits)


def multiple_of(n: int, of: int) -> int:
  """Rounds up to a multiple."""
  return -(-n // of) * of


@functools.partial(jax.jit, static_argnums=0)
def next_logits(config, params, prompt, features, tokens):
  """Returns the logits after the prompt and after each token, `[B,G,T+1,V]`."""
  last, hidden = config.forward(params, prompt, features, tokens)
  first = jnp.broadcast_to(last[:, None, None], (*tokens.shape[:2], 1, last.shape[-1]))
  return generation.logits(params, jnp.concatenate([first, hidden], axis=2))


@functools.partial(jax.jit, static_argnums=0)
def draw(filters, logits, key_data, index):
  return filters_lib.draw(filters, logits, keys.token_bits(key_data, index)).token


def plain_sample(config, params, request: Request, options: Options, *, seed: int):
  """Returns tokens `[B,G,R]` and lengths `[B,G]`."""
  rows, members = len(request.record_hashes), options.members
  member = np.arange(members)
  key_data = keys.sequence_keys(
    np.uint32(seed),
    np.uint32(0),
    np.uint32(Role.ACTOR),
    request.record_hashes,
    member // options.repeats,
    member % options.repeats,
  )
  stream = np.zeros((PROMPTS, MOST_MEMBERS, MOST_GIVEN + MOST_NEW), np.int32)
  start = np.zeros((rows, members), int)
  if request.given is not None:
    stream[:rows, :members, :MOST_GIVEN] = np.repeat(request.given, options.repeats, axis=1)
    start = np.repeat(request.given_lengths, options.repeats, axis=1)
  limits = request.limits
  limits = np.full(start.shape, options.max_new_tokens) if limits is None else limits
  tokens = np.full((rows, members, options.max_new_tokens), options.pad_id)
  lengths, active = np.zeros(start.shape, int), limits > 0
  at = np.indices(start.shape)

  def fill(x, axis=0):  # to one size, so that one program serves all
    return np.take(x, np.arange(PROMPTS) % rows, axis=axis)

  prompt = models.Prompt(
    fill(request.prompt.ids), fill(request.prompt.lengths), fill(request.prompt.positions, 1)
  )
  features = fill(request.features)
  for index in range(options.max_new_tokens):
    if not active.any():
      break
    logits = next_logits(config, params, prompt, features, stream)[:rows, :members]
    last = np.asarray(logits)[at[0], at[1], start + index]
    drawn = np.asarray(draw(options.filters, last, key_data, np.full(start.shape, index)))
    tokens[..., index] = np.where(active, drawn, tokens[..., index])
    stream[at[0], at[1], start + index] = np.where(active, drawn, 0)
    lengths += active
    active = active & (lengths < limits) & ~np.isin(drawn, options.eos_ids)
  return tokens, lengths


def main(source: str, target: str, seed: int, count: int) -> None:
  data = dict(np.load(source))
  config = qwen.Qwen25VL.from_hf(json.loads(str(data["config"])))
  params = unflatten({name[2:]: value for name, value in data.items() if name.startswith("p/")})
  rng, evicted = np.random.default_rng(seed), []
  for number in range(count):
    setting = draw_setting(rng)
    options, order = setting.options, setting.order
    request = Request(
      models.Prompt(data["ids"][order], data["lengths"][order], data["positions"][:, order]),
      record_hashes("random", [str(i) for i in order]),
      features=data["features"][order],
      given=setting.given,
      given_lengths=setting.given_lengths,
      limits=setting.limits,
    )
    devices = np.array(jax.devices()[: np.prod(setting.mesh)]).reshape(setting.mesh)
    mesh = Mesh(devices, ("data", "fsdp", "tensor"))
    model = dataclasses.replace(config, layered_cache=setting.layered_cache)
    found = Sampler(model, options, mesh)(params, request, seed=number, step=0, role=Role.ACTOR)
    tokens, lengths = plain_sample(config, params, request, options, seed=number)
    np.testing.assert_array_equal(found.lengths, lengths, err_msg=f"{number}: {setting}")
    np.testing.assert_array_equal(found.tokens, tokens, err_msg=f"{number}: {setting}")
    assert not (found.finish == Finish.STOP_STRING).any()
    evicted.append(found.stats.evicted)
  pathlib.Path(target).write_text(json.dumps(evicted), encoding="utf-8")


if __name__ == "__main__":
  main(*sys.argv[1:3], *map(int, sys.argv[3:]))
