"""Checkpoints of a run: parameters, optimizer, the data's place and the run's progress.

Saved by orbax in the background: a step's directory gets its name when it is complete, so that a
run that is killed while saving finds the step before. The frozen weights are not saved, as they are
the initial model; their fingerprint is, and a run goes on with no others.

A step is saved with its score, if it has one. Steps of an older version have none on disk: they are
restored like all others, and stay as long as they are among the latest.
"""

import contextlib
import dataclasses
import pathlib
import shutil
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple, Self

import jax
import jax.numpy as jnp
import ml_collections
import orbax.checkpoint as ocp
from absl import logging
from jaxtyping import Array, UInt32
from orbax.checkpoint.checkpoint_managers import preservation_policy as preservation

from sejax.errors import said


@dataclasses.dataclass
class Progress:
  """What a run remembers beside its arrays, as plain JSON values.

  Attributes:
    fingerprint: of the frozen weights, see `fingerprint`.
    data: the place in the data, one state for each process.
    seconds: that the run has taken so far.
    before: held-out outcome before training, from `Outcome.plain`; None where nothing is held out.
    after: the latest held-out outcome of the trained policy.
    evaluated: the step of `after`.
  """

  fingerprint: int
  data: Sequence[Any] = ()
  seconds: float = 0.0
  before: dict[str, Any] | None = None
  after: dict[str, Any] | None = None
  evaluated: int | None = None

  @classmethod
  def from_json(cls, values: Mapping[str, Any]) -> Self:
    """Returns the progress that `to_json` wrote; fields that it left out have their defaults."""
    names = {field.name for field in dataclasses.fields(cls)}
    return cls(**{name: value for name, value in values.items() if name in names})

  def to_json(self) -> dict[str, Any]:
    """Returns plain JSON values, without what is None."""
    values = {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}
    return {name: value for name, value in values.items() if value is not None}


class Restored(NamedTuple):
  """What a run resumes from.

  Attributes:
    step: the next to run.
    state: the tree that was saved.
    progress: that was saved with it.
  """

  step: int
  state: Any
  progress: Progress


class Checkpoints:
  """The checkpoints in a directory; all processes make the same calls.

  A context manager: leaving it waits for what is being saved.
  """

  def __init__(
    self,
    directory: pathlib.Path,
    options: ml_collections.ConfigDict,
    *,
    read_only: bool = False,
  ):
    """Opens the directory.

    Args:
      directory: an absolute path; made where it is missing.
      options: `config.checkpoint`: the latest `keep` stay, and the `keep_best` with the best score.
      read_only: change nothing in it, as a run may be writing to it.
    """
    self._directory = directory
    self._read_only = read_only
    self._policy = _LatestAndBest(options.keep, options.keep_best)
    self._open()

  def __enter__(self) -> "Checkpoints":
    return self

  def __exit__(self, *exception: object) -> None:
    self._manager.close()

  @property
  def latest(self) -> int | None:
    """The last step saved."""
    return self._manager.latest_step()

  def save(self, step: int, state: Any, progress: Progress, score: float | None) -> None:
    """Saves in the background; a step that is saved already stays as it is.

    Args:
      step: the next to run.
      state: a tree of arrays; it may be donated as soon as this returns.
      score: measured at this step, the higher, the better; None where nothing was measured.

    Raises:
      ValueError: an earlier save failed, for instance for want of space.
    """
    if self.latest == step:
      return
    items = {
      "state": ocp.args.StandardSave(state),
      "memory": ocp.args.JsonSave(progress.to_json()),
      "score": ocp.args.JsonSave({"score": score}),
    }
    self._policy.scores[step] = score
    with self._named():
      self._manager.save(step, args=ocp.args.Composite(**items))

  def restore(self, like: Any, fingerprint: int) -> Restored | None:
    """Returns the last step that can be read; None where nothing is saved.

    A damaged step is moved to `damaged/`, if the directory may be changed, and the one before is
    taken.

    Args:
      like: a tree of the shapes, types and layouts to restore to.
      fingerprint: of the frozen weights; the saved one must be the same.

    Raises:
      ValueError: the run had other frozen weights, or all steps are damaged.
    """
    damaged = {}
    while steps := set(self._manager.all_steps()) - damaged.keys():
      step = max(steps)
      try:
        saved = self._read(step, memory=ocp.args.JsonRestore())["memory"]
        progress = Progress.from_json(saved)
        _check(progress, fingerprint, self._directory)
        state = self._read(step, state=ocp.args.StandardRestore(like))["state"]
        return Restored(step, state, progress)
      except _OtherWeightsError:
        raise
      except Exception as error:  # Whatever a reader says of a damaged file.
        logging.warning("Checkpoint %d cannot be read and is left out: %s", step, error)
        damaged[step] = f"{step} ({said(error)})"
        if not self._read_only:
          self._set_aside(step)
    if damaged:
      kept = "" if self._read_only else " they are kept in damaged/;"
      raise ValueError(
        f"no checkpoint in {self._directory} can be read: {'; '.join(damaged.values())};{kept}"
        " start anew in another --workdir"
      )
    return None

  def wait(self) -> None:
    """Waits for what is being saved.

    Raises:
      ValueError: it failed.
    """
    with self._named():
      self._manager.wait_until_finished()

  @contextlib.contextmanager
  def _named(self) -> Iterator[None]:
    """Says of a failed save what has become of the run."""
    try:
      yield
    except (OSError, ValueError) as error:
      raise ValueError(
        f"a checkpoint could not be written to {self._directory} (is the disk full?):"
        f" {said(error)}; the same command goes on from the one before"
      ) from None

  def _open(self) -> None:
    """Opens the directory, and learns the scores of the steps in it."""
    options = ocp.CheckpointManagerOptions(
      preservation_policy=self._policy,
      cleanup_tmp_directories=not self._read_only,
      read_only=self._read_only,
    )
    self._manager = ocp.CheckpointManager(
      self._directory, options=options, item_names=("state", "memory", "score")
    )
    self._policy.scores = {step: self._score(step) for step in self._manager.all_steps()}

  def _score(self, step: int) -> float | None:
    """Returns the score that was saved with a step; None where there is none that can be read."""
    if not (self._directory / str(step) / "score").exists():  # It is of an older version.
      return None
    try:
      score = self._read(step, score=ocp.args.JsonRestore())["score"]["score"]
      return None if score is None else float(score)
    except Exception as error:  # Whatever a reader says of a damaged file.
      logging.warning("Checkpoint %d counts as without a score, which is damaged: %s", step, error)
      return None

  def _read(self, step: int, **items: Any) -> Any:
    return self._manager.restore(step, args=ocp.args.Composite(**items))

  def _set_aside(self, step: int) -> None:
    self._manager.close()
    if jax.process_index() == 0:
      aside = self._directory.parent / "damaged"
      aside.mkdir(exist_ok=True)
      target = aside / f"{step}"
      shutil.rmtree(target, ignore_errors=True)
      (self._directory / str(step)).rename(target)
    if jax.process_count() > 1:
      jax.experimental.multihost_utils.sync_global_devices(f"set aside {step}")
    self._open()


