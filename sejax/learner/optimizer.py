"""The policy's optimizer: AdamW, guarded against non-finite and negligible gradients."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Int

from sejax.errors import OptionError, quoted
from sejax.method import inputs
from sejax.parallel import layouts

SCHEDULES = ("constant", "linear", "cosine")
PRECISIONS = ("float32", "bfloat16")

# optax applies a non-finite gradient after this many in a row, so: never. The run stops earlier.
_NEVER = jnp.iinfo(jnp.int32).max


def make(
  options: Mapping[str, Any], steps: int, frozen: Sequence[str] = ()
) -> optax.GradientTransformationExtraArgs:
  """Returns AdamW (arXiv:1711.05101), preceded by these treatments of the gradient.

  1. A gradient that is not finite is skipped and counted; moments and schedule do not change.
  2. Frozen arrays have no moments, get no update and do not count in the gradient's norm.
  3. A gradient whose norm is below `negligible_norm` is set to zero. Adam divides by the gradient's
     own size and would turn mere rounding errors into full steps. Momentum of earlier gradients and
     weight decay still move the parameters, as in any step of AdamW.
  4. The global norm is clipped to `clip_norm`.

  Weight decay is multiplied by the learning rate, as in PyTorch, and applies to all arrays that are
  not frozen.

  Args:
    options: section `config.optimizer`.
    steps: optimizer steps of the whole run.
    frozen: regular expressions; arrays whose path matches one anywhere are frozen, as in
      `^vision/`.

  Raises:
    ValueError: an option is unknown or out of range, or as `schedule`. `init` of the result raises
      it if a pattern of `frozen` matches no array.
  """
  for name in ("b1", "b2"):
    inputs.between(name, options[name], 0.0, 1.0 - inputs.LEAST)
  for name in ("eps", "weight_decay", "negligible_norm"):
    inputs.between(name, options[name], 0.0, inputs.LARGEST)
  inputs.positive("clip_norm", options["clip_norm"])
  inputs.one_of("first_moment_dtype", options["first_moment_dtype"], PRECISIONS)
  trained = optax.chain(
    _zero_negligible(options["negligible_norm"]),
    optax.clip_by_global_norm(options["clip_norm"]),
    optax.adamw(
      schedule(options, steps),
      b1=options["b1"],
      b2=options["b2"],
      eps=options["eps"],
      weight_decay=options["weight_decay"],
      mu_dtype=options["first_moment_dtype"],
    ),
  )
  parts = {"trained": trained, "frozen": optax.set_to_zero()}
  return optax.apply_if_finite(optax.partition(parts, lambda tree: _labels(tree, frozen)), _NEVER)


def schedule(options: Mapping[str, Any], steps: int) -> optax.Schedule:
  """Returns the learning rate schedule, as in transformers' `get_*_schedule_with_warmup`.

  The rate rises linearly from zero for `warmup_steps` optimizer steps. Then it is constant, or
  decays to zero at the last step (`linear`, `cosine`).

  Args:
    options: section `config.optimizer`.
    steps: optimizer steps of the whole run.

  Raises:
    OptionError: the run is no longer than `warmup_steps`.
    ValueError: an option is unknown or out of range.
  """
  peak, warmup = options["learning_rate"], options["warmup_steps"]
  inputs.one_of("schedule", options["schedule"], SCHEDULES)
  inputs.between("learning_rate", peak, 0.0, inputs.LARGEST)
  if not 0 <= warmup < steps:
    wanted = f"at least 0 and below the run's {steps} optimizer steps"
    raise OptionError("optimizer.warmup_steps", warmup, wanted)
  match options["schedule"]:
    case "constant":
      main = optax.constant_schedule(peak)
    case "linear":
      main = optax.linear_schedule(peak, 0.0, steps - warmup)
    case "cosine":
      main = optax.cosine_decay_schedule(peak, steps - warmup)
  if not warmup:
    return main
  return optax.join_schedules([optax.linear_schedule(0.0, peak, warmup), main], [warmup])


def skipped(state: optax.ApplyIfFiniteState) -> tuple[Int[Array, ""], Int[Array, ""]]:
  """Returns how many gradients were skipped as not finite: consecutively up to now, and in all."""
  return state.notfinite_count, state.total_notfinite


def _zero_negligible(norm: float) -> optax.GradientTransformation:
  """Sets a gradient to zero if its norm over all arrays is below `norm`."""

  def update(grads: Any, params: Any = None) -> Any:
    del params
    kept = optax.tree.norm(grads) >= norm
    return jax.tree.map(lambda g: jnp.where(kept, g, 0), grads)

  return optax.stateless(update)


def _labels(tree: Any, frozen: Sequence[str]) -> Any:
  """Returns a tree of labels for `optax.partition`: `trained` or `frozen` for each array.

  Raises:
    ValueError: a pattern matches no array.
  """
  paths, treedef = jax.tree.flatten_with_path(tree)
  names = [layouts.path_name(path) for path, _ in paths]
  for pattern in frozen:
    if not any(re.search(pattern, name) for name in names):
      raise ValueError(
        f"frozen={quoted(pattern)} is found in no array's path; it must be, as in {names[0]}"
      )
  is_frozen = [any(re.search(pattern, name) for pattern in frozen) for name in names]
  return jax.tree.unflatten(treedef, ["frozen" if f else "trained" for f in is_frozen])
