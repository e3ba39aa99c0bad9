"""Models, data sets and benchmarks by name, against a stand-in for the hub."""

import io
import json
import os
import pathlib
import subprocess
import sys

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sejax import config as config_lib
from sejax import storage
from sejax.evaluation import hub_sets
from tests import hub_server
from tests.data.problems import random_png
from tests.subprocesses import ROOT

pytestmark = pytest.mark.long


@pytest.fixture(scope="module")
def served():
  with hub_server.serve() as (hub, variables):
    yield hub, variables


@pytest.fixture
def client(served, tmp_path):
  """Calls `tests.models.hub_client`, or another module, with the stand-in as its hub."""
  cache = {"HF_HOME": str(tmp_path / "hub"), "SEJAX_CACHE": str(tmp_path / "cache")}

  def call(*arguments, module="tests.models.hub_client", **variables):
    return subprocess.run(
      [sys.executable, "-m", module, *map(str, arguments)],
      cwd=ROOT,
      env=os.environ | served[1] | cache | {"PYTHONPATH": str(ROOT)} | variables,
      capture_output=True,
      text=True,
      check=False,
    )

  return call


def rows(*answers):
  """Returns a parquet file in the form of hiyouga/geometry3k."""
  table = {
    "images": [[{"bytes": random_png(40, 40), "path": None}] for _ in answers],
    "problem": [f"<image>Find x{number}." for number in range(len(answers))],
    "answer": list(answers),
  }
  file = io.BytesIO()
  pq.write_table(pa.table(table), file)
  return file.getvalue()


def test_a_data_set_by_name_is_pinned(served, client, tmp_path):
  hub, _ = served
  train = "data/train-00000-of-00001.parquet"
  first = hub.commit("datasets/group/problems", {train: rows("1"), "notes.md": b"no data"})
  ask = ("data", tmp_path, "data.path", "data.source=parquet", "data.path=group/problems")
  done = client(*ask)
  assert done.returncode == 0, done.stderr
  found = json.loads(done.stdout)
  assert found["revision"] == first
  assert found["name"] == "problems"
  assert pq.read_table(pathlib.Path(found["path"]) / train)["answer"].to_pylist() == ["1"]
  assert not (pathlib.Path(found["path"]) / "notes.md").exists()
  saved = json.loads((tmp_path / "config.json").read_text())
  assert saved["commits"] == {"datasets/group/problems@main": first}
  assert saved["data"]["path"] == "group/problems"

  second = hub.commit("datasets/group/problems", {train: rows("2")})
  # The run in the workdir goes on, also where a branch is named.
  for same in ([], ["data.revision=main"]):
    assert json.loads(client(*ask, *same).stdout)["revision"] == first
  (tmp_path / "other").mkdir()
  elsewhere = ("data", tmp_path / "other", *ask[2:])
  assert json.loads(client(*elsewhere).stdout)["revision"] == second
  asked = client(*elsewhere, f"data.revision={first}", HF_HUB_OFFLINE="1")
  assert json.loads(asked.stdout)["revision"] == first  # It is on this machine already.


def test_what_the_hub_does_not_give_is_named_in_a_line(client, tmp_path):
  ask = ("data", tmp_path, "data.path", "data.source=parquet", "data.path=group/none")
  assert "config.data.path='group/none' is not a directory, and the hub does not give" in client(
    *ask
  ).stderr.replace('"', "'")
  offline = client(*ask, HF_HUB_OFFLINE="1").stderr
  assert "`hf download group/none --repo-type dataset --local-dir DIR` fetches it" in offline


def test_a_benchmark_by_its_published_name(served, client, tmp_path):
  hub, _ = served
  commit = hub.commit(
    "datasets/hiyouga/geometry3k", {"data/test-00000-of-00001.parquet": rows("3", "4")}
  )
  answers = tmp_path / "geometry3k.jsonl"
  lines = [{"id": f"test/{n}", "response": rf"\boxed{{{n + 3}}}"} for n in range(2)]
  answers.write_text("".join(json.dumps(line) + "\n" for line in lines))
  workdir = tmp_path / "run"
  done = client(
    "--mode=evaluate",
    f"--config={ROOT / 'configs' / 'sample.py'}",
    f"--workdir={workdir}",
    "--config.eval.sets=geometry3k",
    f"--config.eval.sets_path={hub_sets.PUBLISHED}",
    f"--config.eval.predictions={answers}",
    module="sejax.main",
  )
  assert done.returncode == 0, done.stderr
  assert "| geometry3k | boxed | accuracy (headline) | 100.00 |" in done.stdout
  saved = json.loads((workdir / "config.json").read_text())["commits"]
  assert saved == {"datasets/hiyouga/geometry3k@main": commit}


