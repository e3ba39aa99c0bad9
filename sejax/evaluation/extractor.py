"""A language model that reads answers out of responses, where a protocol asks for one."""

import dataclasses
from collections.abc import Sequence

import jax
import ml_collections
import numpy as np
from jaxtyping import Int32

from sejax import models, rollout
from sejax.data import batches
from sejax.models import hub
from sejax.models.processor import Processor
from sejax.parallel import hosts, layouts, meshes
from sejax.rollout import checks
from sejax.sampling import Filters, Options, Request, Role, Sampler, record_hashes

_NEW_TOKENS = 128  # An answer is short.
_LEAST_WIDTH = 256


class Extractor:
  """A model directory as a `protocol.Model`: text in, text out, by our own sampler.

  A reply depends on its prompt, the temperature and the seed, not on what is asked beside it.
  """

  def __init__(self, config: ml_collections.ConfigDict):
    """Loads the model.

    Args:
      config: of the run; `eval.extractor`, a directory or a hub name, `eval.batch_size`, `mesh`,
        `model.dtype`, `sampling` and `seed` are used.

    Raises:
      ValueError: naming what cannot work.
    """
    self.name = config.eval.extractor
    directory = hub.local(self.name)
    self._seed, self._size = config.seed, config.eval.batch_size
    self._mesh, self._dtype = meshes.create(config.mesh), rollout.frozen_dtype(config)
    layouts.check_rows(self._mesh, "eval.batch_size", self._size)
    self._processor = Processor.load(directory)
    checks.check_processes(self._mesh)
    checks.check_directory(directory, models.load_config(directory), self._processor)
    model, self._params = models.load(directory, self._mesh, self._dtype, decoding=True)
    self._model = rollout.on_devices(config, model, self._mesh)
    self._options = Options(
      trajectories=1,
      new_tokens=_NEW_TOKENS,
      eos_ids=self._processor.eos_ids,
      pad_id=self._processor.pad_id,
      max_concurrent_prompts=config.sampling.max_concurrent_prompts,
      decode_steps=config.sampling.decode_steps,
      pack=config.sampling.pack,
    )
    self._samplers: dict[float, Sampler] = {}

  def __call__(self, prompts: Sequence[str], temperature: float) -> list[str]:
    """Returns a reply to each prompt; every process calls it with the same ones.

    Args:
      prompts: texts of a user's turn each.
      temperature: of sampling; 0: the most likely token.
    """
    sampler = self._sampler(temperature)
    local = self._size // jax.process_count()
    replies: list[str] = []
    for start in range(0, len(prompts), self._size):
      part = prompts[start : start + self._size]
      tokens = [self._tokens(prompt) for prompt in part]
      here = slice(jax.process_index() * local, (jax.process_index() + 1) * local)
      request = self._request(part[here], tokens[here], local, _width(tokens))
      result = sampler(self._params, request, seed=self._seed, step=0, role=Role.EVALUATION)
      texts = [
        self._processor.decode(rows[0, : lengths[0]])
        for rows, lengths in zip(result.tokens, result.lengths, strict=True)
      ]
      replies += [text for texts in hosts.gather_json(texts[: len(part[here])]) for text in texts]
    return replies

  def _sampler(self, temperature: float) -> Sampler:
    if temperature not in self._samplers:
      banned = tuple(self._processor.banned_ids(self._model.vocab_size).tolist())
      filters = Filters(temperature, banned=banned)
      options = dataclasses.replace(self._options, filters=filters)
      self._samplers[temperature] = Sampler(self._model, options, self._mesh, self._dtype)
    return self._samplers[temperature]

  def _tokens(self, prompt: str) -> Int32[np.ndarray, " P"]:
    content = [{"type": "text", "text": prompt}]  # literally, should it say <image>
    return self._processor.prompt([{"role": "user", "content": content}]).ids

  def _request(
    self, prompts: Sequence[str], tokens: Sequence[Int32[np.ndarray, " P"]], rows: int, width: int
  ) -> Request:
    """Returns this process's rows; those that only pad draw nothing."""
    empty = rows - len(prompts)
    padding = np.full(1, self._processor.pad_id, np.int32)
    no_images = [np.zeros((0, 3), np.int32)] * rows
    prompt = batches.padded_prompts(
      self._model, [*tokens, *[padding] * empty], no_images, width, self._processor.pad_id
    )
    limits = np.array([[_NEW_TOKENS]] * len(prompts) + [[0]] * empty, np.int32)
    return Request(prompt, record_hashes("extractor", [*prompts, *[""] * empty]), limits=limits)


def _width(tokens: Sequence[Int32[np.ndarray, " P"]]) -> int:
  """Returns a power of two that holds all, so that few shapes are compiled."""
  return max(_LEAST_WIDTH, 1 << (max(map(len, tokens)) - 1).bit_length())
