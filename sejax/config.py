"""The run's configuration: every option with its default; `sejax.validation` checks the values.

`configs/*.py` start from `default()` and change what their run changes. The defaults are the
released run's values where it has one (arXiv:2603.21289); where sejax by default does better than
the released code, the comment names the value that gives its behaviour. The README lists options by
the paper's symbols.
"""

import dataclasses
import functools
import inspect
import itertools
import json
import pathlib
import re
from collections.abc import Callable
from typing import Any

import jax
import ml_collections
from ml_collections import config_dict

from sejax import lora, method
from sejax import workdir as workdir_lib
from sejax.data import figures
from sejax.quoting import quoted
from sejax.text import prompts

# What to do where a device cannot hold weights and moments, and where memory runs out later.
FEWER_WEIGHTS = (
  "train adapters (config.lora.rank=64) or split the weights over more devices (config.mesh.fsdp)"
)
LESS_MEMORY = (
  "lower config.train.micro_batch_size, config.sampling.groups, config.model.query_chunk or"
  f" config.model.logits_chunk, {FEWER_WEIGHTS}"
)

# What there is of a run that has begun; one that was refused left its configuration alone.
_MADE = ("metrics.jsonl", "checkpoints/[0-9]*", "*/problems.jsonl")


class ConfigError(ValueError):
  """A configuration that cannot work; it names the field, its value and what would work."""


def default() -> ml_collections.ConfigDict:
  """Returns the complete configuration with the released run's values."""
  config = ml_collections.ConfigDict()
  config.seed = 0  # of samples, of the order of problems, and of adapters
  config.group_size = 8  # trajectories per prompt, G
  config.batch_size = 512  # prompts sampled per step
  config.mini_batch_size = 128  # prompts per optimizer step

  config.answers = ml_collections.ConfigDict()
  # Which answers are one vote: those of equal value, or ("exact", as released) equal strings.
  config.answers.equivalence = "canonical"
  # Trajectories without a readable answer do not vote, or ("vote", as released) vote together.
  config.answers.unparsable = "abstain"
  config.answers.released_extraction = False  # released: True, see `sejax.text.answers.extract`

  config.model = ml_collections.ConfigDict()
  # A model directory in the published form; or ORGANISATION/NAME, which the hub is asked for.
  config.model.path = ""
  config.model.remat = "nothing"  # what a layer keeps for its backward pass, see `qwen.Config`
  config.model.unroll = False  # compile the update layer by layer, see `qwen.Config`
  config.model.query_chunk = 1024  # attention over more queries is computed in parts
  config.model.fused_attention = True  # cuDNN's where the GPU has it; off: XLA's everywhere
  config.model.logits_chunk = 256  # tokens of a row whose logits exist at once in the update
  config.model.dtype = "auto"  # of frozen weights and of sampling: bfloat16, but float32 on CPU

  config.lora = ml_collections.ConfigDict()  # see `sejax.lora`
  config.lora.rank = 0  # of adapters that are trained in place of the weights; 0: the weights are
  config.lora.alpha = 64.0  # what adapters add is multiplied by alpha / rank
  config.lora.targets = lora.TARGETS  # dense layers of the decoder that have one

  config.actor = ml_collections.ConfigDict()
  config.actor.instruction = prompts.ACTOR_INSTRUCTION  # follows the question; may be empty
  config.actor.max_tokens = 2048  # of a trajectory, R
  config.actor.update(_filters())

  config.judge = ml_collections.ConfigDict()
  config.judge.path = ""  # another model directory with the same tokenizer; by default model.path
  config.judge.use = True  # False: no verdicts, every factor is 1
  config.judge.rubric = "full"  # or "short", for models that are too small for it
  # Of the full rubric's criteria; their sum is 1.
  config.judge.weights = ml_collections.ConfigDict(dataclasses.asdict(prompts.Rubric()))
  config.judge.system = ""  # a system prompt of one's own, in place of the rubric
  config.judge.include_instruction = False  # released: True, the Judge reads the Actor's, too
  config.judge.max_tokens = 1024  # of a verdict
  config.judge.update(_filters(top_p=0.9))
  config.judge.num_judge_repeats = 1  # verdicts per trajectory; valid scores are averaged
  config.judge.released_reading = False  # released: True, see `sejax.text.verdicts.score`
  # Verdicts whose box is not the score of their own JSON object: the box holds and they are
  # counted; or "invalid".
  config.judge.contradictory = "count"

  config.mesh = ml_collections.ConfigDict()  # devices along each axis; -1: all that are left
  config.mesh.data = -1  # rows of batches
  config.mesh.fsdp = 1  # rows too, and parameters, gathered where they are used
  config.mesh.tensor = 1  # heads and hidden units

  config.sampling = ml_collections.ConfigDict()
  config.sampling.groups = config_dict.placeholder(int)  # prompts decoded at once; all, if None
  config.sampling.run = 32  # tokens between two looks of the host
  config.sampling.pack = True  # make the batch smaller as trajectories end; compiles more programs
  # Each layer's cache an array of its own, see `qwen.Config`; if None: on GPUs.
  config.sampling.layered_cache = config_dict.placeholder(bool)

  # Passed on to `sejax.method.group` and `sejax.method.grpo_loss`, which explain them.
  config.method = _keywords(method.group)
  config.loss = _keywords(method.grpo_loss, leave_out=("denominators", "entropy"))

  config.data = _data()
  config.optimizer = _optimizer()
  config.train = _train()
  config.eval = _eval()
  config.checkpoint = _checkpoint()
  config.log = _log()

  # Recorded groups for --mode=rewards: JSON lines, see `sejax.scoring`.
  config.groups = ""
  return config


