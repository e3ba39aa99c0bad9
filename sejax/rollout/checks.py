"""Startup checks that a configuration fits its model directories; reads no weights and no records.

Without them, a mistake would end the run at the first batch of some shape, drop every record, or
feed a model inputs that it misreads.

All functions raise a ValueError of one line that names the field or file, its value, and what would
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
  """Checks the bucket sizes against the Actor's vision tower and context length.

  Args:
    data: section `config.data`.
    max_tokens: maximum number of tokens of a trajectory.
    model: the Actor's model.
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
  """Returns the longest padded length of the Actor's prompts, in tokens.

  Args:
    data: section `config.data`.
  """
  return next(size for size in data.prompt_buckets if size >= data.prompt_limit)


def check_directory(name: str, model: models.Model, processor: Processor) -> None:
  """Checks that the configuration and the processor of a directory belong to the same model.

  Args:
    name: what to call the directory in messages.
    model: model read from its `config.json`.
    processor: processor read from its other files.
  """
  image_processor, expected = processor.image_processor, model.image_format
  for ours, theirs in (
    ("patch_size", "patch_size"),
    ("temporal_patch_size", "temporal_patch_size"),
    ("merge_size", "spatial_merge_size"),
  ):
    if getattr(image_processor, ours) != expected[theirs]:
      raise ValueError(
        f"{name}: preprocessor_config.json has {ours}={getattr(image_processor, ours)} and"
        f" config.json vision_config.{theirs}={expected[theirs]}; give a directory whose files"
        " belong together"
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


def check_pixel_limits(data: ml_collections.ConfigDict, processor: Processor) -> None:
  """Checks that images can meet the pixel limits and fit into a patch bucket.

  Args:
    data: section `config.data`.
    processor: the Actor's processor, which has these limits.
  """
  image_processor, largest = processor.image_processor, data.patch_buckets[-1]
  if not image_processor.do_resize:
    return
  # The keys are those of Hugging Face's files; the values are areas in pixels.
  min_pixels = image_processor.size["shortest_edge"]
  max_pixels = image_processor.size["longest_edge"]
  most_pixels = largest * image_processor.patch_size**2
  if min_pixels > most_pixels:
    raise ValueError(
      f"config.data.min_pixels={min_pixels} enlarges every picture beyond the {largest} patches, or"
      f" {most_pixels} pixels, at which config.data.patch_buckets end; lower it to {most_pixels},"
      " or add a bucket"
    )
  side = image_processor.patch_size * image_processor.merge_size
  if max_pixels < side**2:
    raise ValueError(
      f"config.data.max_pixels={max_pixels} is less than the smallest picture of {side}x{side}"
      f" pixels; give at least {side**2}"
    )


def check_prompts(
  data: ml_collections.ConfigDict, preparer: Preparer, roles: Roles, *, judged: bool
) -> None:
  """Checks that prompts leave room for a question, and that verdicts fit the Judge's context.

  Args:
    data: section `config.data`.
    judged: whether the run asks the Judge.
  """
  processor, question = preparer.processor, "?"
  actor_prompt = processor.prompt(messages.actor_messages(question, 0, preparer.instruction))
  judge_prompt = processor.prompt(
    messages.judge_messages(
      question,
      0,
      preparer.judge_system,
      include_instruction=preparer.include_instruction,
      instruction=preparer.instruction,
    )
  )
  for who, tokens, field, limit in (
    ("Actor", actor_prompt.ids, "prompt_limit", preparer.prompt_limit),
    ("Judge", judge_prompt.ids, "prompt_buckets", preparer.judge_limit),
  ):
    if len(tokens) > limit:
      raise ValueError(
        f"the {who}'s prompt has {len(tokens)} tokens without any question or picture, more than"
        f" the {limit} of config.data.{field}={quoted(data[field])}; raise it"
      )
  if judged:
    roles.check_lengths(
      data.prompt_buckets[-1], len(processor.tokenize_candidate(judge_prompt.tail, ""))
    )


def check_processes(mesh: Mesh) -> None:
  """Checks that no two processes share the rows of a batch.

  Each process loads its own rows, so devices that hold the same rows must belong to one process.
  """
  shards = mesh.devices.reshape(layouts.row_shards(mesh), -1)
  if any(len({device.process_index for device in shard}) > 1 for shard in shards):
    raise ValueError(
      f"config.mesh.tensor={mesh.shape['tensor']} reaches over devices of several processes; each"
      " brings rows of its own, so tensor can be at most the devices of one"
    )


def check_rows(mesh: Mesh, sizes: Mapping[str, int]) -> None:
  """Checks that the mesh can split every batch evenly over its row shards.

  Args:
    sizes: batch sizes by the name of the field that sets them.
  """
  for name, size in sizes.items():
    layouts.check_rows(mesh, name, size)
