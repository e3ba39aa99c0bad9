"""What every policy objective takes and returns: the tokens of a batch, and their losses."""

from typing import NamedTuple

from jaxtyping import Array, Bool, Float


class Tokens(NamedTuple):
  """Tokens of a micro-batch; masked positions hold 0, and only `logp` carries a gradient.

  Attributes:
    logp: log-probs under the policy that is trained, in nats.
    old_logp: log-probs under the policy before the first update of the step.
    advantage: A of the token's sequence.
    mask: tokens that count.
    weight: importance weight of the policy loss, see `sejax.method.rollout_correction`; 1 without.
  """

  logp: Float[Array, "*N R"]
  old_logp: Float[Array, "*N R"]
  advantage: Float[Array, "*N R"]
  mask: Bool[Array, "*N R"]
  weight: Float[Array, "*N R"]


class Surrogate(NamedTuple):
  """Losses of tokens, to be aggregated over the unmasked ones, and what metrics need.

  Attributes:
    loss: policy loss, which the current policy minimizes.
    ratio: of the current to the old policy, as the objective bounds it.
    clipped: where the objective's upper or lower bound changed the loss, see the objective.
    clipped_lower: where the dual clip did.
    drift: its token mean is the metric `ppo_kl`, in nats.
  """

  loss: Float[Array, "*N R"]
  ratio: Float[Array, "*N R"]
  clipped: Bool[Array, "*N R"]
  clipped_lower: Bool[Array, "*N R"]
  drift: Float[Array, "*N R"]