def _filters(**changes: float) -> dict[str, Any]:
  """What the distribution becomes before a token is drawn, see `sampling.Filters`."""
  fields = {"temperature": 1.0, "top_p": 1.0, "top_k": config_dict.placeholder(int), "min_p": 0.0}
  return fields | changes


def _data() -> ml_collections.ConfigDict:
  """Which problems, see `sejax.data.sources`; and how they become batches."""
  data = ml_collections.ConfigDict()
  data.source = "figures"  # built in; or parquet, jsonl, tfds
  data.path = ""  # a file, a directory in hub form, or where tfds sets were built
  # A name in the set, behind its subset where there are several, "en/train"; figures have "train"
  # and "heldout".
  data.split = "train"
  # Names the set in the keys of samples, by default after its file or directory; for tfds, the set.
  data.name = ""
  data.image_folder = ""  # what image paths are relative to; by default the data's folder

  data.figures = ml_collections.ConfigDict()  # see `sejax.data.figures.source`
  data.figures.size = 56  # pixels a side
  data.figures.families = dict.fromkeys(figures.FAMILIES, 1.0)  # how often each is drawn
  data.figures.levels = figures.LEVELS  # of difficulty
  data.figures.length = 100_000  # problems in the set
  data.figures.seed = 0  # names the sequence of problems

  # Pixels: smaller images are enlarged to this area, larger ones reduced; None: as the model's
  # directory says.
  data.min_pixels = config_dict.FieldReference(262_144)
  data.max_pixels = config_dict.FieldReference(4_194_304)
  data.prompt_limit = 1024  # tokens; longer prompts are dropped whole
  # Lengths of arrays, ascending: tokens of a prompt, patches of its images. The Judge's prompt is
  # longer than the Actor's by its rubric.
  data.prompt_buckets = (256, 384, 512, 768, 1024, 1536)
  data.patch_buckets = (1024, 1536, 2048, 3072, 4096)  # whole windows of 64 patches
  data.on_bad_record = "skip"  # or "stop"
  data.max_bad_share = 0.05  # of the records seen; more stop the run
  data.workers = 0  # processes that prepare examples; 0: threads
  data.inspect_records = 64  # shown by --mode=inspect
  data.inspect_limit = 0  # counted by it; 0: all
  return data


def _optimizer() -> ml_collections.ConfigDict:
  """AdamW on fp32 master weights, see `sejax.optimizer`."""
  optimizer = ml_collections.ConfigDict()
  optimizer.learning_rate = 1e-6  # the highest
  optimizer.schedule = "constant"  # or linear, cosine: to zero at the last step
  optimizer.warmup = 0  # optimizer steps in which the rate rises from zero
  optimizer.b1 = 0.9  # decay of the first moment
  optimizer.b2 = 0.999  # decay of the second moment
  optimizer.eps = 1e-8  # added to the root of the second moment
  optimizer.first_moment = "float32"  # or bfloat16, which saves two bytes per trained number
  optimizer.weight_decay = 0.01  # multiplied by the learning rate; of all that is trained
  optimizer.clip_norm = 1.0  # of the gradient over all parameters
  # A gradient whose norm is below this is rounding: Adam, which divides by a gradient's own size,
  # would make full steps of it.
  optimizer.negligible_norm = 1e-6
  optimizer.max_skipped = 5  # steps in a row with a gradient that is not finite; then the run stops
  return optimizer


