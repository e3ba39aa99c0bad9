"""One optimizer step is the same on one device, on meshes of eight, and in two processes of four.

For every family of models, with all weights and with adapters.

A state that was saved on one device goes on on all others.
"""

import pathlib

import numpy as np
import pytest

from tests.parallel import step_on_mesh
from tests.subprocesses import free_address, start, wait

pytestmark = pytest.mark.long

MODULE = "tests.parallel.step_on_mesh"
OTHERS = ("1x2x4", "1x8x1", "8x1x1")
# On the mesh that splits all axes at once, on which Qwen2.5-VL is in two processes.
RUNS = [
  ("qwen3_vl", "2x2x2"),
  pytest.param("qwen2_5_vl", "2x2x2", marks=pytest.mark.slow),
  pytest.param("qwen2_vl", "2x2x2", marks=pytest.mark.slow),
  *(pytest.param("qwen2_5_vl", mesh, marks=pytest.mark.slow) for mesh in OTHERS),
]
KINDS = ("", "_lora")


@pytest.fixture(scope="module")
def one(tmp_path_factory, request) -> pathlib.Path:
  """The folder in which one device has left a family's results, and its state after one update."""
  folder = tmp_path_factory.mktemp("steps") / request.param
  folder.mkdir()
  wait(start(MODULE, 1, "1x1x1", folder, request.param))
  return folder


@pytest.fixture(scope="module")
def mesh(one, request):
  """The name of a mesh of eight devices, which has left its results in the folder."""
  wait(start(MODULE, 8, request.param, one, one.name))
  return request.param


@pytest.fixture(scope="module")
def two(one):
  address = free_address()
  folder = one / "two"
  folder.mkdir()
  for kind in ("full", "lora"):
    (folder / kind).symlink_to(one / kind)
  wait(*(start(MODULE, 4, "2x2x2", folder, one.name, number, 2, address) for number in range(2)))
  return folder


def assert_same(found: dict[str, np.ndarray], want: dict[str, np.ndarray]) -> None:
  assert found.keys() == want.keys()
  rate = step_on_mesh.OPTIMIZER["learning_rate"]
  for name, value in want.items():
    if name.startswith("metric "):
      np.testing.assert_allclose(found[name], value, rtol=1e-4, atol=1e-6, err_msg=name)
    elif name.startswith("grad"):
      largest = np.abs(value).max()
      assert largest > 0, name
      assert np.abs(found[name] - value).max() <= 1e-5 * largest, name
    elif name.startswith(("first", "second")):
      gradient = np.abs(want["grad" + name.removeprefix("first").removeprefix("second")])
      told = gradient > 1e-3 * gradient.max()
      assert told.any(), name
      assert np.abs(found[name] - value)[told].max() <= 0.01 * rate, name


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("one", "mesh"), RUNS, indirect=True)
def test_eight_devices(one, mesh, kind):
  want = dict(np.load(one / f"1x1x1{kind}_0.npz"))
  assert_same(dict(np.load(one / f"{mesh}{kind}_0.npz")), want)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("one", ["qwen2_5_vl"], indirect=True)
def test_two_processes(one, two, kind):
  want = dict(np.load(one / f"1x1x1{kind}_0.npz"))
  parts = [dict(np.load(two / f"2x2x2{kind}_{number}.npz")) for number in range(2)]
  rows = [set(part.pop("rows").tolist()) for part in parts]
  assert not rows[0] & rows[1]
  assert rows[0] | rows[1] == set(want.pop("rows").tolist())
  for part in parts:
    assert_same(part, want)
