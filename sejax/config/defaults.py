"""All configuration fields with their defaults; `sejax.config.validation` checks the values.

`configs/*.py` start from `default()` and change individual fields. The defaults are those of the
released run (arXiv:2603.21289) where it has them. Where sejax improves on the released code by
default, the comment gives the value that restores the released behaviour. They are
explained in `configs/README.md`, there also by the paper's symbols.
"""

import dataclasses
import inspect
import typing
from collections.abc import Callable
from typing import Any

import ml_collections
from ml_collections import config_dict

from sejax import method
from sejax.data import figures
from sejax.models.lora import TARGETS
from sejax.text import prompts

# Advice in error messages: if weights and optimizer state do not fit into device memory, and if
# memory runs out later.
FEWER_WEIGHTS = (
  "train adapters (config.lora.rank=64) or split the weights over more devices (config.mesh.fsdp)"
)
LESS_MEMORY = (
  "lower config.train.micro_batch_size, config.sampling.cache_tokens,"
  " config.actor.max_concurrent_rows, config.judge.max_concurrent_rows, config.model.query_chunk"
  f" or config.model.logits_chunk, {FEWER_WEIGHTS}"
)


def default() -> ml_collections.ConfigDict:
  """Returns the complete configuration with the default of each field."""
  config = ml_collections.ConfigDict()
  config.seed = 0  # for samples, the order of problems and the initial adapters
  config.group_size = 8  # trajectories per prompt, G
  config.batch_size = 512  # prompts sampled per step
  config.mini_batch_size = 128  # prompts per optimizer step

  config.answers = _answers()
  config.model = _model()
  config.lora = _lora()
  config.actor = _actor()
  config.judge = _judge()
  config.mesh = _mesh()
  config.sampling = _sampling()

  # Keyword arguments of `sejax.method.group` and `sejax.method.policy_loss`, documented there.
  config.method = _keywords(method.group)
  config.loss = _keywords(method.policy_loss)

  config.data = _data()
  config.optimizer = _optimizer()
  config.train = _train()
  config.eval = _eval()
  config.checkpoint = _checkpoint()
  config.log = _log()

  # Threads that compile programs of updates before they are called, and as many of each sampler;
  # None: half as many as there are cores, and none of samplers on CPUs.
  config.compile_threads = config_dict.placeholder(int)

  config.teacher = ml_collections.ConfigDict()  # see `sejax.learner.teacher`
  config.teacher.use = False  # True: an average of the policy answers each problem, too
  config.teacher.start = 0.01  # the policy's share in it after the first step
  config.teacher.end = 1e-5  # what this falls to by the end of the run

  config.rewards = ml_collections.ConfigDict()
  # Dotted name of a function that replaces the method's rewards, see `sejax.rewards.functions`, or
  # of several with commas between them.
  config.rewards.function = ""
  config.rewards.options = ml_collections.ConfigDict()  # its keyword-only parameters
  # File of recorded groups for --mode=rewards, see `sejax.rewards.recorded`.
  config.rewards.recorded = ""
  return config


def _answers() -> ml_collections.ConfigDict:
  """Returns the options of reading and comparing answers."""
  answers = ml_collections.ConfigDict()
  # Which answers vote together: "canonical" those of equal value, "exact" (released) equal strings.
  answers.equivalence = "canonical"
  # Trajectories without an answer: "abstain" from the vote, or "vote" (released) for one shared
  # answer.
  answers.unparsable = "abstain"
  answers.released_extraction = False  # released: True, see `sejax.text.answers.extract`
  return answers


def _model() -> ml_collections.ConfigDict:
  """Returns the options of the model and of its computation."""
  model = ml_collections.ConfigDict()
  # Model directory in Hugging Face format, or ORGANISATION/NAME on the Hugging Face hub.
  model.path = ""
  # Branch, tag or commit of the hub; empty: the newest. The commit that the run began with stands
  # in its config.json and is kept. The same of judge.revision, data.revision and eval.revision.
  model.revision = ""
  # Activations saved for the backward pass, see `models.transformer.config.ModelConfig`.
  model.remat = "nothing"
  model.unroll = False  # unroll the layers in the update instead of scanning them
  model.query_chunk = 1024  # queries that attention computes at once
  model.fused_attention = True  # use cuDNN's attention on GPUs that have it
  model.logits_chunk = 256  # tokens of a row whose logits the update computes at once
  # Precision of computation and of frozen weights: bfloat16, float32, or auto (float32 on CPUs and
  # on GPUs older than Ampere). Master weights and sums of gradients are always fp32.
  model.dtype = "auto"
  return model


