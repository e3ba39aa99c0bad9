"""Usual mistakes of a first hour: each is answered in one line with the thing, its value, a remedy.

Only Python's own start is tried in a process of its own; all others call `main`, before which
nothing has been compiled or loaded.
"""

import json
import pathlib
import shutil
import sys

import huggingface_hub
import jax
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from absl import logging

from sejax import assets, main, storage, train
from sejax import setup as setup_lib
from sejax.models import qwen2_5_vl as qwen
from sejax.models import weights
from sejax.parallel import chips
from sejax.rewards.recipes import RECIPES

ROOT = pathlib.Path(__file__).parents[1]
TINY = f"--config={ROOT / 'configs' / 'tiny.py'}"
JSONL = ("--config.data.source=jsonl", "--config.eval.num_problems=0")
PARQUET = ("--config.data.source=parquet", "--config.eval.num_problems=0")


@pytest.fixture
def said(tmp_path, monkeypatch, capfd):
  """Calls the command in an empty directory; returns exit status and what it said."""
  monkeypatch.chdir(tmp_path)
  monkeypatch.setattr(weights, "_load_array", _never)
  capfd.readouterr()

  def call(*arguments):
    status = main.main(["sejax", *arguments])
    return status, capfd.readouterr().err

  return call


def _stop(*_):
  raise ValueError("so far, and no further")


def _never(*_):
  raise AssertionError("weights are read before the mistake is found")


def _model(change=None, **fields):
  """Copies the bundled model to `model`, and spoils it."""
  shutil.copytree(assets.TINY_VLM, "model")
  if fields:
    config = pathlib.Path("model", "config.json")
    config.write_text(json.dumps(json.loads(config.read_text()) | fields))
  if change:
    change(pathlib.Path("model", "model.safetensors"))


def _divide(weights):
  weights.rename("model/model-00001-of-00002.safetensors")
  places = {"lm_head.weight": "model-00002-of-00002.safetensors"}
  pathlib.Path("model/model.safetensors.index.json").write_text(json.dumps({"weight_map": places}))


def _began(*arguments):
  """Leaves the configuration and a first step of a run in `out`."""
  assert main.main(["sejax", *arguments]) == 2  # as its model is none
  pathlib.Path("out", "metrics.jsonl").write_text('{"step": 0}\n')


def _cut(weights):
  weights.write_bytes(weights.read_bytes()[:-1000])


def _lines(**fields):
  pathlib.Path("set.jsonl").write_text((json.dumps(fields) + "\n") * 40)


