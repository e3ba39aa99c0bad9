"""Self-evolution of the bundled tiny model on built-in figures, without labels.

python -m sejax.main --config=configs/tiny.py --workdir=runs/tiny
"""

from sejax import assets
from sejax import config as config_lib
from sejax.config import presets
from sejax.data import figures


def get_config(recipe=None):
  """Returns the configuration; for recipes see `sejax.rewards.recipes`."""
  config = config_lib.default()
  config.batch_size = 32
  config.mini_batch_size = 16

  config.model.path = str(assets.TINY_VLM)
  # Short replies are sooner drawn to their end than programs for packing them are compiled.
  config.sampling.decode_steps = 64
  config.sampling.pack = False
  config.actor.instruction = ""  # It knows one form of answer.
  config.actor.max_tokens = 40
  config.judge.rubric = "short"
  config.judge.max_tokens = 56

  config.data.figures.families = {
    name: float(name in figures.LEARNABLE) for name in figures.FAMILIES
  }
  config.train.steps = 18
  config.train.micro_batch_size = 16
  config.train.response_buckets = (config.actor.max_tokens,)
  config.model.remat = "everything"
  config.model.unroll = True
  config.optimizer.learning_rate = 3e-5
  # Votes say which answers agree, little of why: they teach what to say, and would blur the eyes.
  config.train.freeze_vision = True
  config.eval.split = "heldout"
  config.eval.every = 0
  config.checkpoint.every = 10
  config.checkpoint.export_dtype = "float32"

  config.data.min_pixels = None
  config.data.max_pixels = None
  config.data.prompt_limit = 64
  config.data.prompt_buckets = (56, 64)
  config.data.patch_buckets = (64,)
  presets.apply(config, recipe)
  return config
