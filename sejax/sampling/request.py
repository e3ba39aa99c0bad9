"""Sampling options, requests, and the checks that refuse a request before anything is compiled.

Axes: B prompts of this process, G sequences of a group, P prompt tokens, T given tokens, R new
tokens.
"""

import dataclasses
import math
from typing import NamedTuple

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Int, UInt32

from sejax import models
from sejax.parallel import hosts
from sejax.sampling import scheduler
from sejax.sampling.filters import Filters

# Tokens of a row shard that one pass reads at most, unless a single row has more: enough to keep
# any device busy, and few enough for their activations to fit.
READ_TOKENS = 8192


@dataclasses.dataclass(frozen=True)
class Options:
  """How to sample; the same for every call of a `Sampler`.

  Attributes:
    trajectories: trajectories of each prompt.
    max_new_tokens: maximum number of tokens to sample for a sequence, R.
    filters: how the distribution changes before a token is drawn.
    eos_ids: tokens that end a sequence.
    pad_id: token that fills the rest of a row; may be an EOS id.
    repeats: independent sequences of each trajectory, such as several verdicts on one candidate. A
      group has G = trajectories x repeats sequences, the repeats of one trajectory adjacent.
    context: maximum number of prompt, given and new tokens together; None is the model's limit.
    max_concurrent_rows: sequences decoded at once, over all devices; others wait. None decodes all
      at once.
    cache_tokens: tokens of sequences that the KV cache of a row shard may hold, prompts not
      counted; None if memory does not limit them.
    page_size: tokens of a page of the KV cache. Small ones leave less of the last page unused,
      large ones make larger matrix products.
    decode_steps: decode steps between host synchronisations.
    pack: shrink the device batch as sequences end.
    certainty_temperature: temperature of self-certainty; None measures neither it nor the entropy.
    forced: tokens that every sequence begins with, whatever is drawn; their log-probs are those of
      the tokens that were drawn. Fewer than `max_new_tokens`.
    watched: tokens whose log-probs are returned in the place of each sampled token.
    compile_threads: threads that compile what the next decode runs may need, see
      `parallel.programs.compile_threads`.

  Raises:
    ValueError: an option is out of its range; the message names it.
  """

  trajectories: int
  max_new_tokens: int
  filters: Filters = dataclasses.field(default_factory=Filters)
  eos_ids: tuple[int, ...] = ()
  pad_id: int = 0
  repeats: int = 1
  context: int | None = None
  max_concurrent_rows: int | None = None
  cache_tokens: int | None = None
  page_size: int = 64
  decode_steps: int = 32
  pack: bool = True
  certainty_temperature: float | None = None
  forced: tuple[int, ...] = ()
  watched: tuple[int, ...] = ()
  compile_threads: int | None = None

  def __post_init__(self):
    for name in (
      "trajectories",
      "max_new_tokens",
      "repeats",
      "context",
      "max_concurrent_rows",
      "cache_tokens",
      "page_size",
      "decode_steps",
    ):
      value = getattr(self, name)
      if value is not None and value < 1:
        raise ValueError(f"options.{name} is {value}; it must be at least 1")
    if len(self.forced) >= self.max_new_tokens:
      raise ValueError(
        f"options.forced has {len(self.forced)} tokens; it must have fewer than"
        f" max_new_tokens={self.max_new_tokens}"
      )
    at = self.certainty_temperature
    if at is not None and not 0 < at < math.inf:
      raise ValueError(
        f"options.certainty_temperature is {at}; it must be a finite number above 0, or None"
      )

  @property
  def run_steps(self) -> int:
    """Most steps of a decode run, C."""
    return min(self.decode_steps, self.max_new_tokens)

  @property
  def members(self) -> int:
    """Sequences of a group, G: trajectories times repeats."""
    return self.trajectories * self.repeats


