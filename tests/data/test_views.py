"""Second views: what changes in a picture, how they are drawn, and how they enter batches."""

import io
import itertools

import ml_collections
import numpy as np
import PIL.Image
import pytest

from sejax import config as config_lib
from sejax.data import views
from sejax.data.images import decode
from sejax.data.pipeline import Options, Pipeline
from sejax.data.prepare import Example, with_views
from sejax.errors import OptionError
from tests.data.problems import Problems, preparer, random_png

MILD = views.Options(scale=0.85, margin=0.05, quality=60, brightness=0.15)


def picture(size=(112, 84)):
  """A ramp to the right with a dark corner at the top left: no symmetry."""
  width, height = size
  ramp = np.tile(np.linspace(80, 200, width), (height, 1))
  ramp[: height // 3, : width // 3] = 0
  return PIL.Image.fromarray(np.repeat(ramp[..., None], 3, axis=2).astype(np.uint8))


def view(image, options=MILD, *, record="a", occurrence=0, number=0):
  return decode(views.change(image, options, record=record, occurrence=occurrence, number=number))


def test_a_view_depends_on_record_occurrence_and_picture_alone():
  image = picture()
  names = list(itertools.product("ab", (0, 1), (0, 1)))
  files = [views.change(image, MILD, record=r, occurrence=o, number=n) for r, o, n in names]
  again = [views.change(image, MILD, record=r, occurrence=o, number=n) for r, o, n in names]
  assert files == again
  assert len(set(files)) == len(names)


def test_a_view_is_never_mirrored_or_turned_and_close_to_the_picture():
  image = picture()

  def inside(image):  # without the margins
    return np.asarray(image, float)[10:-10, 12:-12]

  for occurrence in range(20):
    changed = view(image, occurrence=occurrence)
    assert 0.85 * 112 - 1 <= changed.width <= 112
    assert 0.85 * 84 - 1 <= changed.height <= 84
    found = inside(changed.resize(image.size))

    def likeness(x, found=found):
      return np.corrcoef(inside(x).ravel(), found.ravel())[0, 1]

    turned = [image.transpose(method) for method in PIL.Image.Transpose if method < 4]
    others = [x.resize(image.size) for x in turned]
    assert likeness(image) > 0.85
    assert likeness(image) > max(map(likeness, others)) + 0.2


@pytest.mark.parametrize(
  ("changes", "check"),
  [
    ({"scale": 0.5}, lambda image: image.size < (112, 84)),
    ({"margin": 0.5}, lambda image: np.asarray(image)[:3].mean() > 250),
    ({"brightness": 0.9}, lambda image: abs(np.asarray(image, float).mean() - 127) > 10),
  ],
)
def test_each_change_by_itself(changes, check):
  none = {"scale": 1.0, "margin": 0.0, "quality": 95, "brightness": 0.0}
  image = picture()
  same = view(image, views.Options(**none))
  assert same.size == image.size
  assert np.abs(np.asarray(same, float) - np.asarray(image, float)).mean() < 2  # JPEG alone
  assert any(check(view(image, views.Options(**none | changes), record=r)) for r in "abcd")


def test_quality_is_that_of_jpeg():
  noise = np.random.default_rng(0).integers(0, 256, (84, 112, 3), np.uint8)
  image = PIL.Image.fromarray(noise)
  low, high = (views.Options(1.0, 0.0, quality, 0.0) for quality in (1, 95))
  sizes = [
    np.mean([len(views.change(image, x, record=r, occurrence=0, number=0)) for r in "abcdefgh"])
    for x in (low, high)
  ]
  assert sizes[0] < 0.8 * sizes[1]
  file = views.change(image, high, record="a", occurrence=0, number=0)
  assert PIL.Image.open(io.BytesIO(file)).format == "JPEG"


@pytest.mark.parametrize(
  ("name", "value"), [("scale", 0.0), ("margin", 1.5), ("quality", 96), ("brightness", 1.0)]
)
def test_options_out_of_range_are_named(name, value):
  section = ml_collections.ConfigDict(config_lib.default().data.view.to_dict() | {name: value})
  with pytest.raises(OptionError, match=rf"config\.data\.view\.{name}={value} must be in \["):
    views.Options.of(section)
  assert views.Options.of(config_lib.default().data.view) is None


def test_a_record_is_two_examples_that_differ_in_the_picture_alone(model_directory):
  prepare = preparer(Problems(3), model_directory, view=MILD)
  plain, other = with_views(prepare(2))
  alone = preparer(Problems(3), model_directory)(2)
  assert np.array_equal(plain.patches, alone.patches)
  assert np.array_equal(plain.actor, alone.actor)
  assert alone.view is None
  assert (plain.index, plain.id, plain.question) == (other.index, other.id, other.question)
  assert plain.image_files != other.image_files
  assert plain.patches.shape[1] == other.patches.shape[1]
  assert plain.patches.shape != other.patches.shape or not np.array_equal(
    plain.patches, other.patches
  )
  assert int(other.grids.prod(axis=1).sum()) == len(other.patches)
  (passes,) = {tuple(prepare(2, passes=1).view.image_files)}
  assert passes != other.image_files
  # Without a picture both are the same.
  plain, other = with_views(prepare(0))
  assert np.array_equal(plain.actor, other.actor)


@pytest.mark.parametrize("size", [(280, 280), (4000, 10)], ids=["too large", "too long"])
def test_a_view_that_cannot_be_used_is_the_picture_itself(model_directory, monkeypatch, size):
  monkeypatch.setattr(views, "change", lambda *_, **__: random_png(*size))
  example = preparer(Problems(3), model_directory, view=MILD)(2)
  assert isinstance(example, Example)
  for name, value in example.view._asdict().items():
    np.testing.assert_array_equal(value, getattr(example, name), err_msg=name)


@pytest.fixture
def make(model_directory):
  def pipeline(processes=1, process=0, states=(), batch_size=4):
    return Pipeline(
      preparer(Problems(6), model_directory, view=MILD),
      Options(batch_size=batch_size, seed=5),
      process=process,
      processes=processes,
      states=states,
    )

  return pipeline


def names(rows):
  return [(example.id, example.image_files) for example in rows]


def test_batches_hold_pairs_and_go_on_where_they_stopped(make):
  whole = make()
  stream = [names(next(whole)) for _ in range(6)]
  for rows in stream:
    assert len(rows) == 4
    assert [rows[n][0] == rows[n + 1][0] for n in (0, 2)] == [True, True]
  # Two records a batch: three batches are an epoch, and the next one has other views.
  views_of = {}
  for name, files in itertools.chain.from_iterable(row[1::2] for row in stream):
    if files:
      views_of.setdefault(name, set()).add(files)
  assert views_of
  assert all(len(found) == 2 for found in views_of.values())
  first = make()
  for rows in stream[:2]:
    assert names(next(first)) == rows
  rest = make(states=[first.state()])
  assert [names(next(rest)) for _ in range(4)] == stream[2:]


def test_an_odd_number_of_rows_is_refused(make):
  with pytest.raises(ValueError, match=r"batch_size=6 gives each of 2 processes an odd number"):
    make(processes=2, batch_size=6)
