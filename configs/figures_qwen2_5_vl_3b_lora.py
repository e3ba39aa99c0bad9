"""Self-evolution of Qwen2.5-VL-3B-Instruct by adapters on the built-in figures: one chip of 16 GB.

python -m sejax.main --config=configs/figures_qwen2_5_vl_3b_lora.py --workdir=runs/3b

What a Colab TPU or a single GPU can do in an hour or so; the weights are downloaded from the hub.
"""

from sejax.config import presets


def get_config(recipe=None):
  """Returns the configuration; for recipes see `sejax.rewards.recipes`."""
  return presets.figures_lora("Qwen/Qwen2.5-VL-3B-Instruct", recipe)
