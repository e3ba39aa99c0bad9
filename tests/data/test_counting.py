"""How many records can be used, and how many steps that makes."""

import collections
import dataclasses
import json
import pathlib
import pickle

import jax
import pytest

from sejax import config as config_lib
from sejax.data import counting, figures, pipeline
from sejax.data.pipeline import Options, Pipeline
from sejax.data.prepare import Dropped
from sejax.data.records import BadRecord, Record
from tests.data.problems import Problems, preparer

BAD = frozenset({3, 11})


@pytest.fixture
def config():
  config = config_lib.default()
  config.batch_size, config.train.epochs = 4, 3
  return config


@dataclasses.dataclass(frozen=True)
class Unread(Problems):
  """Problems of which none may be looked at."""

  def __getitem__(self, index):
    raise AssertionError(f"record {index} is looked at")


@dataclasses.dataclass(frozen=True)
class Texts(Problems):
  """Problems without images, which are quick to read."""

  def __getitem__(self, index):
    if index in self.bad:
      raise BadRecord("broken", "it is broken", f"p/{index}")
    return Record(f"p/{index}", f"What is {index} + 1?")


def num_steps(config, prepare, workdir):
  options = {"batch_size": config.batch_size, "seed": config.seed}
  return counting.num_steps(config.train, config.data, prepare, workdir, **options)


def count_usable(config, prepare, workdir):
  return counting.count_usable(config.data, prepare, workdir, seed=config.seed)


def limit_of(model_directory, index):
  """Returns the tokens of a problem's prompt."""
  return len(preparer(Problems(index + 1), model_directory)(index).actor)


def test_every_usable_record_is_used_in_each_epoch(config, model_directory, tmp_path):
  prepare = preparer(Problems(13, BAD), model_directory)
  steps = num_steps(config, prepare, tmp_path)
  assert steps == 9  # 3 * 11 / 4, rounded up
  data = Pipeline(prepare, Options(batch_size=4, seed=5, max_bad_share=0.5))
  used = collections.Counter(example.id for _ in range(steps) for example in next(data))
  assert len(used) == 11
  assert min(used.values()) == 3
  assert used.total() == 36  # three from the fourth epoch fill the last batch


@pytest.mark.parametrize(
  ("epochs", "batch_size", "steps"), [(1, 11, 1), (1, 12, 1), (1, 10, 2), (2, 11, 2), (15, 4, 42)]
)
def test_steps_are_rounded_up(config, model_directory, tmp_path, epochs, batch_size, steps):
  config.train.epochs, config.batch_size = epochs, batch_size
  prepare = preparer(Problems(13, BAD), model_directory)
  assert num_steps(config, prepare, tmp_path) == steps


def test_nothing_is_counted_where_the_steps_are_given(config, model_directory, tmp_path):
  config.train.steps = 7
  assert num_steps(config, preparer(Unread(13), model_directory), tmp_path) == 7
  assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("limits", [{}, {"prompt_limit": None}, {"patch_limit": 16}])
def test_what_is_counted_is_what_gives_examples(config, model_directory, tmp_path, limits):
  if "prompt_limit" in limits:
    limits = {"prompt_limit": limit_of(model_directory, 1)}
  prepare = preparer(Problems(13, BAD), model_directory, **limits)
  prepared = [prepare(index) for index in range(13)]
  expected = sum(not isinstance(one, Dropped) for one in prepared)
  assert 0 < expected < 13
  assert count_usable(config, prepare, tmp_path) == expected
  told = json.loads((tmp_path / counting.FILE).read_text())
  assert (told["usable"], told["records"]) == (expected, 13)
  kinds = collections.Counter(one.kind for one in prepared if isinstance(one, Dropped))
  assert told["dropped"] == kinds


def test_workers_can_be_sent_what_counts(model_directory):
  look = counting._UsableCheck(preparer(Problems(13, BAD), model_directory))
  sent = pickle.loads(pickle.dumps(look))
  assert (sent(0), sent(3)) == (True, look(3))
  assert sent(3).kind == "broken"


