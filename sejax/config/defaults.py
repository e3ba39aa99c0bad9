"""Every option of a run with its default; `sejax.config.validation` checks the values.

`configs/*.py` start from `default()` and change what their run changes. The defaults are the
released run's values where it has one (arXiv:2603.21289); where sejax by default does better than
the released code, the comment names the value that gives its behaviour. The README lists options by
the paper's symbols.
"""

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any

import ml_collections
from ml_collections import config_dict

from sejax import method
from sejax.data import figures
from sejax.models import lora
from sejax.text import prompts

# What to do where a device cannot hold weights and moments, and where memory runs out later.
FEWER_WEIGHTS = (
  "train adapters (config.lora.rank=64) or split the weights over more devices (config.mesh.fsdp)"
)
LESS_MEMORY = (
  "lower config.train.micro_batch_size, config.sampling.max_concurrent_prompts,"
  f" config.model.query_chunk or config.model.logits_chunk, {FEWER_WEIGHTS}"
)


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
  config.model.remat = "nothing"  # what a layer keeps for its backward pass, see `models.Model`
  config.model.unroll = False  # compile the update layer by layer, see `models.Model`
  config.model.query_chunk = 1024  # attention over more queries is computed in parts
  config.model.fused_attention = True  # cuDNN's where the GPU has it; off: XLA's everywhere
  config.model.logits_chunk = 256  # tokens of a row whose logits exist at once in the update
  config.model.dtype = "auto"  # of frozen weights and of sampling: bfloat16, but float32 on CPU

  config.lora = ml_collections.ConfigDict()  # see `sejax.models.lora`
  config.lora.rank = 0  # LoRA rank; 0 trains all weights
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
  # Prompts decoded at once, over all devices; all of a batch, if None.
  config.sampling.max_concurrent_prompts = config_dict.placeholder(int)
  config.sampling.decode_steps = 32  # decode steps between host synchronisations
  config.sampling.pack = True  # make the batch smaller as trajectories end; compiles more programs
  # Each layer's cache an array of its own, see `models.Model`; if None: on GPUs.
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

  config.rewards = ml_collections.ConfigDict()
  # A dotted name of a function in place of the method's rewards, see `sejax.rewards.functions`.
  config.rewards.function = ""
  # Recorded groups for --mode=rewards: JSON lines, see `sejax.rewards.recorded`.
  config.rewards.recorded = ""
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
  """AdamW on fp32 master weights, see `sejax.learner.optimizer`."""
  optimizer = ml_collections.ConfigDict()
  optimizer.learning_rate = 1e-6  # the highest
  optimizer.schedule = "constant"  # or linear, cosine: to zero at the last step
  optimizer.warmup_steps = 0  # optimizer steps in which the rate rises from zero
  optimizer.b1 = 0.9  # decay of the first moment
  optimizer.b2 = 0.999  # decay of the second moment
  optimizer.eps = 1e-8  # added to the root of the second moment
  # Or bfloat16, which saves two bytes per trained number.
  optimizer.first_moment_dtype = "float32"
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
  train.response_buckets = ()  # tokens, ascending; by default a quarter, a half, and all
  return train


def _eval() -> ml_collections.ConfigDict:
  """Held-out problems with gold answers, before, while and after training; and benchmarks."""
  evaluation = ml_collections.ConfigDict()
  evaluation.split = "test"  # of the data; "heldout" for figures
  evaluation.path = ""  # where they are, if elsewhere than the data
  evaluation.num_problems = 128  # the first so many of the split; 0: no evaluation
  # Whether they may all be problems that are trained on; how many are is always said.
  evaluation.allow_training_problems = False
  evaluation.batch_size = 32  # problems sampled together, over all processes
  evaluation.greedy = False  # one most likely answer each, instead of a group of samples
  evaluation.every = 5  # steps; 0: before and after only

  # For --mode=evaluate: published sets by name, see `sejax.evaluation.benchmarks`.
  evaluation.sets = ()
  evaluation.protocol = "toolkit"  # or "authors", "strict": how answers are read and compared
  evaluation.instruction = ""  # follows each prompt, which the protocol words
  evaluation.sets_path = ""  # the folder of sets, or the file of the only one
  # Stored responses to grade: a file of JSON lines with `id` and `response` or `responses`; or a
  # folder with a file per set.
  evaluation.predictions = ""
  # Who reads answers where a protocol asks a model: a directory or hub name; empty: rules do.
  evaluation.extractor = ""
  return evaluation


def _checkpoint() -> ml_collections.ConfigDict:
  """What is saved of a run, see `sejax.learner.checkpoints`."""
  checkpoint = ml_collections.ConfigDict()
  checkpoint.every = 30  # steps; the last is always saved
  checkpoint.keep = 3  # latest ones
  # The best of those saved at a step that was evaluated, by held-out pass@1; by the step's reward
  # where eval.num_problems is 0.
  checkpoint.keep_best = 1
  checkpoint.export_dtype = "bfloat16"  # of the model directory; or float32
  return checkpoint


def _log() -> ml_collections.ConfigDict:
  """What a run leaves beside its model, see `sejax.monitoring.writers`."""
  log = ml_collections.ConfigDict()
  log.sample_groups = 2  # groups of each step whose trajectories are kept for the report
  log.tensorboard = True
  log.wandb_project = ""  # Weights & Biases, if named
  log.profile_steps = ()  # steps to profile, for TensorBoard's profile page
  log.compilation_cache = True  # in the workdir, so that a restart does not compile again
  return log


def flatten(tree: ml_collections.ConfigDict | dict[str, Any], above: str = "") -> dict[str, Any]:
  """Returns a configuration's values by their dotted names; optional fields as references."""
  if isinstance(tree, ml_collections.ConfigDict):
    tree = tree.to_dict(preserve_field_references=True)
  flat = {}
  for name, value in tree.items():
    flat |= flatten(value, f"{above}{name}.") if isinstance(value, dict) else {above + name: value}
  return flat


def _keywords(function: Callable, leave_out: tuple[str, ...] = ()) -> ml_collections.ConfigDict:
  """The keyword-only options of a function with their defaults, so that each is written once."""
  options = ml_collections.ConfigDict()
  for name, parameter in inspect.signature(function).parameters.items():
    if parameter.kind is parameter.KEYWORD_ONLY and name not in leave_out:
      value = parameter.default
      options[name] = config_dict.placeholder(float) if value is None else value
  return options
