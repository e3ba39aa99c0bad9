"""Self-evolution of Qwen2.5-VL-3B-Instruct by adapters on the built-in figures: one chip of 16 GB.

python -m sejax.main --config=configs/figures_qwen2_5_vl_3b_lora.py --workdir=runs/3b

What a Colab TPU or a single GPU can do in an hour or so; the weights are downloaded from the hub.
"""

from sejax.config import presets


def get_config(variant=None):
  """Returns the configuration; for variants see `sejax.config.presets.apply`."""
  config = presets.released("3b", variant)
  config.batch_size = config.mini_batch_size = 16
  config.lora.rank = 64
  config.optimizer.learning_rate = 2e-5
  config.train.micro_batch_size = 1
  config.train.steps = 30
  config.sampling.max_concurrent_prompts = 4

  # Easy for the model in what is seen, less so in what is to be made of it: replies stay short.
  config.actor.max_tokens = 512
  config.judge.max_tokens = 512
  config.data.figures.size = 112
  config.data.max_pixels = config.data.min_pixels
  config.data.prompt_limit = 512
  config.data.prompt_buckets = (512,)
  config.data.patch_buckets = (1536,)

  config.eval.split = "heldout"
  config.eval.num_problems = 128
  config.eval.batch_size = 16
  config.eval.every = 0
  config.checkpoint.every = 10
  return config
