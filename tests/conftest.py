"""What tests of several folders share."""

import pytest

from sejax.text.equivalence import Prover


@pytest.fixture(scope="session")
def prover():
  """Grades; its processes are started once, at the first question that needs one."""
  with Prover(workers=2) as shared:
    yield shared
