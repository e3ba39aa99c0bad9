"""Sampling a batch while the policy learns from the one before it: `train.overlap=1`."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from configs import tiny
from sejax import models, train
from sejax.config import parts, validation
from sejax.errors import ConfigError
from sejax.learner.pending import Pending
from sejax.monitoring import writers
from sejax.parallel import meshes
from sejax.parallel.programs import bytes_per_device
from sejax.planning import programs

pytestmark = pytest.mark.long

OVERLAP = {"train.overlap": 1, "loss.rollout_correction": "token_truncate"}


@pytest.fixture(scope="module")
def run(tmp_path_factory):
  """Returns a function that trains without a Judge, by default two steps in a new workdir."""

  def run(workdir=None, **changes):
    workdir = workdir or tmp_path_factory.mktemp("run")
    config = configuration(**changes)
    train.run(config, workdir)
    return workdir

  return run


def configuration(**changes):
  config = tiny.get_config()
  config.update(batch_size=4, mini_batch_size=2, group_size=4)
  config.actor.max_tokens = 48
  config.judge.use = False
  config.train.update(steps=3, micro_batch_size=1, response_buckets=())
  config.eval.num_problems = 0
  config.optimizer.learning_rate = 1e-3
  config.model.unroll = False  # compiles faster
  config.log.compilation_cache = False  # The tests share one cache for all runs.
  config.log.sample_groups = 4
  config.update_from_flattened_dict(changes)
  validation.validate(config)
  return config


def texts(workdir):
  """Returns what was sampled in each step."""
  steps = {}
  for group in writers.read(workdir / writers.GROUPS):
    steps.setdefault(group["step"], []).append(group["texts"])
  return [steps[step] for step in sorted(steps)]


@pytest.fixture(scope="module")
def overlapped(run):
  return run(**OVERLAP)


def test_a_batch_is_sampled_by_the_policy_of_one_step_ago(run, overlapped):
  turns, still = run(), run(**{"optimizer.learning_rate": 0.0})
  # The initial policy samples two batches, and updates do change what would be sampled.
  assert texts(overlapped)[:2] == texts(still)[:2]
  assert texts(turns)[0] == texts(still)[0]
  assert texts(turns)[1] != texts(still)[1]
  assert texts(overlapped)[2] != texts(still)[2]
  metrics = [list(writers.read(workdir / writers.METRICS)) for workdir in (overlapped, turns)]
  for name in ("grad_norm", "policy_loss"):  # The first step learns from the same batch.
    assert metrics[0][0][name] == pytest.approx(metrics[1][0][name], rel=1e-4)
  # The sampler is as far from the policy that learns as one step has moved it.
  assert metrics[0][0]["mismatch_mean"] < 1e-5
  assert metrics[0][1]["mismatch_mean"] > 1e-4
  assert metrics[1][1]["mismatch_mean"] < 1e-5


@pytest.mark.parametrize("changes", [{}, {"lora.rank": 4}], ids=["all weights", "adapters"])
def test_a_run_that_resumes_gives_the_same_bits(run, overlapped, changes):
  whole = overlapped if not changes else run(**OVERLAP, **changes)
  # Stopped after the second step, when the third batch has been sampled.
  resumed = run(**OVERLAP, **changes, **{"train.steps": 2})
  assert run(resumed, **OVERLAP, **changes) == resumed
  expected, found = (
    safetensors.numpy.load_file(workdir / "model" / "model.safetensors")
    for workdir in (whole, resumed)
  )
  assert all(np.array_equal(found[name], x) for name, x in expected.items())
  lines = [(workdir / writers.METRICS).read_text() for workdir in (whole, resumed)]
  assert lines[0] == lines[1]
  assert texts(whole) == texts(resumed)
  train.export(configuration(**OVERLAP, **changes), resumed)
  exported = safetensors.numpy.load_file(resumed / "model" / "model.safetensors")
  assert all(np.array_equal(exported[name], x) for name, x in expected.items())


def test_parts_are_sent_in_order_and_the_rest_at_the_end():
  sent = []

  def parts_of_three():
    for number in range(3):
      sent.append(number)
      yield
    return sum(sent)

  pending = Pending(parts_of_three())
  assert sent == []
  pending.send_next()
  pending.send_next()
  assert sent == [0, 1]
  assert pending.finish() == 3
  assert sent == [0, 1, 2]
  pending.send_next()
  assert pending.finish() == 3


@pytest.mark.parametrize(
  ("overlap", "message"),
  [
    (1, "config.loss.rollout_correction='none' must be another with train.overlap=1"),
    (2, "config.train.overlap=2 must be one of 0, 1"),
  ],
)
def test_it_needs_a_correction(overlap, message):
  with pytest.raises(ConfigError, match=message):
    configuration(**{"train.overlap": overlap})


def test_a_plan_counts_what_learns_and_what_samples_at_once():
  def planned(**changes):
    sizes = {"batch_size": 64, "actor.max_tokens": 384, "judge.max_tokens": 384}
    config = configuration(**changes, **sizes, **{"model.dtype": "bfloat16", "judge.use": True})
    step, model = parts.planned_step(config), models.load_config(config.model.path)
    mesh = meshes.create(config.mesh)
    calls = {call.name: call for call in programs.of_step(step, model, mesh)}
    return calls, programs.with_room(step, model, mesh, 2**27).roles

  (turns, apart), (overlap, together) = planned(), planned(**OVERLAP)
  # The copy has the precision to sample with already.
  assert turns.keys() - overlap.keys() == {"actor layout"}
  add = overlap["add gradient"]
  gradient, _, _, micro, _ = add.args
  # While the Actor samples: the gradient and a micro-batch.
  more = overlap["actor decode, a token"].alive_bytes - turns["actor decode, a token"].alive_bytes
  assert more >= bytes_per_device((gradient, micro))
  # While a gradient is added: the sampler's weights, prompts and KV cache.
  *_, state, prefix, pages, _, _ = overlap["judge decode, a token"].args
  more = add.alive_bytes - turns["add gradient"].alive_bytes
  assert more >= bytes_per_device((state, prefix, pages))
  # None of it twice: of the embedding there are weights, two moments and a gradient.
  embedding = gradient["decoder"]["embed"]["embedding"]
  arrays = {id(x): x for x in jax.tree.leaves((add.args, add.alive))}
  assert sum((x.shape, x.dtype) == (embedding.shape, jnp.float32) for x in arrays.values()) == 4
  for role in ("actor", "judge"):
    assert getattr(together, role).cache_tokens < getattr(apart, role).cache_tokens