def _lora() -> ml_collections.ConfigDict:
  """Returns the options of adapters, see `sejax.models.lora`."""
  lora = ml_collections.ConfigDict()
  lora.rank = 0  # LoRA rank; 0 trains all weights
  lora.alpha = 64.0  # the adapters' output is multiplied by alpha / rank
  lora.targets = TARGETS  # dense layers of the decoder that get adapters
  return lora


def _actor() -> ml_collections.ConfigDict:
  """Returns the options of sampling trajectories."""
  actor = ml_collections.ConfigDict()
  actor.instruction = prompts.ACTOR_INSTRUCTION  # appended to the question; may be empty
  actor.max_tokens = 2048  # maximum number of tokens of a trajectory, R
  # Trajectories decoded at once, over all devices; None: as many as device memory has room for.
  actor.max_concurrent_rows = config_dict.placeholder(int)
  # Temperature at which self-certainty is measured, for metrics and rewards; None: that of
  # sampling.
  actor.certainty_temperature = config_dict.placeholder(float)
  actor.update(_filters())
  return actor


def _judge() -> ml_collections.ConfigDict:
  """Returns the options of the Judge and of sampling verdicts."""
  judge = ml_collections.ConfigDict()
  judge.path = ""  # model directory or hub name, with the Actor's tokenizer; empty: model.path
  judge.revision = ""  # of judge.path on the hub
  judge.use = True  # False: no verdicts, every modulation factor is 1
  judge.rubric = "full"  # or "short", for small models
  # Weights of the full rubric's criteria; must sum to 1.
  judge.weights = ml_collections.ConfigDict(dataclasses.asdict(prompts.Rubric()))
  judge.system = ""  # system prompt that replaces the rubric; empty: the rubric
  # Whether the Judge's prompt contains the Actor's instruction; released: True.
  judge.include_instruction = False
  judge.max_tokens = 1024  # maximum number of tokens of a verdict
  judge.max_concurrent_rows = config_dict.placeholder(int)  # verdicts decoded at once, as above
  judge.update(_filters(top_p=0.9))
  judge.num_judge_repeats = 1  # verdicts per trajectory, M; valid scores are averaged
  # Read the score as an expectation over the probabilities of 0.0, 0.1 to 1.0, without generating
  # a verdict, see `sejax.rollout.expected_score`. max_tokens, top_p, top_k and min_p have no effect
  # then, and a temperature of 0 is 1.
  judge.expected = False
  judge.released_reading = False  # released: True, see `sejax.text.verdicts.score`
  # Verdicts whose boxed score differs from that in their own JSON object: "count" takes the boxed
  # score and counts them in the metrics, "invalid" discards them.
  judge.contradictory = "count"
  return judge


def _mesh() -> ml_collections.ConfigDict:
  """Returns the number of devices along each mesh axis; -1: all remaining."""
  mesh = ml_collections.ConfigDict()
  mesh.data = -1  # splits the rows of batches
  mesh.fsdp = 1  # splits rows and parameters; parameters are gathered for use
  mesh.tensor = 1  # splits attention heads and hidden units
  return mesh


def _sampling() -> ml_collections.ConfigDict:
  """Returns the options of the sampler that all roles share."""
  sampling = ml_collections.ConfigDict()
  # Tokens of trajectories or verdicts in the KV cache of a row shard (data times fsdp), beside the
  # prompts; None: as many as device memory has room for.
  sampling.cache_tokens = config_dict.placeholder(int)
  sampling.decode_steps = 32  # decode steps between host synchronisations
  sampling.pack = True  # shrink the batch as trajectories end; compiles more programs
  # Whether decoding keeps each layer's weights and KV cache in arrays of their own; None: except on
  # TPUs.
  sampling.layered_cache = config_dict.placeholder(bool)
  return sampling


def _filters(**changes: float) -> dict[str, Any]:
  """Returns sampling options with the given changes, see `sampling.Filters`."""
  fields = {"temperature": 1.0, "top_p": 1.0, "top_k": config_dict.placeholder(int), "min_p": 0.0}
  return fields | changes


