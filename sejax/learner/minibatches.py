"""The arrays that a rollout is trained on, by groups, and the micro-batches they are taken for.

Axes: B groups of a rollout over all processes, K groups of a micro-batch, G trajectories of a
group, P prompt tokens, R response tokens.
"""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Int

from sejax import models
from sejax.learner import packing
from sejax.parallel import hosts, layouts
from sejax.parallel.programs import Program


class Sizes(NamedTuple):
  """Sizes that a rollout is cut into.

  Attributes:
    minibatches: mini-batches of a rollout; each is one optimizer step.
    micro_batch_size: groups of full length that fit into a micro-batch.
    trajectories: trajectories of a group.
    max_tokens: maximum number of tokens of a response.
    response_buckets: padded lengths of responses that the update is compiled for, ascending; empty
      stands for a quarter, a half and all of `max_tokens`.
  """

  minibatches: int
  micro_batch_size: int
  trajectories: int
  max_tokens: int
  response_buckets: tuple[int, ...]

  def response(self, longest: int) -> int:
    """Returns the smallest bucket that holds the longest response of all processes.

    Args:
      longest: tokens of this process's longest response.
    """
    (longest,) = hosts.max_over_processes(longest)
    buckets = self.response_buckets or (self.max_tokens // 4, self.max_tokens // 2)
    return next(size for size in (*buckets, self.max_tokens) if longest <= size)

  @property
  def block(self) -> int:
    """Tokens of a block in packed rows."""
    return packing.block_size(self.trajectories * self.max_tokens)

  def capacity(self, mesh: Mesh, prompt_length: int) -> packing.Capacity:
    """Returns what each row shard can hold of a micro-batch.

    Args:
      prompt_length: prompt tokens with padding.
    """
    return packing.Capacity.of(
      self.micro_batch_size // layouts.row_shards(mesh),
      prompt_length + self.trajectories * self.max_tokens,
      self.block,
    )


class Groups(NamedTuple):
  """Arrays of groups, whose leading axis is sharded over the row shards of a mesh.

  Attributes:
    ids: tokens of the prompts, padded on the right.
    lengths: tokens of each prompt, without padding.
    positions: M-RoPE positions by time, height and width.
    images: images of the prompts; None without any, or where `features` are given.
    features: image features of a frozen vision tower; None where the tower is trained.
    tokens: tokens of the trajectories, padded on the right.
    mask: tokens that count in the loss, from a trajectory's start.
    advantage: advantage of each trajectory.
    behaviour_logp: log-probs that the sampler drew by; None computes neither a correction nor the
      mismatch.
  """

  ids: Int[Array, "K P"]
  lengths: Int[Array, " K"]
  positions: Int[Array, "K 3 P"]
  images: models.Images | None
  features: models.Features | None
  tokens: Int[Array, "K G R"]
  mask: Bool[Array, "K G R"]
  advantage: Float[Array, "K G"]
  behaviour_logp: Float[Array, "K G R"] | None

  @property
  def prompt(self) -> models.Prompt:
    """The prompts."""
    return models.Prompt(self.ids, self.lengths, jnp.moveaxis(self.positions, 1, 0))


def take_groups(groups: Groups, index: Int[Array, " K"], *, mesh: Mesh) -> Groups:
  """Takes groups by their index, each to the row shard that it is wanted on.

  Args:
    groups: all groups of a rollout.
    index: which groups, on every device; -1 gives zeros, so that nothing of it counts.

  Returns:
    K groups, sharded over the row shards.
  """
  axes = layouts.row_axes(mesh)
  rows = PartitionSpec(axes)

  # Otherwise the compiler would gather all rows on every device.
  @functools.partial(jax.shard_map, mesh=mesh, in_specs=(rows, PartitionSpec()), out_specs=rows)
  def take(x, index):
    first = jax.lax.axis_index(axes) * len(x)

    def take_slot(index):  # One group for each shard: all at once would be much on each device.
      local = index - first
      is_here = (index >= 0) & (local >= 0) & (local < len(x))
      found = x.at[local].get(mode="clip")
      found = jnp.where(is_here.reshape(-1, *[1] * (x.ndim - 1)), found, 0)
      return jax.lax.psum_scatter(found, axes, scatter_dimension=0, tiled=True)[0]

    return jax.lax.map(take_slot, index.reshape(layouts.row_shards(mesh), -1).T)

  def take_any(x):
    return take(x.astype(jnp.int8), index).astype(bool) if x.dtype == bool else take(x, index)

  return jax.tree.map(take_any, groups)


@functools.cache
def take_program(mesh: Mesh) -> Program:
  """Returns the program of `take_groups`."""
  rows = NamedSharding(mesh, PartitionSpec(layouts.row_axes(mesh)))
  return Program.of(take_groups, out_shardings=rows, mesh=mesh)


def all_lengths(
  mesh: Mesh, prompts: Int[np.ndarray, " b"], mask: Bool[np.ndarray, "b G R"]
) -> Int[np.ndarray, "B 1+G"]:
  """Returns the tokens of each group's prompt, and of its trajectories those that count.

  Every process must call it, with its own groups; they are ordered as on the mesh.
  """
  own = np.concatenate([prompts[:, None], mask.sum(-1)], axis=1, dtype=np.int32)
  return hosts.gather_shards(mesh, own).reshape(-1, own.shape[1])


def stream_order(rows: int) -> Int[np.ndarray, " B"]:
  """Returns the groups on a mesh, in the order in which the data's stream gave them.

  Each process reads every n-th record of the stream, see `data.pipeline`, and holds its own groups
  one after the other.

  Args:
    rows: groups of all processes, B.
  """
  return np.arange(rows).reshape(jax.process_count(), -1).T.reshape(-1)
