"""Packed rows: sequences one after the other, without the padding that a common length needs.

A row is a stream of C tokens in blocks of equal size. It holds several groups: a prompt, followed
by its continuations, each as long as it is.

    prompt 1, continuation 1, continuation 2, ..., prompt 2, continuation 1, ...

Each group begins at a block's start, so that the tokens of a block share one prompt.

Axes: N rows, U groups of a row, NU those of all rows, G continuations of a prompt, P tokens of a
prompt and R of a continuation with padding, C tokens of a row.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Shaped


class Packing(NamedTuple):
  """Where the sequences of a row's groups lie in it; a group's first sequence is its prompt.

  Attributes:
    sequence: sequence that a token belongs to, counted within its row: `group * (1 + G)` for a
      prompt, one more for each continuation; -1 for padding.
    offset: index of the token within its sequence.
    starts: index in the row of each sequence's first token.
    lengths: number of tokens of each sequence; 0 for those that are left out.
  """

  sequence: Int[Array, "N C"]
  offset: Int[Array, "N C"]
  starts: Int[Array, "N U 1+G"]
  lengths: Int[Array, "N U 1+G"]

  @property
  def group(self) -> Int[Array, "N C"]:
    """Group of each token; 0 for padding."""
    return jnp.maximum(self.sequence, 0) // self.starts.shape[2]

  @property
  def is_prompt(self) -> Bool[Array, "N C"]:
    """Whether a token belongs to a prompt."""
    return (self.sequence >= 0) & (self.sequence % self.starts.shape[2] == 0)

  @property
  def is_continuation(self) -> Bool[Array, "N C"]:
    """Whether a token belongs to a continuation."""
    return (self.sequence >= 0) & (self.sequence % self.starts.shape[2] > 0)


def pack(
  packing: Packing,
  prompts: Shaped[Array, "NU P ..."],
  continuations: Shaped[Array, "NU G R ..."],
) -> Shaped[Array, "N C ..."]:
  """Packs what belongs to the tokens of prompts and continuations; 0 at padding."""
  rows, _, sequences = packing.starts.shape
  width, length = prompts.shape[1], continuations.shape[2]
  merged = continuations.reshape(len(prompts), -1, *continuations.shape[3:])
  merged = jnp.concatenate([prompts, merged], axis=1)
  member = packing.sequence % sequences - 1
  start = jnp.where(member < 0, 0, width + member * length)
  index = packing.group * merged.shape[1] + start + packing.offset
  packed = _take(merged.reshape(rows, -1, *merged.shape[2:]), index)
  return jnp.where(_like(packing.sequence < 0, packed), 0, packed)


def pack_prompts(packing: Packing, prompts: Shaped[Array, "NU P ..."]) -> Shaped[Array, "N C ..."]:
  """Packs what belongs to the tokens of prompts; 0 at other tokens."""
  rows, length = packing.starts.shape[0], prompts.shape[1]
  index = jnp.where(packing.is_prompt, packing.group * length + packing.offset, 0)
  packed = _take(prompts.reshape(rows, -1, *prompts.shape[2:]), index)
  return jnp.where(_like(packing.is_prompt, packed), packed, 0)


def unpack_prompts(
  packing: Packing, x: Shaped[Array, "N C ..."], length: int
) -> Shaped[Array, "NU P ..."]:
  """Returns what belongs to the tokens of prompts; 0 at their padding.

  Args:
    length: tokens of a prompt with padding, P.
  """
  return _unpack(packing, x, slice(0, 1), length)[:, 0]


def unpack_continuations(
  packing: Packing, x: Shaped[Array, "N C ..."], length: int
) -> Shaped[Array, "NU G R ..."]:
  """Returns what belongs to the tokens of continuations; 0 at their padding.

  Args:
    length: tokens of a continuation with padding, R.
  """
  return _unpack(packing, x, slice(1, None), length)


def _unpack(
  packing: Packing, x: Shaped[Array, "N C ..."], which: slice, length: int
) -> Shaped[Array, "NU _ length ..."]:
  starts, lengths = packing.starts[..., which, None], packing.lengths[..., which, None]
  real = jnp.arange(length) < lengths
  index = jnp.where(real, starts + jnp.arange(length), 0)
  found = _take(x, index.reshape(len(x), -1))
  shape = (-1, *real.shape[2:])
  found = found.reshape(*shape, *x.shape[2:])
  return jnp.where(_like(real.reshape(shape), found), found, 0)


def _take(x: Shaped[Array, "N S ..."], index: Int[Array, "N T"]) -> Shaped[Array, "N T ..."]:
  """Takes entries of each row by their index in it."""
  return jax.vmap(lambda x, index: x[index])(x, index)


def _like(mask: Bool[Array, "..."], x: Shaped[Array, "..."]) -> Bool[Array, "..."]:
  """Returns a mask of leading axes that broadcasts to an array."""
  return mask.reshape(*mask.shape, *[1] * (x.ndim - mask.ndim))
