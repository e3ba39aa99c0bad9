"""Checkpoints of a run: trained parameters, optimizer state, data iterator and progress.

Orbax saves in the background and names a step's directory only when it is complete, so a run that
is killed while saving resumes from the step before. The frozen weights are those of the initial
model and are not saved. Their fingerprint is, and a run resumes only with the same ones.

Each step is saved with its score, by which the best steps are kept.

Checkpoints of older versions can be restored. They may have no score, and then count only among the
latest; and they may have queries, keys and values in one axis, see `models.fused_shape`.
"""

import contextlib
import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import ml_collections
import orbax.checkpoint as ocp
from absl import logging
from jax.sharding import NamedSharding, PartitionSpec, Sharding
from jaxtyping import Array, UInt32
from orbax.checkpoint.checkpoint_managers import preservation_policy as preservation

from sejax import models, storage
from sejax.errors import one_line
from sejax.parallel import layouts

_PROGRESS = "memory"  # the item's name in existing checkpoints


@dataclasses.dataclass
class Progress:
  """The part of a run's state that is not arrays; holds only JSON values.

  Attributes:
    fingerprint: fingerprint of the frozen weights, see `fingerprint`.
    data: state of the data iterator of each process.
    seconds: duration of the run so far, over all restarts.
    before: evaluation of the initial policy, see `HeldOutResult.plain`; None without held-out
      problems.
    after: latest evaluation of the trained policy; None before the first.
    evaluated: number of completed steps at which `after` was measured.
  """

  fingerprint: int
  data: Sequence[Any] = ()
  seconds: float = 0.0
  before: dict[str, Any] | None = None
  after: dict[str, Any] | None = None
  evaluated: int | None = None

  @classmethod
  def from_json(cls, values: Mapping[str, Any]) -> Self:
    """Reverses `to_json`; missing fields get their defaults, and unknown ones are ignored."""
    names = {field.name for field in dataclasses.fields(cls)}
    return cls(**{name: value for name, value in values.items() if name in names})

  def to_json(self) -> dict[str, Any]:
    """Returns the fields as JSON values, without those that are None."""
    values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
    return {name: value for name, value in values.items() if value is not None}


class Restored(NamedTuple):
  """A restored checkpoint.

  Attributes:
    step: number of completed steps, which is also the index of the next one.
    state: tree of arrays, in the layout that was asked for.
    progress: progress of the run at this step.
  """

  step: int
  state: Any
  progress: Progress


