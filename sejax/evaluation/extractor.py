"""A language model that extracts answers from responses, for protocols that use one."""

import dataclasses
from collections.abc import Sequence

import jax
import ml_collections
import numpy as np
from jaxtyping import Int32

from sejax import rollout
from sejax.data import batches
from sejax.parallel import hosts
from sejax.sampling import Filters, Options, Request, Role, Sampler, record_hashes

_NEW_TOKENS = 128  # an extracted answer is short
_MIN_WIDTH = 256  # tokens; shorter prompts are padded to it


class Extractor:
  """A `protocol.Model` that runs a text model from a directory on sejax's sampler.

  A reply depends on its prompt, the temperature and the seed, not on the other prompts of a batch.
  """

  def __init__(
    self,
    name: str,
    model_directory: rollout.ModelDirectory,
    sampling: ml_collections.ConfigDict,
    *,
    batch_size: int,
    seed: int,
  ):
    """Loads the weights.

    Args:
      name: of the model, as results give it: a directory or a name on the hub.
      sampling: the configuration's section.
      batch_size: prompts sampled together, over all processes.

    Raises:
      ValueError: the model cannot be loaded, or an option cannot work with it.
    """
    self.name = name
    self._seed, self._batch_size = seed, batch_size
    self._processor = model_directory.processor
    self._params = model_directory.load(decoding=True)
    self._mesh, self._dtype = model_directory.mesh, model_directory.compute.dtype
    self._model = model_directory.compute.on_devices(model_directory.model, model_directory.mesh)
    self._options = Options(
      trajectories=1,
      max_new_tokens=_NEW_TOKENS,
      decode_steps=sampling.decode_steps,
      pack=sampling.pack,
    )
    self._samplers: dict[float, Sampler] = {}

  def __call__(self, prompts: Sequence[str], temperature: float) -> list[str]:
    """Samples a reply to each prompt. All processes must call it with the same prompts.

    Args:
      prompts: user messages, one for each reply.
      temperature: sampling temperature; 0 is greedy.
    """
    sampler = self._sampler(temperature)
    local = self._batch_size // jax.process_count()
    own = slice(jax.process_index() * local, (jax.process_index() + 1) * local)
    replies: list[str] = []
    for start in range(0, len(prompts), self._batch_size):
      batch = prompts[start : start + self._batch_size]
      tokens = [self._tokens(prompt) for prompt in batch]
      request = self._request(batch[own], tokens[own], local, _width(tokens))
      result = sampler(self._params, request, seed=self._seed, step=0, role=Role.EXTRACTOR)
      texts = [
        self._processor.decode(rows[0, : lengths[0]])
        for rows, lengths in zip(result.tokens, result.lengths, strict=True)
      ]
      for process_texts in hosts.gather_json(texts[: len(batch[own])]):
        replies += process_texts
    return replies

  def _sampler(self, temperature: float) -> Sampler:
    """Returns the sampler of a temperature; each compiles its own program."""
    if temperature not in self._samplers:
      options = dataclasses.replace(self._options, filters=Filters(temperature))
      options = rollout.with_tokens(options, self._processor, self._model)
      self._samplers[temperature] = Sampler(self._model, options, self._mesh, self._dtype)
    return self._samplers[temperature]

  def _tokens(self, prompt: str) -> Int32[np.ndarray, " P"]:
    content = [{"type": "text", "text": prompt}]  # so that <image> in the text is not a placeholder
    return self._processor.prompt([{"role": "user", "content": content}]).ids

  def _request(
    self, prompts: Sequence[str], tokens: Sequence[Int32[np.ndarray, " P"]], rows: int, width: int
  ) -> Request:
    """Returns this process's rows of a request; padding rows have a limit of 0 tokens."""
    empty = rows - len(prompts)
    padding = np.full(1, self._processor.pad_id, np.int32)
    no_images = [np.zeros((0, 3), np.int32)] * rows
    prompt = batches.padded_prompts(
      model=self._model,
      tokens=[*tokens, *[padding] * empty],
      grids=no_images,
      size=width,
      pad_id=self._processor.pad_id,
    )
    limits = np.array([[_NEW_TOKENS]] * len(prompts) + [[0]] * empty, np.int32)
    return Request(prompt, record_hashes("extractor", [*prompts, *[""] * empty]), limits=limits)


def _width(tokens: Sequence[Int32[np.ndarray, " P"]]) -> int:
  """Rounds the length of the longest prompt up to a power of two, so that few shapes compile."""
  return max(_MIN_WIDTH, 1 << (max(map(len, tokens)) - 1).bit_length())
