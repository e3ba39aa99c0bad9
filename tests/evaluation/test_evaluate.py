"""StoredAnswers responses in, scores and pages out; and one line for what cannot work."""

import json
import pathlib
import subprocess
import sys

import PIL.Image
import pytest

from configs import tiny
from sejax import config as config_lib
from sejax.config import modes, validation
from sejax.evaluation import evaluate, results
from sejax.evaluation.benchmarks import geometry3k
from tests.evaluation.benchmarks.graded import graded

ROOT = pathlib.Path(__file__).parents[2]
PROBLEMS = [
  {"id": "1", "question": "How many?", "options": [], "answer": "60", "level": 1, "subject": "a"},
  {
    "id": "2",
    "question": "Which?",
    "options": ["x", "y"],
    "answer": "B",
    "level": 2,
    "subject": "a",
  },
  {"id": "3", "question": "How long?", "options": [], "answer": "0.5", "level": 1, "subject": "b"},
  {"id": "4", "question": "Unasked?", "options": [], "answer": "1", "level": 1, "subject": "b"},
]
RESPONSES = [
  {"id": "3", "responses": [r"\boxed{1/2}", r"\boxed{\dfrac{1}{2}}"]},
  {"id": "1", "responses": [r"\boxed{60}", "<b>61</b>"]},
  {"id": "2", "responses": ["It is A.", "It is A."]},
]


def write(path, lines):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text("".join(json.dumps(line) + "\n" for line in lines))


@pytest.fixture
def config(tmp_path):
  write(tmp_path / "sets" / "mathvision" / "test.jsonl", PROBLEMS)
  write(tmp_path / "responses.jsonl", RESPONSES)
  config = config_lib.default()
  config.eval.sets = ("mathvision",)
  config.eval.protocol = "authors"
  config.eval.sets_path = str(tmp_path / "sets")
  config.eval.predictions = str(tmp_path / "responses.jsonl")
  return config


def read(folder):
  lines = (folder / "mathvision" / "problems.jsonl").read_text().splitlines()
  return [json.loads(line) for line in lines], json.loads(
    (folder / "mathvision" / "scores.json").read_text()
  )


def test_stored_responses_are_graded(config, tmp_path, capsys):
  validation.validate(config)
  modes.evaluate(config, tmp_path)
  lines, scores = read(tmp_path)
  assert [(line["id"], line["sample"], line["correct"]) for line in lines] == [
    ("1", 0, True),
    ("1", 1, False),
    ("2", 0, False),
    ("2", 1, False),
    ("3", 0, True),
    ("3", 1, True),
  ]
  assert lines[0] == {
    "id": "1",
    "sample": 0,
    "response": r"\boxed{60}",
    "extraction": "60",
    "gold": "60",
    "correct": True,
    "extractor": "rules",
    "protocol": "authors",
  }
  assert (scores["problems"], scores["unanswered"], scores["samples"]) == (3, 1, 2)
  assert scores["extractors"] == {"rules": 6}
  assert scores["headline"] == "accuracy"
  value = {name: figure["value"] for name, figure in scores["metrics"].items()}
  assert value["accuracy"] == 0.5
  assert value["pass@2"] == pytest.approx(2 / 3)
  assert value["maj@2"] == 0.5  # the lot decides between 60 and 61
  assert scores["breakdowns"]["subject"] == {
    "a": {"right": 0.5, "total": 2},
    "b": {"right": 1.0, "total": 1},
  }
  table = (tmp_path / "summary.md").read_text()
  assert "| mathvision | authors | accuracy (headline) | 50.00 | " in table
  assert table in capsys.readouterr().out
  page = (tmp_path / "summary.html").read_text()
  assert "Problems without a response, which count in no figure: 1." in page
  assert "://" not in page  # nothing is loaded


@pytest.mark.long
def test_what_was_written_can_be_graded_again_in_its_place(config, tmp_path):
  modes.evaluate(config, tmp_path)
  before = read(tmp_path)
  config.eval.predictions = str(tmp_path)
  modes.evaluate(config, tmp_path)
  assert read(tmp_path) == before


def test_in_a_bucket_an_evaluation_leaves_one_file_of_responses(config, bucket):
  modes.evaluate(config, bucket)
  assert len(read(bucket)[0]) == 6
  names = {path.name for path in (bucket / "mathvision").iterdir()}
  assert names == {"problems.jsonl", "scores.json"}


