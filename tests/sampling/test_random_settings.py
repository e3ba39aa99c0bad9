"""Fifty random settings of the sampler draw the tokens of a plain one."""

import json

import pytest

from tests.subprocesses import start, wait


@pytest.mark.slow
def test_random_settings_draw_the_tokens_of_a_plain_sampler(source, tmp_path):
  """Order, mesh, packing, waiting, evictions, given tokens, limits, filters, pages, layers."""
  target = tmp_path / "evicted.json"
  wait(start("tests.sampling.random_settings", 8, source, target, 20_260, 50), timeout=3000)
  evicted = json.loads(target.read_text())
  assert len(evicted) == 50
  assert sum(count > 0 for count in evicted) >= 3
