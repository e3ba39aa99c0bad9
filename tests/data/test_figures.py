"""The built-in figures: their bytes, what they show, what is said of them, and the split."""

import hashlib
import io
import math
import re

import numpy as np
import PIL.Image
import pytest

from sejax.data import figures
from sejax.data.figures import angles, problems
from sejax.data.figures.board import UNIT, Board
from sejax.data.figures.rng import Rng
from sejax.text import answers
from sejax.text.rounding import equal_up_to_rounding

FAMILIES = tuple(figures.FAMILIES)

# SHA-256 of what `_digest` reads, in hexadecimal: same index, same bytes, on any machine.
GOLDEN = {
  "dots": "fd7de35ead53066ca0ea21c8c2c15de916deb3bd0c36299916b1b446a26bd585",
  "colours": "6bfb15727da84d0f5a5f688b3f88a66ca8006c9f3a74bc69530f899ad182a86b",
  "bars": "4d06f9beb82952356b05111381236c99d0791242d624f95b9f681301b472a16a",
  "clock": "c6d06227be794f0ad1982cb917bce8ea508034ee4f16ded2d54d7d6bf1cddd72",
  "number_line": "d5d199ba61d95959f61c2639385b408944181fe8939f4df203e65ceae8c13687",
  "coordinates": "a05391035ad10ac5228e399aab4e882a7b751e945a12cc889bac20bf00092644",
  "sum": "086f735325f7fca2bf2415413cb2ea39ab1ddd90ff7a7d65659f8088c716587a",
  "dice": "4102e558d17083c5c92d7f4911337629abff00bbfb084673ba55532deaee10ad",
  "fraction": "13e652ad35223ba916e441e239420328f656b6d353d807cdc2071252ab29e433",
  "area": "bc778fc87e55304bfb3c2bcadf1ffe122d03d78dd4905166e05e6b57bbe7f5dc",
  "perimeter": "254620c33595ca03b77bec94686674a4817aff1679dc445d89c2f84e87687944",
  "l_shape": "9a4d326871720e4f4158cf8d1fb0afecbbd1ad57231e18fb4885f7a205b03edd",
  "angle": "ad29a297633ef720e6cdc4ef4a5a8218df9fd56166bf6907c42f612e5d969bad",
  "right_triangle": "cd6bad6d363ad9e0244bf463c874819d454a156e1348bc7e9bbd97e39e283893",
}


def _problems(family, count, split="train", size=56, levels=figures.LEVELS):
  mixture = figures.Mixture({family: 1.0}, levels)
  return [figures.problem(i, split, mixture=mixture, size=size) for i in range(count)]


def _digest(family):
  digest = hashlib.sha256()
  for size, count in ((56, 200), (112, 50), (224, 50)):
    for problem in _problems(family, count, size=size):
      digest.update(figures.bmp(problem.image))
      told = problem.question, problem.answer, problem.solution, problem.facts, problem.wrong
      digest.update(repr(told).encode())
  return digest.hexdigest()


@pytest.mark.long
@pytest.mark.parametrize("family", FAMILIES)
def test_bytes_are_the_golden_ones(family):
  assert _digest(family) == GOLDEN[family]


def test_bits_are_splitmix64():
  rng = Rng()
  rng._state = 1234567
  # The values of the algorithm's published test vector for this seed.
  assert [rng.draw() for _ in range(3)] == [
    6457827717110365317,
    3203168211198807973,
    9817491932198370423,
  ]


def test_weighted_choices_follow_their_weights():
  rng = Rng("weights")
  counts = np.bincount([rng.weighted((1.0, 0.0, 3.0)) for _ in range(4000)], minlength=3)
  assert counts[1] == 0
  # Four standard deviations of a binomial count.
  assert abs(counts[2] - 3000) < 4 * math.sqrt(4000 * 0.75 * 0.25)


def test_sines_are_those_of_math():
  for step in range(-144, 288):
    angle = math.radians(2.5 * step)
    assert angles.sine(step) == round(math.sin(angle) * angles.ONE)
    assert angles.cosine(step) == round(math.cos(angle) * angles.ONE)


@pytest.mark.parametrize("size", figures.SIZES)
def test_bmp_decodes_to_the_picture(size):
  for problem in _problems("colours", 3, size=size):
    with PIL.Image.open(io.BytesIO(figures.bmp(problem.image))) as image:
      assert image.format == "BMP"
      np.testing.assert_array_equal(np.asarray(image), problem.image)


def test_bmp_pads_rows_to_four_bytes():
  image = np.arange(3 * 5 * 3, dtype=np.uint8).reshape(3, 5, 3)
  np.testing.assert_array_equal(PIL.Image.open(io.BytesIO(figures.bmp(image))), image)


