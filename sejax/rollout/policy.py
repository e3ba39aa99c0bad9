"""Opens a policy: the model of a directory with its processor, weights and samplers, all checked.

Everything that samples begins here: a training run and its Judge, a question of one's own, the
model of a benchmark, the extractor of answers, and measurements.
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
from sejax.errors import quoted, said
from sejax.models.processor import Processor
from sejax.rollout import checks
from sejax.rollout.roles import RoleOptions, Roles
from sejax.text.messages import Message

# What both roles write and read: scripts, digits, spaces, formulas and typed special tokens.
_PROBE = (
  'Größe 北京 🙂 "it\'s" 1234567 = 1.5e-3\n\n\t<think>a_b</think> <|im_end|> \\boxed{\\frac{1}{2}}'
)


@dataclasses.dataclass(frozen=True, kw_only=True)
class Compute:
  """Precision and kernels of models that sample, and of weights that are not trained.

  Attributes:
    dtype: of frozen weights, and of the sampler's copy of trained ones.
    fused_attention: whether cuDNN's attention is used on GPUs that have it.
    layered_cache: whether each layer's KV cache is an array of its own; None: on GPUs.
  """

  dtype: jnp.dtype
  fused_attention: bool
  layered_cache: bool | None

  def on_devices(self, model: models.Model, mesh: Mesh | None) -> models.Model:
    """Returns the model as the devices of a mesh compute it.

    Args:
      model: of any role.
      mesh: of the devices, which may be ones to compile for; the first device, if None.
    """
    device = jax.local_devices()[0] if mesh is None else mesh.devices.flat[0]
    return model.for_device(
      device, fused_attention=self.fused_attention, layered_cache=self.layered_cache
    )


@dataclasses.dataclass(frozen=True, kw_only=True)
class Policy:
  """A model directory on the devices of a mesh.

  `open` reads `config.json` alone, `processor` the tokenizer and the image processor, and `load`
  the weights, which take minutes: what is wrong is said as early as it can be known.

  Attributes:
    field: of the configuration, that names the directory in messages: `model.path`.
    directory: of the model; on this machine.
    model: of its `config.json`.
    mesh: the devices.
    compute: how they compute it.
    min_pixels: of the image processor; None uses the directory's value.
    max_pixels: likewise.
  """

  field: str
  directory: str
  model: models.Model
  mesh: Mesh
  compute: Compute
  min_pixels: int | None
  max_pixels: int | None

  @classmethod
  def open(
    cls,
    field: str,
    directory: str,
    mesh: Mesh,
    compute: Compute,
    *,
    min_pixels: int | None = None,
    max_pixels: int | None = None,
  ) -> Self:
    """Reads the model's configuration; see the class for the arguments.

    Raises:
      ValueError: the directory holds no model that is known, or processes would share rows.
    """
    checks.check_processes(mesh)
    return cls(
      field=field,
      directory=directory,
      model=models.load_config(directory),
      mesh=mesh,
      compute=compute,
      min_pixels=min_pixels,
      max_pixels=max_pixels,
    )

  @property
  def name(self) -> str:
    """The directory with the field that names it, for messages."""
    return f"config.{self.field}={quoted(self.directory)}"

  @functools.cached_property
  def processor(self) -> Processor:
    """The directory's processor.

    Raises:
      ValueError: it cannot be read, or is of another model than `config.json`.
    """
    processor = prepare.load_processor(self.directory, self.min_pixels, self.max_pixels)
    checks.check_directory(self.name, self.model, processor)
    return processor

  def load(self, *, dtype: DTypeLike | None = None, decoding: bool = False) -> models.Params:
    """Reads the weights onto the mesh, after the processor has been checked.

    Args:
      dtype: of all arrays; that of `compute`, if None.
      decoding: lay arrays out for decoding, not for training.

    Raises:
      ValueError: as `models.load` and `processor`.
    """
    _ = self.processor
    dtype = self.compute.dtype if dtype is None else dtype
    _, params = models.load(self.directory, self.mesh, dtype, decoding=decoding)
    return params

  def roles(self, options: RoleOptions, judge: models.Model | None = None) -> Roles:
    """Returns samplers of Actor and Judge.

    Args:
      options: how they sample.
      judge: the Judge's model; this one, if None.
    """
    actor, judge = (
      self.compute.on_devices(model, self.mesh) for model in (self.model, judge or self.model)
    )
    return Roles.create(
      options,
      self.processor,
      actor=actor,
      judge=judge,
      mesh=self.mesh,
      dtype=self.compute.dtype,
    )


def check_judge(actor: Policy, judge: Policy) -> None:
  """Refuses a Judge that would not read what it is given: other patches, or other tokens.

  The batch's patches and tokens are made once, by the Actor's processor.

  Raises:
    ValueError: naming the Judge's directory and what differs.
  """
  for field, ours in actor.model.image_format.items():
    theirs = judge.model.image_format.get(field)
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
  if difference := _other_tokens(actor.processor, judge.processor):
    raise ValueError(
      f"{judge.name} has another tokenizer than the Actor: {difference}; give a Judge with the same"
    )


def _other_tokens(actor: Processor, judge: Processor) -> str:
  """Says how a Judge's tokens differ from the Actor's; empty where they do not."""
  ours, theirs = (processor.tokenizer.get_vocab() for processor in (actor, judge))
  if len(ours) != len(theirs):
    return f"{len(theirs)} tokens, not {len(ours)}"
  if others := [token for token, number in ours.items() if theirs.get(token) != number]:
    token = min(others, key=ours.get)
    return f"{quoted(token)} is {theirs.get(token)}, not {ours[token]}"
  # What ends the Judge's verdicts must be drawn, and end them, by the Actor's processor.
  if unknown := sorted(set(judge.eos_ids) - set(actor.eos_ids)):
    return f"{unknown[0]} ends its responses, not {sorted(actor.eos_ids)}"
  try:
    chats = [_probe(processor) for processor in (actor, judge)]
  except Exception as error:  # A chat template is a program.
    return f"its chat template fails: {said(error)}"
  if chats[0] != chats[1]:
    return "the same chat gives other tokens"
  return ""


def _probe(processor: Processor) -> list[int]:
  """Returns the tokens of a Judge's chat with an image and a candidate."""
  side = 2 * processor.image_processor.merge_size
  content: list[Message] = [{"type": "image"}, {"type": "text", "text": _PROBE}]
  content += [{"type": "candidate"}, {"type": "text", "text": _PROBE}]
  chat = [{"role": "system", "content": _PROBE}, {"role": "user", "content": content}]
  prompt = processor.prompt(chat, [(1, side, side)])
  return [*prompt.ids.tolist(), *processor.continuation(prompt.tail, _PROBE).tolist()]
