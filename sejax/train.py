"""The training loop (arXiv:2603.21289): collect a rollout, update, evaluate, log, save.

`run` trains from the first step, or from the last checkpoint, to the end. A step depends only on
the checkpoint, the configuration and the step's number, so a run that is killed and restarted gives
the same results as one without interruption. `export` writes the model of the last checkpoint.

The parts of a step: sampling and judging are in `rollout/collect.py`, rewards and advantages in
`method/groups.py`, the loss in `method/losses.py`, its gradient and the optimizer in
`learner/update.py`.
"""

import contextlib
import functools
import json
import os
import tempfile
import time
from collections.abc import Callable, Mapping

import jax
import ml_collections
import tqdm

from sejax import config as config_lib
from sejax import models, storage
from sejax import setup as setup_lib
from sejax.data.pipeline import Pipeline
from sejax.errors import shortened
from sejax.evaluation import summary as summary_lib
from sejax.learner.checkpoints import Checkpoints, Progress, Restored, fingerprint
from sejax.learner.export import export as export_model
from sejax.learner.learner import check_gradients
from sejax.learner.update import LaggingState, TaughtState, TrainState
from sejax.models import hub
from sejax.monitoring import metrics
from sejax.monitoring.timing import Clock, CompilationCounter, profiling
from sejax.monitoring.writers import EVENTS, Logs
from sejax.parallel import hosts, preemption
from sejax.parallel.lock import Lock
from sejax.reports import model_card
from sejax.reports import training as training_report
from sejax.rollout import collect

_PUBLISHED = "sejax_config.json"  # of a model on the hub, beside it
SavedState = TrainState | LaggingState | TaughtState

_SHOWN = {  # metrics in the progress bar, with their labels
  "reward": "reward",
  "majority_share": "majority",
  "judge_mean": "judge",
  "entropy": "entropy",
  "response_length": "length",
}


def run(config: ml_collections.ConfigDict, workdir: storage.Path) -> int:
  """Trains a policy: `--mode=train`. Writes model, logs, summary and report to the workdir.

  Args:
    workdir: an existing folder. If it holds a run with the same configuration, that run resumes.

  Returns:
    The exit status: 0, or, where a signal other than Ctrl-C has stopped it, 128 and its number.

  Raises:
    ValueError: a field, file or directory cannot work, or another process uses the workdir.
  """
  with Lock(workdir) as lock:
    config_lib.require_same(config, workdir)
    if config.train.steps is not None:  # Else it is known when the data has been counted.
      config_lib.require_steps(config.train.steps, workdir)
    config_lib.save_if_new(config, workdir)
    with Logs(workdir, config.log, config.to_dict()) as logs:  # First, as it may ask for a login.
      return _run(config, storage.absolute(workdir), lock, logs)


