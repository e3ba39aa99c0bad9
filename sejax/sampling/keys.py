"""Random bits of a token, from what it is and never from where it is computed.

A trajectory's key folds in seed, step, role, a hash of its record's id and occurrence in the step,
its number in the group and its repeat; a token's bits fold in its index. So a record's samples do
not depend on its place in the batch, on the batch, or on the number of devices and processes, and
where it occurs several times in a step, each time has samples of its own.
"""

import enum
import hashlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, UInt, UInt32

_IMPLEMENTATION = "threefry2x32"  # Named, so that a changed default changes no sample.


class Role(enum.IntEnum):
  """Who samples."""

  ACTOR = 0
  JUDGE = 1
  EVALUATION = 2


def record_hashes(
  dataset: str, record_ids: Sequence[str], occurrences: Sequence[int] | None = None
) -> UInt32[np.ndarray, "B 2"]:
  """Hashes records into 64 bits each, the same in every process and version of Python.

  Args:
    dataset: name of their set.
    record_ids: their names in it.
    occurrences: how often each record occurred before in the same step; by default 0.
  """
  occurrences = [0] * len(record_ids) if occurrences is None else occurrences
  digests = [
    hashlib.blake2b(
      f"{dataset}\0{record}".encode(),
      digest_size=8,
      salt=occurrence.to_bytes(hashlib.blake2b.SALT_SIZE, "little"),  # of zeros: as without salt
    ).digest()
    for record, occurrence in zip(record_ids, occurrences, strict=True)
  ]
  return np.frombuffer(b"".join(digests), dtype="<u4").reshape(-1, 2).astype(np.uint32)


def trajectory_keys(
  seed: Int[Array, ""],
  step: Int[Array, ""],
  role: Int[Array, ""],
  records: UInt[Array, "B 2"],
  trajectories: Int[Array, " G"],
  repeats: Int[Array, " G"],
) -> UInt32[Array, "B G 2"]:
  """Returns the key data of every trajectory.

  Args:
    seed: of the run, as `uint32`.
    step: of the run.
    role: a `Role`.
    records: from `record_hashes`.
    trajectories: each member's number among the trajectories of its group.
    repeats: which of several samples for the same trajectory a member is.
  """
  base = jax.random.key(seed, impl=_IMPLEMENTATION)
  base = jax.random.fold_in(jax.random.fold_in(base, step), role)

  def key(record, trajectory, repeat):
    found = base
    for part in (record[0], record[1], trajectory, repeat):
      found = jax.random.fold_in(found, part)
    return jax.random.key_data(found)

  members = jax.vmap(key, in_axes=(None, 0, 0))
  return jax.vmap(members, in_axes=(0, None, None))(records, trajectories, repeats)


def token_bits(keys: UInt32[Array, "*b 2"], index: Int[Array, "*b"]) -> UInt32[Array, "*b 2"]:
  """Returns 64 random bits for the token with this index of each trajectory."""

  def bits(key, index):
    key = jax.random.wrap_key_data(key, impl=_IMPLEMENTATION)
    return jax.random.bits(jax.random.fold_in(key, index), (2,), jnp.uint32)

  flat = jax.vmap(bits)(keys.reshape(-1, 2), index.reshape(-1))
  return flat.reshape(keys.shape)
