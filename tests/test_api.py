"""The functions for scripts: their examples, and what they share with the command line."""

import doctest
import io
import re
import subprocess
import sys

import numpy as np
import PIL.Image
import pytest

import sejax
from configs import tiny
from sejax import api
from sejax.config import modes
from sejax.data import sources


@pytest.fixture(scope="module")
def model():
  config = tiny.get_config()
  config.group_size = 4
  return sejax.load_model(config=config)


@pytest.fixture(scope="module")
def figure():
  """A problem of the built-in figures: its question and its only picture."""
  record = sources.open_source(tiny.get_config().data)[3]
  return record.question, record.images[0]


@pytest.mark.parametrize("name", ["load_model", "sample", "vote_and_judge", "reward", "grade"])
def test_examples(name):
  function = getattr(sejax, name)
  assert function is getattr(api, name)
  found = doctest.DocTestFinder(recurse=False).find(function, name, globs=vars(api).copy())
  runner = doctest.DocTestRunner(optionflags=doctest.NORMALIZE_WHITESPACE)
  report = io.StringIO()
  for test in found:
    runner.run(test, out=report.write)
  assert runner.summarize(verbose=False).attempted > 0
  assert report.getvalue() == ""


def test_importing_sejax_imports_nothing_heavy():
  code = (
    "import sys, sejax; assert 'load_model' in dir(sejax); print({'jax', 'numpy'} & {*sys.modules})"
  )
  done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
  assert done.stdout == "set()\n"


def test_a_name_that_is_not_there():
  with pytest.raises(AttributeError, match="module 'sejax' has no attribute 'load_modle'"):
    sejax.load_modle  # noqa: B018


@pytest.mark.long
def test_it_answers_as_the_command_line_does(model, figure, tmp_path, capsys):
  question, picture = figure
  file = tmp_path / "picture.bmp"
  file.write_bytes(picture)
  modes.sample(model.config, [str(file)], question, judge=True)
  blocks = re.findall(
    r"--- trajectory \d+\n(.*?)\n(?:answer|no answer).*?, vote share (\S+)\nverdict:\n(.*?)\n"
    r"score (\S+), reward (\S+), advantage (\S+)\n",
    capsys.readouterr().out,
    re.DOTALL,
  )
  group = sejax.vote_and_judge(model, question, [file])
  assert [block[0] for block in blocks] == list(group.trajectories)
  assert [block[2] for block in blocks] == [verdicts[0] for verdicts in group.verdicts]
  shares, rewards, advantages = (np.array([float(b[i]) for b in blocks]) for i in (1, 4, 5))
  np.testing.assert_allclose(shares, group.vote_shares, atol=5e-4)
  np.testing.assert_allclose(rewards, group.rewards, atol=5e-4)
  np.testing.assert_allclose(advantages, group.advantages, atol=5e-4)
  scored = sejax.reward([group.trajectories], [group.verdicts], model.config)
  np.testing.assert_allclose(scored.group.reward[0], group.rewards, rtol=1e-6)
  np.testing.assert_allclose(scored.group.advantage[0], group.advantages, rtol=1e-6)


@pytest.mark.long
def test_a_question_has_the_same_answers_beside_others(model, figure):
  """Whatever its picture is given as: an encoded file, or an image of Pillow."""
  question, picture = figure
  image = PIL.Image.open(io.BytesIO(picture))
  both = sejax.sample(model, ["What is 1 + 1?", question], [[], [image]])
  assert [len(texts) for texts in both] == [4, 4]
  assert both[1] == list(sejax.vote_and_judge(model, question, [picture]).trajectories)
  assert len({*both[1], *sejax.sample(model, [question], [[picture]], seed=1)[0]}) > len({*both[1]})


@pytest.mark.long
def test_a_question_that_is_asked_twice_is_sampled_twice(model, figure):
  question, picture = figure
  first, second = sejax.sample(model, [question] * 2, [[picture]] * 2)
  assert first != second


@pytest.mark.long
def test_many_questions_are_sampled_in_batches(model, figure):
  question, picture = figure
  whole = sejax.sample(model, [question, "What is 1 + 1?"], [[picture], []])
  config = model.config.copy_and_resolve_references()
  config.eval.batch_size = 1
  model = sejax.load_model(config=config)
  assert sejax.sample(model, [question, "What is 1 + 1?"], [[picture], []]) == whole


def test_rewards_without_a_judge():
  texts = [r"<think>a</think>\boxed{4}", r"<think>b</think>\boxed{4}", r"<think>c</think>\boxed{5}"]
  scored = sejax.reward([texts])
  assert scored.verdicts is None
  np.testing.assert_allclose(scored.group.self_consistency[0], [2 / 3, 2 / 3, 1 / 3], rtol=1e-6)


@pytest.mark.parametrize(
  ("call", "message"),
  [
    (lambda model: sejax.sample(model, "What?"), r"questions='What\?' is a text; give a list"),
    (lambda model: sejax.sample(model, ["a", " "]), "question 1 is ' '; give a text"),
    (
      lambda model: sejax.sample(model, ["a"], []),
      "1 questions and 0 lists of images; give one for each question",
    ),
    (
      lambda model: sejax.sample(model, ["a"], ["b.png"]),
      r"question 0 are not a list; give \[image\]",
    ),
    (lambda model: sejax.vote_and_judge(model, "a", ["no.png"]), "image 'no.png' is not a file"),
    (lambda model: sejax.vote_and_judge(model, "a", [b"GIF"]), "are none of BMP"),
    (lambda model: sejax.grade(["1"], ["1", "2"]), "1 responses and 2 gold answers"),
    (lambda model: sejax.reward([["a", "b"], ["c"]]), "group"),
    (lambda model: sejax.load_model("no/such/model"), "no/such/model"),
  ],
)
def test_mistakes_are_named(model, call, message):
  with pytest.raises(ValueError, match=message):
    call(model)


@pytest.mark.long
def test_a_missing_model_is_named():
  config = tiny.get_config()
  config.model.path = ""
  with pytest.raises(ValueError, match=r"config\.model\.path is empty"):
    sejax.load_model(config=config)
