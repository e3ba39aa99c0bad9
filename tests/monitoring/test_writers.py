"""Logs read back: by strict JSON, by TensorBoard's own protocol buffers, and after a kill."""

import json
import struct
import sys
import types

import jax
import numpy as np
import pytest
from tensorboardX.proto import event_pb2
from tensorboardX.record_writer import masked_crc32c

from sejax import config as config_lib
from sejax.monitoring import events as events_lib
from sejax.monitoring import writers


@pytest.fixture
def config():
  return config_lib.default()


def log_step(logs, step):
  logs.metrics(step, {"reward": step / 8, "pass@1": np.float32(0.1), "kl": jax.numpy.array(2)})
  logs.timing(step, {"sample": 1.5})
  logs.groups(step, [{"texts": ["a\ud800\n", "é"], "rewards": np.array([0.5, np.nan])}] * 2)


def lines(path):
  def refuse(constant):
    raise AssertionError(f"{constant} is not JSON")

  text = path.read_text(encoding="utf-8")
  assert text.endswith("\n")
  return [json.loads(line, parse_constant=refuse) for line in text[:-1].split("\n")]


def events(path):
  """Parses an event file: length, its check sum, the event and its check sum (TFRecord)."""
  data, parsed = path.read_bytes(), []
  while data:
    (length,) = struct.unpack("<Q", data[:8])
    assert struct.unpack("<I", data[8:12])[0] == masked_crc32c(data[:8])
    body, data = data[12 : 12 + length], data[12 + length :]
    assert struct.unpack("<I", data[:4])[0] == masked_crc32c(body)
    data = data[4:]
    parsed.append(event_pb2.Event.FromString(body))
  return parsed


def scalars(parsed):
  return [
    (event.step, value.tag, value.simple_value) for event in parsed for value in event.summary.value
  ]


def test_lines_are_strict_json(config, tmp_path):
  with writers.Logs(tmp_path, config.log, config.to_dict()) as logs:
    logs.resume(-1)
    log_step(logs, 0)
    logs.metrics(1, {"reward": float("nan"), "ratio_max": np.inf})
  assert lines(tmp_path / "metrics.jsonl") == [
    {"step": 0, "reward": 0.0, "pass@1": float(np.float32(0.1)), "kl": 2.0},
    {"step": 1, "reward": None, "ratio_max": None},
  ]
  assert lines(tmp_path / "timing.jsonl") == [{"step": 0, "sample": 1.5}]
  group = {"step": 0, "texts": ["a\ud800\n", "é"], "rewards": [0.5, None]}
  assert lines(tmp_path / "groups.jsonl") == [group, group]


def test_tensorboard_reads_every_scalar_before_the_run_ends(config, tmp_path):
  logs = writers.Logs(tmp_path, config.log, config.to_dict())
  logs.resume(-1)
  log_step(logs, 1)
  logs.metrics(300, {"x" * 200: -1e39, "é": float("nan")})
  (path,) = (tmp_path / "tensorboard").glob("*.tfevents.*")
  parsed = events(path)
  assert parsed[0].file_version == "brain.Event:2"
  assert all(event.wall_time > 1.7e9 for event in parsed)
  read = scalars(parsed)
  assert read[:4] == [
    (1, "reward", 0.125),
    (1, "pass@1", float(np.float32(0.1))),
    (1, "kl", 2),
    (1, "sample", 1.5),
  ]
  assert read[4] == (300, "x" * 200, -np.inf)
  assert read[5][:2] == (300, "é")
  assert np.isnan(read[5][2])


def test_a_restart_tells_tensorboard_what_to_forget(config, tmp_path):
  for restored, steps in ((-1, (0, 1, 2)), (1, (2, 3)), (1, (2,))):
    with writers.Logs(tmp_path, config.log, config.to_dict()) as logs:
      logs.resume(restored)
      for step in steps:
        logs.metrics(step, {"reward": step})
  files = sorted((tmp_path / "tensorboard").iterdir())
  starts = [next(e for e in events(path) if e.HasField("session_log")) for path in files]
  assert [event.session_log.status for event in starts] == [event_pb2.SessionLog.START] * 3
  assert [event.step for event in starts] == [0, 2, 2]
  assert [scalars(events(path)) for path in files] == [
    [(0, "reward", 0), (1, "reward", 1), (2, "reward", 2)],
    [(2, "reward", 2), (3, "reward", 3)],
    [(2, "reward", 2)],
  ]


