"""Configurations of the released run, of its ablations and of the baselines."""

import ml_collections

from sejax import config as config_lib
from sejax.errors import quoted

# Size of the mesh axis `tensor` by model size; all other devices are on the axis `fsdp`.
_TENSOR = {"3b": 1, "7b": 1, "32b": 4}


def released(size: str, variant: str | None) -> ml_collections.ConfigDict:
  """Returns the configuration of the released run of arXiv:2603.21289.

  Args:
    size: model size, `3b`, `7b` or `32b`; the model is Qwen2.5-VL-<size>-Instruct from the hub.
    variant: see `apply`.

  Raises:
    ValueError: as `apply`.
  """
  config = config_lib.default()
  config.seed = 2
  config.batch_size = 512
  config.mini_batch_size = 128
  config.model.path = f"Qwen/Qwen2.5-VL-{size.upper()}-Instruct"
  config.mesh.data, config.mesh.fsdp, config.mesh.tensor = 1, -1, _TENSOR[size]
  config.train.epochs = 15
  config.train.micro_batch_size = 64
  config.eval.every = 5
  config.eval.greedy = True
  config.eval.batch_size = 512
  config.checkpoint.every = 30
  apply(config, variant)
  return config


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
