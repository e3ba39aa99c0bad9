"""Random keys that identify a token by what it is, never by where it is computed.

The key of a sequence folds in seed, step, role, a hash of its record's id and of the record's
occurrence in the step, its trajectory and its repeat; the bits of a token fold in the token's
index. So the samples of a record depend neither on its row in the batch, nor on the other rows, nor
on the number of devices and processes. A record that occurs several times in a step gets different
samples each time.
"""

import enum
import hashlib
from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Int, UInt, UInt32

_IMPLEMENTATION = "threefry2x32"  # Explicit, so that a new default of JAX changes no samples.


class Role(enum.IntEnum):
  """Who samples; part of the random key, so that roles share no random numbers.

  Evaluation samples as Actor and Judge.
  """

  ACTOR = 0
  JUDGE = 1
  EXTRACTOR = 2
  TEACHER = 3


def record_hashes(
  dataset: str, record_ids: Sequence[str], occurrences: Sequence[int] | None = None
) -> UInt32[np.ndarray, "B 2"]:
  """Hashes record ids to 64 bits each, identically on every process and Python version.

  Args:
    dataset: name of the data set.
    record_ids: unique within the data set.
    occurrences: how often each record occurred before in the same step; None means never.
  """
  occurrences = [0] * len(record_ids) if occurrences is None else occurrences
  digests = [
    hashlib.blake2b(
      f"{dataset}\0{record}".encode(),
      digest_size=8,
      # A salt of zeros, for the first occurrence, hashes as no salt does.
      salt=occurrence.to_bytes(hashlib.blake2b.SALT_SIZE, "little"),
    ).digest()
    for record, occurrence in zip(record_ids, occurrences, strict=True)
  ]
  return np.frombuffer(b"".join(digests), dtype="<u4").reshape(-1, 2).astype(np.uint32)


def sequence_keys(
  seed: Int[Array, ""],
  step: Int[Array, ""],
  role: Int[Array, ""],
  hashes: UInt[Array, "B 2"],
  trajectories: Int[Array, " G"],
  repeats: Int[Array, " G"],
) -> UInt32[Array, "B G 2"]:
  """Returns the key data of every sequence.

  Args:
    seed: seed of the training run, as `uint32`.
    role: value of a `Role`.
    hashes: from `record_hashes`.
    trajectories: index of the trajectory that each sequence of a group belongs to.
    repeats: index of each sequence among the repeats of its trajectory.
  """
  base = jax.random.key(seed, impl=_IMPLEMENTATION)
  base = jax.random.fold_in(jax.random.fold_in(base, step), role)

  def sequence_key(record, trajectory, repeat):
    key = base
    for part in (record[0], record[1], trajectory, repeat):
      key = jax.random.fold_in(key, part)
    return jax.random.key_data(key)

  group_keys = jax.vmap(sequence_key, in_axes=(None, 0, 0))
  return jax.vmap(group_keys, in_axes=(0, None, None))(hashes, trajectories, repeats)


def token_bits(keys: UInt32[Array, "*b 2"], index: Int[Array, "*b"]) -> UInt32[Array, "*b 2"]:
  """Returns the 64 random bits that decide one token of each sequence.

  Args:
    keys: key data of the sequences, from `sequence_keys`.
    index: index of the token among the sampled tokens of its sequence.
  """

  def bits(key, index):
    key = jax.random.wrap_key_data(key, impl=_IMPLEMENTATION)
    return jax.random.bits(jax.random.fold_in(key, index), (2,), jnp.uint32)

  flat = jax.vmap(bits)(keys.reshape(-1, 2), index.reshape(-1))
  return flat.reshape(keys.shape)