def _data() -> ml_collections.ConfigDict:
  """Returns the options of the data set, see `sejax.data.sources`, and of its batches."""
  data = ml_collections.ConfigDict()
  data.source = "figures"  # built-in synthetic problems; or parquet, jsonl, tfds
  # A file, a data set directory in the hub's format, for source="parquet" also ORGANISATION/NAME on
  # the Hugging Face hub, or the tfds data directory.
  data.path = ""
  data.revision = ""  # of data.path on the hub
  # Split of the data set, preceded by its subset if it has several ("en/train"); "figures" has
  # "train" and "heldout".
  data.split = "train"
  # For tfds the name of the data set. Otherwise a name that enters the random keys of samples;
  # empty: that of the file or directory.
  data.name = ""
  data.image_folder = ""  # folder that image paths are relative to; empty: the data's folder

  data.figures = ml_collections.ConfigDict()  # see `sejax.data.figures.source`
  data.figures.size = 56  # side of an image in pixels
  data.figures.families = dict.fromkeys(figures.FAMILIES, 1.0)  # relative frequencies
  data.figures.levels = figures.LEVELS  # levels of difficulty
  data.figures.length = 100_000  # number of problems
  data.figures.seed = 0  # seed of the sequence of problems

  data.view = ml_collections.ConfigDict()  # see `sejax.data.views`
  data.view.use = False  # True: each problem is two groups of a batch, of which one is a view
  data.view.scale = 0.85  # smallest scale of a picture's sides
  data.view.margin = 0.05  # largest margin, as a share of a side
  data.view.quality = 60  # lowest JPEG quality
  data.view.brightness = 0.15  # largest change of brightness, as a share

  # Limits on an image's area in pixels: smaller images are enlarged, larger ones reduced. None: as
  # in the model directory.
  data.min_pixels = config_dict.FieldReference(262_144)
  data.max_pixels = config_dict.FieldReference(4_194_304)
  data.prompt_limit = 1024  # maximum tokens of the Actor's prompt; records with more are dropped
  # Lengths that arrays are padded to, ascending: tokens of a prompt, and patches of its images. The
  # Judge's prompts are longer than the Actor's by the rubric. Patches must be multiples of 64, an
  # attention window, for Qwen2.5-VL, and of 4 for other families.
  data.prompt_buckets = (256, 384, 512, 768, 1024, 1536)
  data.patch_buckets = (1024, 1536, 2048, 3072, 4096)
  data.on_bad_record = "skip"  # or "stop"
  data.max_bad_share = 0.05  # share of bad records above which the run stops
  data.workers = 0  # processes that prepare examples; 0 uses threads
  data.inspect_records = 64  # records shown by --mode=inspect
  data.inspect_limit = 0  # records counted by --mode=inspect; 0: all
  return data


def _optimizer() -> ml_collections.ConfigDict:
  """Returns the options of AdamW on fp32 master weights, see `sejax.learner.optimizer`."""
  optimizer = ml_collections.ConfigDict()
  optimizer.learning_rate = 1e-6  # peak learning rate
  optimizer.schedule = "constant"  # or linear, cosine: decay to zero at the last step
  optimizer.warmup_steps = 0  # optimizer steps of linear warmup from zero
  optimizer.b1 = 0.9  # decay of the first moment
  optimizer.b2 = 0.999  # decay of the second moment
  optimizer.eps = 1e-8  # added to the square root of the second moment
  # Or bfloat16, which saves two bytes per trained parameter.
  optimizer.first_moment_dtype = "float32"
  optimizer.weight_decay = 0.01  # multiplied by the learning rate; applies to all trained arrays
  optimizer.clip_norm = 1.0  # maximum global norm of the gradient
  # Gradients with a smaller norm are rounding errors and set to zero: Adam, which divides by a
  # gradient's own size, would turn them into full steps.
  optimizer.negligible_norm = 1e-6
  optimizer.max_skipped = 5  # consecutive non-finite gradients after which the run stops
  return optimizer


def _train() -> ml_collections.ConfigDict:
  """Returns the options of the training loop, see `sejax.train`."""
  train = ml_collections.ConfigDict()
  # Passes over the usable problems, which are counted before the run begins. A run has
  # epochs * usable / batch_size steps, rounded up; its last batch is filled from the next pass.
  train.epochs = 15
  train.steps = config_dict.placeholder(int)  # number of steps, instead of epochs
  # What fits into a forward and backward pass, over all devices: so many groups whose trajectories
  # are all of actor.max_tokens, or up to four times as many shorter ones.
  train.micro_batch_size = 8
  # 1: the next batch is sampled by the policy before a step's updates, while these are computed;
  # needs loss.rollout_correction. 0: by the policy after them.
  train.overlap = 0
  train.freeze_vision = False  # True: do not train the vision tower
  # Groups whose rewards are all equal carry no learning signal: "keep" them in the loss's means,
  # "drop" them, or "resample" further prompts to replace them.
  train.constant_groups = "keep"
  train.resample_limit = 4  # maximum number of batches sampled in a step with "resample"
  # collapse_score from which on the run is stopped, after its checkpoint is saved, see
  # `sejax.monitoring.collapse`; None: it is not.
  train.stop_on_collapse = config_dict.placeholder(float)
  train.mask_truncated = False  # leave truncated trajectories out of the loss
  # Padded lengths of responses in the update, ascending; empty: a quarter, a half and all of
  # actor.max_tokens.
  train.response_buckets = ()
  return train


