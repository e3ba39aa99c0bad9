"""The optimizer against torch's AdamW and transformers' schedules, and its gradient guards."""

import types

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import torch
import transformers

from sejax import config as config_lib
from sejax.learner import optimizer
from sejax.learner.learner import check_gradients

SCHEDULERS = {
  "constant": lambda torch_optimizer, warmup, _: transformers.get_constant_schedule_with_warmup(
    torch_optimizer, warmup
  ),
  "linear": transformers.get_linear_schedule_with_warmup,
  "cosine": transformers.get_cosine_schedule_with_warmup,
}


def make_options(**changes):
  return config_lib.default().optimizer.to_dict() | changes


def make_params(seed: int = 0):
  rng = np.random.default_rng(seed)
  draw = lambda *shape: jnp.array(rng.standard_normal(shape), jnp.float32)  # noqa: E731
  return {
    "vision": {"patch_embed": {"kernel": draw(3, 4)}},
    "decoder": {"final_norm": {"scale": draw(5)}, "layers": {"q": {"kernel": draw(2, 3, 3)}}},
  }


def run(transformation, params, gradients):
  """Returns the parameters and the optimizer state after each gradient."""
  state, found = transformation.init(params), []
  update = jax.jit(transformation.update)
  for gradient in gradients:
    updates, state = update(gradient, state, params)
    params = optax.apply_updates(params, updates)
    found.append((params, state))
  return found


def scaled(tree, factor):
  return jax.tree.map(lambda x: factor * x, tree)


def assert_equal(left, right):
  jax.tree.map(np.testing.assert_array_equal, left, right)


@pytest.mark.parametrize("name", optimizer.SCHEDULES)
@pytest.mark.parametrize("warmup", [0, 3])
def test_schedules_are_those_of_transformers(name, warmup):
  parameter = torch.nn.Parameter(torch.zeros(1))
  torch_optimizer = torch.optim.SGD([parameter], lr=2e-3)
  scheduler = SCHEDULERS[name](torch_optimizer, warmup, 10)
  rate = optimizer.schedule(
    make_options(schedule=name, warmup_steps=warmup, learning_rate=2e-3), steps=10
  )
  for step in range(11):
    want = torch_optimizer.param_groups[0]["lr"]
    np.testing.assert_allclose(rate(step), want, rtol=1e-5, atol=1e-9, err_msg=f"step {step}")
    torch_optimizer.step()
    scheduler.step()
  assert name == "constant" or rate(10) == 0


@pytest.mark.long
def test_three_steps_are_those_of_torch():
  """The second gradient is large enough to be clipped, the first and third are not."""
  options = make_options(
    learning_rate=0.01, schedule="linear", warmup_steps=1, b2=0.98, eps=1e-3, weight_decay=0.1
  )
  params = make_params()
  gradients = [scaled(make_params(seed), s) for seed, s in ((1, 0.05), (2, 10.0), (3, 0.02))]
  assert [float(optax.tree.norm(g)) > options["clip_norm"] for g in gradients] == [
    False,
    True,
    False,
  ]
  leaves, treedef = jax.tree.flatten(params)
  parameters = [torch.nn.Parameter(torch.tensor(np.asarray(leaf))) for leaf in leaves]
  adamw = torch.optim.AdamW(parameters, 0.01, (0.9, 0.98), 1e-3, weight_decay=0.1)
  scheduler = transformers.get_linear_schedule_with_warmup(adamw, 1, 5)
  for (found, _), gradient in zip(
    run(optimizer.make(options, 5), params, gradients), gradients, strict=True
  ):
    for parameter, g in zip(parameters, jax.tree.leaves(gradient), strict=True):
      parameter.grad = torch.tensor(np.asarray(g))
    torch.nn.utils.clip_grad_norm_(parameters, options["clip_norm"])
    adamw.step()
    scheduler.step()
    want = jax.tree.unflatten(treedef, [p.detach().numpy().copy() for p in parameters])
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), found, want)


def test_gradients_of_rounding_size_change_nothing():
  params, noise = make_params(), scaled(make_params(1), 1e-9)
  transformation = optimizer.make(make_options(learning_rate=0.1, weight_decay=0.0), 3)
  for found, state in run(transformation, params, [noise, noise]):
    assert_equal(found, params)
    assert not any(np.any(x) for x in jax.tree.leaves(state.inner_state) if np.ndim(x))
  # Without the guard, Adam takes full steps.
  bare = make_options(learning_rate=0.1, weight_decay=0.0, negligible_norm=0.0, eps=1e-15)
  ((moved, _),) = run(optimizer.make(bare, 3), params, [noise])
  jax.tree.map(lambda a, b: np.testing.assert_allclose(abs(a - b), 0.1, rtol=0.1), moved, params)


