"""Another view of a problem: its pictures mildly changed, its wording kept.

A picture becomes a little smaller, gets white margins, is brightened or darkened, and goes through
JPEG compression. It is never mirrored or turned, which would change what angles, clocks and words
say. What is drawn depends on the record and on how often it occurred before, nothing else.
"""

import dataclasses
import hashlib
import io
import random

import ml_collections
import PIL.Image
import PIL.ImageEnhance
import PIL.ImageOps

from sejax.errors import OptionError


@dataclasses.dataclass(frozen=True)
class Options:
  """How much a picture may change.

  Attributes:
    scale: the smallest scale of its sides, in [0.1, 1].
    margin: the largest margin, as a share of a side, in [0, 1].
    quality: the lowest JPEG quality, in [1, 95].
    brightness: the largest change of its brightness, as a share, in [0, 0.9].
  """

  scale: float
  margin: float
  quality: int
  brightness: float

  @classmethod
  def of(cls, section: ml_collections.ConfigDict) -> "Options | None":
    """Creates the options of section `config.data.view`; None without a second view.

    Raises:
      OptionError: an option is out of its range.
    """
    for name, low, high in (
      ("scale", 0.1, 1),
      ("margin", 0, 1),
      ("quality", 1, 95),
      ("brightness", 0, 0.9),
    ):
      if not low <= section[name] <= high:
        raise OptionError(f"data.view.{name}", section[name], f"in [{low}, {high}]")
    if not section.use:
      return None
    return cls(section.scale, section.margin, section.quality, section.brightness)


def change(
  image: PIL.Image.Image, options: Options, *, record: str, occurrence: int, number: int
) -> bytes:
  """Returns a mildly changed picture as a JPEG file.

  Args:
    image: an RGB image.
    record: id of the record that it belongs to.
    occurrence: earlier occurrences of the record in the run.
    number: of the picture in its record.
  """
  text = f"view\0{record}\0{occurrence}\0{number}"
  seed = int.from_bytes(hashlib.blake2b(text.encode(), digest_size=8).digest(), "little")
  draw = random.Random(seed)
  brightness = 1 + options.brightness * (2 * draw.random() - 1)
  margins = [round(options.margin * draw.random() * side) for side in (*image.size, *image.size)]
  scale = 1 - (1 - options.scale) * draw.random()
  quality = options.quality + round((95 - options.quality) * draw.random())

  width, height = image.size
  changed = PIL.ImageEnhance.Brightness(image).enhance(brightness)
  changed = PIL.ImageOps.expand(changed, border=tuple(margins), fill="white")
  size = max(round(scale * width), 1), max(round(scale * height), 1)
  changed = changed.resize(size, PIL.Image.Resampling.LANCZOS)
  file = io.BytesIO()
  changed.save(file, format="JPEG", quality=quality)
  return file.getvalue()
