r"""Self-evolution of Qwen2-VL on Geometry3K, with the values of the released run of Qwen2.5-VL.

python -m sejax.main --config=configs/geometry3k_qwen2_vl.py:7b --workdir=DIR \
  --config.data.path=hiyouga/geometry3k

The data come from the hub; a directory of its parquet files does as well. The size after the colon
is 2b, 7b or 72b, optionally followed by a comma and a recipe, as in
`--config=configs/geometry3k_qwen2_vl.py:7b,majority`; see `sejax.rewards.recipes`.
"""

from sejax.config import presets

# Devices over which heads and hidden units are split.
_TENSOR = {"2b": 1, "7b": 1, "72b": 8}


def get_config(argument="7b"):
  """Returns the configuration."""
  return presets.geometry3k("Qwen/Qwen2-VL-{size}-Instruct", argument, _TENSOR)