def test_zero_gradients_leave_weight_decay_alone():
  params = make_params()
  transformation = optimizer.make(make_options(learning_rate=0.1, weight_decay=0.5), 3)
  ((found, _),) = run(transformation, params, [scaled(params, 0.0)])
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, 0.95 * b, rtol=1e-6), found, params)


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_gradient_that_is_not_finite_changes_nothing_and_is_counted(bad):
  params, good = make_params(), make_params(1)
  poisoned = jax.tree.map(lambda x: x, good)
  scale = poisoned["decoder"]["final_norm"]["scale"]
  poisoned["decoder"]["final_norm"]["scale"] = scale.at[2].set(bad)
  transformation = optimizer.make(make_options(learning_rate=0.1, warmup_steps=1), 9)
  steps = run(transformation, params, [good, poisoned, poisoned, good, poisoned])
  counts = [tuple(map(int, optimizer.skipped(state))) for _, state in steps]
  assert counts == [(0, 0), (1, 1), (2, 2), (0, 2), (1, 3)]
  for skipped in (1, 2):
    assert_equal(steps[skipped][0], steps[0][0])
    assert_equal(steps[skipped][1].inner_state, steps[0][1].inner_state)
  # The next finite gradient acts as if there had been no other: same moments and learning rate.
  (_, clean) = run(transformation, params, [good, good])
  assert_equal(steps[3][0], clean[0])
  assert np.any(
    clean[0]["decoder"]["final_norm"]["scale"] != params["decoder"]["final_norm"]["scale"]
  )


def test_a_run_ends_after_too_many_gradients_that_are_not_finite():
  params = make_params()
  transformation = optimizer.make(make_options(), 9)
  _, (_, state) = run(transformation, params, [scaled(params, np.nan)] * 2)
  train_state = types.SimpleNamespace(optimizer=state)
  checkpoints = types.SimpleNamespace(wait=lambda: None, latest=4)
  check_gradients(train_state, 3, checkpoints)
  with pytest.raises(ValueError, match="not finite") as caught:
    check_gradients(train_state, 2, checkpoints)
  assert str(caught.value) == (
    "the gradient was not finite in the last 2 optimizer steps (2 in all);"
    " config.optimizer.max_skipped is 2; the last good checkpoint is of step 4; lower"
    " config.optimizer.learning_rate, or give a larger config.optimizer.max_skipped"
  )


def test_frozen_arrays_keep_their_bits_have_no_moments_and_no_part_in_the_norm():
  params, gradient = make_params(), make_params(1)
  # If it counted in the norm, all other gradients would be clipped to almost nothing.
  gradient["vision"] = scaled(gradient["vision"], 1e3)
  options = make_options(learning_rate=0.1, weight_decay=0.1, eps=1.0)
  ((found, state),) = run(optimizer.make(options, 3, ("^vision/",)), params, [gradient])
  assert_equal(found["vision"], params["vision"])
  shapes = [np.shape(x) for x in jax.tree.leaves(state)]
  assert (3, 4) not in shapes
  assert shapes.count((2, 3, 3)) == 2  # first and second moment
  alone = {"decoder": params["decoder"]}
  ((want, _),) = run(optimizer.make(options, 3), alone, [{"decoder": gradient["decoder"]}])
  assert_equal(found["decoder"], want["decoder"])


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"schedule": "step"}, "schedule='step' must be one of constant, linear, cosine"),
    ({"learning_rate": -1.0}, "learning_rate=-1.0 must be a number in"),
    (
      {"warmup_steps": 5},
      "warmup_steps=5 must be at least 0 and below the run's 5 optimizer steps",
    ),
    ({"b1": 1.0}, "b1=1.0 must be a number in"),
    ({"eps": float("nan")}, "eps=nan must be a number in"),
    ({"clip_norm": 0.0}, "clip_norm=0.0 must be a number in"),
    ({"negligible_norm": -1}, "negligible_norm=-1 must be a number in"),
  ],
)
def test_bad_options_are_named(changes, message):
  with pytest.raises(ValueError, match=message):
    optimizer.make(make_options(**changes), 5)


def test_a_frozen_pattern_without_arrays_is_named():
  with pytest.raises(ValueError, match=r"^frozen='visoin' is found in no array's path"):
    optimizer.make(make_options(), 5, ("visoin",)).init(make_params())


def test_a_first_moment_in_half_precision_takes_half_the_memory():
  params, gradients = make_params(), [make_params(seed) for seed in (1, 2, 3)]
  found = {}
  for kind in optimizer.PRECISIONS:
    options = make_options(learning_rate=0.01, first_moment_dtype=kind)
    found[kind] = run(optimizer.make(options, 4), params, gradients)
  states = {kind: steps[-1][1] for kind, steps in found.items()}
  sizes = {kind: sum(x.nbytes for x in jax.tree.leaves(state)) for kind, state in states.items()}
  weights = sum(x.nbytes for x in jax.tree.leaves(params))
  assert sizes["float32"] - sizes["bfloat16"] == weights // 2
  # A step differs by the rounding of its first moment, by a relative 2**-9.
  for (half, _), (whole, _) in zip(found["bfloat16"], found["float32"], strict=True):
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=3e-4), half, whole)
