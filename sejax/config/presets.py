"""Configurations that several files of `configs/` start from."""

from collections.abc import Collection, Mapping

import ml_collections

from sejax import assets
from sejax import config as config_lib
from sejax.data import figures
from sejax.errors import quoted, shortened
from sejax.rewards.recipes import RECIPES


def bundled() -> ml_collections.ConfigDict:
  """Returns the configuration of the bundled tiny model, on figures that it can learn."""
  config = config_lib.default()
  config.model.path = str(assets.TINY_VLM)
  # Replies are short: packing them would cost more compile time than it saves.
  config.sampling.decode_steps = 64
  config.sampling.pack = False
  config.actor.instruction = ""  # It knows one form of answer.
  config.actor.max_tokens = 40
  config.judge.rubric = "short"
  config.judge.max_tokens = 56
  config.data.figures.families = {
    name: float(name in figures.LEARNABLE) for name in figures.FAMILIES
  }
  config.data.min_pixels = None
  config.data.max_pixels = None
  config.data.prompt_limit = 64
  config.data.prompt_buckets = (56, 64)
  config.data.patch_buckets = (64,)
  return config


def released(model: str, recipe: str | None, *, tensor: int = 1) -> ml_collections.ConfigDict:
  """Returns the configuration of the released run of arXiv:2603.21289, for a model on the hub.

  Args:
    model: hub name, such as `Qwen/Qwen2.5-VL-7B-Instruct`.
    recipe: see `sejax.rewards.recipes`.
    tensor: size of the mesh axis `tensor`; all other devices are on the axis `fsdp`.

  Raises:
    ValueError: there is no such recipe.
  """
  config = config_lib.default()
  config.seed = 2
  config.batch_size = 512
  config.mini_batch_size = 128
  config.model.path = model
  config.mesh.data, config.mesh.fsdp, config.mesh.tensor = 1, -1, tensor
  config.train.epochs = 15
  config.train.micro_batch_size = 64
  config.eval.every = 5
  config.eval.greedy = True
  config.eval.batch_size = 512
  config.checkpoint.every = 30
  apply(config, recipe)
  return config


def figures_lora(model: str, recipe: str | None) -> ml_collections.ConfigDict:
  """Returns the configuration of training adapters on built-in figures, for one chip of 16 GB.

  Args:
    model: hub name of a model of at most 4B parameters.
    recipe: see `sejax.rewards.recipes`.

  Raises:
    ValueError: there is no such recipe.
  """
  config = _lora(model, recipe)
  # As large as every family reads them, in 64 tokens.
  config.data.figures.size = 224
  config.data.min_pixels = config.data.max_pixels = None
  config.data.patch_buckets = (256,)
  config.data.prompt_limit = 512
  config.data.prompt_buckets = (512,)
  config.eval.split = "heldout"
  config.eval.num_problems = 128
  return config


def pictures_lora(model: str, recipe: str | None) -> ml_collections.ConfigDict:
  """Returns the configuration of training adapters on pictures of one's own: one chip of 16 GB.

  Args:
    model: hub name of a Qwen2.5-VL of at most 3B parameters.
    recipe: see `sejax.rewards.recipes`.

  Raises:
    ValueError: there is no such recipe.
  """
  config = _lora(model, recipe)
  config.data.source = "jsonl"
  # Photos of any size, in at most 256 tokens each.
  config.data.min_pixels = None
  config.data.max_pixels = 256 * 28**2
  config.data.patch_buckets = (512, 1024)
  config.data.prompt_limit = 512
  config.data.prompt_buckets = (384, 512, 768)
  config.eval.num_problems = 0
  return config


def _lora(model: str, recipe: str | None) -> ml_collections.ConfigDict:
  """Returns what configurations of training adapters on one chip of 16 GB share."""
  config = released(model, recipe)
  config.batch_size = config.mini_batch_size = 16
  config.lora.rank = 64
  config.optimizer.learning_rate = 2e-5
  config.train.micro_batch_size = 1
  config.train.steps = 30

  # Easy for the model in what is seen, less so in what is to be made of it: replies stay short.
  config.actor.max_tokens = 512
  config.judge.max_tokens = 512
  config.eval.batch_size = 16
  config.eval.every = 0
  config.checkpoint.every = 10
  return config


def geometry3k(name: str, argument: str, tensor: Mapping[str, int]) -> ml_collections.ConfigDict:
  """Returns the released run's configuration on Geometry3K for another family.

  The range of pixels is that of the model's directory.

  Args:
    name: hub name with `{size}` in the place of the size.
    argument: see `choose_size`.
    tensor: size of the mesh axis `tensor` by model size.

  Raises:
    ValueError: there is no such size or recipe.
  """
  size, recipe = choose_size(argument, tensor)
  config = released(name.format(size=size.upper()), recipe, tensor=tensor[size])
  config.data.source = "parquet"
  config.data.name = "geometry3k"
  config.data.min_pixels = config.data.max_pixels = None
  config.data.patch_buckets = (512, 1024, 1536, 2048, 3072, 4096)
  config.eval.num_problems = 601
  return config


def choose_size(argument: str, sizes: Collection[str]) -> tuple[str, str | None]:
  """Returns the size and the recipe of `--config=FILE:SIZE,RECIPE`.

  Args:
    argument: the text after the colon: a size, and optionally a comma and a recipe.

  Raises:
    ValueError: the size is unknown.
  """
  size, _, recipe = argument.partition(",")
  if size not in sizes:
    raise ValueError(
      f"there is no size {quoted(size)}; choose {', '.join(sizes)}, optionally with a recipe after"
      " a comma, as in 8b,majority"
    )
  return size, recipe or None


def apply(config: ml_collections.ConfigDict, recipe: str | None) -> None:
  """Changes a configuration of the full method, in place, to a recipe.

  Args:
    recipe: a name of `sejax.rewards.recipes`; None, or an empty name, is the full method itself.

  Raises:
    ValueError: there is no such recipe.
  """
  if not recipe:
    return
  if recipe not in RECIPES:
    raise ValueError(
      f"there is no recipe {shortened(repr(recipe), 60)}; choose {', '.join(RECIPES)}, or none"
    )
  fields = RECIPES[recipe].fields()
  config.rewards.options = ml_collections.ConfigDict(fields.pop("rewards.options", {}))
  config.update_from_flattened_dict(fields)
