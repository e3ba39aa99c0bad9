r"""Self-evolution of Qwen2.5-VL-3B-Instruct by adapters on your own pictures: one chip of 16 GB.

python -m sejax.main --config=configs/pictures_qwen2_5_vl_3b_lora.py --workdir=DIR \
  --config.data.path=FILE

FILE has a JSON line per problem, with `question` and `image`; the weights are downloaded from the
hub. With `answer`, a file of other problems as `--config.eval.path` measures progress.
"""

from sejax.config import presets


def get_config(recipe=None):
  """Returns the configuration; for recipes see `sejax.rewards.recipes`."""
  return presets.pictures_lora("Qwen/Qwen2.5-VL-3B-Instruct", recipe)
