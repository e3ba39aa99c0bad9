"""Updates on one device and on eight, and compares; run by test_update_on_mesh."""

import dataclasses

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from sejax import config as config_lib
from sejax import optimizer
from sejax.models import qwen2_5_vl as qwen
from sejax.parallel import layouts
from sejax.update import Minibatch, Updater
from tests.models import torch_reference

M, ROWS, G, P, R = 2, 4, 2, 12, 5


def make_minibatch() -> Minibatch:
  rng = np.random.default_rng(1)
  ids = rng.integers(2, torch_reference.TEXT_IDS, (M, ROWS, P)).astype(np.int32)
  lengths = rng.integers(3, P + 1, (M, ROWS)).astype(np.int32)
  positions = np.broadcast_to(np.arange(P, dtype=np.int32), (M, 3, ROWS, P))
  tokens = rng.integers(2, torch_reference.TEXT_IDS, (M, ROWS, G, R)).astype(np.int32)
  mask = np.arange(R) < rng.integers(1, R + 1, (M, ROWS, G, 1))
  return Minibatch(qwen.Prompt(ids, lengths, positions), None, None, tokens, mask)


def split(mesh: Mesh, minibatch: Minibatch) -> Minibatch:
  """Lays rows over the mesh: axis 1, or 2 of positions."""
  rows = layouts.row_axes(mesh)

  def place(x, *lead):
    return jax.device_put(x, NamedSharding(mesh, PartitionSpec(*lead, rows)))

  ids, lengths, positions = minibatch.prompt
  prompt = qwen.Prompt(place(ids, None), place(lengths, None), place(positions, None, None))
  rest = {name: place(getattr(minibatch, name), None) for name in ("tokens", "mask")}
  return minibatch._replace(prompt=prompt, **rest)


def main() -> None:
  jax.config.update("jax_disable_most_optimizations", True)
  tiny = torch_reference.tiny_config()
  config = dataclasses.replace(tiny, text=dataclasses.replace(tiny.text, num_hidden_layers=2))
  options = config_lib.default().optimizer.to_dict() | {"learning_rate": 1e-2, "eps": 1e-3}
  adamw = optimizer.make(options, 10, ("^vision/",))
  sampling = {"temperature": 1.0, "banned_ids": (), "max_tokens": R}
  updater = Updater(config, adamw, {}, **sampling)
  params = qwen.init(jax.random.key(0), config)
  minibatch = make_minibatch()
  advantage = np.random.default_rng(2).standard_normal((M, ROWS, G)).astype(np.float32)
  logp = np.full((M, ROWS, G, R), -np.log(config.text.vocab_size), np.float32)
  want, want_metrics = updater.update(updater.init(params), minibatch, logp, logp, advantage)

  mesh = Mesh(np.array(jax.devices()).reshape(2, 2, 2), ("data", "fsdp", "tensor"))
  updater = Updater(config, adamw, {}, **sampling, mesh=mesh)
  state = updater.init(layouts.place(params, mesh, layouts.PARAMETERS, np.float32))
  before = jax.tree.map(lambda x: x.sharding, state)
  state, metrics = updater.update(state, split(mesh, minibatch), logp, logp, advantage)

  for name, value in want_metrics.items():
    np.testing.assert_allclose(metrics[name], value, rtol=1e-4, atol=1e-6, err_msg=name)
  # Float error against epsilon, in units of the learning rate.
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), state.params, want.params)
  moved = [
    jax.tree_util.keystr(path)
    for (path, x), sharding in zip(
      jax.tree.leaves_with_path(state), jax.tree.leaves(before), strict=True
    )
    if not x.sharding.is_equivalent_to(sharding, x.ndim)
  ]
  assert not moved, moved
  kernels = [x for x in jax.tree.leaves(state) if x.ndim == 3]
  assert kernels
  assert all(x.addressable_shards[0].data.size < x.size for x in kernels)


if __name__ == "__main__":
  main()
