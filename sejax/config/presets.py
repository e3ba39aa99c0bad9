"""Configurations of the released run, of its ablations and of the baselines."""

from collections.abc import Collection, Mapping

import ml_collections

from sejax import config as config_lib
from sejax.errors import quoted


def released(model: str, variant: str | None, *, tensor: int = 1) -> ml_collections.ConfigDict:
  """Returns the configuration of the released run of arXiv:2603.21289, for a model on the hub.

  Args:
    model: hub name, such as `Qwen/Qwen2.5-VL-7B-Instruct`.
    variant: see `apply`.
    tensor: size of the mesh axis `tensor`; all other devices are on the axis `fsdp`.

  Raises:
    ValueError: as `apply`.
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
  apply(config, variant)
  return config


def figures_lora(model: str, variant: str | None) -> ml_collections.ConfigDict:
  """Returns the configuration of training adapters on built-in figures, for one chip of 16 GB.

  Args:
    model: hub name of a model of at most 4B parameters.
    variant: see `apply`.

  Raises:
    ValueError: as `apply`.
  """
  config = released(model, variant)
  config.batch_size = config.mini_batch_size = 16
  config.lora.rank = 64
  config.optimizer.learning_rate = 2e-5
  config.train.micro_batch_size = 1
  config.train.steps = 30

  # Easy for the model in what is seen, less so in what is to be made of it: replies stay short.
  config.actor.max_tokens = 512
  config.judge.max_tokens = 512
  config.data.figures.size = 112
  config.data.prompt_limit = 512
  config.data.prompt_buckets = (512,)

  config.eval.split = "heldout"
  config.eval.num_problems = 128
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
    ValueError: as `choose_size` and `apply`.
  """
  size, variant = choose_size(argument, tensor)
  config = released(name.format(size=size.upper()), variant, tensor=tensor[size])
  config.data.source = "parquet"
  config.data.name = "geometry3k"
  config.data.min_pixels = config.data.max_pixels = None
  config.data.patch_buckets = (512, 1024, 1536, 2048, 3072, 4096)
  config.eval.num_problems = 601
  return config


def choose_size(argument: str, sizes: Collection[str]) -> tuple[str, str | None]:
  """Returns the size and the variant of `--config=FILE:SIZE,VARIANT`.

  Args:
    argument: the text after the colon: a size, and optionally a comma and a variant, see `apply`.

  Raises:
    ValueError: the size is unknown.
  """
  size, _, variant = argument.partition(",")
  if size not in sizes:
    raise ValueError(
      f"there is no size {quoted(size)}; choose {', '.join(sizes)}, optionally with a variant after"
      " a comma, as in 8b,majority"
    )
  return size, variant or None


def apply(config: ml_collections.ConfigDict, variant: str | None) -> None:
  """Changes a configuration of the full method, in place, to an ablation or a baseline.

  The variants are:

  - None: the full method, unchanged;
  - `majority`: majority voting alone, as in MM-UPT (arXiv:2505.22453). A tie rewards no answer;
    MM-UPT's code rewards the answer seen first, which is `method.tie="first"`;
  - `frequency`: self-consistency alone;
  - `judge_only`: the Judge's scores alone;
  - `supervised`: gold answers, as an upper bound;
  - `control`: the same reward for every answer, so that only the format penalty teaches;
  - `log_q`: the advantage as in the paper's text; the released run instead subtracts the group's
    mean (`centered`);
  - `released`: the full method, with answers and verdicts read as by the released code.

  Raises:
    ValueError: there is no such variant.
  """
  match variant:
    case None:
      pass
    case "majority" | "frequency":
      config.method.self_consistency = variant
      _without_judge(config)
    case "judge_only":
      config.rewards.function = "sejax.rewards.judge_only"
    case "supervised" | "control":
      config.rewards.function = f"sejax.rewards.{variant}"
      _without_judge(config)
    case "log_q":
      config.method.advantage = "log_q"
    case "released":
      config.answers.equivalence = "exact"
      config.answers.unparsable = "vote"
      config.answers.released_extraction = True
      config.judge.include_instruction = True
      config.judge.released_reading = True
      config.method.invalid_verdict = "zero"
    case _:
      raise ValueError(
        f"there is no variant {quoted(variant)}; choose majority, frequency, judge_only,"
        " supervised, control, log_q or released, or none"
      )


def _without_judge(config: ml_collections.ConfigDict) -> None:
  config.judge.use = False
