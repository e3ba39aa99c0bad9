"""Where the time and the memory of one training step go, and what the Judge's shared prefix saves.

    python experiments/speed/train.py [--size=small] [--rank=0] [--prompts=N --tokens=N --verdict=N]

One step by the train loop's own parts, on random weights behind the bundled tokenizer, whose
trajectories and verdicts nearly all run to their limit. Each figure is the best of several steps
after one that compiles; memory is the most that was in use at any moment of a stage (of the first
device's, or of the process on a CPU). `--prompts`, `--tokens` and `--verdict` shorten a step,
`--nojudge_repeated` leaves out what the Judge is compared with. Ends with one JSON line:

- `seconds`, `memory_gib`: by stage: sample, judge, reward, log-probs by the policy (`old`) and by
  the reference (`ref`), update; the seconds of all together are `step`.
- `judge_share`: of the step; `judge_share_repeated`: without the shared prefix.
- `judge_shared_speedup`: time of the Judge with a prompt of its own for each candidate, over that
  with one prompt per question, whose system prompt, image and question are read once.
- `tokens_per_second`: the policy's prompts and trajectories over the step's seconds, per device.
- `update_tflops`: model operations of the update (`sejax.monitoring.flops`) per second and device;
  `update_mfu`: of what the chip can do; null where that is not known.
- `mismatch_mean`, `mismatch_max`: mean and largest difference, in nats, of the log-probs of sampled
  tokens by the trainer and by the sampler (`method.mismatch`), in the last step.
- `easyr1`: the columns of EasyR1's table of performance (`assets/baselines.md` there), counted as
  it counts: `throughput`, tokens per second and device, a prompt's once for each trajectory;
  `seconds_per_step`; `actor_mfu`, by its FLOPs of an update, attention and embedding too, and of
  all weights even where adapters are trained; `peak_mem_gib` of the process, `peak_vram_gib` of
  the first device (null on a CPU). Its step has no Judge, ours has one.
- `decode_gbs`: bytes that decoding the trajectories must read (weights, prompts once for a group,
  own tokens) per second and device; `decode_bandwidth`: of the chip's.

With `--min_memory_gib` a device that has less measures nothing, and `left_out` says why.
"""

import contextlib
import dataclasses
import json
import pathlib
import resource
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import NamedTuple

import jax
import ml_collections
import numpy as np
from absl import app, flags
from jaxtyping import Int
from reference import make_config
from sizes import IMAGE_SIDE, REPEATS, TOKENS, chosen, decode_bytes

from configs import tiny
from sejax import models, rollout
from sejax import setup as setup_lib
from sejax.config import parts, validation
from sejax.data import figures
from sejax.data.batches import Batch
from sejax.learner.update import Metrics, MicroBatch
from sejax.models import qwen2_5_vl as qwen
from sejax.models.processor import Processor
from sejax.monitoring import flops
from sejax.parallel import chips, layouts
from sejax.rollout import collect
from sejax.sampling import Request, Role, Sampler


class Size(NamedTuple):
  """A model and a step.

  Attributes:
    model: the decoder and vision tower; what belongs to the tokenizer is put in.
    prompts: of the step, in one update.
    micro: prompts whose activations exist at once.
    side: of an image, in pixels; 14 make a token.
    judge: words of the Judge's system prompt.
    tokens: of a trajectory at most.
    verdict: tokens of a verdict at most.
    prompt_bucket: tokens that prompts are padded to.
    remat: what a layer keeps for its backward pass, see `qwen.Qwen25VL`.
  """

  model: qwen.Qwen25VL
  prompts: int
  micro: int
  side: int
  judge: int
  tokens: int
  verdict: int
  prompt_bucket: int
  remat: str


