r"""Self-evolution of Qwen2.5-VL-3B-Instruct on Geometry3K: the released run's values.

python -m sejax.main --config=configs/geometry3k_qwen2_5_vl_3b.py --workdir=DIR \
  --config.data.path=hiyouga/geometry3k

The data come from the hub; a directory of its parquet files does as well. A recipe is chosen after
a colon, as in `--config=configs/geometry3k_qwen2_5_vl_3b.py:majority`; see `sejax.rewards.recipes`.
"""

from sejax.config import presets


def get_config(recipe=None):
  """Returns the configuration."""
  config = presets.released("Qwen/Qwen2.5-VL-3B-Instruct", recipe)
  config.data.source = "parquet"
  config.data.name = "geometry3k"
  config.eval.num_problems = 601
  return config