def test_smaller_pictures_are_averages_of_the_largest():
  large = figures.problem(5, "train", size=224).image.astype(float)
  for size in (56, 112):
    step = 224 // size
    mean = large.reshape(size, step, size, step, 3).mean(axis=(1, 3))
    small = figures.problem(5, "train", size=size).image
    np.testing.assert_array_equal(small, np.floor(mean + 0.5))


def test_lines_and_polygons_cover_the_points_that_geometry_says():
  board = Board()
  board.polygon([(10, 20), (110, 20), (10, 120)], 1)
  y, x = np.mgrid[:224, :224] + 0.5
  inside = (x > 10) & (y > 20) & (x + y < 130)
  on_edge = np.isclose(x + y, 130)
  np.testing.assert_array_equal((board.grid != board.grid[-1, -1])[~on_edge], inside[~on_edge])
  board = Board()
  board.line(20, 30, 180, 150, 1, 8)  # its direction is (4, 3) / 5
  along, across = ((x - 20) * 4 + (y - 30) * 3) / 5, ((y - 30) * 4 - (x - 20) * 3) / 5
  # Corners are rounded to sixteenths of a point.
  sure_in = (along > 0.2) & (along < 199.8) & (abs(across) < 3.8)
  sure_out = (along < -0.2) | (along > 200.2) | (abs(across) > 4.2)
  drawn = board.grid != board.grid[-1, -1]
  assert drawn[sure_in].all()
  assert not drawn[sure_out].any()


class _CheckedBoard(Board):
  """A board on which a label must stand on plain ground and stay as it is."""

  def __init__(self):
    super().__init__()
    self.labels = []

  def text(self, x, y, text, ink=1):
    before = self.grid.copy()
    super().text(x, y, text, ink)
    rows, columns = np.nonzero(self.grid != before)
    # Free of other things by half a pixel of the smallest image.
    margin = UNIT // 2
    box = tuple(
      slice(max(int(at.min()) - margin, 0), int(at.max()) + 1 + margin) for at in (rows, columns)
    )
    assert np.unique(before[box]).size == 1, text
    self.labels.append((box, self.grid[box].copy()))


@pytest.mark.long
@pytest.mark.parametrize("family", FAMILIES)
def test_no_label_is_cut_off_or_lies_over_a_line(family):
  for level in figures.LEVELS:
    rng = Rng("labels", level)
    for _ in range(200):
      board = _CheckedBoard()
      content = figures.FAMILIES[family].content(rng, level)
      figures.FAMILIES[family].draw(board, content, rng)
      for box, written in board.labels:
        np.testing.assert_array_equal(board.grid[box], written, err_msg=repr(content))


def test_text_off_the_board_is_refused():
  with pytest.raises(ValueError, match="'12' at \\(2, 100\\) does not fit"):
    Board().text(2, 100, "12")
  with pytest.raises(ValueError, match="no 'Z'"):
    Board().text(100, 100, "Z")


@pytest.mark.long
@pytest.mark.parametrize("family", FAMILIES)
def test_solutions_keep_the_form_and_wrong_ones_are_wrong(family):
  for problem in _problems(family, 300):
    assert len(problem.question.split()) <= 12
    assert answers.format_ok(problem.solution)
    assert answers.extract(problem.solution) == problem.answer == str(problem.facts["answer"])
    assert len(problem.wrong) >= 2
    for wrong in problem.wrong:
      assert answers.format_ok(wrong.solution)
      assert answers.extract(wrong.solution) == wrong.answer == str(wrong.claims["answer"])
      assert not equal_up_to_rounding(wrong.answer, problem.answer), (problem.content, wrong)
      assert wrong.solution != problem.solution


@pytest.mark.long
@pytest.mark.parametrize("family", FAMILIES)
def test_every_equation_in_a_solution_holds(family):
  for problem in _problems(family, 300):
    # A sum may stand on either side: 900 - 324 = 576 = 24 * 24.
    for equation in re.findall(r"\d+(?: [-+*=] \d+)+", problem.solution):
      values = {_value(side) for side in equation.split(" = ")}
      assert len(values) == 1, problem.solution


def _value(side):
  """The value of a sum of products of integers."""
  total, sign = 0, 1
  for part in re.split(r" ([-+]) ", side):
    if part in "+-":
      sign = -1 if part == "-" else 1
    else:
      total += sign * math.prod(int(factor) for factor in part.split(" * "))
  return total


def _components(mask):
  """The number of connected areas."""
  left, count = set(zip(*np.nonzero(mask), strict=True)), 0
  while left:
    count += 1
    stack = [left.pop()]
    while stack:
      y, x = stack.pop()
      near = {(y + 1, x), (y - 1, x), (y, x + 1), (y, x - 1)} & left
      left -= near
      stack.extend(near)
  return count


def test_as_many_dots_are_drawn_as_the_answer_says():
  for problem in _problems("dots", 40, size=112):
    # Dots are darker than any paper; their blurred rims are left out.
    assert _components(problem.image.min(axis=-1) < 140) == int(problem.answer)