class Checkpoints:
  """Saves and restores the checkpoints of a directory.

  Every process must make the same calls. Leaving the context manager waits for pending saves.
  """

  def __init__(
    self,
    directory: storage.Path,
    options: ml_collections.ConfigDict,
    *,
    read_only: bool = False,
  ):
    """Opens the directory.

    Args:
      directory: an absolute path; created if missing.
      options: section `config.checkpoint`: the latest `keep` checkpoints are kept, and the
        `keep_best` with the best scores.
      read_only: whether to leave the directory unchanged, as a run may be writing to it.
    """
    self._directory = storage.Path(directory)
    self._read_only = read_only
    self._retention = _LatestAndBest(options.keep, options.keep_best)
    self._open()

  def __enter__(self) -> "Checkpoints":
    return self

  def __exit__(self, *exception: object) -> None:
    self._manager.close()

  @property
  def latest(self) -> int | None:
    """The latest saved step; None if nothing is saved."""
    return self._manager.latest_step()

  def save(self, step: int, state: Any, progress: Progress, score: float | None) -> None:
    """Saves a step in the background; does nothing if it is the latest saved step.

    Args:
      step: number of completed steps, which is also the index of the next one.
      state: a tree of arrays; may be donated as soon as this returns.
      score: held-out pass@1 or another score, higher is better; None if it was not measured.

    Raises:
      ValueError: an earlier save failed, for instance on a full disk.
    """
    if self.latest == step:
      return
    items = {
      "state": ocp.args.StandardSave(state),
      _PROGRESS: ocp.args.JsonSave(progress.to_json()),
      "score": ocp.args.JsonSave({"score": score}),
    }
    self._retention.scores[step] = score
    with self._explain_failed_save():
      self._manager.save(step, args=ocp.args.Composite(**items))

  def restore(self, like: Any, fingerprint: int) -> Restored | None:
    """Restores the latest readable checkpoint; returns None if nothing is saved.

    A damaged checkpoint is moved to `damaged/`, unless the directory is read-only, and the one
    before it is used.

    Args:
      like: tree of the same structure, with the shapes, types and shardings to restore to.
      fingerprint: fingerprint of the run's frozen weights.

    Raises:
      ValueError: the checkpoint was saved with other frozen weights, or all are damaged.
    """
    damaged = {}
    while steps := set(self._manager.all_steps()) - damaged.keys():
      step = max(steps)
      try:
        saved = self._read(step, **{_PROGRESS: ocp.args.JsonRestore()})[_PROGRESS]
        progress = Progress.from_json(saved)
        _check_fingerprint(progress, fingerprint, self._directory)
        return Restored(step, self._restore_state(step, like), progress)
      except _OtherWeightsError:
        raise
      except Exception as error:  # Readers raise errors of any type for a damaged file.
        logging.warning("Checkpoint %d cannot be read and is left out: %s", step, error)
        damaged[step] = f"{step} ({one_line(error)})"
        if not self._read_only:
          self._move_to_damaged(step)
    if damaged:
      kept = "" if self._read_only else " they are kept in damaged/;"
      raise ValueError(
        f"no checkpoint in {self._directory} can be read: {'; '.join(damaged.values())};{kept}"
        " start anew in another --workdir"
      )
    return None

  def wait(self) -> None:
    """Waits until pending saves are complete.

    Raises:
      ValueError: a save failed.
    """
    with self._explain_failed_save():
      self._manager.wait_until_finished()

  @contextlib.contextmanager
  def _explain_failed_save(self) -> Iterator[None]:
    """Re-raises errors of a save as one line that says how to resume the run."""
    try:
      yield
    except (OSError, ValueError) as error:
      raise ValueError(
        f"a checkpoint could not be written to {self._directory} (is the disk full?):"
        f" {one_line(error)}; rerun the same command to resume from"
        " the one before"
      ) from None

  def _open(self) -> None:
    """Opens the directory and reads the scores of its checkpoints."""
    options = ocp.CheckpointManagerOptions(
      preservation_policy=self._retention,
      cleanup_tmp_directories=not self._read_only,
      read_only=self._read_only,
    )
    self._manager = ocp.CheckpointManager(
      self._directory, options=options, item_names=("state", _PROGRESS, "score")
    )
    self._retention.scores = {step: self._score(step) for step in self._manager.all_steps()}

  def _score(self, step: int) -> float | None:
    """Returns the score saved with a step; None if it has none or its file is damaged."""
    if not (self._directory / str(step) / "score").exists():  # Saved by an older version.
      return None
    try:
      score = self._read(step, score=ocp.args.JsonRestore())["score"]["score"]
      return None if score is None else float(score)
    except Exception as error:  # Readers raise errors of any type for a damaged file.
      logging.warning("Checkpoint %d counts as without a score, which is damaged: %s", step, error)
      return None

  def _restore_state(self, step: int, like: Any) -> Any:
    """Restores the arrays of a step; those that are stored in their fused shape are reshaped."""
    # A `StandardCheckpointer` warns that an item has no metadata of a whole checkpoint.
    with contextlib.closing(ocp.StandardCheckpointHandler()) as reader:
      metadata = reader.metadata(self._directory / str(step) / "state").tree
    stored = {_name(path): x.shape for path, x in jax.tree.leaves_with_path(metadata)}

    def as_stored(path, x):
      shape = stored.get(_name(path), x.shape)
      if shape == x.shape or jnp.issubdtype(x.dtype, jax.dtypes.prng_key):
        return x
      if shape != models.fused_shape(layouts.path_name(path), x.shape):
        raise ValueError(f"{_name(path)} has shape {shape}, here {x.shape}")
      return jax.ShapeDtypeStruct(shape, x.dtype, sharding=_fused_sharding(x))

    def as_asked(x, target):
      return x if x.shape == target.shape else _reshape(x, target.shape, target.sharding)

    saved = jax.tree.map_with_path(as_stored, like)
    state = self._read(step, state=ocp.args.StandardRestore(saved))["state"]
    return jax.tree.map(as_asked, state, like)

  def _read(self, step: int, **items: Any) -> Any:
    return self._manager.restore(step, args=ocp.args.Composite(**items))

  def _move_to_damaged(self, step: int) -> None:
    """Moves a step's directory to `damaged/` and reopens the manager, which caches its steps."""
    self._manager.close()
    if jax.process_index() == 0:
      damaged = self._directory.parent / "damaged"
      damaged.mkdir(exist_ok=True)
      target = damaged / f"{step}"
      target.rmtree(missing_ok=True)
      (self._directory / str(step)).rename(target)
    if jax.process_count() > 1:
      jax.experimental.multihost_utils.sync_global_devices(f"set aside {step}")
    self._open()


