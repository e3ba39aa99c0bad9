"""Which runs go on from what a workdir holds."""

import pytest

from sejax import config as config_lib


@pytest.mark.parametrize(
  "saved", [(), ("3",), ("2", "3"), ("9", "10"), ("3", "12.orbax-checkpoint-tmp")]
)
def test_a_run_does_not_end_before_its_last_checkpoint(tmp_path, saved):
  for name in saved:
    (tmp_path / "checkpoints" / name).mkdir(parents=True)
  last = max((int(name) for name in saved if name.isdigit()), default=0)
  config_lib.require_steps(last, tmp_path)
  config_lib.require_steps(last + 1, tmp_path)
  if last:
    message = f"checkpoint of step {last}, and this run has 2 steps; give config.train.steps={last}"
    with pytest.raises(ValueError, match=message):
      config_lib.require_steps(2, tmp_path)