def test_a_run_that_ends_leaves_whole_files_in_a_bucket(config, bucket):
  with writers.Logs(bucket, config.log, config.to_dict()) as logs:
    logs.resume(-1)
    for step in range(2):
      log_step(logs, step)
      logs.flush()
    assert not (bucket / "metrics.jsonl").exists()
  names = (writers.METRICS, writers.TIMING, writers.GROUPS)
  assert [len(lines(bucket / name)) for name in names] == [2, 2, 4]
  assert sorted(path.name for path in bucket.iterdir()) == sorted([*names, "tensorboard"])


def test_all_files_are_closed_though_one_cannot_be(config, bucket, monkeypatch):
  logs = writers.Logs(bucket, config.log, config.to_dict())
  logs.resume(-1)
  log_step(logs, 0)

  def fail():
    raise ConnectionError("gone")

  monkeypatch.setattr(logs._files[writers.METRICS], "close", fail)
  monkeypatch.setattr(logs._files[writers.GROUPS], "close", fail)
  with pytest.raises(ConnectionError):
    logs.__exit__(None, None, None)
  assert len(lines(bucket / "timing.jsonl")) == 1
  assert len(list((bucket / "tensorboard").iterdir())) == 1


def test_a_checkpoint_finds_its_events_in_a_bucket(config, bucket, monkeypatch):
  now = [0.0]
  monkeypatch.setattr(events_lib.time, "monotonic", lambda: now[0])
  logs = writers.Logs(bucket, config.log, config.to_dict())
  logs.resume(-1)
  for step, seconds in enumerate((30, 61, 90, 130)):
    now[0] = seconds
    logs.metrics(step, {"reward": step})
    logs.flush()
  files = sorted((bucket / "tensorboard").iterdir())
  assert [scalars(events(path)) for path in files] == [
    [(0, "reward", 0), (1, "reward", 1)],
    [(2, "reward", 2), (3, "reward", 3)],
  ]


def test_files_of_a_killed_run_end_up_as_if_it_had_not_been_killed(config, tmp_path):
  config.log.tensorboard = False
  names = (writers.METRICS, writers.GROUPS, writers.TIMING)

  def run(workdir, restored, last):
    workdir.mkdir(exist_ok=True)
    with writers.Logs(workdir, config.log, config.to_dict()) as logs:
      logs.resume(restored)
      for step in range(restored + 1, last + 1):
        log_step(logs, step)
    return {name: (workdir / name).read_bytes() for name in names}

  whole = run(tmp_path / "whole", -1, 4)
  restored = run(tmp_path / "restored", -1, 2)
  for name in names:
    least = len(restored[name])
    # Cut at the end of a line, within it, and before anything of a later step.
    for end in (*range(least, len(whole[name]), 7), len(whole[name])):
      (tmp_path / "killed").mkdir(exist_ok=True)
      for other in names:
        (tmp_path / "killed" / other).write_bytes(whole[other])
      (tmp_path / "killed" / name).write_bytes(whole[name][:end])
      assert run(tmp_path / "killed", 2, 4) == whole
  assert run(tmp_path / "whole", -1, 4) == whole


@pytest.mark.parametrize("damage", ["\0\0\0", "[1]", '{"reward": 1}', '{"step": "1"}', ""])
def test_a_damaged_line_is_named_and_nothing_is_dropped(config, tmp_path, damage):
  path = tmp_path / "timing.jsonl"
  text = '{"step": 0}\n' + damage + '\n{"step": 2}\n'
  path.write_text(text)
  with pytest.raises(ValueError, match=r"timing.jsonl:2 is not a JSON object with a step"):
    writers.Logs(tmp_path, config.log, config.to_dict()).resume(0)
  with pytest.raises(ValueError, match=r"timing.jsonl:2 is"):
    list(writers.read(path))
  assert path.read_text() == text