def test_what_was_graded_before_an_error_is_kept_in_a_bucket(config, bucket, monkeypatch):
  monkeypatch.setattr(evaluate, "_CHUNK", 1)
  grade, calls = evaluate.grading.grade, []

  def once(*arguments, **others):
    calls.append(0)
    if len(calls) > 1:
      raise RuntimeError("gone")
    return grade(*arguments, **others)

  monkeypatch.setattr(evaluate.grading, "grade", once)
  with pytest.raises(RuntimeError, match="gone"):
    modes.evaluate(config, bucket)
  text = (bucket / "mathvision" / "problems.jsonl").read_text()
  assert [json.loads(line)["id"] for line in text.splitlines()] == ["1", "1"]


def test_several_sets_share_a_table_with_the_mean_of_their_headlines(config, tmp_path):
  rows = [
    {"qid": 1, "varid": n, "question": "q", "answer": "2", "answer_type": "float"} for n in (1, 2)
  ]
  write(tmp_path / "sets" / "dynamath" / "variants.jsonl", rows)
  answers = [{"qid": 1, "varid": n, "response": '{"short answer": "2"}'} for n in (1, 2)]
  write(tmp_path / "stored" / "dynamath.jsonl", answers)
  write(tmp_path / "stored" / "mathvision.jsonl", RESPONSES)
  config.eval.predictions = str(tmp_path / "stored")
  config.eval.sets = ("mathvision,dynamath",)  # as the command line gives it
  validation.validate(config)
  modes.evaluate(config, tmp_path)
  table = (tmp_path / "summary.md").read_text()
  assert "| dynamath | authors | accuracy (headline) | 100.00 | 100.00 to 100.00 | 2 | 1 |" in table
  assert "| all |  | mean of headlines | 75.00 |" in table


def test_what_could_not_be_decided_is_counted_and_wrong(tmp_path):
  protocol = geometry3k.BENCHMARK.protocols["boxed"]
  one = graded("1", (None,))
  result = results.Result.of("geometry3k", "boxed", protocol, [one, graded("2", (True,))], 0)
  assert result.undecided == 1
  assert result.scores.metrics["accuracy"].value == 0.5
  said = (
    "could not be decided (over 1000 characters, or out of time or memory), which count as wrong"
  )
  assert f"{said}: 1." in results.page([result])
  (line,) = results.lines([one], "boxed")
  assert json.loads(line)["correct"] is None


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"sets": ()}, "config.eval.sets is empty; name some of mathvision"),
    ({"predictions": ""}, "config.model.path is empty; give the model to evaluate, or stored"),
    ({"predictions": "none.jsonl"}, "'none.jsonl' holds no answers to mathvision"),
    ({"sets_path": "none"}, "config.eval.sets_path='none' holds no mathvision"),
    ({"sets_path": ""}, "config.eval.sets_path='' holds no mathvision"),
  ],
)
def test_what_is_missing_is_named(config, tmp_path, changes, message):
  config.eval.update(changes)
  with pytest.raises(ValueError, match=message):
    modes.evaluate(config, tmp_path)


@pytest.mark.parametrize(
  ("lines", "message"),
  [
    ([{"id": "9", "response": "1"}], "answers to 1 problems, such as 9, of which none is in"),
    ([{"id": "1"}], "it needs response or prediction"),
    ([{"id": "1", "responses": []}], r"the responses to 1 are \[\]; they must be texts"),
    ([{"response": "1"}], "it needs id or index"),
    ([RESPONSES[0], {"id": "1", "response": "1"}], r"have \[1, 2\] responses; all need as many"),
    ([["1"]], "row 1 is not a JSON object"),
  ],
)
def test_stored_responses_that_cannot_be_graded_are_named(config, tmp_path, lines, message):
  write(tmp_path / "responses.jsonl", lines)
  with pytest.raises(ValueError, match=message) as raised:
    modes.evaluate(config, tmp_path)
  assert "responses" in str(raised.value)


@pytest.mark.parametrize(
  ("changes", "message"),
  [
    ({"sets": ("mathvision", "geoqa")}, "config.eval.sets names 'geoqa', which is none of"),
    ({"protocol": "lenient"}, "config.eval.protocol='lenient' is none of mathvision's: authors"),
  ],
)
def test_unknown_names_are_refused_at_the_start(config, changes, message):
  config.eval.update(changes)
  with pytest.raises(config_lib.ConfigError, match=message):
    validation.validate(config)


