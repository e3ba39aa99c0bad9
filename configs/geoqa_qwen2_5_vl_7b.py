r"""Self-evolution of Qwen2.5-VL-7B-Instruct on GeoQA: the released run's values.

python -m sejax.main --config=configs/geoqa_qwen2_5_vl_7b.py --workdir=DIR \
  --config.data.path=leonardPKU/GEOQA_R1V_Train_8K

The data come from the hub; a directory of its parquet files does as well. There is no held-out
split. A recipe is chosen after a colon, as in `--config=configs/geoqa_qwen2_5_vl_7b.py:majority`;
see `sejax.rewards.recipes`.
"""

from sejax.config import presets


def get_config(recipe=None):
  """Returns the configuration."""
  config = presets.released("Qwen/Qwen2.5-VL-7B-Instruct", recipe)
  config.data.source = "parquet"
  config.data.name = "geoqa"
  config.eval.num_problems = 0
  return config
