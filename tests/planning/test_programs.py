"""What a step is planned to call is what it calls: the same programs, in the same shapes."""

import contextlib
import functools
import gc
import logging
import re

import jax
import pytest

from configs import tiny
from sejax import models
from sejax import setup as setup_lib
from sejax.config import parts, validation
from sejax.monitoring.timing import Clock
from sejax.parallel import meshes
from sejax.parallel import programs as program_lib
from sejax.parallel.programs import bytes_per_device
from sejax.planning import programs
from sejax.rollout.collect import SamplingWeights

pytestmark = pytest.mark.long

# Kernels on a few numbers, which planning leaves out.
METHOD = {"_group", "combine_metrics"}
# What trains is planned for rows as large as they may be; how large they are depends on lengths.
PACKED = {"take_groups", "compute_logprobs", "compute_gradient"}


@contextlib.contextmanager
def lowered():
  """Collects the name and the shapes of every program that jax lowers, whoever asks for it."""
  jax.clear_caches()  # What was lowered before would not be lowered again.
  found = []

  class Handler(logging.Handler):
    def emit(self, record):
      if match := re.match(r"Compiling jit\((\w+)\) with (.*) Argument", record.getMessage(), re.S):
        found.append(match.groups())

  logger, handler = logging.getLogger("jax"), Handler()
  propagates, logger.propagate = logger.propagate, False
  logger.addHandler(handler)
  try:
    with jax.log_compiles():
      yield found
  finally:
    logger.removeHandler(handler)
    logger.propagate = propagates


def configuration(**changes):
  """Returns the configuration of a small step, in which every bucket has one size."""
  config = tiny.get_config()
  config.update(batch_size=4, mini_batch_size=2, group_size=3)
  config.model.unroll = False
  config.log.compilation_cache = False
  config.data.prompt_buckets = (64,)
  config.actor.max_tokens = config.judge.max_tokens = 8
  config.train.micro_batch_size = 1
  config.train.response_buckets = (8,)
  config.sampling.decode_steps = 8
  config.eval.num_problems = 0
  config.update_from_flattened_dict(changes)
  validation.validate(config)
  return config


def run_step(config, workdir):
  setup = setup_lib.set_up(config, workdir, Clock())
  state = setup.learner.updater.init(setup.load_trained())
  data = setup_lib.pipeline(config, setup.preparer, ())
  with setup.prover, lowered() as found:
    weights = SamplingWeights(
      setup.learner.policy_params(state.params), setup.initial_weights.judge_params
    )
    rollout = setup.collector.collect_rollout(weights, data, 0)
    del weights
    setup.learner.step(state, rollout, 0).finish()
  return {program for program in found if program[0] not in METHOD}


def planned_calls(config):
  step, model = parts.planned_step(config), models.load_config(config.model.path)
  return list(programs.of_step(step, model, meshes.create(config.mesh)))


def plan_step(config):
  with lowered() as found:
    calls = planned_calls(config)
    assert not found  # Planning computes with shapes alone.
    for call in calls:
      call.program.lower(*call.args)
  return set(found)


def sizes(text):
  """Returns the shapes in what jax logs of a program's arguments."""
  return [[int(n) for n in shape.split(",") if n] for shape in re.findall(r"\[([\d,]*)\]", text)]


def fit_into(shapes, largest):
  return len(shapes) == len(largest) and all(
    len(a) == len(b) and all(x <= y for x, y in zip(a, b, strict=True))
    for a, b in zip(shapes, largest, strict=True)
  )


@pytest.mark.parametrize(
  "changes",
  [
    {"model.dtype": "bfloat16"},
    {"train.freeze_vision": False},
    {"lora.rank": 4, "model.dtype": "bfloat16"},
  ],
  ids=["frozen tower", "all weights", "adapters"],
)
def test_a_step_calls_what_is_planned_in_the_planned_shapes(tmp_path, changes):
  config = configuration(**changes)
  planned, called = plan_step(config), run_step(config, tmp_path)
  for name in PACKED:
    most = [sizes(text) for program, text in planned if program == name]
    found = [sizes(text) for program, text in called if program == name]
    assert found
    for shapes in found:
      assert any(fit_into(shapes, largest) for largest in most), name
  assert {x for x in called if x[0] not in PACKED} <= planned
  # All sequences end in the first decode run: nothing is written to pages, and none move.
  assert {name for name, _ in planned - called} - PACKED == {"write", "take"}


@pytest.mark.parametrize("rank", [0, 4])
def test_a_teacher_is_counted_beside_every_call(rank):
  alone, taught = (
    planned_calls(configuration(**{"teacher.use": use, "lora.rank": rank})) for use in (False, True)
  )
  trained = alone[-1].args[0].params  # of "apply gradient"
  assert alone[-1].name == "apply gradient"
  size = sum(x.size * 4 for x in jax.tree.leaves(trained))
  added = {b.name: b.alive_bytes - a.alive_bytes for a, b in zip(alone, taught, strict=True)}
  assert {*added.values()} == {size}, added


def test_smaller_batches_call_no_other_programs(tmp_path):
  changes = {
    "actor.max_concurrent_rows": 6,
    "judge.max_concurrent_rows": 6,
    "actor.max_tokens": 24,
    "sampling.pack": True,
    "train.response_buckets": (8, 24),
  }
  config = configuration(**changes)
  called = {name for name, _ in run_step(config, tmp_path)}
  assert called == {name for name, _ in plan_step(config)}


@pytest.mark.parametrize(
  "changes",
  [{}, {"train.freeze_vision": False, "loss.kl_coef": 0.0}, {"lora.rank": 4}],
  ids=["frozen tower", "all weights", "adapters"],
)
def test_what_is_compiled_in_advance_is_what_updates_call(tmp_path, monkeypatch, changes):
  prepared, compiles = set(), program_lib._compile

  def compile_named(program, args):
    prepared.add(program.function.__name__)
    return compiles(program, args)

  monkeypatch.setattr(program_lib, "_compile", compile_named)
  config = configuration(compile_threads=1, **changes)
  setup = setup_lib.set_up(config, tmp_path, Clock())
  learner = setup.learner
  state = learner.updater.init(setup.load_trained())
  data = setup_lib.pipeline(config, setup.preparer, ())
  weights = SamplingWeights(learner.policy_params(state.params), setup.initial_weights.judge_params)
  expected = {"make_zeros", "compute_logprobs", "compute_gradient", "compute_update"}
  with setup.prover, lowered() as found:
    learner.prepare_optimizer(state)
    rollout = setup.collector.collect_rollout(
      weights, data, 0, on_trajectories=functools.partial(learner.prepare, state)
    )
    del weights
    learner.compiler.wait()
    assert expected <= prepared
    found.clear()
    learner.step(state, rollout, 0).finish()
  again = expected & {name for name, _ in found}
  assert not again, again


@pytest.mark.parametrize("rank", [0, 4])
def test_a_run_keeps_what_is_planned(tmp_path, rank):
  """Nothing but the training state and the frozen weights is on the device between steps."""
  config = configuration(**{"lora.rank": rank})
  kept = bytes_per_device(planned_calls(config)[-1].alive[0])
  before = live_bytes()
  setup = setup_lib.set_up(config, tmp_path, Clock())
  with setup.prover:
    state = setup.learner.updater.init(setup.load_trained())
    assert live_bytes() - before == pytest.approx(kept, rel=1e-3)
  del state


def live_bytes():
  gc.collect()
  return sum(x.nbytes for x in jax.live_arrays())
