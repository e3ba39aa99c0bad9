"""`--mode=compile --warm`: fills a workdir's compilation cache with a step's programs.

They are compiled for the devices that are here, in the largest shapes of every bucket, from shapes
alone: no weights are read. A run in the workdir then loads them.
"""

import dataclasses
import itertools
from collections.abc import Iterator

import jax
import tqdm
from jax.sharding import Mesh

from sejax import models
from sejax.parallel.programs import ProgramCache, ProgramCall, compile_threads
from sejax.planning import programs
from sejax.rollout import checks


def run(step: programs.Step, model: models.Model, mesh: Mesh) -> int:
  """Compiles the programs of a step, and returns how many there are.

  Args:
    step: with roles that fit the devices' memory.
    model: as its directory describes it.
    mesh: of devices that are here.

  Raises:
    ValueError: the mesh, a bucket or an option of the configuration cannot work.
  """
  cache = ProgramCache(compile_threads(step.roles.actor.compile_threads, mesh))
  calls = list(_calls(step, model, mesh))
  for call in calls:
    cache.ahead.submit(call.program, *call.args)
  for call in tqdm.tqdm(calls, "compiling", delay=1, disable=jax.process_index() > 0):
    cache.add(call.program, *call.args)
  return cache.count


def _calls(step: programs.Step, model: models.Model, mesh: Mesh) -> Iterator[ProgramCall]:
  """Yields the calls of a step with every combination of a prompt and a patch bucket."""
  data = step.data
  widest = checks.prompt_width(data)
  for prompts, patches in itertools.product(data.prompt_buckets, data.patch_buckets):
    only = data.copy_and_resolve_references()
    only.prompt_buckets, only.patch_buckets = (prompts,), (patches,)
    only.prompt_limit = min(data.prompt_limit, prompts)
    # Where only the Judge's prompts are as long, the Actor's programs are none that a run calls.
    for call in programs.of_step(dataclasses.replace(step, data=only), model, mesh):
      if prompts <= widest or call.name.startswith("judge "):
        yield call