@pytest.fixture
def asked(config, tmp_path):
  """The bundled model is asked, two samples each, two problems at a time."""
  lines = []
  for number, problem in enumerate([*PROBLEMS, PROBLEMS[0] | {"id": "5", "image": "cut.png"}]):
    image = PIL.Image.new("RGB", (60 + 8 * number, 40), (40 * number, 90, 200))
    image.save(tmp_path / "sets" / "mathvision" / f"{number}.png")
    lines.append({"image": f"{number}.png"} | problem)
  (tmp_path / "sets" / "mathvision" / "cut.png").write_bytes(b"no picture")
  write(tmp_path / "sets" / "mathvision" / "test.jsonl", lines)
  config.model.path = tiny.get_config().model.path
  config.group_size, config.eval.batch_size, config.eval.predictions = 2, 2, ""
  config.actor.max_tokens = 8
  config.data.update(prompt_limit=256, prompt_buckets=(256,), patch_buckets=(64,))
  config.data.update(min_pixels=None, max_pixels=None)
  return config


@pytest.mark.long
def test_a_model_is_asked_and_a_run_that_was_stopped_goes_on(asked, tmp_path, monkeypatch):
  modes.evaluate(asked, tmp_path / "whole")
  lines, scores = read(tmp_path / "whole")
  assert [(line["id"], line["sample"]) for line in lines] == [
    (str(number), sample) for number in range(1, 5) for sample in (0, 1)
  ]
  assert (scores["problems"], scores["unanswered"], scores["samples"]) == (4, 1, 2)
  assert any(line["response"] for line in lines)

  class Killed(BaseException):
    pass

  grade, calls = evaluate.grading.grade, []

  def once(*arguments, **others):
    calls.append(arguments)
    if len(calls) == 2:
      raise Killed
    return grade(*arguments, **others)

  with monkeypatch.context() as patch:
    patch.setattr(evaluate.grading, "grade", once)
    with pytest.raises(Killed):
      modes.evaluate(asked, tmp_path / "stopped")
  file = tmp_path / "stopped" / "mathvision" / "problems.jsonl"
  first = file.read_text()
  assert first.count("\n") == 4
  file.write_text(first[:-40])  # Killed while it wrote the second problem's last line.
  modes.evaluate(asked, tmp_path / "stopped")
  whole = tmp_path / "whole" / "mathvision"
  for name in ("problems.jsonl", "scores.json"):
    assert (file.parent / name).read_bytes() == (whole / name).read_bytes()

  asked.eval.protocol = "toolkit"
  with pytest.raises(ValueError, match="graded by the protocol authors, not toolkit"):
    modes.evaluate(asked, tmp_path / "stopped")


@pytest.mark.long
def test_greedy_is_one_answer_each(asked, tmp_path):
  asked.eval.greedy = True
  modes.evaluate(asked, tmp_path)
  _, scores = read(tmp_path)
  assert (scores["problems"], scores["samples"]) == (4, 1)


@pytest.mark.long
def test_a_model_reads_answers_where_the_protocol_asks_one(config, tmp_path):
  config.eval.update(protocol="toolkit", extractor=tiny.get_config().model.path, batch_size=2)
  modes.evaluate(config, tmp_path)
  lines, scores = read(tmp_path)
  # The letter rule reads the choice; no response to the others is the gold answer as a whole.
  assert [line["extractor"] for line in lines if line["id"] == "2"] == ["rules", "rules"]
  others = {line["extractor"] for line in lines if line["id"] in ("1", "3")}
  assert others == {config.eval.extractor}
  assert scores["extractors"] == {config.eval.extractor: 4, "rules": 2}


@pytest.mark.long
def test_the_command_line(config, tmp_path):
  flags = [
    f"--config.eval.{name}={config.eval[name]}" for name in ("protocol", "sets_path", "predictions")
  ]
  done = subprocess.run(
    [
      sys.executable,
      "-m",
      "sejax.main",
      "--mode=evaluate",
      f"--workdir={tmp_path / 'run'}",
      f"--config={ROOT / 'configs' / 'sample.py'}",
      "--config.eval.sets=mathvision",
      *flags,
    ],
    capture_output=True,
    text=True,
    check=False,
  )
  assert done.returncode == 0, done.stderr
  assert "| mathvision | authors | accuracy (headline) | 50.00 |" in done.stdout
  assert (tmp_path / "run" / "config.json").is_file()
