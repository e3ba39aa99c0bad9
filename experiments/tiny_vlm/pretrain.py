"""Trains the tiny model from scratch on the built-in figures, in pieces that can be resumed.

    python -m experiments.tiny_vlm.pretrain --workdir=runs/tiny_vlm [--config.family=qwen3_vl]

`training` says how. At the end, and whenever `--export` is given, the model directory is written to
`WORKDIR/model`.
"""

from absl import app, flags, logging
from ml_collections import config_flags

from experiments.tiny_vlm import training

_CONFIG = config_flags.DEFINE_config_dict("config", training.get_config())
_WORKDIR = flags.DEFINE_string("workdir", None, "Checkpoints and the model.", required=True)
_EXPORT = flags.DEFINE_bool("export", False, "Write the model of the last checkpoint and stop.")
_MINUTES = flags.DEFINE_float("minutes", None, "Stop after so long; another call goes on.")


def main(argv: list[str]) -> None:
  """Trains, or goes on training."""
  del argv
  logging.set_verbosity(logging.WARNING)  # orbax tells of every file it writes
  training.train(_CONFIG.value, _WORKDIR.value, minutes=_MINUTES.value, export=_EXPORT.value)


if __name__ == "__main__":
  app.run(main)
