"""Opens a model directory: its processor, its weights, and samplers for it.

All code that samples starts here: training and its Judge, `--mode=sample`, benchmarks, the answer
extractor, and the experiments.
"""

import dataclasses
import functools
from typing import Self

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import DTypeLike

from sejax import models
from sejax.data import prepare
from sejax.errors import one_line, quoted
from sejax.models.processor import Processor
from sejax.rollout import checks
from sejax.rollout.roles import RoleOptions, Roles
from sejax.text.messages import Message

# Text on which two tokenizers are compared: scripts, digits, spaces, formulas and the names of
# special tokens, typed as text.
_PROBE = (
  'Größe 北京 🙂 "it\'s" 1234567 = 1.5e-3\n\n\t<think>a_b</think> <|im_end|> \\boxed{\\frac{1}{2}}'
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compute:
  """Precision and kernels of all computation of a model, and precision of frozen weights.

  Attributes:
    dtype: precision of frozen weights, and of the sampler's copy of trained weights.
    fused_attention: whether to use cuDNN's attention on GPUs that have it.
    layered_cache: see `ModelConfig`; None: except on TPUs.
  """

  dtype: jnp.dtype
  fused_attention: bool
  layered_cache: bool | None

  def on_devices(self, model: models.Model, mesh: Mesh | None) -> models.Model:
    """Returns the model with the kernels and cache layout for the devices of a mesh.

    Args:
      mesh: may consist of topology devices that are not attached (ahead-of-time compilation); None
        is the first local device.
    """
    device = jax.local_devices()[0] if mesh is None else mesh.devices.flat[0]
    return model.for_device(
      device, fused_attention=self.fused_attention, layered_cache=self.layered_cache
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class ModelDirectory:
  """A model directory on the devices of a mesh.

  Reads in three stages, so that a mistake is reported before the weights are read, which takes
  minutes: `open` reads only `config.json`, `processor` the tokenizer and the image processor, and
  `load` the weights.

  Attributes:
    field: the field that names the directory, for messages, such as `model.path`.
    path: path of the local directory.
    model: model read from its `config.json`.
    mesh: mesh for weights and sampling.
    compute: precision and kernels for sampling.
    min_pixels: smallest area of an image; smaller ones are enlarged. None uses the directory's.
    max_pixels: largest area of an image; larger ones are reduced. None uses the directory's.
  """

  field: str
  path: str
  model: models.Model
  mesh: Mesh
  compute: Compute
  min_pixels: int | None
  max_pixels: int | None

  @classmethod
  def open(
    cls,
    field: str,
    path: str,
    mesh: Mesh,
    compute: Compute,
    *,
    min_pixels: int | None = None,
    max_pixels: int | None = None,
  ) -> Self:
    """Reads the model's configuration; see the class attributes for the arguments.

    Raises:
      ValueError: the directory holds no supported model, or processes would share rows.
    """
    checks.check_processes(mesh)
    return cls(
      field=field,
      path=path,
      model=models.load_config(path),
      mesh=mesh,
      compute=compute,
      min_pixels=min_pixels,
      max_pixels=max_pixels,
    )

  @property
  def name(self) -> str:
    """The field and its directory, as messages name it."""
    return f"config.{self.field}={quoted(self.path)}"

  @functools.cached_property
  def processor(self) -> Processor:
    """The directory's processor, read at first use.

    Raises:
      ValueError: it cannot be read, or belongs to another model than `config.json`.
    """
    processor = prepare.load_processor(self.path, self.min_pixels, self.max_pixels)
    checks.check_directory(self.name, self.model, processor)
    return processor

  def load(self, *, dtype: DTypeLike | None = None, decoding: bool = False) -> models.Params:
    """Reads the weights onto the mesh, in the layout for training or for decoding.

    Args:
      dtype: precision of all arrays; None is `compute.dtype`.
      decoding: whether to use the layout for decoding.

    Raises:
      ValueError: as `models.load` and `processor`.
    """
    _ = self.processor  # So that a wrong processor is reported before minutes of reading.
    dtype = self.compute.dtype if dtype is None else dtype
    _, params = models.load(self.path, self.mesh, dtype, decoding=decoding)
    return params

  def roles(self, options: RoleOptions, judge: models.Model | None = None) -> Roles:
    """Returns samplers for Actor and Judge; the Actor samples from this directory's model.

    Args:
      judge: the Judge's model; None is the same model.
    """
    return Roles.create(
      options,
      self.processor,
      actor=self.compute.on_devices(self.model, self.mesh),
      judge=self.compute.on_devices(judge or self.model, self.mesh),
      mesh=self.mesh,
      dtype=self.compute.dtype,
    )


def check_judge(actor: ModelDirectory, judge: ModelDirectory) -> None:
  """Checks that the Judge takes the same image patches and tokens as the Actor.

  Both roles read patches and tokens made by the Actor's processor.

  Raises:
    ValueError: they differ; the message names the Judge's directory and the difference.
  """
  formats = actor.model.image_format, judge.model.image_format
  for field in formats[0] | formats[1]:  # Those of another family may have more fields, or fewer.
    ours, theirs = (image_format.get(field) for image_format in formats)
    if ours != theirs:
      raise ValueError(
        f"{judge.name} has vision_config.{field}={theirs}, and the Actor {ours}; both read the same"
        " patches, so give a Judge of the same kind"
      )
  if not np.array_equal(judge.processor.pixel_values, actor.processor.pixel_values):
    raise ValueError(
      f"{judge.name} scales pixels otherwise than the Actor (preprocessor_config.json); both read"
      " the same patches, so give a Judge of the same kind"
    )
  if difference := _tokenizer_difference(actor.processor, judge.processor):
    raise ValueError(
      f"{judge.name} has another tokenizer than the Actor: {difference}; give a Judge with the same"
    )


def _tokenizer_difference(actor: Processor, judge: Processor) -> str:
  """Describes how the Judge's tokens differ from the Actor's; empty if they are the same."""
  ours, theirs = (processor.tokenizer.get_vocab() for processor in (actor, judge))
  if len(ours) != len(theirs):
    return f"{len(theirs)} tokens, not {len(ours)}"
  if others := [token for token, number in ours.items() if theirs.get(token) != number]:
    token = min(others, key=ours.get)
    return f"{quoted(token)} is {theirs.get(token)}, not {ours[token]}"
  # Verdicts are sampled with the Actor's EOS ids, so these must include the Judge's.
  if unknown := sorted(set(judge.eos_ids) - set(actor.eos_ids)):
    return f"{unknown[0]} ends its responses, not {sorted(actor.eos_ids)}"
  try:
    chats = [_tokenize_probe(processor) for processor in (actor, judge)]
  except Exception as error:  # A chat template is a program and may raise anything.
    return f"its chat template fails: {one_line(error)}"
  if chats[0] != chats[1]:
    return "the same chat gives other tokens"
  return ""


def _tokenize_probe(processor: Processor) -> list[int]:
  """Returns the token ids of an example chat with the Judge, with an image and a candidate."""
  side = 2 * processor.image_processor.merge_size
  content: list[Message] = [{"type": "image"}, {"type": "text", "text": _PROBE}]
  content += [{"type": "candidate"}, {"type": "text", "text": _PROBE}]
  chat = [{"role": "system", "content": _PROBE}, {"role": "user", "content": content}]
  prompt = processor.prompt(chat, [(1, side, side)])
  return [*prompt.ids.tolist(), *processor.tokenize_candidate(prompt.tail, _PROBE).tolist()]
