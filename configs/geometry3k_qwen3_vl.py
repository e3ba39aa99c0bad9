r"""Self-evolution of Qwen3-VL on Geometry3K, with the values of the released run of Qwen2.5-VL.

python -m sejax.main --config=configs/geometry3k_qwen3_vl.py:8b --workdir=DIR \
  --config.data.path=hiyouga/geometry3k

The data come from the hub; a directory of its parquet files does as well. The size after the colon
is 2b, 4b, 8b or 32b, optionally followed by a comma and a recipe, as in
`--config=configs/geometry3k_qwen3_vl.py:8b,majority`; see `sejax.rewards.recipes`.
"""

from sejax.config import presets

# Devices over which heads and hidden units are split.
_TENSOR = {"2b": 1, "4b": 1, "8b": 1, "32b": 4}


def get_config(argument="8b"):
  """Returns the configuration."""
  return presets.geometry3k("Qwen/Qwen3-VL-{size}-Instruct", argument, _TENSOR)
