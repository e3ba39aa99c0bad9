"""A policy as a directory in the form of the released checkpoints: `--mode=export`."""

import pathlib

import jax
import jax.numpy as jnp
import ml_collections

from sejax import checkpoint
from sejax import run as run_lib
from sejax.clock import Clock
from sejax.models import qwen2_5_vl as qwen


def run(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
  """Writes the policy of the workdir's last checkpoint to `model/`.

  Raises:
    ValueError: there is no checkpoint.
  """
  workdir = workdir.resolve()
  setting = run_lib.set_up(config, workdir, Clock())
  state = setting.updater.init(setting.models.initial)
  frozen = checkpoint.fingerprint((setting.models.frozen, setting.models.judge_params))
  with checkpoint.Checkpoints(workdir / "checkpoints", config.checkpoint) as checkpoints:
    restored = checkpoints.restore(state, frozen)
  if restored is None:
    raise ValueError(f"{workdir / 'checkpoints'} holds no checkpoint to export")
  save(restored.state.params, setting.models.config, workdir / "model", config)
  print(f"step {restored.step} written to {workdir / 'model'}")


def save(
  params: qwen.Params,
  model: qwen.Config,
  directory: pathlib.Path,
  config: ml_collections.ConfigDict,
) -> None:
  """Writes a model directory, with the processor files of the model that the run began from.

  Args:
    params: of any precision; `config.checkpoint.export_dtype` is written.
    model: their configuration.
    directory: where to; what is there is replaced.
    config: the run's.
  """
  dtype = jnp.dtype(config.checkpoint.export_dtype)
  narrow = jax.tree.map(lambda x: x.astype(dtype), params)
  qwen.save(narrow, model, directory, source=config.model.path)