def test_as_many_dots_of_the_colour_are_drawn_as_the_answer_says():
  hues = {"red": (214, 40, 40), "blue": (36, 84, 214), "green": (20, 146, 60)}
  hues |= {"orange": (240, 146, 16), "purple": (140, 56, 176)}
  for problem in _problems("colours", 40, size=224):
    asked = next(hue for name, hue in hues.items() if name in problem.question)
    mask = (problem.image == np.array(asked)).all(axis=-1)
    assert _components(mask[::2, ::2]) == int(problem.answer)


def test_bars_have_the_heights_that_answers_say():
  for problem in _problems("bars", 40, size=224):
    image = problem.image[:188, 34:].astype(int)
    tall = (np.ptp(image, axis=-1) > 60).sum(axis=0)  # colours, where paper and ink are pale
    edges = np.flatnonzero(np.diff(tall, prepend=0))
    heights = dict(zip("ABCDE", (tall[at] / 20 for at in edges if tall[at]), strict=False))
    asked = re.findall(r"\b[A-E]\b", problem.question)
    if "tallest" in problem.question or "shortest" in problem.question:
      pick = max if "tallest" in problem.question else min
      expected = pick(heights, key=heights.get)
    elif len(asked) == 1:
      expected = heights[asked[0]]
    else:
      sign = -1 if "taller" in problem.question else 1
      expected = heights[asked[0]] + sign * heights[asked[1]]
    assert problem.answer == (expected if isinstance(expected, str) else f"{expected:g}")


@pytest.mark.long
def test_splits_share_no_content():
  contents = {}
  for split in figures.SPLITS:
    picks = (
      problems.sample_content(Rng(split, i), split, figures.Mixture()) for i in range(20_000)
    )
    contents[split] = {(family.name, content) for family, _, content in picks}
  assert not contents["train"] & contents["heldout"]
  assert len(contents["heldout"]) > 5000


@pytest.mark.long
@pytest.mark.parametrize("family", FAMILIES)
def test_every_level_has_problems_in_both_splits(family):
  for level in figures.LEVELS:
    for split in figures.SPLITS:
      found = {problem.content for problem in _problems(family, 40, split, levels=(level,))}
      assert len(found) >= 2, (level, split)


def test_a_problem_depends_on_its_index_seed_and_split_alone():
  first = figures.problem(7, "train")
  figures.problem(8, "train")
  again = figures.problem(7, "train")
  assert first.content == again.content
  np.testing.assert_array_equal(first.image, again.image)
  assert figures.problem(np.int64(7), "train", seed=np.int32(0)).content == first.content
  assert figures.problem(7, "train", seed=1).content != first.content
  assert figures.problem(7, "heldout").content != first.content


def test_mixture_decides_families_and_levels():
  mixture = figures.Mixture({"clock": 1.0, "dots": 1.0, "bars": 0.0}, (1,))
  drawn = [figures.problem(i, "train", mixture=mixture) for i in range(60)]
  assert {problem.family for problem in drawn} == {"clock", "dots"}
  assert {problem.level for problem in drawn} == {1}


def test_source_holds_records():
  source = figures.source("heldout", 112, {"dots": 1.0}, [0], length=10, seed=3)
  assert len(source) == 10
  assert source.name == "figures"
  record, problem = source[4], source.problem(4)
  assert record.id == "figures/heldout/4"
  assert record.question == problem.question
  with PIL.Image.open(io.BytesIO(record.images[0])) as image:
    np.testing.assert_array_equal(np.asarray(image), problem.image)
    assert image.size == (112, 112)
  assert source.gold(4) == problem.answer
  for index in (-1, 10):
    with pytest.raises(IndexError, match=f"figure {index} of 10"):
      source[index]


@pytest.mark.parametrize(
  ("attempt", "message"),
  [
    (lambda: figures.Mixture({"dot": 1.0}), "named 'dot'; there are dots, "),
    (lambda: figures.Mixture({"dots": -1.0}), "weight -1.0 of the family 'dots'"),
    (lambda: figures.Mixture({"dots": float("nan")}), "weight nan of the family 'dots'"),
    (lambda: figures.Mixture({"dots": 0.0}), "must have one above 0"),
    (lambda: figures.Mixture(levels=(3,)), r"levels \(3,\) must be some of \(0, 1, 2\)"),
    (lambda: figures.Mixture(levels=()), r"levels \(\) must be some of"),
    (lambda: figures.Figures("test"), "no split 'test', only train, heldout"),
    (lambda: figures.Figures(size=64), "no size 64, only 56, 112, 224"),
    (lambda: figures.Figures(length=0), "length 0 of a set of figures must be at least 1"),
    (lambda: figures.problem(-1, "train"), "index -1 of a figure must be at least 0"),
  ],
)
def test_what_does_not_exist_is_refused(attempt, message):
  with pytest.raises(ValueError, match=message):
    attempt()