SIZES = {
  "small": Size(make_config(layers=5, vocab_size=32_000), 4, 2, 56, 270, 64, 64, 640, "everything"),
  "3b": Size(qwen.Qwen25VL.released("3b"), 32, 4, 14 * IMAGE_SIDE, 400, 2048, 512, 1664, "nothing"),
  "dry": Size(make_config(layers=1, vocab_size=2048), 4, 2, 56, 16, 16, 16, 128, "nothing"),
}
_RANK = flags.DEFINE_integer(
  "rank",
  0,
  "Of adapters that are trained in place of all weights; 0: the weights are.",
  lower_bound=0,
)
_PROMPTS = flags.DEFINE_integer("prompts", None, "Prompts of a step; None: the size's own.")
_VERDICT = flags.DEFINE_integer("verdict", None, "Tokens of a verdict, likewise.")
_JUDGE_REPEATED = flags.DEFINE_bool(
  "judge_repeated", True, "Measure the Judge without its shared prefix, too."
)
_MIN_MEMORY = flags.DEFINE_float(
  "min_memory_gib", 0.0, "Device memory below which nothing is measured."
)


def make_directory(size: Size, directory: pathlib.Path) -> None:
  """Writes random weights with the bundled processor's files."""
  source = tiny.get_config().model.path
  processor, (bundled, _) = Processor.load(source), models.load(source)
  tokens = ("image_token_id", "video_token_id", "vision_start_token_id", "vision_end_token_id")
  model = dataclasses.replace(
    size.model,
    vision=dataclasses.replace(
      size.model.vision,
      patch_size=bundled.vision.patch_size,
      window_size=bundled.vision.window_size,
    ),
    text=dataclasses.replace(size.model.text, eos_token_id=processor.eos_ids[0]),
    **{name: getattr(bundled, name) for name in tokens},
  )
  params = model.init(jax.random.key(0), parts.compute(tiny.get_config()).dtype)
  models.save(params, model, directory, source=source)