def test_a_line_that_is_being_written_is_not_read(tmp_path):
  path = tmp_path / "metrics.jsonl"
  assert list(writers.read(path)) == []
  path.write_text('{"step": 0}\n{"step": 1}')
  assert list(writers.read(path)) == [{"step": 0}]


def test_other_processes_write_nothing(config, tmp_path, monkeypatch):
  monkeypatch.setattr(jax, "process_index", lambda: 1)
  with writers.Logs(tmp_path, config.log, config.to_dict()) as logs:
    logs.resume(-1)
    log_step(logs, 0)
  assert list(tmp_path.iterdir()) == []


def test_nothing_is_logged_before_it_is_said_where_the_run_starts(config, tmp_path):
  with pytest.raises(RuntimeError, match="resume must be called before"):
    writers.Logs(tmp_path, config.log, config.to_dict()).metrics(0, {"reward": 1})


def test_wandb_is_wanted_and_missing(config, tmp_path, monkeypatch):
  monkeypatch.setitem(sys.modules, "wandb", None)
  config.log.wandb_project = "p"
  with pytest.raises(ValueError, match="wandb_project='p' needs the package wandb"):
    writers.Logs(tmp_path, config.log, config.to_dict())


def test_wandb_lets_nobody_in_before_anything_else_happens(config, tmp_path, monkeypatch):
  class UsageError(Exception):  # of no class that another module knows
    pass

  def refuse(**_):
    raise UsageError("No API key configured.\nUse `wandb login` to log in.")

  monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=refuse))
  config.log.wandb_project = "p"
  with pytest.raises(ValueError, match="wandb_project='p' cannot be logged to") as raised:
    writers.Logs(tmp_path, config.log, config.to_dict())
  assert "(No API key configured. Use `wandb login` to log in.); run `wandb login`, set" in str(
    raised.value
  )


def test_a_run_outlives_wandb(config, tmp_path, monkeypatch):
  def fail(_):
    raise ConnectionError("gone")

  run = types.SimpleNamespace(define_metric=lambda *_, **__: None, log=fail, finish=fail)
  monkeypatch.setitem(sys.modules, "wandb", types.SimpleNamespace(init=lambda **_: run))
  config.log.wandb_project = "p"
  with writers.Logs(tmp_path, config.log, config.to_dict()) as logs:
    logs.resume(-1)
    logs.metrics(0, {"reward": 1})
    logs.metrics(1, {"reward": 2})
  assert [line["reward"] for line in writers.read(tmp_path / writers.METRICS)] == [1, 2]


def test_wandb_gets_every_scalar_and_a_restart_goes_on_with_the_same_run(
  config, tmp_path, monkeypatch
):
  opened, logged, ended = [], [], []
  run = types.SimpleNamespace(
    define_metric=lambda name, step_metric: None,
    log=logged.append,
    finish=lambda exit_code: ended.append(exit_code),
  )
  wandb = types.SimpleNamespace(init=lambda **options: opened.append(options) or run)
  monkeypatch.setitem(sys.modules, "wandb", wandb)
  config.log.wandb_project = "p"
  with writers.Logs(tmp_path, config.log, config.to_dict()) as logs:
    logs.resume(-1)
    logs.metrics(0, {"reward": 1})
    logs.timing(0, {"sample": 2})
  logs = writers.Logs(tmp_path, config.log, config.to_dict())
  logs.resume(0)
  logs.__exit__(KeyboardInterrupt, None, None)
  assert opened[0] == opened[1]
  assert (opened[0]["project"], opened[0]["config"]["seed"]) == ("p", 0)
  assert opened[0]["id"]
  assert logged == [{"step": 0, "reward": 1.0}, {"step": 0, "sample": 2.0}]
  assert ended == [0, 1]