MISTAKES = {
  # 1. A wrong path.
  "no such configuration": (
    None,
    ("--config=none.py", "--workdir=out"),
    "--config=none.py is not a file; give a configuration such as configs/*.py",
  ),
  "no such recipe": (
    None,
    (f"{TINY}:majorty", "--workdir=out"),
    f"{TINY}:majorty: there is no recipe 'majorty'; choose {', '.join(RECIPES)}, or none",
  ),
  "the workdir is a file": (
    lambda: pathlib.Path("out").touch(),
    (TINY, "--workdir=out"),
    "--workdir=out cannot be written (File exists); give a folder that can",
  ),
  "the workdir is in a file": (
    lambda: pathlib.Path("out").touch(),
    (TINY, "--workdir=out/run"),
    "--workdir=out/run cannot be written (Not a directory); give a folder that can",
  ),
  "a bucket": (
    None,
    (TINY, "--workdir=az://bucket/run"),
    "--workdir=az://bucket/run is of no known kind; give a path of this machine, or gs:// or s3://",
  ),
  "a bucket of data": (
    None,
    (TINY, "--workdir=out", *JSONL, "--config.data.path=az://bucket/set.jsonl"),
    "config.data.path=az://bucket/set.jsonl is of no known kind; give a path of this machine, or"
    " gs:// or s3://",
  ),
  "nobody's home": (
    None,
    (TINY, "--workdir=~no-such-user/out"),
    "--workdir=~no-such-user/out cannot be expanded, as there is no such user; give the whole path",
  ),
  "no such data": (
    None,
    (TINY, "--workdir=out", *JSONL, "--config.data.path=none.jsonl"),
    "none.jsonl is not a file; config.data.path must name one of JSON lines for source='jsonl'",
  ),
  "no such parquet": (
    None,
    (TINY, "--workdir=out", *PARQUET, "--config.data.path=none"),
    "none is neither a parquet file nor a directory with files such as"
    " data/train-00000-of-00001.parquet",
  ),
  # 2. A missing model file.
  "no such model": (
    None,
    (TINY, "--workdir=out", "--config.model.path=none"),
    "config.model.path='none' is not a directory; give one that holds weights, or a name on the hub"
    " such as Qwen/Qwen2.5-VL-3B-Instruct",
  ),
  "no model at all": (
    None,
    (TINY, "--workdir=out", "--config.model.path="),
    "config.model.path is empty; give a model directory, or its name on the hub",
  ),
  "no config.json": (
    lambda: pathlib.Path("model").mkdir(),
    (TINY, "--workdir=out", "--config.model.path=model"),
    "model has no config.json; give a model directory as published",
  ),
  "no weights": (
    lambda: _model(pathlib.Path.unlink),
    (TINY, "--workdir=out", "--config.model.path=model"),
    "model has neither model.safetensors nor model.safetensors.index.json; download one",
  ),
  "a missing shard": (
    lambda: _model(_divide),
    (TINY, "--workdir=out", "--config.model.path=model"),
    "model/model.safetensors.index.json names model-00002-of-00002.safetensors, which model does"
    " not have; download that file again",
  ),
  "weights that are cut off": (
    lambda: _model(_cut),
    (TINY, "--workdir=out", "--config.model.path=model"),
    "model/model.safetensors is truncated: it has 5527024 bytes, and tensor"
    " visual.patch_embed.proj.weight ends at byte 5528024; download it again",
  ),
  # 3. No images.
  "no image is there": (
    lambda: _lines(question="How many?", image="a.png"),
    (TINY, "--workdir=out", *JSONL, "--config.data.path=set.jsonl"),
    "none of 16 records of set that were tried can be used; record set/9: there is no file 'a.png'"
    " in .; fix the set, or give another as config.data.path",
  ),
  "no answers to measure by": (
    lambda: _lines(question="How many?"),
    (TINY, "--workdir=out", "--config.data.source=jsonl", "--config.data.path=set.jsonl"),
    "held-out problems: record 0 of set has no gold answer; see config.eval.path and"
    " config.eval.split, or go without: config.eval.num_problems=0",
  ),
  "held-out problems that are the training problems": (
    lambda: _lines(question="How many?", answer="3"),
    (TINY, "--workdir=out", "--config.data.source=jsonl", "--config.data.path=set.jsonl"),
    "all 40 held-out problems are training problems, so they would not measure what is learnt; see"
    " config.eval.path and config.eval.split, go without (config.eval.num_problems=0), or give"
    " config.eval.allow_training_problems=true",
  ),
  "no record at all": (
    lambda: pathlib.Path("set.jsonl").touch(),
    (TINY, "--workdir=out", *JSONL, "--config.data.path=set.jsonl"),
    "set holds no records; give a set that does as config.data.path",
  ),
  # 5. A wrong flag.
  "a misspelt field": (
    None,
    (TINY, "--workdir=out", "--config.trian.steps=3"),
    "--config.trian.steps is not a field of the configuration; did you mean config.train.steps?",
  ),
  "a misspelt flag": (
    None,
    (TINY, "--workdri=out"),
    "Unknown command line flag 'workdri'. Did you mean: workdir ?",
  ),
  "no number": (
    None,
    (TINY, "--workdir=out", "--config.train.steps=many"),
    "--config.train.steps=many must be a whole number",
  ),
  "no truth value": (
    None,
    (TINY, "--workdir=out", "--config.judge.use=maybe"),
    "--config.judge.use=maybe must be true or false",
  ),
  "a section": (
    None,
    (TINY, "--workdir=out", "--config.model=x"),
    "--config.model=x must be set field by field, as in --config.model.path=DIR",
  ),
  "nothing where there must be something": (
    None,
    (TINY, "--workdir=out", "--config.group_size=None"),
    "config.group_size=None must be a whole number",
  ),
  "no sizes": (
    None,
    (TINY, "--workdir=out", "--config.data.prompt_buckets="),
    "config.data.prompt_buckets=() must be ascending positive sizes, at least one",
  ),
  "sizes that are none": (
    None,
    (TINY, "--workdir=out", "--config.data.patch_buckets=64,many"),
    "config.data.patch_buckets=('64,many',) must be whole numbers",
  ),
  "steps that are none": (
    None,
    (TINY, "--workdir=out", "--config.log.profile_steps=first"),
    "config.log.profile_steps=('first',) must be whole numbers",
  ),
  "no such flag file": (
    None,
    ("--flagfile=none", "--workdir=out"),
    "--flagfile cannot be opened ([Errno 2] No such file or directory: 'none')",
  ),
  # 6. An unsupported type of model.
  "llama": (
    lambda: _model(model_type="llama"),
    (TINY, "--workdir=out", "--config.model.path=model"),
    "model/config.json: model_type is 'llama'; the families are qwen2_vl"
    " (Qwen/Qwen2-VL-2B-Instruct), qwen2_5_vl (Qwen/Qwen2.5-VL-3B-Instruct), qwen3_vl"
    " (Qwen/Qwen3-VL-2B-Instruct)",
  ),
  # 7. A bad parquet column.
  "no question": (
    lambda: pq.write_table(pa.table({"query": ["a"], "images": [["a.png"]]}), "set.parquet"),
    (TINY, "--workdir=out", *PARQUET, "--config.data.path=set.parquet"),
    "set.parquet has the columns query, images; it needs problem or question",
  ),
  "questions that are numbers": (
    lambda: pq.write_table(pa.table({"question": [1], "images": [["a.png"]]}), "set.parquet"),
    (TINY, "--workdir=out", *PARQUET, "--config.data.path=set.parquet"),
    "none of 1 records of set that were tried can be used; record set/0: its question is 1, which"
    " is not text; fix the set, or give another as config.data.path",
  ),
}


