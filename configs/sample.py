r"""Eight trajectories for a picture and a question of one's own, from a directory of weights.

python -m sejax.main --mode=sample --config=configs/sample.py --config.model.path=DIR \
  --image=FILE --question="What is x?" --judge
"""

from sejax import config as config_lib


def get_config():
  """Returns the configuration."""
  return config_lib.default()
