"""`--mode=sample`, from a model directory and one image to printed rewards."""

import base64
import io
import re

import numpy as np
import PIL.Image
import pytest

from sejax import config as config_lib
from sejax import main, method
from sejax.config import modes, validation
from sejax.models import weights
from sejax.models.processor import Processor
from sejax.rollout import sample
from sejax.sampling import Progress, Result
from tests.models import qwen_directory, torch_reference

QUESTION = "How many squares?"
# What is printed of one trajectory; the model's text may be anything.
BLOCK = re.compile(
  r"--- trajectory (\d+)\n(.*?)\n(?:answer (.*?)|no answer), vote share (\S+)\n"
  r"verdict:\n(.*?)\nverdict:\n(.*?)\nscore (\S+), reward (\S+), advantage (\S+)\n",
  re.DOTALL,
)


@pytest.fixture(scope="module")
def directory(tmp_path_factory):
  """A model directory with tiny random weights and the real vocabulary, and an image in it."""
  config = torch_reference.real_vocabulary_config()
  params = torch_reference.to_params(torch_reference.torch_model(config).state_dict(), config)
  path = tmp_path_factory.mktemp("sample")
  weights.save(params, config, path / "model", source=qwen_directory.write(path / "source"))
  pixels = np.random.default_rng(0).integers(0, 256, (56, 84, 4), dtype=np.uint8)
  PIL.Image.fromarray(pixels).save(path / "picture.png")
  (path / "broken.png").write_bytes((path / "picture.png").read_bytes()[:40])
  return path


@pytest.fixture
def config(directory):
  config = config_lib.default()
  config.model.path = str(directory / "model")
  config.group_size = 3
  config.actor.max_tokens = config.judge.max_tokens = 6
  config.judge.num_judge_repeats = 2
  config.judge.rubric = "short"
  validation.validate(config)
  return config


def printed_blocks(directory, config, capsys, monkeypatch):
  """Prints three trajectories; answers are appended to the random texts, and two of them agree."""
  decode = Processor.decode
  replies = iter(
    [r"<think>a</think>\boxed{4}", r"<think>b</think>\boxed{\frac{8}{2}}", r"\boxed{5}"]
    + [r"\boxed{0.9}", r"\boxed{0.97}", r"\boxed{0.1}", "no score", r"\boxed{0.5}", r"\boxed{0.7}"]
  )
  monkeypatch.setattr(Processor, "decode", lambda self, ids: decode(self, ids) + next(replies))
  modes.sample(config, [str(directory / "picture.png")], QUESTION, judge=True)
  return BLOCK.findall(capsys.readouterr().out)


@pytest.mark.long
def test_a_verdict_that_was_cut_has_no_score(directory, config, capsys, monkeypatch):
  blocks = printed_blocks(directory, config, capsys, monkeypatch)
  assert [block[6] for block in blocks] == ["unreadable"] * 3


@pytest.mark.long
def test_what_is_printed_is_what_the_method_makes(directory, config, capsys, monkeypatch):
  ended = property(lambda self: np.zeros(self.lengths.shape, bool))  # it would go on for ever
  monkeypatch.setattr(Result, "truncated", ended)
  blocks = printed_blocks(directory, config, capsys, monkeypatch)
  assert [block[0] for block in blocks] == ["1", "2", "3"]
  assert [block[2] for block in blocks] == ["4", r"\frac{8}{2}", "5"]
  assert [block[3] for block in blocks] == ["0.667", "0.667", "0.333"]
  assert [block[6] for block in blocks] == ["0.935", "0.100", "0.600"]
  # The random words in front break the format of all three.
  expected = method.group(
    [[0, 0, 1]], [[False] * 3], [[0.935, 0.1, 0.6]], [[True] * 3], **config.method
  )
  printed = np.array([[float(x) for x in block[7:]] for block in blocks])
  np.testing.assert_allclose(printed[:, 0], expected.reward[0], atol=5e-4)
  np.testing.assert_allclose(printed[:, 1], expected.advantage[0], atol=5e-4)
  assert len(set(expected.reward[0].tolist())) > 1


