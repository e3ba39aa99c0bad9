"""Writes a contact sheet of the built-in figures: a row for each family, its levels side by side.

python -m experiments.figures.contact_sheet --output=sheet.png --size=56
"""

from absl import app, flags
from PIL import Image, ImageDraw

from sejax.data import figures

_OUTPUT = flags.DEFINE_string("output", "contact_sheet.png", "PNG file to write.")
_SIZE = flags.DEFINE_enum("size", "56", [str(size) for size in figures.SIZES], "Pixels a side.")
_FAMILIES = flags.DEFINE_list("families", list(figures.FAMILIES), "Families to show.")
_COPIES = flags.DEFINE_integer("copies", 2, "Figures of each family and level.")

_SIDE = 224
_MARGIN, _CAPTION = 8, 40


def main(_):
  """Draws the sheet, and prints a solution and the slips of each family and level."""
  columns = len(figures.LEVELS) * _COPIES.value
  pitch_x, pitch_y = _SIDE + _MARGIN, _SIDE + _CAPTION
  sheet = Image.new("RGB", (columns * pitch_x, len(_FAMILIES.value) * pitch_y), "white")
  pen = ImageDraw.Draw(sheet)
  for row, family in enumerate(_FAMILIES.value):
    for column in range(columns):
      level, copy = divmod(column, _COPIES.value)
      mixture = figures.Mixture({family: 1.0}, (level,))
      problem = figures.problem(copy, "train", mixture=mixture, size=int(_SIZE.value))
      image = Image.fromarray(problem.image).resize((_SIDE, _SIDE), Image.Resampling.NEAREST)
      x, y = column * pitch_x, row * pitch_y
      sheet.paste(image, (x, y))
      pen.text((x + 2, y + _SIDE + 2), f"{problem.question}\n{problem.answer}", fill="black")
      if not copy:
        slips = "".join(f"\n    {wrong.slip}: {wrong.solution}" for wrong in problem.wrong)
        print(f"{family} {level}: {problem.question}\n    {problem.solution}{slips}")
  sheet.save(_OUTPUT.value)


if __name__ == "__main__":
  app.run(main)