def test_the_number_is_remembered_for_the_same_set(config, model_directory, tmp_path):
  assert count_usable(config, preparer(Problems(13, BAD), model_directory), tmp_path) == 11
  unread = preparer(Unread(13), model_directory)
  config.data.path = "."
  count_usable(config, preparer(Problems(13, BAD), model_directory), tmp_path)
  config.data.path = str(pathlib.Path.cwd())
  assert count_usable(config, unread, tmp_path) == 11
  changes = [
    (unread, {"path": "elsewhere"}),
    (unread, {"split": "test"}),
    (preparer(Unread(14), model_directory), {}),
    (preparer(Unread(13, name="other"), model_directory), {}),
  ]
  for field, value in (
    ("prompt_limit", 199),
    ("judge_limit", 399),
    ("patch_limit", 63),
    ("instruction", "Box it!"),
    ("judge_system", "Judge it."),
    ("include_instruction", True),
    ("max_pixels", 100_000),
  ):
    changes.append((dataclasses.replace(unread, **{field: value}), {}))
  for prepare, data in changes:
    other = config.copy_and_resolve_references()
    other.data.update(data)
    with pytest.raises(AssertionError, match="is looked at"):
      count_usable(other, prepare, tmp_path)


@pytest.mark.parametrize("text", ["", "{", "[]", "{}", '{"usable": null, "identity": null}'])
def test_a_damaged_file_is_counted_anew(config, model_directory, tmp_path, text):
  (tmp_path / counting.FILE).write_text(text)
  assert count_usable(config, preparer(Problems(13, BAD), model_directory), tmp_path) == 11


def test_processes_share_the_counting(config, model_directory, monkeypatch):
  prepare, counts = preparer(Problems(13, BAD), model_directory), []
  monkeypatch.setattr(jax, "process_count", lambda: 3)
  for process in range(3):
    monkeypatch.setattr(jax, "process_index", lambda p=process: p)
    counts.append(counting._count_dropped(prepare, config.seed, 0))
  assert sum(counts, collections.Counter()) == {"broken": 2}


def test_a_set_of_which_nothing_fits_is_refused(config, model_directory, tmp_path):
  small = preparer(Problems(13, BAD), model_directory, prompt_limit=3)
  with pytest.raises(ValueError, match=r"none of 13 records of problems .*11 too long, 2 broken"):
    count_usable(config, small, tmp_path)
  large = preparer(Texts(20_000), model_directory, prompt_limit=3)
  with pytest.raises(ValueError, match=r"none of 1000 records .*far: 1000 too long.*limit is 3"):
    count_usable(config, large, tmp_path)
  assert not list(tmp_path.iterdir())


def test_a_set_of_which_much_is_dropped_is_counted_to_its_end(config, model_directory, tmp_path):
  bad = frozenset(n for n in range(2600) if n % 20)
  assert count_usable(config, preparer(Texts(2600, bad), model_directory), tmp_path) == 130
  assert len(bad) > 2 * pipeline.PATIENCE


class Undrawn(figures.Figures):
  """Figures of which only the first may be drawn."""

  def problem(self, index):
    assert index == 0
    return super().problem(index)


@pytest.mark.long
def test_figures_are_counted_without_drawing_them(config, model_directory, tmp_path):
  prepare = preparer(Undrawn(length=100_000), model_directory)
  assert count_usable(config, prepare, tmp_path) == 100_000


def test_figures_that_do_not_all_fit_are_counted_one_by_one(config, model_directory, tmp_path):
  source = figures.Figures(length=60)
  lengths = [len(preparer(source, model_directory)(index).actor) for index in range(60)]
  for limit in (max(lengths), max(lengths) - 1, min(lengths)):
    prepare = preparer(source, model_directory, prompt_limit=limit)
    assert count_usable(config, prepare, tmp_path) == sum(n <= limit for n in lengths)


def test_every_figure_is_like_one_of_those_that_stand_for_all():
  for split, size, seed in (("train", 56, 0), ("heldout", 112, 3)):
    source = figures.Figures(split, size, length=300, seed=seed)
    representatives = source.representatives()
    assert len(representatives) < 100
    assert {source[index].question for index in range(300)} <= {
      one.question for one in representatives
    }
    (size,) = {len(record.images[0]) for record in representatives}
    assert {len(source[index].images[0]) for index in range(20)} == {size}