def _eval() -> ml_collections.ConfigDict:
  """Returns the options of evaluation: on held-out problems in training, and on benchmarks."""
  evaluation = ml_collections.ConfigDict()
  evaluation.split = "test"  # split of the data with the held-out problems; figures: "heldout"
  evaluation.path = ""  # path or hub name of the held-out data; empty: data.path
  # Of eval.path or eval.sets_path on the hub; of several sets one each, with commas between them.
  evaluation.revision = ""
  # Held-out problems, from the start of the split; 0: none. Benchmarks are read whole.
  evaluation.num_problems = 128
  # Whether all held-out problems may be training problems. How many are is always reported.
  evaluation.allow_training_problems = False
  evaluation.batch_size = 32  # problems per batch, over all processes
  evaluation.max_concurrent_rows = config_dict.placeholder(int)  # answers decoded at once, as above
  evaluation.greedy = False  # one greedy answer per problem, instead of a group of samples
  evaluation.every = 5  # steps between evaluations; 0: only before and after training

  # For --mode=evaluate: names of benchmarks, see `sejax.evaluation.benchmarks`.
  evaluation.sets = ()
  evaluation.protocol = "toolkit"  # or "authors", "strict": how answers are read and compared
  evaluation.instruction = ""  # appended to each prompt of the protocol
  # Folder of the benchmarks, or the file of the only one; or "hub": the Hugging Face hub by their
  # published names; or ORGANISATION/NAME of the only one there.
  evaluation.sets_path = ""
  # Stored responses to grade, instead of sampling: a file of JSON lines with `id` and `response` or
  # `responses`, or a folder with one file per benchmark.
  evaluation.predictions = ""
  # Model that extracts answers where a protocol needs one: a directory or hub name; empty: rules.
  evaluation.extractor = ""
  return evaluation


def _checkpoint() -> ml_collections.ConfigDict:
  """Returns the options of checkpoints, see `sejax.learner.checkpoints`."""
  checkpoint = ml_collections.ConfigDict()
  checkpoint.every = 30  # steps between checkpoints; the last step is always saved
  checkpoint.keep = 3  # number of latest checkpoints kept
  checkpoint.keep_best = 1  # number of best checkpoints kept
  # What is best: "heldout", the held-out pass@1 of those saved at an evaluated step, or the reward
  # if eval.num_problems is 0; "reward", the step's mean reward; or "collapse", the lowest
  # collapse_score.
  checkpoint.best_by = "heldout"
  checkpoint.export_dtype = "bfloat16"  # precision of the exported model; or float32
  return checkpoint


def _log() -> ml_collections.ConfigDict:
  """Returns the options of logging, see `sejax.monitoring.writers`."""
  log = ml_collections.ConfigDict()
  log.sample_groups = 2  # groups of each step written to groups.jsonl, for the report
  log.tensorboard = True
  log.wandb_project = ""  # project on Weights & Biases; empty: not used
  log.profile_steps = ()  # steps to profile, for TensorBoard's profile page
  log.compilation_cache = True  # keep compiled programs in the workdir, for restarts
  return log


def flatten(tree: ml_collections.ConfigDict | dict[str, Any], above: str = "") -> dict[str, Any]:
  """Returns the values of a configuration by their dotted names.

  Args:
    tree: of a `ConfigDict`, field references are kept, so that optional fields can be recognised.
    above: dotted name of the section, with a dot after it; for the recursion.
  """
  if isinstance(tree, ml_collections.ConfigDict):
    tree = tree.to_dict(preserve_field_references=True)
  flat = {}
  for name, value in tree.items():
    flat |= flatten(value, f"{above}{name}.") if isinstance(value, dict) else {above + name: value}
  return flat


def _keywords(function: Callable) -> ml_collections.ConfigDict:
  """Returns a function's keyword-only arguments, so that each default is defined once."""
  options = ml_collections.ConfigDict()
  for name, parameter in inspect.signature(function).parameters.items():
    if parameter.kind is parameter.KEYWORD_ONLY:
      value = parameter.default
      if value is None:
        kind = str if str in typing.get_args(parameter.annotation) else float
        value = config_dict.placeholder(kind)
      options[name] = value
  return options