def make_configuration(size: Size, directory: pathlib.Path) -> ml_collections.ConfigDict:
  """Returns the train loop's configuration for one step."""
  config = tiny.get_config()
  config.update(batch_size=size.prompts, mini_batch_size=size.prompts)
  config.model.update(path=str(directory), unroll=False, remat=size.remat, logits_chunk=1024)
  config.lora.rank = _RANK.value
  config.mesh.data, config.mesh.fsdp = 1, -1
  config.actor.max_tokens, config.judge.max_tokens = size.tokens, size.verdict
  config.judge.system = "Grade it. " * (size.judge // 2)
  config.train.update(steps=1, micro_batch_size=size.micro, response_buckets=())
  config.eval.num_problems = 0
  # Every step samples the same: other lengths might take programs that are not compiled yet.
  config.optimizer.learning_rate = 1e-30
  config.log.compilation_cache = False
  # Figures are drawn in a few sizes; the processor enlarges them.
  config.data.figures.size = max(side for side in figures.SIZES if side <= size.side)
  config.data.update(min_pixels=size.side**2, max_pixels=size.side**2)
  config.data.update(prompt_limit=size.prompt_bucket, prompt_buckets=(size.prompt_bucket,))
  config.data.patch_buckets = ((size.side // 14 * 2) ** 2,)
  validation.validate(config)
  return config


class Stages:
  """Seconds and memory of a step by stage, the best of several steps; a clock of the train loop."""

  def __init__(self):
    self.seconds: dict[str, float] = {}
    self.memory: dict[str, float] = {}
    self.decode: float | None = None

  def clear(self) -> None:
    """Forgets what was measured."""
    self.seconds.clear()
    self.memory.clear()
    self.decode = None

  @contextlib.contextmanager
  def __call__(self, name: str) -> Iterator[None]:
    """Measures a block."""
    done, most = threading.Event(), [0]

    def watch():
      while not done.wait(0.005):
        most[0] = max(most[0], in_use())

    watcher = threading.Thread(target=watch)
    watcher.start()
    start = time.perf_counter()
    try:
      yield
    finally:
      seconds = time.perf_counter() - start
      done.set()
      watcher.join()
    self.seconds[name] = min(seconds, self.seconds.get(name, seconds))
    self.memory[name] = max(most[0], self.memory.get(name, 0))


def in_use() -> int:
  """Returns the bytes in use: of the first device where it tells, else of this process."""
  if stats := jax.local_devices()[0].memory_stats():
    return stats["bytes_in_use"]
  pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
  return pages * 4096


def repeated_prompts(
  roles: rollout.Roles, params: models.Params, batch: Batch, texts: list[list[str]]
) -> Request:
  """Returns the Judge's work with a whole prompt for each candidate."""
  group = len(texts[0])
  rows = [
    np.concatenate([batch.judge.ids[b, : batch.judge.lengths[b]], candidate])
    for b, candidates in enumerate(texts)
    for candidate in (
      roles.processor.tokenize_candidate(batch.judge_tails[b], text) for text in candidates
    )
  ]
  lengths = np.array([len(row) for row in rows], np.int32)
  ids = np.full((len(rows), -(-lengths.max() // 128) * 128), roles.processor.pad_id, np.int32)
  positions = np.zeros((3, *ids.shape), np.int32)
  for n, row in enumerate(rows):
    ids[n, : len(row)] = row
    known = batch.judge.lengths[n // group]
    shared = batch.judge.positions[:, n // group, :known]
    after = shared[:, -1:] + 1 + np.arange(ids.shape[1] - known)
    positions[:, n] = np.concatenate([shared, after], axis=1)
  features = roles.encode_for_judge(params, batch)
  return Request(
    models.Prompt(ids, lengths, positions),
    np.repeat(batch.record_hashes, group, axis=0),
    None if features is None else np.repeat(np.asarray(features), group, axis=0),
  )


def easyr1_flops(model: models.Model, lengths: Int[np.ndarray, " S"]) -> float:
  """Returns the FLOPs of an update as EasyR1's `verl/utils/flops_counter.py` counts them.

  Args:
    lengths: tokens of each sequence, a prompt and a trajectory.
  """
  text = model.text
  layers, head = model.matmul_params
  weights = 6.0 * (layers + 2 * head) * lengths.sum()
  width = text.head_size * text.num_attention_heads
  return weights + 12.0 * width * text.num_hidden_layers * (lengths.astype(float) ** 2).sum()


def given_size() -> Size:
  """Returns the size with what the flags change of it."""
  given = {"prompts": _PROMPTS, "tokens": TOKENS, "verdict": _VERDICT}
  changed = {name: flag.value for name, flag in given.items() if flag.value is not None}
  return chosen(SIZES)._replace(**changed)


def main(_: list[str]) -> None:
  """Measures everything and prints it."""
  size, stages = given_size(), Stages()
  device = jax.devices()[0]
  memory = chips.device_memory(device)
  if memory is not None and memory < _MIN_MEMORY.value * 2**30:
    reason = f"takes {_MIN_MEMORY.value:.0f} GiB, and the device has {memory / 2**30:.0f}"
    print(json.dumps({"device": device.device_kind, "left_out": reason}))
    return
  with tempfile.TemporaryDirectory() as folder:
    directory = pathlib.Path(folder) / "model"
    make_directory(size, directory)
    config = make_configuration(size, directory)
    measure(config, setup_lib.set_up(config, pathlib.Path(folder), stages), stages)


def measure(config: ml_collections.ConfigDict, setup: setup_lib.TrainSetup, stages: Stages) -> None:
  """Measures steps of a run, and the Judge without its shared prefix."""
  roles, updater, weights = setup.roles, setup.learner.updater, setup.initial_weights
  options = dataclasses.replace(roles.judge.options, trajectories=1)
  alone = Sampler(roles.judge.model, options, setup.mesh, roles.judge.dtype)
  state = updater.init(setup.load_trained())
  data = setup_lib.pipeline(config, setup.preparer, ())
  examples = next(data)
  for repeat in range(1 + REPEATS.value):
    if repeat == 1:  # what was compiled is behind us
      stages.clear()
    policy = setup.learner.policy_params(state.params)
    parameters = collect.SamplingWeights(policy, weights.judge_params)
    rollout = setup.collector.collect_rollout(parameters, iter([examples]), 0)
    if _JUDGE_REPEATED.value:
      with stages("judge_repeated"):
        texts = rollout.evidence.texts
        request = repeated_prompts(roles, weights.judge_params, rollout.batch, texts)
        alone(weights.judge_params, request, seed=0, step=0, role=Role.JUDGE)
    groups, (part,) = setup.learner.minibatches(rollout)
    taken = [setup.learner.micro_batch(groups, rows) for rows in part.rows]
    with stages("old"):
      old = [jax.block_until_ready(updater.token_logprobs(policy, *micro)) for micro in taken]
    with stages("ref"):
      ref = [jax.block_until_ready(updater.token_logprobs(weights.frozen, *x)) for x in taken]
    del policy, parameters  # of the policy before the update, which is donated
    frozen = weights.frozen if setup.learner.adapters else None
    micro_batches = [
      MicroBatch(*micro, np.bool_(False), *logp)
      for micro, *logp in zip(taken, old, ref, strict=True)
    ]
    with stages("update"):
      state, metrics = jax.block_until_ready(
        updater.update(state, frozen, micro_batches, part.counts)
      )
    decoding = rollout.result.stats.seconds["decode"]
    stages.decode = min(decoding, stages.decode or decoding)
  report(setup, rollout, metrics, stages)


def report(
  setup: setup_lib.TrainSetup, rollout: collect.Rollout, metrics: Metrics, stages: Stages
) -> None:
  """Prints a table and the JSON line.

  Args:
    metrics: of the last update.
  """
  batch, lengths = rollout.batch, rollout.result.lengths
  print(f"{jax.devices()[0].device_kind}, {jax.device_count()} devices, G={lengths.shape[1]}")
  print(
    f"tokens on average: prompt {batch.actor.lengths.mean():.0f}, trajectory {lengths.mean():.0f},"
    f" the Judge's prompt {batch.judge.lengths.mean():.0f} before the candidate"
  )
  for name, value in stages.seconds.items():
    print(f"{name:<16}{value:8.2f} s{stages.memory[name] / 2**30:8.2f} GiB")
  repeated = stages.seconds.pop("judge_repeated", None)
  step = sum(stages.seconds.values())
  judge = stages.seconds["judge"]
  tokens = int(batch.actor.lengths.sum() + lengths.sum())
  devices, chip = jax.device_count(), chips.current()
  update = flops.of_update(setup.initial_weights.model, rollout, setup.learner.adapters is not None)
  update /= stages.seconds["update"] * devices
  decode = decode_bytes(
    setup.initial_weights.model,
    setup.roles.actor.dtype,
    rollout.result.stats.steps,
    batch.actor.lengths,
    lengths,
    layouts.row_shards(setup.mesh),
  )
  decode /= stages.decode * devices
  sequences = (batch.actor.lengths[:, None] + lengths).reshape(-1)
  actor = easyr1_flops(setup.initial_weights.model, sequences) / stages.seconds["update"] / devices
  peak = (jax.local_devices()[0].memory_stats() or {}).get("peak_bytes_in_use")
  columns = {
    "throughput": round(sequences.sum() / step / devices, 1),
    "seconds_per_step": round(step, 3),
    "actor_mfu": chip and round(actor / chip.flops, 3),
    "peak_mem_gib": round(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20, 3),
    "peak_vram_gib": peak and round(peak / 2**30, 3),
  }
  result = {
    "device": jax.devices()[0].device_kind,
    "judge_shared_speedup": repeated and round(repeated / judge, 3),
    "judge_share": round(judge / step, 3),
    "judge_share_repeated": repeated and round(repeated / (step - judge + repeated), 3),
    "tokens_per_second": round(tokens / step / devices, 1),
    "update_tflops": round(update / 1e12, 3),
    "update_mfu": chip and round(update / chip.flops, 3),
    "decode_gbs": round(decode / 1e9, 2),
    "decode_bandwidth": chip and round(decode / chip.bandwidth, 3),
    **{name: float(f"{metrics[name]:.3g}") for name in ("mismatch_mean", "mismatch_max")},
    "easyr1": columns,
    "seconds": {name: round(value, 3) for name, value in stages.seconds.items()}
    | {"step": round(step, 3)},
    "memory_gib": {name: round(value / 2**30, 3) for name, value in stages.memory.items()},
  }
  print(json.dumps(result))


if __name__ == "__main__":
  app.run(main)