class Request(NamedTuple):
  """The prompts of this process to sample from.

  Attributes:
    prompt: tokenized prompts, of the same shape on every process.
    record_hashes: 64-bit hash of each prompt's record, from `keys.record_hashes`; part of its
      random key.
    features: image features from `encode`; None without images.
    given: tokens that a trajectory (each of its repeats) starts with and that are not sampled, such
      as a candidate to judge; padded on the right.
    given_lengths: number of given tokens, without padding.
    limits: maximum number of tokens to sample for each sequence, at most `max_new_tokens`; 0 for
      padding rows. None is `max_new_tokens` for all.
  """

  prompt: models.Prompt
  record_hashes: UInt32[np.ndarray, "B 2"]
  features: models.Features | None = None
  given: Int[np.ndarray, "B trajectories T"] | None = None
  given_lengths: Int[np.ndarray, "B trajectories"] | None = None
  limits: Int[np.ndarray, "B G"] | None = None


class BatchPlan(NamedTuple):
  """Sizes of the device batch and its KV cache for one call of the sampler, for each row shard.

  Attributes:
    limits: what there is room for.
    read_prompts: prompts that are read together.
  """

  limits: scheduler.Limits
  read_prompts: int

  @classmethod
  def of(
    cls, options: Options, *, prompts: int, shards: int, prompt_length: int, given_length: int
  ) -> "BatchPlan":
    """Returns the sizes for a number of prompts.

    Args:
      prompts: prompts of one row shard.
      shards: row shards of the mesh.
      prompt_length: prompt tokens with padding, P.
      given_length: maximum number of given tokens, T.
    """
    sequences, size = prompts * options.members, options.page_size
    rows = min(sequences, (options.max_concurrent_rows or sequences * shards) // shards)
    # Sequences of a prompt end at different times. Twice as many prompts as the rows fill leave
    # room for those of which few are left.
    places = prompts if rows == sequences else min(prompts, 2 * -(-rows // options.members))
    pages = None
    if options.cache_tokens is not None:
      longest = -(-(given_length + options.max_new_tokens) // size)
      pages = max(options.cache_tokens // size, longest)
    return cls(
      limits=scheduler.Limits(
        rows=rows,
        prompts=places,
        pages=pages,
        page_size=size,
        growth=-(-options.run_steps // size),
      ),
      read_prompts=min(places, max(READ_TOKENS // prompt_length, 1)),
    )


def check(request: Request, options: Options, model: models.Model, mesh: Mesh) -> None:
  """Checks a request before anything is compiled for it.

  Raises:
    ValueError: a field cannot work; the message names it, its value and what would work.
  """
  prompt = request.prompt
  size, width = prompt.ids.shape
  given = 0 if request.given is None else request.given.shape[-1]
  context = options.context or model.context
  if width + given + options.max_new_tokens > context:
    fit = context - width - given
    fits = f"at most {fit} new tokens fit" if fit > 0 else "ask in fewer words or smaller pictures"
    raise ValueError(
      f"prompts of {width}, {given} given and options.max_new_tokens={options.max_new_tokens}"
      f" tokens are more than the context of {context}; {fits}"
    )
  local = len(hosts.local_shards(mesh))
  if size == 0 or size % local:
    raise ValueError(
      f"request.prompt has {size} rows; the mesh needs a multiple of {local}: pad with rows whose"
      " limits are 0"
    )
  shapes = {
    "record_hashes": (size, 2),
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
  _require_range("limits", request.limits, 0, options.max_new_tokens)
  hosts.require_equal("rows, prompt tokens and given tokens of a request", size, width, given)


def _require_range(name: str, values: Int[np.ndarray, "..."] | None, low: int, high: int) -> None:
  """Checks that all values of a request's field are from `low` to `high`; None is accepted."""
  if values is None:
    return
  values = np.asarray(values)
  bad = values[(values < low) | (values > high)]
  if bad.size:
    raise ValueError(f"request.{name} holds {bad[0]}; it must be from {low} to {high}")
