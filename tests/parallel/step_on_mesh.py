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
from sejax import method, models
from sejax.learner import optimizer, packing
from sejax.learner.minibatches import Groups, all_lengths, take_program
from sejax.learner.update import MicroBatch, TrainState, Updater
from sejax.models import lora
from sejax.models.transformer import layout
from sejax.parallel import hosts, layouts, meshes, processes
from tests.models import torch_reference

ROWS, G, R, PATCHES, WIDTH, BLOCK = 8, 2, 5, 64, 32, 4
OPTIMIZER = {"learning_rate": 1e-2, "eps": 1e-3, "first_moment_dtype": "float32"}
ADAPTERS = lora.Options(4, 8.0, ("q", "down"))
# Prompts of at most two micro-batches of eight, of different lengths, with one image, two or none.
PROMPTS = [[5, (4, 4), 3], [7], [2, (8, 4), (4, 6), 4], [6, (4, 8)]] * 4


def place_groups(
  config: models.Model, mesh: jax.sharding.Mesh
) -> tuple[Groups, dict[str, np.ndarray], np.ndarray]:
  """Returns all groups on the mesh, of which each process brings its rows; log-probs; lengths."""
  rng = np.random.default_rng(1)
  batch = torch_reference.make_batch(config, PROMPTS)
  prompt, images = batch.prompt(config, WIDTH), batch.images(config, PATCHES)
  shape = (len(PROMPTS), G, R)
  tokens = rng.integers(2, torch_reference.TEXT_IDS, shape).astype(np.int32)
  mask = np.arange(R) < rng.integers(1, R + 1, (*shape[:2], 1))
  logp = np.full(shape, -np.log(config.vocab_size), np.float32)
  noise = 0.1 * rng.standard_normal((2, *shape)).astype(np.float32)
  advantage = rng.standard_normal(shape[:2]).astype(np.float32)
  groups = Groups(
    ids=prompt.ids,
    lengths=prompt.lengths,
    positions=np.moveaxis(np.asarray(prompt.positions), 1, 0),
    images=images,
    features=None,
    tokens=tokens,
    mask=mask,
    advantage=advantage,
    behaviour_logp=logp,
  )
  mine = own_rows(mesh)
  own = jax.tree.map(lambda x: hosts.shard_rows(mesh, np.asarray(x)[mine]), groups)
  lengths = all_lengths(mesh, np.asarray(prompt.lengths)[mine], mask[mine])
  return own, {"old": logp + noise[0], "ref": logp + noise[1]}, lengths


def micro_batches(
  config: models.Model, mesh: jax.sharding.Mesh
) -> tuple[list[MicroBatch], method.Denominators]:
  """Returns the micro-batches of the mini-batch on the mesh, and its counts."""
  groups, logp, lengths = place_groups(config, mesh)
  shards = layouts.row_shards(mesh)
  capacity = packing.Capacity.of(ROWS // shards, WIDTH + G * R, BLOCK)

  def micro_batch(rows: packing.Rows) -> MicroBatch:
    index = rows.groups.reshape(-1)
    packed = jax.tree.map(lambda x: hosts.shard_identical(mesh, x), rows.packing)
    old, ref = (hosts.shard_identical(mesh, logp[name][index]) for name in ("old", "ref"))
    return MicroBatch(
      take_program(mesh)(groups, hosts.replicate(mesh, index)),
      packed,
      hosts.replicate(mesh, np.bool_(False)),
      old,
      ref,
    )

  counts = (lengths[:, 1:].sum(), (lengths[:, 1:] > 0).sum(), R)
  return [micro_batch(rows) for rows in packing.pack(lengths, shards, capacity)], (
    method.Denominators(*(hosts.replicate(mesh, np.int32(x)) for x in counts))
  )


def own_rows(mesh: jax.sharding.Mesh) -> np.ndarray:
  """Returns this process's rows."""
  per_shard = len(PROMPTS) // layouts.row_shards(mesh)
  return np.array([s * per_shard + n for s in hosts.local_shards(mesh) for n in range(per_shard)])


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
  sampling = {"temperature": 0.7, "banned_ids": (1, 50), "block": BLOCK}
  adamw = optimizer.make(options, 10)
  updater = Updater(config, adamw, {"kl_coef": 0.05}, **sampling, adapters=adapters, mesh=mesh)
  whole = layouts.place(config.init(jax.random.key(0)), mesh, layout.TRAINING, np.float32)
  frozen, trained = None, whole
  if adapters:
    frozen, trained = whole, lora.init(jax.random.key(1), config, adapters)
    trained = jax.tree.map(lambda x: x + 0.01, trained)
    trained = layouts.place(trained, mesh, layout.TRAINING, np.float32)
  batch, counts = micro_batches(config, mesh)
  state = updater.init(trained)
  before = to_host(state.params, mesh)
  grads = updater.zero_gradient(state.params)
  for micro in batch:
    grads, _ = updater.add_gradient(grads, state.params, frozen, micro, counts)
  found = {f"grad{path}": x for path, x in to_host(grads, mesh).items()}
  state, metrics = updater.update(state, frozen, batch, counts)
  found |= {f"metric {key}": np.asarray(x.addressable_data(0)) for key, x in metrics.items()}
  middle = to_host(state.params, mesh)
  found |= {f"first{path}": x for path, x in change(middle, before).items()}

  state = save_or_read(state, folder / ("lora" if adapters else "full"))
  state, _ = updater.update(state, frozen, batch, counts)
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
