"""Restores a checkpoint of an older version on eight devices.

Started by `test_checkpoints`.
"""

import pathlib
import sys

from sejax import config as config_lib
from sejax.parallel import meshes
from tests.learner import test_checkpoints

for shape in ((2, 2, 2), (1, 2, 4), (1, 1, 8)):
  mesh = meshes.create(dict(zip(meshes.AXES, shape, strict=True)))
  directory = pathlib.Path(sys.argv[1]) / "x".join(map(str, shape))
  test_checkpoints.check_fused_is_restored(directory, config_lib.default().checkpoint, mesh)
