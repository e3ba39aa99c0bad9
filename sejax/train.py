"""The train loop (arXiv:2603.21289): sample, read, judge, reward, update, log, evaluate, save.

`run` is one run from its first step, or from its last checkpoint, to its end. All that a later step
depends on is in the checkpoint, the configuration, or the step's number, so a run that is killed
and started again goes on as if nothing had happened.
"""

import contextlib
import pathlib
import time
from typing import Any

import jax
import ml_collections
import tqdm

from sejax import checkpoint, experience, learning, monitoring, outcome, signals
from sejax import config as config_lib
from sejax import run as run_lib
from sejax.clock import Clock, Compilations, profiling
from sejax.lock import Lock
from sejax.logs import EVENTS, Logs
from sejax.models import hub
from sejax.parallel import hosts

_SHOWN = {  # figures in the progress bar
  "reward": "reward",
  "majority_share": "majority",
  "judge_mean": "judge",
  "entropy": "entropy",
  "response_length": "length",
}


def run(config: ml_collections.ConfigDict, workdir: pathlib.Path) -> None:
  """Trains, or goes on training, and leaves model, logs, summary and report in the workdir.

  Args:
    config: the run's configuration.
    workdir: where all is written; where a run of the same configuration was stopped, it goes on.

  Raises:
    ValueError: naming what cannot work, or the process that uses the workdir.
  """
  with Lock(workdir) as lock:
    config_lib.require_same(config, workdir)
    config_lib.save_if_new(config, workdir)
    with Logs(workdir, config) as logs:  # Opened first: it may need a login.
      _run(config, workdir.resolve(), lock, logs)


def _run(config: ml_collections.ConfigDict, workdir: pathlib.Path, lock: Lock, logs: Logs) -> None:
  given, config = config, hub.with_local_models(config)
  began, clock, compilations = time.monotonic(), Clock(), Compilations()
  setting = run_lib.set_up(config, workdir, clock)
  state = setting.updater.init(setting.models.initial)
  fingerprint = checkpoint.fingerprint((setting.models.frozen, setting.models.judge_params))
  memory: dict[str, Any] = {"fingerprint": fingerprint, "data": (), "seconds": 0.0}
  first = 0

  with (
    setting.prover,
    checkpoint.Checkpoints(workdir / "checkpoints", config.checkpoint) as checkpoints,
    contextlib.ExitStack() as loop,
    tqdm.tqdm(total=setting.steps, delay=1, disable=jax.process_index() > 0) as bar,
  ):
    if restored := checkpoints.restore(state, fingerprint):
      first, state, memory = restored
    if first > setting.steps:
      raise ValueError(
        f"{workdir} holds a checkpoint of step {first}, and this run has {setting.steps} steps;"
        f" give config.train.steps={first} or more, or another --workdir"
      )
    config_lib.save(given, workdir)
    spent = memory["seconds"]
    logs.resume(first - 1)
    data = run_lib.pipeline(config, setting.preparer, memory["data"])
    if setting.heldout and "before" not in memory:
      weights = run_lib.decoding(setting, state.params)
      memory["before"] = setting.heldout(weights, progress="before").plain()

    # From here on there is a step to finish; before, Ctrl-C may end the run at once.
    stop = loop.enter_context(signals.stop_requests())
    bar.initial = bar.n = first
    clock.lap()
    # Else nothing would be seen for minutes.
    bar.set_postfix_str("compiling, the first step takes longest", refresh=first < setting.steps)
    for step in range(first, setting.steps):
      with profiling(config.log.profile, workdir / EVENTS, step):
        weights = experience.Weights(
          run_lib.policy(setting, state.params), setting.models.judge_params
        )
        lived = setting.collector.collect(weights, data, step)
        del weights  # of the policy before the update, which is donated
        with clock("update"):
          state, reports = learning.learn(config, setting, state, lived)
          figures = monitoring.of_updates(reports)  # Waits for them, so that their time is counted.
      graded = monitoring.of_experience(lived, setting.source, setting.prover, config.method.tie)
      figures = graded | figures

      done, last = step + 1, step + 1 == setting.steps
      # One scale for all checkpoints: held-out pass@1, or the reward where nothing is evaluated.
      score = None if setting.heldout else figures["reward"]
      if setting.heldout and (last or (config.eval.every and done % config.eval.every == 0)):
        with clock("evaluate"):
          found = setting.heldout(run_lib.decoding(setting, state.params))
        memory |= {"after": found.plain(), "evaluated": done}
        figures |= {f"heldout_{name}": value for name, value in found.summary().items()}
        score = figures["heldout_pass_at_1"]

      lock.require()
      timing = monitoring.of_time(clock.lap(), compilations.lap(), lived, setting)
      logs.metrics(step, figures)
      logs.timing(step, timing)
      logs.groups(step, monitoring.records(lived, setting.source, step, config.log.groups))
      shown = {name: figures[key] for key, name in _SHOWN.items() if key in figures}
      bar.set_postfix(shown | {"tok/s": timing["tokens_per_second"]})
      bar.update()

      learning.check_gradients(config, state, checkpoints)
      asked = stop.given()
      if last or asked or done % config.checkpoint.every == 0:
        memory["data"] = hosts.gather_json(data.state())
        memory["seconds"] = spent + time.monotonic() - began
        checkpoints.save(done, state, memory, score)
      if asked and not last:
        checkpoints.wait()
        bar.close()
        data.log_dropped()
        print(f"stopped after step {done} of {setting.steps}; the same command goes on from there")
        return
    checkpoints.wait()
    data.log_dropped()
    bar.close()
    if setting.heldout and memory.get("evaluated") != setting.steps:  # stopped in a longer run
      memory["after"] = setting.heldout(run_lib.decoding(setting, state.params), "after").plain()
  outcome.finish(config, workdir, setting, state.params, memory)
