"""What is asked of the sampler: how to sample, and what from; and what of it cannot work.

Axes: B prompts of this process, G members of a group, P prompt tokens, T given tokens, R new ones.
"""

import dataclasses
from typing import NamedTuple

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int, UInt32

from sejax import models
from sejax.parallel import hosts
from sejax.sampling.filters import Filters


@dataclasses.dataclass(frozen=True)
class Options:
  """How to sample.

  Attributes:
    trajectories: of each prompt.
    new_tokens: drawn for a trajectory at most, R.
    filters: what the distribution becomes before a token is drawn.
    eos_ids: tokens that end a trajectory.
    pad_id: what fills up the rows; may be an EOS id.
    repeats: samples of each trajectory number, such as readings of the same candidate; G is
      trajectories x repeats, repeats of one trajectory side by side.
    context: prompt, given and new tokens together, at most; the model's own limit, if None.
    max_concurrent_prompts: prompts decoded at once, over all devices; others wait. All of them, if
      None.
    decode_steps: decode steps between host synchronisations.
    pack: make the state smaller as trajectories end.

  Raises:
    ValueError: naming the option that is below 1.
  """

  trajectories: int
  new_tokens: int
  filters: Filters = dataclasses.field(default_factory=Filters)
  eos_ids: tuple[int, ...] = ()
  pad_id: int = 0
  repeats: int = 1
  context: int | None = None
  max_concurrent_prompts: int | None = None
  decode_steps: int = 32
  pack: bool = True

  def __post_init__(self):
    for name in (
      "trajectories",
      "new_tokens",
      "repeats",
      "context",
      "max_concurrent_prompts",
      "decode_steps",
    ):
      value = getattr(self, name)
      if value is not None and value < 1:
        raise ValueError(f"options.{name} is {value}; it must be at least 1")

  @property
  def members(self) -> int:
    """Trajectories and their repeats in one group, G."""
    return self.trajectories * self.repeats


class Request(NamedTuple):
  """What to sample from: this process's prompts.

  Attributes:
    prompt: the prompts. All processes bring the same shapes.
    records: of each prompt, from `keys.record_hashes`.
    features: of the prompts' images, from `encode`; None where there is none.
    given: tokens that a trajectory (each of its repeats) begins with, padded on the right.
    given_lengths: real ones of these.
    limits: tokens to draw, where fewer than `new_tokens` will do; 0 for a row that only pads.
  """

  prompt: models.Prompt
  records: UInt32[np.ndarray, "B 2"]
  features: models.Features | None = None
  given: Int[np.ndarray, "B G T"] | None = None
  given_lengths: Int[np.ndarray, "B G"] | None = None
  limits: Int[np.ndarray, "B G"] | None = None


class Plan(NamedTuple):
  """The sizes of a call's state.

  Attributes:
    capacity: prompts of a shard that are decoded at once.
    unit: prompts of a shard that enter together.
    given: tokens that trajectories begin with, T.
    slots: of a trajectory's cache.
  """

  capacity: int
  unit: int
  given: int
  slots: int

  @classmethod
  def of(cls, options: Options, prompts: int, shards: int, given: int) -> "Plan":
    """Returns the sizes for so many prompts of a shard.

    Args:
      options: how to sample.
      prompts: of a shard.
      shards: of rows, in all.
      given: tokens that trajectories begin with, at most.
    """
    capacity = min(prompts, (options.max_concurrent_prompts or prompts * shards) // shards)
    slots = given + options.new_tokens
    if capacity < prompts:
      slots += options.decode_steps  # So that the oldest never keeps others from a whole run.
    return cls(capacity, max(1, capacity // 4), given, slots)


def check(request: Request, options: Options, model: models.Model, mesh: Mesh) -> None:
  """Checks a request before anything is compiled for it.

  Raises:
    ValueError: naming the field, its value and what would work.
  """
  prompt = request.prompt
  size, width = prompt.ids.shape
  given = 0 if request.given is None else request.given.shape[-1]
  context = options.context or model.context
  if width + given + options.new_tokens > context:
    fit = context - width - given
    fits = f"at most {fit} new tokens fit" if fit > 0 else "ask in fewer words or smaller pictures"
    raise ValueError(
      f"prompts of {width}, {given} given and options.new_tokens={options.new_tokens} tokens are"
      f" more than the context of {context}; {fits}"
    )
  local = len(hosts.local_shards(mesh))
  if size == 0 or size % local:
    raise ValueError(
      f"request.prompt has {size} rows; the mesh needs a multiple of {local}: pad with rows whose"
      " limits are 0"
    )
  shapes = {
    "records": (size, 2),
    "given": (size, options.trajectories, given),
    "given_lengths": (size, options.trajectories),
    "limits": (size, options.members),
  }
  for name, shape in shapes.items():
    value = getattr(request, name)
    if value is not None and value.shape != shape:
      raise ValueError(f"request.{name} has shape {value.shape}; it must be {shape}")
  if (request.given is None) != (request.given_lengths is None):
    raise ValueError("request.given and request.given_lengths go together; one is None")
  _require_range("prompt.lengths", prompt.lengths, 1, width)
  _require_range("given_lengths", request.given_lengths, 0, given)
  _require_range("limits", request.limits, 0, options.new_tokens)
  hosts.require_equal("rows, prompt tokens and given tokens of a request", size, width, given)


def _require_range(name: str, values: Int[np.ndarray, "..."] | None, low: int, high: int) -> None:
  if values is None:
    return
  values = np.asarray(values)
  bad = values[(values < low) | (values > high)]
  if bad.size:
    raise ValueError(f"request.{name} holds {bad[0]}; it must be from {low} to {high}")