def _run(config: ml_collections.ConfigDict, workdir: storage.Path, lock: Lock, logs: Logs) -> int:
  """Sets the run up and trains; see `run`."""
  original_config, commits = config, config_lib.commits(workdir)
  config = config_lib.with_local_inputs(config, config_lib.OF_TRAINING, commits)
  config_lib.save_commits(commits, workdir)
  began, clock, compilations = time.monotonic(), Clock(), CompilationCounter()
  setup = setup_lib.set_up(config, workdir, clock)
  if config.train.steps is None:  # Else `run` has checked it.
    config_lib.require_steps(setup.steps, workdir)

  with (
    setup.prover,
    Checkpoints(workdir / "checkpoints", config.checkpoint) as checkpoints,
    contextlib.ExitStack() as exit_stack,
    tqdm.tqdm(total=setup.steps, delay=1, disable=jax.process_index() > 0) as bar,
  ):
    first, saved, progress = _resume(checkpoints, config, setup)
    state, behaviour, teacher = _split(saved)
    del saved  # Its arrays are donated.
    # On resume, records the new values of fields that may change; hub names stay as written.
    config_lib.save(original_config, workdir)
    seconds_before = progress.seconds
    logs.resume(first - 1)
    data = setup_lib.pipeline(config, setup.preparer, progress.data)
    exit_stack.callback(setup.learner.compiler.close)
    setup.learner.prepare_optimizer(state)
    if setup.heldout and progress.before is None:
      before = setup.heldout(setup_lib.decoding_params(setup, state.params), label="before")
      progress.before = before.plain()

    # From here on, a request to stop waits for the end of the step. Before, Ctrl-C ends the run.
    stop = exit_stack.enter_context(preemption.stop_requests())
    bar.initial = bar.n = first
    clock.lap()
    # Shown at once, as compiling the first step takes minutes.
    bar.set_postfix_str("compiling, the first step takes longest", refresh=first < setup.steps)
    following = None
    # In the plain case a step is three calls: `_collect`, `learner.step` and `updates.finish`. With
    # `train.overlap` the behaviour policy, which samples, is that of one step earlier; and a
    # teacher is a slow average of the policy.
    for step in range(first, setup.steps):
      # ------------------------------------------------------------- one training step
      done, last, asked = step + 1, step + 1 == setup.steps, False
      with profiling(config.log.profile_steps, workdir / EVENTS, step):
        sampled_by = state.params if behaviour is None else behaviour
        rollout = following or _collect(setup, state, sampled_by, data, step, teacher=teacher)
        del sampled_by  # Arrays that updates donate.
        updates = setup.learner.step(state, rollout, step)
        if config.train.overlap:
          # The next batch is sampled by the policy before the updates, while they are computed.
          behaviour, data_state = setup.learner.updater.copy_trained(state.params), data.state()
          asked = stop.requested()
          following = None
          if not last and not asked:
            following = _collect(setup, state, behaviour, data, done, meanwhile=updates.send_next)
        with clock("update"):
          state, update_metrics = updates.finish()
          if setup.teacher:
            teacher = setup.teacher.follow(teacher, state.params, step)
          updated = metrics.of_updates(update_metrics)  # Waits for the updates, to time them.
      step_metrics = metrics.of_rollout(rollout, setup.source, setup.prover, config.method.tie)
      step_metrics |= updated

      # ------------------------------------------------------------- held-out problems
      if setup.heldout and (last or (config.eval.every and done % config.eval.every == 0)):
        with clock("evaluate"):
          step_metrics |= _evaluate(setup, state, progress, done)

      # ------------------------------------------------------------- logs
      lock.require_held()
      timing = metrics.of_time(
        clock.lap(),
        compilations.lap(),
        rollout,
        setup.initial_weights.model,
        adapters=setup.learner.adapters is not None,
        log_prob_passes=setup.learner.log_prob_passes,
      )
      logs.metrics(step, step_metrics)
      logs.timing(step, timing)
      logs.groups(
        step, metrics.sample_groups(rollout, setup.source, step, config.log.sample_groups)
      )
      _show(bar, step_metrics, timing)

      # ------------------------------------------------------------- checkpoint
      check_gradients(state, config.optimizer.max_skipped, checkpoints)
      asked = asked or stop.requested()
      limit, collapse = config.train.stop_on_collapse, step_metrics["collapse_score"]
      collapsed = limit is not None and collapse >= limit
      asked = asked or collapsed
      if last or asked or done % config.checkpoint.every == 0:
        progress.data = hosts.gather_json(data_state if config.train.overlap else data.state())
        progress.seconds = seconds_before + time.monotonic() - began
        score = _score(step_metrics, config.checkpoint.best_by, evaluates=setup.heldout is not None)
        saved = _joined(state, behaviour if config.train.overlap else None, teacher)
        logs.flush()
        checkpoints.save(done, saved, progress, score)
        del saved  # Its arrays are donated.
      if asked and not last:
        checkpoints.wait()
        bar.close()
        data.log_dropped()
        why = "; rerun the same command to resume"
        if collapsed:
          why = (
            f": collapse_score={collapse:.3f} reached config.train.stop_on_collapse={limit};"
            " rerun with a higher one, or None, to resume"
          )
        print(f"stopped after step {done} of {setup.steps}{why}")
        return stop.status
    checkpoints.wait()
    data.log_dropped()
    bar.close()
    if setup.heldout and progress.evaluated != setup.steps:
      # No step was left to run: the checkpoint is of a longer run, which did not evaluate here.
      after = setup.heldout(setup_lib.decoding_params(setup, state.params), label="after")
      progress.after = after.plain()
  _finish(config, workdir, setup, state, progress)
  return 0


