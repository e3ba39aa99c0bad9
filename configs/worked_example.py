"""The method on a few recorded groups of trajectories and verdicts, without a model.

python -m sejax.main --mode=rewards --config=configs/worked_example.py --workdir=runs/worked_example
"""

import pathlib

from sejax import config as config_lib


def get_config():
  """Returns the configuration."""
  config = config_lib.default()
  config.rewards.recorded = str(pathlib.Path(__file__).with_name("worked_example.jsonl"))
  config.group_size = 4
  return config
