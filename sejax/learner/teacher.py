"""A slowly moving average of the policy, whose votes can be labels (Co-rewarding-II).

After each step, teacher <- a policy + (1 - a) teacher, where a falls along a cosine from `start` to
`end` over the run (arXiv:2508.00410). The trained tree is averaged, all weights (a frozen vision
tower among them, which stays as it is) or adapters, in fp32: what a step adds would vanish in
bfloat16. It is sharded as the trained parameters are.
"""

import dataclasses
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float

from sejax import models
from sejax.parallel.programs import Program


@dataclasses.dataclass(frozen=True)
class Teacher:
  """How the average moves.

  Attributes:
    start: share of the policy at the first step, in [0, 1].
    end: share that is approached by the end of the run.
    steps: of the whole run.
  """

  start: float
  end: float
  steps: int

  def begin(self, params: models.Params) -> models.Params:
    """Returns the average before the first step: a copy, since updates donate the parameters."""
    return _COPY(params)

  def follow(self, teacher: models.Params, params: models.Params, step: int) -> models.Params:
    """Returns the average after a step.

    Args:
      teacher: before it; donated.
      params: trained parameters after it.
      step: number of the training step, from 0.
    """
    return _MOVE(teacher, params, jnp.float32(self.share(step)))

  def share(self, step: int) -> float:
    """Returns the policy's share in the average after a step, counted from 0."""
    t = min(max(step, 0), self.steps) / self.steps
    return self.end + (self.start - self.end) * (1 + math.cos(math.pi * t)) / 2


def copy(params: models.Params) -> models.Params:
  """Returns a copy in fp32."""
  return jax.tree.map(lambda x: jnp.array(x, jnp.float32, copy=True), params)


def move(teacher: models.Params, params: models.Params, share: Float[Array, ""]) -> models.Params:
  """Returns the average, moved towards the parameters by a share of the way."""
  return jax.tree.map(lambda t, p: t + share * (p - t), teacher, params)


_COPY = Program.of(copy)
_MOVE = Program.of(move, donate=(0,))