@pytest.mark.long
@pytest.mark.parametrize("mistake", MISTAKES)
def test_a_mistake_is_answered_in_one_line(mistake, said):
  prepare, arguments, message = MISTAKES[mistake]
  if prepare:
    prepare()
  assert said(*arguments) == (2, f"sejax: {message}\n")


def test_a_folder_without_rights_is_named(said, monkeypatch):
  def refuse(_):
    raise PermissionError(13, "Permission denied")

  monkeypatch.setattr(storage, "probe", refuse)  # the tests may run as root
  status, error = said(TINY, "--workdir=out")
  assert status == 2
  assert error == (
    "sejax: --workdir=out cannot be written (Permission denied); give a folder that can\n"
  )


def test_a_set_without_any_picture_is_remarked(said, monkeypatch):
  remarks = []
  monkeypatch.setattr(logging, "warning", lambda text, *values: remarks.append(text % values))
  monkeypatch.setattr(setup_lib, "_load", _stop)
  _lines(question="How many?", img="a.png")
  said(TINY, "--workdir=out", *JSONL, "--config.data.path=set.jsonl")
  assert remarks == [
    "None of 16 records of set that were tried has a picture; images, image, or image_1, image_2"
    " and so on name it"
  ]


# 4. Tiny memory.


@pytest.mark.parametrize(("rank", "gib"), [(0, "123.6"), (64, "30.9")])
def test_a_model_that_is_far_too_large_is_refused_before_it_is_read(rank, gib, said, monkeypatch):
  # 8.29 thousand million numbers: in fp32, with two moments and a frozen copy, or that copy alone.
  monkeypatch.setattr(chips, "device_memory", lambda _: 15.5 * 2**30)
  _model(**qwen.Qwen25VL.released("7b").to_hf())
  options = ("--config.model.path=model", "--config.train.freeze_vision=False")
  assert said(TINY, "--workdir=out", *options, f"--config.lora.rank={rank}") == (
    2,
    f"sejax: config.model.path='model' takes {gib} GiB of each device for weights and moments, and"
    " there are 15.5 GiB; give a smaller model, train adapters (config.lora.rank=64) or split the"
    " weights over more devices (config.mesh.fsdp)\n",
  )


