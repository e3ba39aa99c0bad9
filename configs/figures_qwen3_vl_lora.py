"""Self-evolution of Qwen3-VL by adapters on the built-in figures: one chip of 16 GB.

python -m sejax.main --config=configs/figures_qwen3_vl_lora.py:2b --workdir=runs/qwen3_2b

After the colon stands the size, 2b or 4b, optionally followed by a comma and a recipe, as in
`:4b,majority`; see `sejax.rewards.recipes`. The weights are downloaded from the hub.
"""

from sejax.config import presets


def get_config(argument="2b"):
  """Returns the configuration."""
  size, recipe = presets.choose_size(argument, ("2b", "4b"))
  return presets.figures_lora(f"Qwen/Qwen3-VL-{size.upper()}-Instruct", recipe)
