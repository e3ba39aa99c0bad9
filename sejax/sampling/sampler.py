"""The sampler: generates G sequences for each of B prompts with continuous batching.

Each prompt is read once and shared by its sequences. All running sequences are decoded together,
for up to `decode_steps` tokens at a time: a decode run. Meanwhile the KV cache is only read; what
is new is kept beside it, and written to pages at the end of the run. Between two runs the host
reads which sequences have ended, gives their rows and pages to others, and makes batch and KV cache
smaller when none are left. Their sizes come from a short list, so that few programs are compiled.

Axes: B prompts of this process, G sequences of a group, R new tokens.
"""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import DTypeLike

from sejax import models
from sejax.parallel import hosts, layouts
from sejax.parallel.programs import ProgramCache, compile_threads
from sejax.sampling import keys
from sejax.sampling.loop import SamplingLoop
from sejax.sampling.programs import SamplerPrograms
from sejax.sampling.request import Options, Request, check
from sejax.sampling.result import Result, StopStrings, Watch


class Sampler:
  """Samples from one model; keeps its compiled programs between calls.

  Attributes:
    programs: the sampler's device programs.
    compiled: cache of programs compiled ahead of time, with their count and seconds; `encode` does
      not use it.
  """

  def __init__(
    self,
    model: models.Model,
    options: Options,
    mesh: Mesh | None = None,
    dtype: DTypeLike = jnp.float32,
  ):
    """Creates a sampler and checks its options; nothing is compiled yet.

    Args:
      mesh: mesh with any of the axes data, fsdp and tensor; None is the first device.
      dtype: precision of weights and KV cache.

    Raises:
      ValueError: an option cannot work; the message names it, its value and what would work.
    """
    self.options, self.dtype = options, dtype
    self.mesh = mesh or Mesh(np.array(jax.local_devices()[:1]), ("data",))
    self.model = dataclasses.replace(model, rows=layouts.row_sharding(self.mesh))
    self.programs = SamplerPrograms(self.model, options, self.mesh, dtype)
    self.compiled = ProgramCache(compile_threads(options.compile_threads, self.mesh, guesses=True))
    self._shards = layouts.row_shards(self.mesh)
    vocabulary = model.vocab_size
    options.filters.check(vocabulary)
    if outside := [i for i in options.eos_ids if not 0 <= i < vocabulary]:
      raise ValueError(
        f"options.eos_ids holds {outside[0]}; ids run from 0 to vocab_size - 1 = {vocabulary - 1}"
      )
    rows = options.max_concurrent_rows
    if rows is not None and rows < self._shards:
      raise ValueError(
        f"options.max_concurrent_rows is {rows}; the mesh splits rows into {self._shards} shards,"
        " and each decodes at least one"
      )

  def encode(self, params: models.Params, images: models.Images) -> models.Features:
    """Returns the features of this process's images, on the mesh.

    Args:
      params: parameter tree, in any layout and precision.
    """
    images = jax.tree.map(lambda x: hosts.shard_rows(self.mesh, x), images)
    return self.programs.encode(self.model.vision_params(params), images)

  def __call__(
    self,
    params: models.Params,
    request: Request,
    *,
    seed: int,
    step: int,
    role: keys.Role,
    stop: StopStrings | None = None,
    watch: Watch | None = None,
  ) -> Result:
    """Samples G sequences for each prompt.

    Every process must call it, each with its own prompts. Seed, step, role and record decide the
    samples of a prompt, whatever batch it is in, see `keys`.

    Args:
      params: parameter tree, in any layout and precision.
      seed: seed of the training run, from 0 to 2**32 - 1.
      step: step of the training run.
      stop: strings that end a sequence; checked at each host synchronisation.
      watch: called while each decode run is under way, with what those before it have sampled, and
        once at the end. It may send other work to the devices, the same on every process.

    Raises:
      ValueError: seed or request cannot work; the message names the field, its value and what would
        work. Nothing was compiled then.
    """
    if not 0 <= seed < 2**32:
      raise ValueError(f"seed is {seed}; it must be from 0 to 2**32 - 1")
    check(request, self.options, self.model, self.mesh)
    loop = SamplingLoop(
      programs=self.programs,
      compiled=self.compiled,
      params=params,
      request=request,
      seed=seed,
      step=step,
      role=role,
      stop=stop,
      watch=watch,
    )
    while not loop.is_done():
      loop.run_step()
    return loop.result()
