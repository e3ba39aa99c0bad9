"""What a configuration and the directories of its models decide together, checked at start.

No record is looked at. What is refused here would otherwise end the run at the first batch of some
shape, leave no record to train on, or be misread by a model.

All functions raise ValueError, in one line that names the field or file, its value, and what would
work.
"""

import operator
from collections.abc import Mapping

import ml_collections
from jax.sharding import Mesh

from sejax import models
from sejax.data.prepare import Preparer
from sejax.errors import quoted
from sejax.models.processor import Processor
from sejax.parallel import layouts
from sejax.rollout.roles import Roles
from sejax.text import messages


def check_buckets(data: ml_collections.ConfigDict, max_tokens: int, model: models.Model) -> None:
  """Refuses lengths of arrays that the model cannot take.

  Args:
    data: the configuration's section.
    max_tokens: of a trajectory.
    model: the Actor's.
  """
  multiple = model.patch_multiple
  for size in data.patch_buckets:
    if size % multiple:
      whole = -(-size // multiple) * multiple
      raise ValueError(
        f"config.data.patch_buckets={quoted(tuple(data.patch_buckets))} has {size}; the model's"
        f" vision tower takes multiples of {multiple} patches: {whole} would do"
      )
  width, context = prompt_width(data), model.context
  if width + max_tokens > context:
    raise ValueError(
      f"prompts of up to config.data.prompt_limit={data.prompt_limit} tokens take arrays of {width}"
      f" (config.data.prompt_buckets), and with config.actor.max_tokens={max_tokens}"
      f" that is more than the model's context of {context}; lower one of them"
    )


def prompt_width(data: ml_collections.ConfigDict) -> int:
  """Returns the largest bucket of the Actor's prompts; `data` is the configuration's section."""
  return next(size for size in data.prompt_buckets if size >= data.prompt_limit)


def check_directory(name: str, model: models.Model, processor: Processor) -> None:
  """Refuses a model's directory whose configuration and processor are not of one model.

  Args:
    name: of the directory, at a readable length.
    model: of its `config.json`.
    processor: of its other files.
  """
  pictures, expected = processor.image_processor, model.image_format
  for ours, theirs in (
    ("patch_size", "patch_size"),
    ("temporal_patch_size", "temporal_patch_size"),
    ("merge_size", "spatial_merge_size"),
  ):
    if getattr(pictures, ours) != expected[theirs]:
      raise ValueError(
        f"{name}: preprocessor_config.json has {ours}={getattr(pictures, ours)} and config.json"
        f" vision_config.{theirs}={expected[theirs]}; give a directory whose files belong together"
      )
  if processor.image_pad_id != model.image_token_id:
    raise ValueError(
      f"{name}: tokenizer.json has <|image_pad|> as {processor.image_pad_id}, and"
      f" config.json image_token_id={model.image_token_id}; give a directory whose files belong"
      " together"
    )
  vocabulary = processor.tokenizer.get_vocab()
  last = max(vocabulary.items(), key=operator.itemgetter(1))
  ids = [
    (f"tokenizer.json has {quoted(last[0])}", last[1]),
    ("it pads with a token", processor.pad_id),
  ]
  ids += [("a response ends with a token", token) for token in processor.eos_ids]
  for what, token in ids:
    if not 0 <= token < model.vocab_size:
      raise ValueError(
        f"{name}: {what} as {token}, and config.json"
        f" vocab_size={model.vocab_size}; ids must be below it"
      )


def check_pictures(data: ml_collections.ConfigDict, processor: Processor) -> None:
  """Refuses limits of pixels that no picture meets.

  Args:
    data: the configuration's section.
    processor: the Actor's, with these limits.
  """
  pictures, largest = processor.image_processor, data.patch_buckets[-1]
  least, most = pictures.size["shortest_edge"], pictures.size["longest_edge"]
  if not pictures.do_resize:
    return
  if least > (held := largest * pictures.patch_size**2):
    raise ValueError(
      f"config.data.min_pixels={least} enlarges every picture beyond the {largest} patches, or"
      f" {held} pixels, at which config.data.patch_buckets end; lower it to {held}, or add a bucket"
    )
  side = pictures.patch_size * pictures.merge_size
  if most < side**2:
    raise ValueError(
      f"config.data.max_pixels={most} is less than the smallest picture of {side}x{side} pixels;"
      f" give at least {side**2}"
    )


def check_prompts(
  data: ml_collections.ConfigDict, preparer: Preparer, roles: Roles, *, judged: bool
) -> None:
  """Refuses prompts that leave no room for a question, and verdicts that do not fit the context.

  Args:
    data: the configuration's section.
    preparer: writes the prompts.
    roles: read them.
    judged: whether the Judge is asked.
  """
  processor, question = preparer.processor, "?"
  asked = messages.actor_messages(question, 0, preparer.instruction)
  prompt = processor.prompt(
    messages.judge_messages(
      question,
      0,
      preparer.judge_system,
      include_instruction=preparer.include_instruction,
      instruction=preparer.instruction,
    )
  )
  for who, tokens, field, limit in (
    ("Actor", processor.prompt(asked).ids, "prompt_limit", preparer.prompt_limit),
    ("Judge", prompt.ids, "prompt_buckets", preparer.judge_limit),
  ):
    if len(tokens) > limit:
      raise ValueError(
        f"the {who}'s prompt has {len(tokens)} tokens without any question or picture, more than"
        f" the {limit} of config.data.{field}={quoted(data[field])}; raise it"
      )
  if judged:
    roles.check_lengths(data.prompt_buckets[-1], len(processor.continuation(prompt.tail, "")))


def check_processes(mesh: Mesh) -> None:
  """Refuses a mesh on which processes would share the rows of a batch.

  Each process brings rows of its own, so devices that hold the same rows must be of one process.
  """
  shards = mesh.devices.reshape(layouts.row_shards(mesh), -1)
  if any(len({device.process_index for device in shard}) > 1 for shard in shards):
    raise ValueError(
      f"config.mesh.tensor={mesh.shape['tensor']} reaches over devices of several processes; each"
      " brings rows of its own, so tensor can be at most the devices of one"
    )


def check_rows(mesh: Mesh, sizes: Mapping[str, int]) -> None:
  """Refuses batches that the mesh cannot split.

  Args:
    mesh: of the run.
    sizes: of the batches, by the fields that give them.
  """
  for name, size in sizes.items():
    layouts.check_rows(mesh, name, size)