@pytest.mark.long
def test_a_judge_of_its_own(directory, config, capsys):
  """Its verdicts are those of its weights; the trajectories stay the Actor's."""
  other = directory / "judge"
  if not other.exists():
    model, params = weights.load(config.model.path, None, np.float32)
    norm = params["decoder"]["final_norm"]
    norm["scale"] = -norm["scale"]
    weights.save(params, model, other, source=config.model.path)

  def printed():
    modes.sample(config, [str(directory / "picture.png")], QUESTION, judge=True)
    out = capsys.readouterr().out
    trajectories = re.findall(r"--- trajectory \d+\n(.*?)\n(?:answer|no answer)", out, re.DOTALL)
    return trajectories, re.findall(r"verdict:\n(.*?)\n(?=verdict:|score)", out, re.DOTALL)

  own = printed()
  config.judge.path = str(other)
  trajectories, verdicts = printed()
  assert len(own[0]) == 3
  assert len(own[1]) == len(verdicts) == 6
  assert trajectories == own[0]
  assert all(x != y for x, y in zip(verdicts, own[1], strict=True))
  config.judge.path = config.model.path
  assert printed() == own


@pytest.mark.long
def test_without_a_judge(directory, config, capsys):
  """The prompt may exceed training's limits, as that of a photo does."""
  config.data.update(prompt_limit=1, prompt_buckets=(1,), patch_buckets=(64,))
  arguments = (config, [str(directory / "picture.png")], QUESTION)
  modes.sample(*arguments, judge=False)
  first = capsys.readouterr().out
  assert first.count("--- trajectory") == 3
  assert first.count("no answer, vote share 0.000") == 3
  modes.sample(*arguments, judge=False)
  assert capsys.readouterr().out == first


@pytest.mark.parametrize(
  ("image", "changes", "message"),
  [
    ("none.png", {}, "none.png' is not a file"),
    ("broken.png", {}, "the image file ends early, after 40 bytes"),
    ("picture.png", {"question": "<image> or <image>?"}, "says <image> 2 times for 1 images"),
    ("picture.png", {"question": " "}, "--question is missing"),
    (
      "picture.png",
      {"judge_tokens": 128_000},
      "config.judge.max_tokens=128000 are more than the model's context of 128000",
    ),
    ("picture.png", {"path": ""}, "config.model.path is empty; give a directory of weights"),
    ("picture.png", {"path": "none"}, "config.model.path='none' is not a directory"),
  ],
)
def test_what_cannot_work_is_named(directory, config, image, changes, message):
  config.model.path = changes.get("path", config.model.path)
  config.judge.max_tokens = changes.get("judge_tokens", 6)
  with pytest.raises(ValueError, match=re.escape(message)):
    modes.sample(config, [str(directory / image)], changes.get("question", QUESTION), judge=True)


def test_a_picture_may_be_given_as_text(directory):
  data = (directory / "picture.png").read_bytes()
  text = base64.b64encode(data).decode()
  for image in (text, f"data:image/png;base64,{text}"):
    assert sample._Questions([QUESTION], [[image]])[0].images == (data,)
  for image in ("x" * 700_000, f"data:image/png;base64,{'!' * 700_000}"):
    with pytest.raises(ValueError, match=r"is not a file|is broken") as caught:
      sample._Questions([QUESTION], [[image]])[0]
    assert len(str(caught.value)) <= 300


@pytest.mark.long
def test_a_terminal_shows_each_trajectory_and_is_not_steered(directory):
  class Terminal(io.StringIO):
    def isatty(self):
      return True

  processor = Processor.load(directory / "model")
  ids = processor.encode_text("one\x1b[2J two")
  tokens = np.stack([ids, ids])[None]
  terminal = Terminal()
  show = sample.ProgressDisplay("trajectory", processor, 8, terminal)
  flags = np.zeros((1, 2), bool)
  show(Progress(tokens, np.array([[1, 1]]), flags[:, 0], flags))
  show(Progress(tokens, np.array([[len(ids), 1]]), flags[:, 0], flags))
  shown = terminal.getvalue().split("\x1b[2A")
  assert len(shown) == 2
  assert shown[0].count("\n") == shown[1].count("\n") == 2
  assert "[2J two" in shown[1]
  assert "\x1b[2J" not in shown[1]


def test_the_command_line_needs_no_workdir(directory, tmp_path, capsys, monkeypatch):
  monkeypatch.chdir(tmp_path)
  source = "from sejax import config\nget_config = config.default\n"
  (tmp_path / "plain.py").write_text(source)
  assert main.main(["sejax", "--mode=sample", "--config=plain.py", "--question=What?"]) == 2
  assert capsys.readouterr().err.startswith("sejax: config.model.path is empty")
  assert [p.name for p in tmp_path.iterdir()] == ["plain.py"]
