"""A policy as a directory in the form of the released checkpoints: `--mode=export`."""

import pathlib

import jax
import jax.numpy as jnp
import ml_collections
import safetensors

from sejax import checkpoint, lora
from sejax import config as config_lib
from sejax import run as run_lib
from sejax.clock import Clock
from sejax.models import hub
from sejax.models import qwen2_5_vl as qwen
from sejax.quoting import said, shortened


def run(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
  """Writes the policy of the workdir's last checkpoint to `model/`.

  Raises:
    ValueError: there is no checkpoint.
  """
  if not (workdir / "checkpoints").is_dir():
    raise ValueError(f"--workdir={shortened(workdir)} holds no checkpoints; give a run's")
  config_lib.require_same(config, workdir)
  config, workdir = hub.with_local_models(config), workdir.resolve()
  setting = run_lib.set_up(config, workdir, Clock())
  state = setting.updater.init(setting.models.initial)
  frozen = checkpoint.fingerprint((setting.models.frozen, setting.models.judge_params))
  directory = workdir / "checkpoints"
  with checkpoint.Checkpoints(directory, config.checkpoint, read_only=True) as checkpoints:
    restored = checkpoints.restore(state, frozen)
  if restored is None:
    raise ValueError(f"{directory} holds no checkpoint to export")
  save(setting, restored.state.params, workdir / "model", config)
  print(f"step {restored.step} written to {workdir / 'model'}")


def save(
  run: run_lib.Run,
  trained: qwen.Params,
  directory: pathlib.Path,
  config: ml_collections.ConfigDict,
) -> None:
  """Writes a model directory, with the processor files of the model that the run began from.

  Args:
    run: what stayed the same.
    trained: all weights, or adapters, which are merged; `config.checkpoint.export_dtype` is
      written.
    directory: where to; what is there is replaced.
    config: the run's.

  Raises:
    ValueError: it cannot be written; what was there before is as it was.
  """
  dtype = jnp.dtype(config.checkpoint.export_dtype)
  params = lora.merge(run_lib.policy(run, trained), dtype)
  narrow = jax.tree.map(lambda x: x.astype(dtype), params)
  try:
    qwen.save(narrow, run.models.config, directory, source=config.model.path)
  except (OSError, safetensors.SafetensorError) as error:
    raise ValueError(
      f"the model cannot be written to {directory} ({said(error)}); make"
      " room, then --mode=export writes it from the last checkpoint"
    ) from None