def test_commits_are_kept_beside_the_configuration(tmp_path):
  workdir, config = storage.Path(tmp_path), config_lib.default()
  config_lib.save(config, workdir)
  assert config_lib.commits(workdir) == {}
  config_lib.save_commits({"models/a/b@main": "1"}, workdir)
  config_lib.save_commits({"datasets/c/d@v1": "2"}, workdir)
  config_lib.save(config, workdir)  # as when the run resumes with another field
  assert config_lib.commits(workdir) == {"models/a/b@main": "1", "datasets/c/d@v1": "2"}
  (tmp_path / "metrics.jsonl").touch()
  config_lib.require_same(config, workdir)


def test_what_is_published_names_nothing_of_the_machine(tmp_path):
  config = config_lib.default()
  config.model.path, config.data.path = "group/model", "/home/somebody/data/problems/"
  config.log.wandb_project = "secret"
  config_lib.save(config, storage.Path(tmp_path))
  config_lib.save_commits({"models/group/model@main": "1"}, storage.Path(tmp_path))
  text = json.dumps(config_lib.published(storage.Path(tmp_path)))
  assert "somebody" not in text
  assert "secret" not in text
  assert '"path": "problems"' in text
  assert '"path": "group/model"' in text
  assert '"models/group/model@main": "1"' in text


def test_one_name_for_several_benchmarks_is_refused():
  with pytest.raises(ValueError, match=r"is one set, and config\.eval\.sets has 2; give hub"):
    hub_sets.download(["geometry3k", "wemath"], "hiyouga/geometry3k", "", {})
  with pytest.raises(ValueError, match="has 1 revisions of 2 sets; give one each, or none"):
    hub_sets.download(["geometry3k", "wemath"], "hub", "abc", {})
  with pytest.raises(ValueError, match="logicvista is not on the hub; give its file or folder"):
    hub_sets.download(["logicvista"], "hub", "", {})


def test_an_exported_model_is_uploaded_with_its_card(served, client, tmp_path):
  hub, _ = served
  config = config_lib.default()
  config.model.path, config.model.revision = "Qwen/Qwen2.5-VL-3B-Instruct", "66285546d2b8"
  config.data.source, config.data.path = "parquet", "hiyouga/geometry3k"
  config.lora.rank = 64
  config_lib.save(config, tmp_path)
  (tmp_path / "model").mkdir()
  (tmp_path / "model" / "model.safetensors").write_bytes(b"weights")
  (tmp_path / "model" / "config.json").write_text("{}")
  measures = {"pass_at_1": 0.472, "pass_at_1_error": 0.009}
  change = {"pass_at_1": 0.17, "pass_at_1_error": 0.006}
  summary = {"before": measures, "after": measures, "change": change}
  (tmp_path / "summary.json").write_text(json.dumps(summary))
  done = client("push", tmp_path, "me/tuned")
  assert done.returncode == 0, done.stderr
  assert json.loads(done.stdout).endswith("/me/tuned")
  (files,) = hub.repositories["models/me/tuned"]
  assert files["model.safetensors"] == b"weights"
  assert json.loads(files["sejax_config.json"])["lora"]["rank"] == 64
  card = files["README.md"].decode()
  assert card.startswith("---\nlibrary_name: transformers\n")
  assert "base_model: Qwen/Qwen2.5-VL-3B-Instruct\n" in card
  assert "datasets:\n- hiyouga/geometry3k\n" in card
  assert "after 18 steps of sejax" in card
  assert "| pass@1 | 47.2 ± 0.9 | 47.2 ± 0.9 | +17.0 ± 0.6 |\n" in card
  assert "| trained | adapters of rank 64 |\n" in card
  assert client("push", tmp_path, "me/tuned").returncode == 0  # in place of the first

  hub.commit("models/me/other", {"pytorch_model.bin": b""})
  refused = client("push", tmp_path, "me/other")
  assert (
    "'me/other' holds 'pytorch_model.bin', and no model that sejax has uploaded" in refused.stderr
  )
  unreachable = client("push", tmp_path, "me/new", HF_ENDPOINT="http://127.0.0.1:9")
  assert "--push='me/new': the hub does not take the model" in unreachable.stderr
