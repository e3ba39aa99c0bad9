"""Policy objectives: what the policy loss of a token is. `sejax.method.policy_loss` applies them.

| objective | paper | rule | ratio of | defaults | aggregation |
|---|---|---|---|---|---|
| `grpo` | arXiv:2402.03300 | verl | a token | `clip_low` .2, `clip_high` .2 | `token-mean` |
| `gspo` | arXiv:2507.18071 | verl | a sequence | `clip_low` 3e-4, `clip_high` 4e-4 | `seq-mean-token-mean` |
| `cispo` | arXiv:2506.13585 | verl | a token | `clip_low` .2, `clip_high` .2 | `token-mean` |
| `sapo` | arXiv:2511.20347 | verl | a token | `tau_pos` 1, `tau_neg` 1.05 | `seq-mean-token-mean`, always |
| `gmpo` | arXiv:2507.20673 | verl, but for empty sequences | a sequence | `clip_low` .4, `clip_high` .4 | `seq-mean-token-mean`, always |
| `clip_cov` | arXiv:2505.22617 | verl | a token | `clip_low` .2, `clip_high` .2, `clip_cov_ratio` 2e-4, `clip_cov_lb` 1, `clip_cov_ub` 5 | `token-mean` |
| `kl_cov` | arXiv:2505.22617 | verl | a token | `kl_cov_ratio` 2e-4, `kl_cov_coef` .1 | `token-mean` |

`dual_clip`, 3, is an option of `grpo` alone. Two methods are settings of `grpo`: DAPO
(arXiv:2503.14476) with `clip_high` .28, and Dr. GRPO (arXiv:2503.20783) with aggregation
`seq-mean-token-sum-norm` and advantage `centered`. The clips of `gspo` are those of verl's
recipes, and of `gmpo` the paper's; verl's own defaults are .2 for both, too wide for the ratio of a
sequence. Elsewhere they are verl's.
"""  # noqa: E501 (a table)

from typing import NamedTuple

from sejax.method.objectives.surrogate import Surrogate, Tokens

__all__ = ["OBJECTIVES", "Objective", "Surrogate", "Tokens"]


class Objective(NamedTuple):
  """What an objective takes where an option is None.

  Attributes:
    clip_low: largest decrease of the ratio below 1, or of its logarithm below 0 for `gmpo`; None if
      there is no lower bound.
    clip_high: largest increase, likewise.
    aggregation: of token losses.
    fixed: whether the aggregation is part of the definition.
    per_micro_batch: whether tokens are chosen within a micro-batch, on whose size the result then
      depends.
  """

  clip_low: float | None
  clip_high: float | None
  aggregation: str
  fixed: bool = False
  per_micro_batch: bool = False


OBJECTIVES = {
  "grpo": Objective(0.2, 0.2, "token-mean"),
  "gspo": Objective(3e-4, 4e-4, "seq-mean-token-mean"),
  "cispo": Objective(0.2, 0.2, "token-mean"),
  "sapo": Objective(None, None, "seq-mean-token-mean", fixed=True),
  "gmpo": Objective(0.4, 0.4, "seq-mean-token-mean", fixed=True),
  "clip_cov": Objective(0.2, 0.2, "token-mean", per_micro_batch=True),
  "kl_cov": Objective(None, None, "token-mean", per_micro_batch=True),
}