def _train() -> ml_collections.ConfigDict:
  """The train loop, see `sejax.train`."""
  train = ml_collections.ConfigDict()
  # Passes over the problems that can be used, which are counted before the run begins: epochs *
  # usable / batch_size steps, rounded up. The last batch is filled up from the next pass.
  train.epochs = 15
  train.steps = config_dict.placeholder(int)  # batches, in place of epochs; nothing is counted
  train.micro_batch_size = 8  # prompts whose activations exist at once, over all devices
  train.freeze_vision = False  # True: the vision tower is not trained
  # A group without any difference teaches nothing: it is kept (and counts in the loss's means),
  # dropped (and does not count), or a fresh prompt takes its place.
  train.constant_groups = "keep"
  train.resample_limit = 4  # batches that are sampled at most to fill one, for "resample"
  train.mask_truncated = False  # leave trajectories that were cut at the limit out of the loss
  # A dotted name of a function in place of the method's rewards, see `sejax.rewards`.
  train.reward_function = ""
  train.response_buckets = ()  # tokens, ascending; by default a quarter, a half, and all
  return train


def _eval() -> ml_collections.ConfigDict:
  """Held-out problems with gold answers, before, while and after training; and benchmarks."""
  evaluation = ml_collections.ConfigDict()
  evaluation.split = "test"  # of the data; "heldout" for figures
  evaluation.path = ""  # where they are, if elsewhere than the data
  evaluation.problems = 128  # the first so many of the split; 0: no evaluation
  # Whether they may all be problems that are trained on; how many are is always said.
  evaluation.allow_training_problems = False
  evaluation.batch_size = 32  # problems sampled together, over all processes
  evaluation.greedy = False  # one most likely answer each, instead of a group of samples
  evaluation.every = 5  # steps; 0: before and after only

  # For --mode=evaluate: published sets by name, see `sejax.evaluation.benchmarks`.
  evaluation.sets = ()
  evaluation.protocol = "toolkit"  # or "authors", "strict": how answers are read and compared
  evaluation.instruction = ""  # follows each prompt, which the protocol words
  evaluation.data = ""  # the folder of sets, or the file of the only one
  # Stored responses to grade: a file of JSON lines with `id` and `response` or `responses`; or a
  # folder with a file per set.
  evaluation.predictions = ""
  # Who reads answers where a protocol asks a model: a directory or hub name; empty: rules do.
  evaluation.extractor = ""
  return evaluation


def _checkpoint() -> ml_collections.ConfigDict:
  """What is saved of a run, see `sejax.checkpoint`."""
  checkpoint = ml_collections.ConfigDict()
  checkpoint.every = 30  # steps; the last is always saved
  checkpoint.keep = 3  # latest ones
  # The best of those saved at a step that was evaluated, by held-out pass@1; by the step's reward
  # where eval.problems is 0.
  checkpoint.keep_best = 1
  checkpoint.export_dtype = "bfloat16"  # of the model directory; or float32
  return checkpoint


def _log() -> ml_collections.ConfigDict:
  """What a run leaves beside its model, see `sejax.logs`."""
  log = ml_collections.ConfigDict()
  log.groups = 2  # groups of each step whose trajectories are kept for the report
  log.tensorboard = True
  log.wandb_project = ""  # Weights & Biases, if named
  log.profile = ()  # steps to profile, for TensorBoard's profile page
  log.compilation_cache = True  # in the workdir, so that a restart does not compile again
  return log


