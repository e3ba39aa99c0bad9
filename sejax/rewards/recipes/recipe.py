"""What a recipe is: a reward function, and changes of the configuration of the full method."""

import dataclasses
from collections.abc import Mapping
from typing import Any

from sejax.rewards.finding import options_of
from sejax.rewards.functions import RewardFunction

# The advantage of GRPO (arXiv:2402.03300), which most authors use.
GRPO = {"method.advantage": "standardized"}


@dataclasses.dataclass(frozen=True, kw_only=True)
class Recipe:
  """A method by its reward and its other differences from the full method.

  Attributes:
    reward: its reward function, if it is a recipe's own.
    judged: whether the Judge is asked.
    changes: values of other fields, by their dotted names.
  """

  reward: RewardFunction | None = None
  judged: bool = False
  changes: Mapping[str, Any] = dataclasses.field(default_factory=dict)

  def fields(self) -> dict[str, Any]:
    """Returns the values of all fields that differ from the full method's, by dotted names.

    Those of `rewards.options` are the defaults of the reward function.
    """
    fields = {"judge.use": self.judged, **self.changes}
    if self.reward is not None:
      fields["rewards.function"] = f"{self.reward.__module__}.{self.reward.__qualname__}"
      fields["rewards.options"] = options_of(self.reward)
    return fields