def _initial(
  config: ml_collections.ConfigDict, setup: setup_lib.TrainSetup
) -> tuple[SavedState, int]:
  """Returns what is saved at step 0, and the fingerprint of the frozen weights."""
  weights, updater = setup.initial_weights, setup.learner.updater
  state = updater.init(setup.load_trained())
  saved = _joined(
    state,
    updater.copy_trained(state.params) if config.train.overlap else None,
    setup.teacher.begin(state.params) if setup.teacher else None,
  )
  return saved, fingerprint((weights.frozen, weights.judge_params))


def _joined(
  state: TrainState, behaviour: models.Params | None, teacher: models.Params | None
) -> SavedState:
  """Returns what is saved. A run has no behaviour policy of its own and a teacher at once."""
  if behaviour is not None:
    return LaggingState(state, behaviour)
  return state if teacher is None else TaughtState(state, teacher)


def _split(
  saved: SavedState,
) -> tuple[TrainState, models.Params | None, models.Params | None]:
  """Returns the training state, the behaviour policy and the teacher; reverses `_joined`."""
  if isinstance(saved, LaggingState):
    return saved.train, saved.behaviour, None
  if isinstance(saved, TaughtState):
    return saved.train, None, saved.teacher
  return saved, None, None


def _resume(
  checkpoints: Checkpoints,
  config: ml_collections.ConfigDict,
  setup: setup_lib.TrainSetup,
) -> Restored:
  """Returns the last checkpoint, or the initial state at step 0."""
  state, weights_fingerprint = _initial(config, setup)
  restored = checkpoints.restore(state, weights_fingerprint)
  return restored or Restored(0, state, Progress(fingerprint=weights_fingerprint))


def _collect(
  setup: setup_lib.TrainSetup,
  state: TrainState,
  sampled_by: models.Params,
  data: Pipeline,
  step: int,
  *,
  teacher: models.Params | None = None,
  meanwhile: Callable[[], None] | None = None,
) -> collect.Rollout:
  """Returns the rollout of a step.

  Args:
    state: before the updates that learn from it; arrays that were donated will do.
    sampled_by: weights or adapters of the policy that samples.
    teacher: weights or adapters of the teacher; None without one.
    meanwhile: see `Collector.collect_rollout`.
  """
  weights = collect.SamplingWeights(
    setup.learner.policy_params(sampled_by),
    setup.initial_weights.judge_params,
    None if teacher is None else setup.learner.policy_params(teacher),
  )
  return setup.collector.collect_rollout(
    weights,
    data,
    step,
    on_trajectories=functools.partial(setup.learner.prepare, state),
    meanwhile=meanwhile,
  )


def _evaluate(
  setup: setup_lib.TrainSetup, state: TrainState, progress: Progress, step: int
) -> dict[str, float]:
  """Evaluates the held-out problems, notes it in the progress, and returns the metrics."""
  result = setup.heldout(setup_lib.decoding_params(setup, state.params))
  progress.after, progress.evaluated = result.plain(), step
  return {f"heldout_{name}": value for name, value in result.summary().items()}