@dataclasses.dataclass
class _LatestAndBest(preservation.PreservationPolicy):
  """Preserves the latest steps and those with the best scores; ties go to the later step.

  Orbax's own `BestN` does not serve here: it reads all scores when the manager is opened, which
  fails if one file is damaged, and it fills up with steps that have no score.

  Attributes:
    latest: number of latest steps to keep.
    best: number of steps with the best scores to keep.
    scores: score of each step; None if it was not measured.
  """

  latest: int
  best: int
  scores: dict[int, float | None] = dataclasses.field(default_factory=dict)

  def should_preserve(
    self,
    checkpoints: Sequence[preservation.PolicyCheckpointInfo],
    *,
    context: preservation.PreservationContext,
  ) -> list[bool]:
    """Returns for each checkpoint whether to keep it."""
    del context
    steps = sorted(info.step for info in checkpoints)
    scored = [step for step in steps if self.scores.get(step) is not None]
    scored.sort(key=lambda step: (self.scores[step], step), reverse=True)
    kept = {*steps[-self.latest :], *scored[: self.best]}
    return [info.step in kept for info in checkpoints]


def _name(path: Sequence[Any]) -> str:
  """Returns the name of an array, the same in a tree and in the metadata of its checkpoint."""
  return jax.tree_util.keystr(path, simple=True, separator="/")


def _fused_sharding(x: Array) -> Sharding:
  """Returns the sharding of an array in its fused shape: the last two axes split as the last."""
  if not isinstance(x.sharding, NamedSharding):
    return x.sharding
  axes = (*x.sharding.spec, *[None] * x.ndim)[: x.ndim]
  return NamedSharding(x.sharding.mesh, PartitionSpec(*axes[:-2], axes[-1]))


def _reshape(x: Array, shape: tuple[int, ...], sharding: Sharding) -> Array:
  """Reshapes a sharded array; data moves only between devices that split the reshaped axes."""
  return jax.jit(jnp.reshape, static_argnums=1, out_shardings=sharding)(x, shape)


def fingerprint(tree: Any) -> int:
  """Returns a 32-bit hash of all arrays of a tree, which does not depend on their sharding.

  Arrays are hashed in their fused shape, see `models.fused_shape`, as older versions did.

  Args:
    tree: parameter trees, whose arrays hold 16-bit or 32-bit numbers.
  """
  return int(_fingerprint(tree))


class _OtherWeightsError(ValueError):
  """A checkpoint was saved with other frozen weights."""


def _check_fingerprint(progress: Progress, fingerprint: int, directory: storage.Path) -> None:
  if progress.fingerprint != fingerprint:
    raise _OtherWeightsError(
      f"{directory} belongs to a run with other initial weights (fingerprint"
      f" {progress.fingerprint}, here {fingerprint}); give the same config.model.path and"
      " config.judge.path, or another --workdir"
    )


@jax.jit
def _fingerprint(tree: Any) -> UInt32[Array, ""]:
  """Sums the hashed bit patterns of all elements as integers, each weighted by its position.

  Integer sums wrap around and do not depend on their order, so any sharding gives the same result.
  """
  total = jnp.uint32(0)
  for number, (path, x) in enumerate(jax.tree.leaves_with_path(tree)):
    width = {2: jnp.uint16, 4: jnp.uint32}[x.dtype.itemsize]
    bits = jax.lax.bitcast_convert_type(x, width).astype(jnp.uint32)
    weights = jnp.uint32(2 * number + 1)
    places = [jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis) for axis in range(x.ndim)]
    if models.fused_shape(layouts.path_name(path), x.shape) != x.shape:
      *places, part, place = places
      places.append(part * x.shape[-1] + place)  # Reshaping would move data between devices.
    for place in places:
      weights = weights * jnp.uint32(0x9E3779B1) + 2 * place
    total += jnp.sum((bits ^ (bits >> 15)) * (weights | 1), dtype=jnp.uint32)
  return total