@dataclasses.dataclass
class _LatestAndBest(preservation.PreservationPolicy):
  """Keeps the latest steps, and those with the best scores; of equal scores the later.

  Not orbax's own `BestN`: it learns scores when the manager is opened, which one damaged file
  makes impossible, and it keeps steps without a score for want of others.

  Attributes:
    latest: how many stay as the latest.
    best: how many stay for their scores.
    scores: by step; None where nothing was measured.
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
    """Returns for each checkpoint whether it stays."""
    del context
    steps = sorted(info.step for info in checkpoints)
    scored = [step for step in steps if self.scores.get(step) is not None]
    scored.sort(key=lambda step: (self.scores[step], step), reverse=True)
    kept = {*steps[-self.latest :], *scored[: self.best]}
    return [info.step in kept for info in checkpoints]


def fingerprint(tree: Any) -> int:
  """Returns 32 bits that depend on all bits of all arrays and their places, not on the layout."""
  return int(_fingerprint(tree))


class _OtherWeightsError(ValueError):
  """The run was begun with other frozen weights."""


def _check(progress: Progress, fingerprint: int, directory: pathlib.Path) -> None:
  if progress.fingerprint != fingerprint:
    raise _OtherWeightsError(
      f"{directory} belongs to a run with other initial weights (fingerprint"
      f" {progress.fingerprint}, here {fingerprint}); give the same config.model.path and"
      " config.judge.path, or another --workdir"
    )


@jax.jit
def _fingerprint(tree: Any) -> UInt32[Array, ""]:
  # Integer sums wrap and do not depend on order, so any layout gives the same bits.
  total = jnp.uint32(0)
  for number, x in enumerate(jax.tree.leaves(tree)):
    width = {2: jnp.uint16, 4: jnp.uint32}[x.dtype.itemsize]
    bits = jax.lax.bitcast_convert_type(x, width).astype(jnp.uint32)
    weights = jnp.uint32(2 * number + 1)
    for axis in range(x.ndim):
      place = jax.lax.broadcasted_iota(jnp.uint32, x.shape, axis)
      weights = weights * jnp.uint32(0x9E3779B1) + 2 * place
    total += jnp.sum((bits ^ (bits >> 15)) * (weights | 1), dtype=jnp.uint32)
  return total