def _score(step_metrics: Mapping[str, float], best_by: str, *, evaluates: bool) -> float | None:
  """Returns what checkpoints are compared by, higher is better; None if it was not measured.

  Args:
    best_by: `config.checkpoint.best_by`.
    evaluates: whether there are held-out problems; without any, `heldout` is the reward.
  """
  if best_by == "collapse":
    return -step_metrics["collapse_score"]
  if best_by == "heldout" and evaluates:
    return step_metrics.get("heldout_pass_at_1")
  return step_metrics["reward"]


def _show(bar: tqdm.tqdm, step_metrics: Mapping[str, float], timing: Mapping[str, float]) -> None:
  """Moves the progress bar by a step, and shows the metrics of the step beside it."""
  shown = {name: step_metrics[key] for key, name in _SHOWN.items() if key in step_metrics}
  bar.set_postfix(shown | {"tok/s": timing["tokens_per_second"]})
  bar.update()


def _finish(
  config: ml_collections.ConfigDict,
  workdir: storage.Path,
  setup: setup_lib.TrainSetup,
  state: TrainState,
  progress: Progress,
) -> None:
  """Writes `model/`, `summary.json` and `report.html`, and prints the summary."""
  _export(config, workdir, setup, state)
  if jax.process_index() > 0:
    return
  training_problems = setup.heldout.training_problems if setup.heldout else 0
  summary = summary_lib.write(workdir, setup.steps, progress, training_problems)
  training_report.run(workdir)
  for line in summary_lib.lines(summary):
    print(line)
  print(f"model: {workdir / 'model'}")
  print(f"report: {workdir / 'report.html'}")


def export(
  config: ml_collections.ConfigDict, workdir: storage.Path, push: str | None = None
) -> None:
  """Exports the policy of the last checkpoint to `model/` in the workdir: `--mode=export`.

  Args:
    workdir: of a training run.
    push: name on the Hugging Face hub that the model is uploaded to, with its card.

  Raises:
    ValueError: the workdir has no checkpoint, or the hub does not take the model.
  """
  if push is not None:
    hub.require_name("--push", push)
  directory = storage.absolute(workdir) / "checkpoints"
  if not directory.is_dir():
    raise ValueError(
      f"--workdir={shortened(workdir)} holds no checkpoints; give the workdir of a training run"
    )
  config_lib.require_same(config, workdir)
  writes = jax.process_index() == 0
  address = hub.create(push, _PUBLISHED) if push and writes else ""
  workdir = storage.absolute(workdir)
  commits = config_lib.commits(workdir)
  config = config_lib.with_local_inputs(config, config_lib.OF_TRAINING, commits)
  setup = setup_lib.set_up(config, workdir, Clock())
  with Checkpoints(directory, config.checkpoint, read_only=True) as checkpoints:
    restored = checkpoints.restore(*_initial(config, setup))
  if restored is None:
    raise ValueError(f"{directory} holds no checkpoint to export")
  state, *_ = _split(restored.state)
  _export(config, workdir, setup, state)
  print(f"step {restored.step} written to {workdir / 'model'}")
  if push and writes:
    _push(workdir, restored.step, push)
    print(f"uploaded to {address}")


def _push(workdir: storage.Path, step: int, name: str) -> None:
  """Uploads `model/` with its card and the configuration."""
  with tempfile.TemporaryDirectory() as folder:
    for file in (workdir / "model").iterdir():
      file.copy(os.path.join(folder, file.name))
    config = config_lib.published(workdir)
    text = json.dumps(config, indent=2, sort_keys=True) + "\n"
    storage.write_text(os.path.join(folder, _PUBLISHED), text)
    card = model_card.text(config, workdir, step)
    storage.write_text(os.path.join(folder, "README.md"), card)
    hub.upload(folder, name)


def _export(
  config: ml_collections.ConfigDict,
  workdir: storage.Path,
  setup: setup_lib.TrainSetup,
  state: TrainState,
) -> None:
  """Writes the policy of a training state to `model/`."""
  export_model(
    setup.learner.policy_params(state.params),
    setup.initial_weights.model,
    workdir / "model",
    source=config.model.path,
    dtype=config.checkpoint.export_dtype,
  )
