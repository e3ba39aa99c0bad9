"""What the configurations of real runs share: the released run's values, and the baselines."""

import ml_collections

from sejax import config as config_lib
from sejax.errors import quoted

# Devices over which heads and hidden units are split; all others split rows and parameters.
_TENSOR = {"3b": 1, "7b": 1, "32b": 4}


def released(size: str, variant: str | None) -> ml_collections.ConfigDict:
  """Returns the released run of arXiv:2603.21289 for a model of the hub.

  Args:
    size: of Qwen2.5-VL-<size>-Instruct: `3b`, `7b` or `32b`.
    variant: see `apply`.

  Raises:
    ValueError: there is no such variant.
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
  """Changes a configuration of the full method to one of those it is compared with.

  Args:
    config: of the full method.
    variant: `majority` (votes alone, as MM-UPT, arXiv:2505.22453; a tie teaches nothing, where
      MM-UPT's code gives it to the answer seen first: `method.tie="first"`), `frequency`
      (self-consistency alone), `judge_only`, `supervised` (gold answers, the upper line), `control`
      (all alike: what the form alone gives), `log_q` (the advantage as the paper's text writes it;
      its run subtracts the group's mean, which is `centered`), `released` (the full method with the
      released code's reading of answers and verdicts), or None.

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