def save(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
  """Writes the resolved configuration to `config.json` in the workdir; process 0 does."""
  if jax.process_index() > 0:
    return
  plain = _plain(config)
  absolute = {
    name: str(pathlib.Path(path).absolute())  # A run may go on from another folder.
    for name, path in flatten(plain).items()
    if name in PATHS and path and pathlib.Path(path).exists()
  }
  saved = ml_collections.ConfigDict(plain)
  saved.update_from_flattened_dict(absolute)
  text = json.dumps(saved.to_dict(), indent=2, sort_keys=True)
  new = workdir / "config.json.new"  # Another process may be reading the old one.
  new.write_text(text + "\n", encoding="utf-8")
  new.replace(workdir / "config.json")


def holds_run(workdir: pathlib.Path) -> bool:
  """Returns whether anything of a run is in the workdir."""
  return any(itertools.chain.from_iterable(workdir.glob(name) for name in _MADE))


# Fields that may differ when a run goes on: what is logged and saved, how data are read, what moves
# memory and time alone (sums may take another order), and when to give up.
_FREE = (
  r"log\.",
  r"checkpoint\.",
  r"mesh\.",
  r"sampling\.",
  r"model\.(remat|unroll|query_chunk|logits_chunk|fused_attention)$",
  r"train\.micro_batch_size$",
  r"optimizer\.max_skipped$",
  r"data\.(workers|max_bad_share|on_bad_record|inspect_\w+)$",
  r"eval\.(sets|protocol|batch_size|every|allow_training_problems)$",
  r"groups$",
)
# Training does not read these, and the evaluation of benchmarks not those.
_FREE_IN_TRAINING = (r"eval\.(data|predictions|extractor|instruction)$",)
_FREE_IN_EVALUATION = (r"(train|optimizer|loss|method)\.", r"eval\.(problems|split|path)$")
# Where files are: other spellings of one place are the same.
PATHS = (
  "data.image_folder",
  "data.path",
  "eval.data",
  "eval.extractor",
  "eval.path",
  "eval.predictions",
  "groups",
  "judge.path",
  "model.path",
)


def expand_paths(config: ml_collections.ConfigDict) -> None:
  """Puts the home directory in the place of `~` in all paths of a configuration.

  Raises:
    ConfigError: a path is of another machine.
  """
  for name in PATHS:
    *sections, field = name.split(".")
    section = functools.reduce(ml_collections.ConfigDict.__getitem__, sections, config)
    try:
      section[field] = workdir_lib.local_path(f"config.{name}", section[field])
    except ValueError as error:
      raise ConfigError(str(error)) from None


def save_if_new(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
  """Saves the configuration, unless the workdir holds that of a run which has begun."""
  if not holds_run(workdir):
    save(config, workdir)


def require_same(
  config: ml_collections.ConfigDict, workdir: pathlib.Path, *, evaluates: bool = False
) -> None:
  """Refuses to go on in the workdir of a run with another configuration.

  What is logged, how often it is saved, how data are read, and what changes memory and speed alone
  may differ; so may the number of steps, as long as the learning rate does not depend on it, and
  which benchmarks are evaluated.

  Args:
    config: that is given now.
    workdir: of the run.
    evaluates: whether the run is a model's on benchmarks; their data must then be the same.

  Raises:
    ConfigError: naming the fields that differ.
  """
  file = workdir / "config.json"
  if not file.exists() or not holds_run(workdir):
    return
  # A field that the run's version did not have has its default value.
  before = flatten(_plain(default())) | flatten(json.loads(file.read_text(encoding="utf-8")))
  now = flatten(_plain(config))
  free = [*_FREE, *(_FREE_IN_EVALUATION if evaluates else _FREE_IN_TRAINING)]
  if config.optimizer.schedule == "constant":
    free.append(r"train\.(steps|epochs)$")
  differing = [
    name
    for name in sorted({*before, *now})
    if not re.match("|".join(free), name) and not _is_same(name, before.get(name), now.get(name))
  ]
  if differing:
    name = differing[0]
    more = f", and {len(differing) - 1} more fields" if len(differing) > 1 else ""
    raise ConfigError(
      f"{workdir} holds a run with config.{name}={quoted(before.get(name))}, not"
      f" {quoted(now.get(name))}{more}; give the same configuration or another --workdir"
    )


def _is_same(name: str, before: Any, now: Any) -> bool:
  if name in PATHS and before and now:
    return pathlib.Path(before).expanduser().resolve() == pathlib.Path(now).expanduser().resolve()
  return before == now


def flatten(tree: ml_collections.ConfigDict | dict[str, Any], above: str = "") -> dict[str, Any]:
  """Returns a configuration's values by their dotted names; optional fields as references."""
  if isinstance(tree, ml_collections.ConfigDict):
    tree = tree.to_dict(preserve_field_references=True)
  flat = {}
  for name, value in tree.items():
    flat |= flatten(value, f"{above}{name}.") if isinstance(value, dict) else {above + name: value}
  return flat


def _plain(config: ml_collections.ConfigDict) -> dict[str, Any]:
  return json.loads(json.dumps(config.to_dict()))


def _keywords(function: Callable, leave_out: tuple[str, ...] = ()) -> ml_collections.ConfigDict:
  """The keyword-only options of a function with their defaults, so that each is written once."""
  options = ml_collections.ConfigDict()
  for name, parameter in inspect.signature(function).parameters.items():
    if parameter.kind is parameter.KEYWORD_ONLY and name not in leave_out:
      value = parameter.default
      options[name] = config_dict.placeholder(float) if value is None else value
  return options
