"""One device, eight devices and two processes sample the same tokens for the same records."""

import json

import numpy as np
import pytest

from tests.sampling import on_mesh
from tests.subprocesses import free_address, start, wait

pytestmark = pytest.mark.long

MODULE = "tests.sampling.on_mesh"


@pytest.fixture(scope="module")
def expected(tiny, source):
  """Samples on one device."""
  data = dict(np.load(source))
  return on_mesh.sample(tiny.config, tiny.params, on_mesh.request(data, slice(None)), None)


def assert_same(found: dict[str, np.ndarray], expected: dict[str, np.ndarray]) -> None:
  """Compares results; only log-probs may differ, by the order of sums.

  Rounding of 1e-6 changes a token only if its random number falls into a gap of that size.
  """
  for name, value in expected.items():
    if name.endswith("logp"):
      np.testing.assert_allclose(found[name], value, atol=2e-5, err_msg=name)
    else:
      np.testing.assert_array_equal(found[name], value, err_msg=name)


def test_rows_differ_enough(expected):
  assert len(set(expected["sampled_lengths"].ravel())) > 3
  assert len(np.unique(expected["sampled_tokens"].reshape(32, -1), axis=0)) == 32


def test_eight_devices(tiny, source, expected, tmp_path):
  wait(start(MODULE, 8, source, tmp_path / "out.npz"))
  found = dict(np.load(tmp_path / "out.npz"))
  assert_same(found, expected)
  assert found["gathered"].tolist() == [], "decode steps move weights between devices"
  collectives = json.loads(str(found["collectives"]))
  assert collectives.pop("all-reduce") >= 2 * tiny.config.text.num_hidden_layers
  # Logits and what is drawn move between devices, 6 arrays; the layers move none, or it were 20.
  assert sum(collectives.values()) <= 8, collectives


def test_two_processes(source, expected, tmp_path):
  address = free_address()
  targets = [tmp_path / f"{number}.npz" for number in range(2)]
  wait(*(start(MODULE, 4, source, targets[n], n, 2, address) for n in range(2)))
  parts = [dict(np.load(target)) for target in targets]
  assert_same({name: np.concatenate([p[name] for p in parts]) for name in expected}, expected)