@pytest.mark.parametrize(
  "error",
  [
    jax.errors.JaxRuntimeError("RESOURCE_EXHAUSTED: Out of memory allocating 99 bytes.\nmore"),
    MemoryError("RESOURCE_EXHAUSTED: Out of memory allocating 99 bytes. more"),
  ],
)
def test_memory_that_runs_out_says_which_options_need_less(error, said, monkeypatch):
  def exhaust(*_):
    raise error

  monkeypatch.setattr(train, "run", exhaust)
  status, line = said(TINY, "--workdir=out")
  assert status == 3
  assert line == (
    "sejax: out of memory (RESOURCE_EXHAUSTED: Out of memory allocating 99 bytes. more); lower"
    " config.train.micro_batch_size, config.sampling.cache_tokens,"
    " config.actor.max_concurrent_rows, config.judge.max_concurrent_rows,"
    " config.model.query_chunk or config.model.logits_chunk,"
    " train adapters (config.lora.rank=64) or split the weights over more devices"
    " (config.mesh.fsdp)\n"
  )


# 8. A workdir that holds another run.


WAY_ON = (
  "give the same configuration or another --workdir, where config.model.path may be what"
  " --mode=export leaves here"
)


def test_a_workdir_is_not_reused_by_another_run(said):
  command = (TINY, "--workdir=out", "--config.model.path=none")
  said(*command)
  seed = (*command, "--config.seed=5")
  assert "config.model.path='none' is not a directory" in said(*seed)[1]  # nothing had begun
  pathlib.Path("out", "metrics.jsonl").write_text('{"step": 0}\n')
  assert said(*command) == (
    2,
    f"sejax: out holds a run with config.seed=5, not 0; {WAY_ON}\n",
  )


def test_a_run_goes_on_with_less_memory(said):
  """What the line on memory asks for does not count as another run."""
  command = (TINY, "--workdir=out", "--config.model.path=none")
  said(*command)
  pathlib.Path("out", "metrics.jsonl").write_text('{"step": 0}\n')
  less = ("--config.train.micro_batch_size=8", "--config.actor.max_concurrent_rows=4")
  less += ("--config.model.query_chunk=64", "--config.model.logits_chunk=8")
  assert "config.model.path='none' is not a directory" in said(*command, *less)[1]


def test_looking_at_a_set_leaves_a_runs_configuration(said):
  command = (TINY, "--workdir=out", "--config.model.path=none")
  said(*command)
  pathlib.Path("out", "metrics.jsonl").write_text('{"step": 0}\n')
  saved = pathlib.Path("out", "config.json").read_text()
  said(*command, "--mode=inspect", "--config.seed=5")
  assert pathlib.Path("out", "config.json").read_text() == saved


@pytest.mark.parametrize(
  "change",
  [
    "data.workers=2",
    "data.max_bad_share=0.5",
    "data.on_bad_record=stop",
    "eval.batch_size=4",
    "eval.every=3",
    "optimizer.max_skipped=9",
    "train.steps=None",
    "log.sample_groups=0",
  ],
)
def test_a_run_goes_on_with_what_does_not_change_it(change, said):
  command = (TINY, "--workdir=out", "--config.model.path=none", "--config.eval.num_problems=0")
  _began(*command)
  assert "config.model.path='none' is not a directory" in said(*command, f"--config.{change}")[1]


