"""Decodes image files to RGB, or raises a `BadRecord` that says what is wrong.

Nothing global is changed: Pillow's own switches (`LOAD_TRUNCATED_IMAGES`, `MAX_IMAGE_PIXELS`) keep
whatever value the program gave them.
"""

import io
import struct

import numpy as np
import PIL.Image
import PIL.ImageOps

from sejax.data import truncation
from sejax.data.records import BadRecord
from sejax.errors import shortened

# The largest image that is decoded. It stays below the size at which Pillow itself warns.
MAX_PIXELS = 2**26
MAX_RATIO = 200  # of the longer to the shorter side, as HF `smart_resize`

# A list, so that no format which starts another program (EPS) is ever opened.
_FORMATS = ("BMP", "GIF", "JPEG", "PNG", "PPM", "TIFF", "WEBP")
# What Pillow's decoders raise on bad bytes.
_DECODING = (
  OSError,
  ValueError,
  SyntaxError,
  EOFError,
  IndexError,
  TypeError,
  struct.error,
  MemoryError,
)
_BOMB = (PIL.Image.DecompressionBombError, PIL.Image.DecompressionBombWarning)

# Where Pillow keeps EXIF data as they are in the file.
_EXIF = ("exif", "Raw profile type exif")


def decode(data: bytes) -> PIL.Image.Image:
  """Decodes an image file to an upright RGB image.

  Transparent pixels show white paper. 16-bit grey is scaled to 8 bits. The EXIF orientation is
  applied. Of several frames the first is taken.

  Args:
    data: a BMP, GIF, JPEG, PNG, PPM, TIFF or WebP file.

  Raises:
    BadRecord: of kind `unreadable image`, `truncated image`, `oversized image` (over `MAX_PIXELS`,
      judged by the header), `elongated image` (ratio of sides over `MAX_RATIO`) or `unsupported
      image` (32-bit values, whose white is not known).
  """
  if truncation.is_truncated(data):
    raise BadRecord("truncated image", f"the image file ends early, after {len(data)} bytes")
  try:
    with PIL.Image.open(io.BytesIO(data), formats=_FORMATS) as image:
      _check_header(image.size)
      image.load()
      _turn_upright(image)
      return _to_rgb(image)
  except BadRecord:
    raise
  except _BOMB as error:
    raise BadRecord("oversized image", f"the image is a decompression bomb: {error}") from None
  except PIL.UnidentifiedImageError:
    raise BadRecord(
      "unreadable image",
      f"{len(data)} bytes that begin with {data[:8]!r} are none of {', '.join(_FORMATS)}",
    ) from None
  except _DECODING as error:
    kind = "truncated image" if "truncated" in str(error).lower() else "unreadable image"
    raise BadRecord(kind, f"the image cannot be decoded: {shortened(error)}") from None


def check_size(size: tuple[int, int], min_pixels: int, max_pixels: int, factor: int = 28) -> None:
  """Refuses an image that HF `smart_resize` would bring above `max_pixels`.

  It rounds both sides to multiples of a factor and lets none fall below it, so a long image of
  small area, or one between two limits that are close, can end up larger than the limit.

  Args:
    size: width and height in pixels.
    min_pixels: smaller images are enlarged to this area.
    max_pixels: larger images are reduced to this area.
    factor: pixels along a side of a merged token.

  Raises:
    BadRecord: of kind `elongated image`.
  """
  # Here, as the import takes seconds that decoding alone need not pay.
  from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

  width, height = size
  _check_ratio(size)
  new_height, new_width = smart_resize(height, width, factor, min_pixels, max_pixels)
  if new_height * new_width > max_pixels:
    raise BadRecord(
      "elongated image",
      f"the image is {width}x{height}; at sides of at least {factor} that keep this ratio it takes "
      f"{new_width}x{new_height} pixels, more than max_pixels={max_pixels}",
    )


def _check_header(size: tuple[int, int]) -> None:
  width, height = size
  if width * height > MAX_PIXELS:
    raise BadRecord(
      "oversized image", f"the image is {width}x{height}; at most {MAX_PIXELS} pixels are decoded"
    )
  _check_ratio(size)


def _check_ratio(size: tuple[int, int]) -> None:
  width, height = size
  if max(size) > MAX_RATIO * min(size):
    raise BadRecord(
      "elongated image",
      f"the image is {width}x{height}; no side may exceed {MAX_RATIO} times the other",
    )


def _to_rgb(image: PIL.Image.Image) -> PIL.Image.Image:
  """Brings any mode to RGB, on white."""
  if image.mode in ("F", "I") or image.mode.startswith("I;16"):
    return _grey16_to_rgb(image)
  if image.mode in ("RGBa", "La"):  # colours multiplied by alpha
    image = image.convert({"RGBa": "RGBA", "La": "LA"}[image.mode])
  if not image.has_transparency_data:
    return image.convert("RGB")
  image = image.convert("RGBA")
  white = PIL.Image.new("RGBA", image.size, "white")
  return PIL.Image.alpha_composite(white, image).convert("RGB")


def _grey16_to_rgb(image: PIL.Image.Image) -> PIL.Image.Image:
  """Scales 16-bit grey to 8 bits, where Pillow's `convert` clips it at 255."""
  values = np.asarray(image)
  if image.mode in ("F", "I") and not (image.mode == "I" and _fits_16_bits(values)):
    raise BadRecord(
      "unsupported image",
      f"the image has 32-bit values from {values.min()} to {values.max()}; save it with 8 or 16",
    )
  grey = ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
  transparent = image.info.get("transparency")
  if isinstance(transparent, int):
    grey[values == transparent] = 255
  return PIL.Image.fromarray(grey).convert("RGB")


def _fits_16_bits(values: np.ndarray) -> bool:
  return values.min() >= 0 and values.max() <= 65535


def _turn_upright(image: PIL.Image.Image) -> None:
  """Turns a loaded image as its EXIF data say; unreadable EXIF data count as none.

  Pillow has already turned a TIFF while loading it.
  """
  try:
    image.getexif()  # parses the data, which Pillow then keeps
    # After turning, Pillow would write all other tags anew, and fail on ill-typed ones.
    for name in _EXIF:
      image.info.pop(name, None)
    PIL.ImageOps.exif_transpose(image, in_place=True)
  except _DECODING:
    return
