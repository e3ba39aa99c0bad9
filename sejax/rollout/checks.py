"""What a configuration and the directories of its models decide together, checked at start.

No record is looked at. What is refused here would otherwise end the run at the first batch of some
shape, leave no record to train on, or be misread by a model.

All functions raise ValueError, in one line that names the field or file, its value, and what would
work.
"""

import operator

import ml_collections
import numpy as np
from jax.sharding import Mesh

from sejax import models, rollout
from sejax.data.prepare import Preparer
from sejax.errors import quoted, said, shortened
from sejax.models.processor import Processor
from sejax.parallel import layouts
from sejax.text import messages
from sejax.text.messages import Message

# What both roles write and read: scripts, digits, spaces, formulas and typed special tokens.
_PROBE = (
  'Größe 北京 🙂 "it\'s" 1234567 = 1.5e-3\n\n\t<think>a_b</think> <|im_end|> \\boxed{\\frac{1}{2}}'
)


def check_buckets(config: ml_collections.ConfigDict, model: models.Model) -> None:
  """Refuses lengths of arrays that the model cannot take.

  Args:
    config: the run's; `data` and `actor.max_tokens` are used.
    model: the Actor's.
  """
  data, multiple = config.data, model.patch_multiple
  for size in data.patch_buckets:
    if size % multiple:
      whole = -(-size // multiple) * multiple
      raise ValueError(
        f"config.data.patch_buckets={quoted(tuple(data.patch_buckets))} has {size}; the model's"
        f" vision tower takes multiples of {multiple} patches: {whole} would do"
      )
  width, context = prompt_width(data), model.context
  if width + config.actor.max_tokens > context:
    raise ValueError(
      f"prompts of up to config.data.prompt_limit={data.prompt_limit} tokens take arrays of {width}"
      f" (config.data.prompt_buckets), and with config.actor.max_tokens={config.actor.max_tokens}"
      f" that is more than the model's context of {context}; lower one of them"
    )


def prompt_width(data: ml_collections.ConfigDict) -> int:
  """Returns the largest bucket of the Actor's prompts; `data` is the configuration's section."""
  return next(size for size in data.prompt_buckets if size >= data.prompt_limit)


def check_directory(directory: str, model: models.Model, processor: Processor) -> None:
  """Refuses a model's directory whose configuration and processor are not of one model.

  Args:
    directory: named in what is said.
    model: of its `config.json`.
    processor: of its other files.
  """
  pictures, expected = processor.image_processor, model.image_format
  for name, field in (
    ("patch_size", "patch_size"),
    ("temporal_patch_size", "temporal_patch_size"),
    ("merge_size", "spatial_merge_size"),
  ):
    if getattr(pictures, name) != expected[field]:
      raise ValueError(
        f"{shortened(directory)}: preprocessor_config.json has {name}={getattr(pictures, name)} and"
        f" config.json vision_config.{field}={expected[field]}; give a directory whose files"
        " belong together"
      )
  if processor.image_pad_id != model.image_token_id:
    raise ValueError(
      f"{shortened(directory)}: tokenizer.json has <|image_pad|> as {processor.image_pad_id}, and"
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
        f"{shortened(directory)}: {what} as {token}, and config.json"
        f" vocab_size={model.vocab_size}; ids must be below it"
      )


def check_pictures(config: ml_collections.ConfigDict, processor: Processor) -> None:
  """Refuses limits of pixels that no picture meets.

  Args:
    config: the run's; `data` is used.
    processor: the Actor's, with these limits.
  """
  pictures, largest = processor.image_processor, config.data.patch_buckets[-1]
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
  config: ml_collections.ConfigDict, preparer: Preparer, roles: rollout.Roles
) -> None:
  """Refuses prompts that leave no room for a question, and verdicts that do not fit the context.

  Args:
    config: the run's; `data` and `judge` are used.
    preparer: that writes the prompts.
    roles: that read them.
  """
  data, processor, question = config.data, preparer.processor, "?"
  asked = messages.actor_messages(question, 0, preparer.instruction)
  judged = processor.prompt(
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
    ("Judge", judged.ids, "prompt_buckets", preparer.judge_limit),
  ):
    if len(tokens) > limit:
      raise ValueError(
        f"the {who}'s prompt has {len(tokens)} tokens without any question or picture, more than"
        f" the {limit} of config.data.{field}={quoted(data[field])}; raise it"
      )
  if config.judge.use:
    roles.check_lengths(data.prompt_buckets[-1], len(processor.continuation(judged.tail, "")))


def check_judge(
  config: ml_collections.ConfigDict, model: models.Model, judge: models.Model, processor: Processor
) -> None:
  """Refuses a Judge that would not read what it is given: other patches, or other tokens.

  The batch's patches and tokens are made once, by the Actor's processor.

  Args:
    config: the run's; `judge.path` and `data` are used.
    model: the Actor's.
    judge: the Judge's.
    processor: the Actor's.
  """
  directory = f"config.judge.path={quoted(config.judge.path)}"
  for field, ours in model.image_format.items():
    theirs = judge.image_format.get(field)
    if ours != theirs:
      raise ValueError(
        f"{directory} has vision_config.{field}={theirs}, and the Actor {ours}; both read the same"
        " patches, so give a Judge of the same kind"
      )
  own = Processor.load(config.judge.path, config.data.min_pixels, config.data.max_pixels)
  check_directory(directory, judge, own)
  if not np.array_equal(own.pixel_values, processor.pixel_values):
    raise ValueError(
      f"{directory} scales pixels otherwise than the Actor (preprocessor_config.json); both read"
      " the same patches, so give a Judge of the same kind"
    )
  if difference := _other_tokens(processor, own):
    raise ValueError(
      f"{directory} has another tokenizer than the Actor: {difference}; give a Judge with the same"
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


def check_rows(config: ml_collections.ConfigDict, mesh: Mesh) -> None:
  """Refuses batches that the mesh cannot split.

  Raises:
    ValueError: naming the field, its value and what would work.
  """
  layouts.check_rows(mesh, "train.micro_batch_size", config.train.micro_batch_size)
  layouts.check_rows(mesh, "eval.batch_size", config.eval.batch_size)
