"""One optimizer step on a mesh, on given trajectories; run by test_step_on_mesh.

Arguments: the meshes, as 2x2x2 for data, fsdp and tensor; a folder; the family of models; and for
several processes the number of this one, their count and the coordinator's address. Writes MESH.npz
with gradients, changes of the parameters by one update and by a second, and metrics; saves the
state between the two in MESH, and, where another mesh's is there already, reads that one for its
second update.
"""

import pathlib
import sys

import jax
import numpy as np
import orbax.checkpoint as ocp
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec

from sejax import config as config_lib
from sejax import models
from sejax.learner import minibatches, optimizer
from sejax.learner.update import Minibatch, TrainState, UpdateBatch, Updater
from sejax.models import lora
from sejax.models.transformer import layout
from sejax.parallel import hosts, layouts, meshes, processes
from tests.models import torch_reference

M, ROWS, G, R, PATCHES, WIDTH = 2, 8, 2, 5, 64, 32
OPTIMIZER = {"learning_rate": 1e-2, "eps": 1e-3, "first_moment_dtype": "float32"}
ADAPTERS = lora.Options(4, 8.0, ("q", "down"))
# Prompts of two micro-batches of eight, of different lengths, with one image, two or none.
PROMPTS = [[5, (4, 4), 3], [7], [2, (8, 4), (4, 6), 4], [6, (4, 8)]] * 4


def update_batch(config: models.Model, mesh: jax.sharding.Mesh) -> UpdateBatch:
  """Returns the whole mini-batch on the mesh, of which each process brings its rows."""
  rng = np.random.default_rng(1)
  batch = torch_reference.make_batch(config, PROMPTS)
  prompt, images = batch.prompt(config, WIDTH), batch.images(config, PATCHES)
  shape = (M * ROWS, G, R)
  tokens = rng.integers(2, torch_reference.TEXT_IDS, shape).astype(np.int32)
  mask = np.arange(R) < rng.integers(1, R + 1, (M * ROWS, G, 1))
  logp = np.full(shape, -np.log(config.vocab_size), np.float32)
  noise = 0.1 * rng.standard_normal((2, *shape)).astype(np.float32)
  advantage = rng.standard_normal(shape[:2]).astype(np.float32)
  mine = own_rows(mesh)
  cutter = minibatches.Cutter(mesh, minibatches=1, micro_batches=M)

  def cut(x, axis=0):
    return cutter.cut(np.take(x, mine, axis), axis)[0]

  positions = cut(np.asarray(prompt.positions), axis=1)
  part = Minibatch(
    models.Prompt(cut(prompt.ids), cut(prompt.lengths), positions),
    jax.tree.map(cut, images),
    None,
    cut(tokens),
    cut(mask),
  )
  return UpdateBatch(part, cut(logp + noise[0]), cut(logp + noise[1]), cut(advantage))


def own_rows(mesh: jax.sharding.Mesh) -> np.ndarray:
  """Returns this process's rows of both micro-batches."""
  per_shard = ROWS // layouts.row_shards(mesh)
  local = [s * per_shard + n for s in hosts.local_shards(mesh) for n in range(per_shard)]
  return np.concatenate([np.array(local) + m * ROWS for m in range(M)])


def to_host(tree: dict, mesh: jax.sharding.Mesh) -> dict[str, np.ndarray]:
  whole = jax.jit(lambda t: t, out_shardings=NamedSharding(mesh, PartitionSpec()))(tree)
  leaves = jax.tree.leaves_with_path(whole)
  return {jax.tree_util.keystr(path): np.asarray(x.addressable_data(0)) for path, x in leaves}


def change(new: dict[str, np.ndarray], old: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
  return {name: x - old[name] for name, x in new.items()}


def step(sizes: str, folder: pathlib.Path, family: str, adapters: lora.Options | None) -> None:
  """Runs the step on one mesh, and writes what came of it."""
  name = f"{sizes}_lora" if adapters else sizes
  mesh = meshes.create(dict(zip(meshes.AXES, map(int, sizes.split("x")), strict=True)))
  config = torch_reference.tiny_family(family)
  options = config_lib.default().optimizer.to_dict() | OPTIMIZER
  sampling = {"temperature": 0.7, "banned_ids": (1, 50), "max_tokens": R}
  adamw = optimizer.make(options, 10)
  updater = Updater(config, adamw, {"kl_coef": 0.05}, **sampling, adapters=adapters, mesh=mesh)
  whole = layouts.place(config.init(jax.random.key(0)), mesh, layout.TRAINING, np.float32)
  frozen, trained = None, whole
  if adapters:
    frozen, trained = whole, lora.init(jax.random.key(1), config, adapters)
    trained = jax.tree.map(lambda x: x + 0.01, trained)
    trained = layouts.place(trained, mesh, layout.TRAINING, np.float32)
  batch = update_batch(config, mesh)
  state = updater.init(trained)
  before = to_host(state.params, mesh)
  grads, _ = jax.jit(updater.gradient)(state.params, frozen, batch)
  found = {f"grad{path}": x for path, x in to_host(grads, mesh).items()}
  state, metrics = updater.update(state, frozen, batch)
  found |= {f"metric {key}": np.asarray(x.addressable_data(0)) for key, x in metrics.items()}
  middle = to_host(state.params, mesh)
  found |= {f"first{path}": x for path, x in change(middle, before).items()}

  state = save_or_read(state, folder / ("lora" if adapters else "full"))
  state, _ = updater.update(state, frozen, batch)
  second = change(to_host(state.params, mesh), middle)
  found |= {f"second{path}": x for path, x in second.items()}
  moved = [
    path
    for path, x in jax.tree.leaves_with_path(state)
    if not x.sharding.is_equivalent_to(
      layouts.sharding(mesh, layouts.path_name(path), x.shape, config.layout), x.ndim
    )
  ]
  assert not moved, moved
  found["rows"] = own_rows(mesh)
  np.savez(folder / f"{name}_{jax.process_index()}.npz", **found)


def save_or_read(state: TrainState, path: pathlib.Path) -> TrainState:
  """Saves the first mesh's state; gives all meshes that one, laid out as theirs."""
  is_first = not path.exists()
  with ocp.StandardCheckpointer() as checkpointer:
    if is_first:
      checkpointer.save(path, state)
      checkpointer.wait_until_finished()
    read = checkpointer.restore(path, jax.tree.map(ocp.utils.to_shape_dtype_struct, state))
  if is_first:
    jax.tree.map(np.testing.assert_array_equal, read, state)
  return read


def main(
  sizes: str, folder: str, family: str, number: int = 0, count: int = 1, address: str = ""
) -> None:
  if count > 1:
    processes.join(address, count, number)
  for mesh in sizes.split(","):
    for adapters in (None, ADAPTERS):
      step(mesh, pathlib.Path(folder), family, adapters)
  if count > 1:
    multihost_utils.sync_global_devices("done")


if __name__ == "__main__":
  main(*sys.argv[1:4], *map(int, sys.argv[4:6]), *sys.argv[6:])