@pytest.mark.parametrize("field", ["data.path", "eval.path", "data.image_folder", "model.path"])
def test_a_path_may_be_spelt_otherwise_when_a_run_goes_on(field, said, tmp_path, monkeypatch):
  _lines(question="How many?", image="a.png")
  monkeypatch.setenv("HOME", str(tmp_path))
  command = (TINY, "--workdir=out", "--config.model.path=none", *JSONL)
  command += ("--config.data.path=set.jsonl",)
  _began(*command, f"--config.{field}=set.jsonl")
  for same in ("./set.jsonl", str(tmp_path / "set.jsonl"), "~/set.jsonl", "none/../set.jsonl"):
    said_now = said(*command, f"--config.{field}={same}")[1]
    assert "holds a run with" not in said_now, same
  for other in ("other.jsonl", "/set.jsonl"):
    status, error = said(*command, f"--config.{field}={other}")
    assert status == 2
    assert error.startswith(f"sejax: out holds a run with config.{field}=")
    assert error.endswith(f", not {other!r}; {WAY_ON}\n")


def test_a_run_of_an_earlier_version_goes_on(said):
  """Its configuration lacks what has come since, which then has its default value."""
  command = (TINY, "--workdir=out", "--config.model.path=none")
  _began(*command)
  saved = pathlib.Path("out", "config.json")
  fields = json.loads(saved.read_text())
  del fields["eval"]["extractor"], fields["log"], fields["method"]["beta"]
  saved.write_text(json.dumps(fields))
  assert "config.model.path='none' is not a directory" in said(*command)[1]
  saved.write_text(json.dumps(fields))
  assert (
    "holds a run with config.method.beta=1.0, not 2.0"
    in said(*command, "--config.method.beta=2")[1]
  )


# 9. No network.


def test_a_model_of_the_hub_without_a_network(said, monkeypatch):
  def refuse(*_, **__):
    raise huggingface_hub.errors.LocalEntryNotFoundError("no network:\n" + "x" * 100)

  monkeypatch.setattr(huggingface_hub, "snapshot_download", refuse)
  status, error = said(TINY, "--workdir=out", "--config.model.path=Qwen/Qwen2.5-VL-3B-Instruct")
  assert status == 2
  assert error == (
    "sejax: config.model.path='Qwen/Qwen2.5-VL-3B-Instruct' is not a directory, and the hub does"
    f" not give it (no network: {'x' * 32}...{'x' * 43}); where there is a network, `hf download"
    " Qwen/Qwen2.5-VL-3B-Instruct --local-dir DIR` fetches it; then give DIR\n"
  )


# 10. A Python that is too old.


@pytest.mark.parametrize("file", ["sejax/__init__.py", "setup.py"])
def test_an_older_python_is_refused(file, monkeypatch):
  monkeypatch.setattr(sys, "version_info", (3, 10, 13))
  message = "sejax: Python 3.10 is too old; install Python 3.11 or newer"
  with pytest.raises(SystemExit, match=message):
    exec((ROOT / file).read_text())


def test_a_set_that_would_be_ignored_is_refused(said):
  """The bundled model's configuration draws its problems, whatever the path."""
  status, error = said("--mode=inspect", TINY, "--workdir=out", "--config.data.path=mine.jsonl")
  assert status == 2
  assert error == (
    "sejax: config.data.path='mine.jsonl' must be empty for data.source=figures, which are drawn;"
    " or give data.source=jsonl\n"
  )


def test_the_options_that_cannot_change_are_named(said):
  arguments = (TINY, "--workdir=out", "--config.model.path=none")
  pathlib.Path("none").mkdir()
  _began(*arguments)
  _, error = said(*arguments, "--config.optimizer.learning_rate=1.0", "--config.seed=3")
  assert "holds a run with config.optimizer.learning_rate=3e-05, not 1.0" in error
  assert f"1.0 (others differ, too: seed); {WAY_ON}" in error
