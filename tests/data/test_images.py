"""Decoding: every mode to RGB on white, and every kind of bad file refused by name."""

import io
import itertools
import pathlib
import re
import struct
import time
import zlib

import numpy as np
import PIL.Image
import pytest
from transformers.models.qwen2_vl.image_processing_pil_qwen2_vl import smart_resize

from sejax.data import images, truncation
from sejax.data.records import BadRecord
from tests import real_data

# Pillow warns of some of the broken files before it refuses them.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning:PIL")


def encode(image: PIL.Image.Image | np.ndarray, form: str = "PNG", **options) -> bytes:
  if isinstance(image, np.ndarray):
    image = PIL.Image.fromarray(image)
  file = io.BytesIO()
  image.save(file, form, **options)
  return file.getvalue()


def noise(*shape: int, seed: int = 0) -> np.ndarray:
  return np.random.default_rng(seed).integers(0, 256, shape, np.uint8)


def chunk(name: bytes, content: bytes) -> bytes:
  crc = zlib.crc32(name + content)
  return struct.pack(">I", len(content)) + name + content + struct.pack(">I", crc)


def png(width: int, height: int, depth: int, colour: int, rows: bytes, *more: bytes) -> bytes:
  """A PNG written by hand, for what Pillow does not write."""
  header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
  parts = (chunk(b"IHDR", header), *more, chunk(b"IDAT", zlib.compress(rows)), chunk(b"IEND", b""))
  return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def on_white(rgba: np.ndarray) -> np.ndarray:
  """Compositing on white, in exact arithmetic."""
  colour, alpha = rgba[..., :3].astype(float), rgba[..., 3:] / 255
  return colour * alpha + 255 * (1 - alpha)


def refused(data: bytes, kind: str, match: str | None = None) -> None:
  with pytest.raises(BadRecord, match=match) as caught:
    images.decode(data)
  assert caught.value.kind == kind, caught.value


def pixels(data: bytes) -> np.ndarray:
  image = images.decode(data)
  assert image.mode == "RGB"
  return np.asarray(image)


def test_rgb_and_opaque_rgba_keep_their_pixels():
  rgb = noise(30, 40, 3)
  opaque = np.concatenate([rgb, np.full((30, 40, 1), 255, np.uint8)], axis=-1)
  for array, form in ((rgb, "PNG"), (rgb, "BMP"), (rgb, "TIFF"), (rgb, "PPM"), (opaque, "PNG")):
    np.testing.assert_array_equal(pixels(encode(array, form)), rgb)


def test_grey_and_one_bit():
  grey = noise(30, 40)
  np.testing.assert_array_equal(pixels(encode(grey)), np.stack([grey] * 3, axis=-1))
  bits = grey > 127
  expected = np.stack([bits * 255] * 3, axis=-1)
  np.testing.assert_array_equal(pixels(encode(bits)), expected)


def test_alpha_is_composited_on_white():
  rgba = noise(30, 40, 4)
  # Pillow rounds to whole values, in two steps.
  np.testing.assert_allclose(pixels(encode(rgba)), on_white(rgba), atol=1.01)
  la = noise(30, 40, 2)
  data = encode(PIL.Image.fromarray(la, "LA"))
  np.testing.assert_allclose(pixels(data), on_white(la[..., [0, 0, 0, 1]]), atol=1.01)
  hidden = np.zeros((4, 4, 4), np.uint8)
  assert (pixels(encode(hidden)) == 255).all()


def test_palette_with_transparency():
  image = PIL.Image.fromarray(np.array([[0, 1, 2]], np.uint8), "P")
  image.putpalette([10, 20, 30, 40, 50, 60, 70, 80, 90])
  by_index = pixels(encode(image, transparency=1))
  np.testing.assert_array_equal(by_index, [[[10, 20, 30], [255, 255, 255], [70, 80, 90]]])
  by_table = pixels(encode(image, transparency=bytes([255, 0, 255])))
  np.testing.assert_array_equal(by_table, by_index)
  np.testing.assert_array_equal(pixels(encode(image, "GIF", transparency=1)), by_index)


def test_a_transparent_colour_without_alpha_channel():
  rgb = np.array([[[1, 2, 3], [4, 5, 6]]], np.uint8)
  data = encode(rgb, transparency=(1, 2, 3))
  np.testing.assert_array_equal(pixels(data), [[[255, 255, 255], [4, 5, 6]]])


def test_cmyk():
  cmyk = PIL.Image.new("CMYK", (8, 8), (0, 255, 255, 0))
  np.testing.assert_array_equal(pixels(encode(cmyk, "TIFF"))[0, 0], [255, 0, 0])
  red = pixels(encode(cmyk, "JPEG", quality=95))[0, 0].astype(int)
  np.testing.assert_allclose(red, [255, 0, 0], atol=3)  # JPEG is lossy


SIXTEEN_BIT = np.array([[0, 128, 129, 257, 32768, 65278, 65535]], np.uint16)
# v / 257, rounded: 65535 is white and 257 one step of 8 bits.
EIGHT_BIT = [0, 0, 1, 1, 128, 254, 255]


@pytest.mark.parametrize("form", ["PNG", "TIFF", "PPM"])
def test_16_bit_grey_is_scaled_not_clipped(form):
  assert pixels(encode(SIXTEEN_BIT, form))[0, :, 0].tolist() == EIGHT_BIT


def test_16_bit_grey_of_other_layouts():
  big_endian = encode(PIL.Image.fromarray(SIXTEEN_BIT.astype(">u2")), "TIFF")
  assert PIL.Image.open(io.BytesIO(big_endian)).mode == "I;16B"
  assert pixels(big_endian)[0, :, 0].tolist() == EIGHT_BIT
  in_32_bits = encode(PIL.Image.fromarray(SIXTEEN_BIT.astype(np.int32)), "TIFF")
  assert PIL.Image.open(io.BytesIO(in_32_bits)).mode == "I"
  assert pixels(in_32_bits)[0, :, 0].tolist() == EIGHT_BIT


def test_16_bit_png_with_alpha_or_colour():
  values = SIXTEEN_BIT[0]
  row = b"\0" + values.astype(">u2").tobytes()
  clear = png(7, 1, 16, 0, row, chunk(b"tRNS", struct.pack(">H", 32768)))
  assert pixels(clear)[0, :, 0].tolist() == [0, 0, 1, 1, 255, 254, 255]
  with_alpha = np.stack([values, np.full(7, 65535)], axis=-1).astype(">u2")
  colour = np.stack([values] * 3, axis=-1).astype(">u2")
  for kind, array in ((4, with_alpha), (2, colour)):
    shown = pixels(png(7, 1, 16, kind, b"\0" + array.tobytes()))[0, :, 0]
    # Pillow itself takes the high byte here.
    np.testing.assert_allclose(shown.astype(int), values / 257, atol=1)


def test_values_without_a_known_white_are_refused():
  refused(encode(np.array([[0.5, 1]], np.float32), "TIFF"), "unsupported image", "32-bit values")
  refused(encode(np.array([[0, 70000]], np.int32), "TIFF"), "unsupported image", "to 70000")
  refused(encode(np.array([[-1, 5]], np.int32), "TIFF"), "unsupported image", "from -1")


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["PNG", "TIFF", "WEBP"])
def test_exif_orientation_is_applied(orientation, form):
  upright = noise(24, 40, 3)
  # How the camera stored the image: the definition of the EXIF tag, row and column of pixel 0.
  stored = {
    1: upright,
    2: upright[:, ::-1],
    3: upright[::-1, ::-1],
    4: upright[::-1],
    5: upright.swapaxes(0, 1),
    6: upright.swapaxes(0, 1)[::-1],
    7: upright.swapaxes(0, 1)[::-1, ::-1],
    8: upright.swapaxes(0, 1)[:, ::-1],
  }[orientation]
  exif = PIL.Image.Exif()
  exif[0x0112] = orientation
  options = {"lossless": True} if form == "WEBP" else {}
  data = encode(np.ascontiguousarray(stored), form, exif=exif, **options)
  np.testing.assert_array_equal(pixels(data), upright)


def test_unreadable_exif_data_count_as_none():
  rgb = noise(8, 8, 3)
  data = encode(rgb, exif=b"Exif\0\0MM\0*\0\0\0\x08\0\x01\x01\x12\0\x03\0")
  np.testing.assert_array_equal(pixels(data), rgb)


def exif_data(*entries: bytes) -> bytes:
  """EXIF data, big-endian, of entries of twelve bytes."""
  return b"Exif\0\0MM\0*\0\0\0\x08" + struct.pack(">H", len(entries)) + b"".join(entries) + bytes(4)


@pytest.mark.parametrize(
  "ill_typed",
  [
    struct.pack(">HHII", 0x010E, 5, 1, 0),  # a description that is a fraction
    struct.pack(">HHI", 0x011A, 2, 4) + b"abc\0",  # a resolution that is a text
    struct.pack(">HHII", 0x927C, 4, 1, 70_000),  # a maker's note that is a number
  ],
)
def test_other_ill_typed_exif_data_do_not_matter(ill_typed):
  upright = noise(8, 12, 3)
  data = exif_data(ill_typed, struct.pack(">HHIHH", 0x0112, 3, 1, 6, 0))
  stored = np.ascontiguousarray(upright.swapaxes(0, 1)[::-1])
  np.testing.assert_array_equal(pixels(encode(stored, exif=data)), upright)


@pytest.mark.parametrize("grey", ["1", "L", "LA", "P", "I;16"])
def test_exif_orientation_is_applied_in_every_mode(grey):
  upright = PIL.Image.fromarray(noise(8, 12) // 2 + 64)
  if grey == "I;16":
    upright = PIL.Image.fromarray(np.asarray(upright).astype(np.uint16) * 257)
  else:
    upright = upright.convert(grey)
  exif = PIL.Image.Exif()
  exif[0x0112] = 5
  data = encode(upright.transpose(PIL.Image.Transpose.TRANSPOSE), exif=exif)
  assert PIL.Image.open(io.BytesIO(data)).mode == grey
  np.testing.assert_array_equal(pixels(data), pixels(encode(upright)))


def test_a_tiff_whose_xmp_data_are_a_number_is_refused():
  exif = PIL.Image.Exif()
  exif[0x0112] = 6
  data = encode(noise(8, 12, 3), "TIFF", exif=exif, tiffinfo={700: b"long"})
  (entry,) = re.findall(
    struct.pack("<HHI", 700, 7, 4) + b"|" + struct.pack("<HHI", 700, 1, 4), data
  )
  refused(data.replace(entry, struct.pack("<HHI", 700, 4, 1)), "unreadable image")


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF"])
def test_the_first_of_several_frames_is_taken(form):
  first, second = (PIL.Image.new("RGB", (16, 16), colour) for colour in ("red", "blue"))
  data = encode(first, form, save_all=True, append_images=[second])
  assert PIL.Image.open(io.BytesIO(data)).n_frames == 2
  np.testing.assert_allclose(pixels(data)[8, 8].astype(int), [255, 0, 0], atol=3)  # WebP is lossy


@pytest.mark.parametrize(
  ("form", "cuts"),
  [
    ("JPEG", (1, 2, 15, 400)),
    ("PNG", (1, 2, 15, 400)),
    ("BMP", (1, 2, 15, 400)),
    ("TIFF", (1, 15, 400)),
    ("PPM", (1, 15, 400)),
    ("WEBP", (1, 2, 15, 400)),
    ("GIF", (15, 400)),  # its last byte or two hold no pixels
  ],
)
def test_truncated_files_are_detected(form, cuts):
  data = encode(noise(48, 64, 3), form)
  images.decode(data)
  for cut in cuts:
    refused(data[:-cut], "truncated image")


@pytest.mark.parametrize("options", [{}, {"progressive": True}, {"restart_marker_blocks": 1}])
def test_a_jpeg_is_truncated_wherever_it_is_cut(options):
  smooth = PIL.Image.linear_gradient("L").resize((64, 64))
  thumbnail = encode(smooth.resize((8, 8)), "JPEG")  # its end marker is not the image's
  exif = b"Exif\0\0" + thumbnail
  data = encode(smooth, "JPEG", exif=exif, **options)
  images.decode(data)
  images.decode(data + b"trailing bytes")
  for size in range(len(data) - 1, data.rfind(b"\xff\xda"), -7):
    refused(data[:size], "truncated image")


JPEG_FORMS = [{}, {"progressive": True}, {"restart_marker_blocks": 1}, {"optimize": True}]


def jpeg(**options) -> bytes:
  """A JPEG with a thumbnail inside, which has an end marker of its own."""
  smooth = PIL.Image.linear_gradient("L").resize((64, 64))
  return encode(smooth, "JPEG", exif=b"Exif\0\0" + encode(smooth.resize((8, 8)), "JPEG"), **options)


def trailers() -> list[bytes]:
  """What may stand after an image: films, images, and what looks like parts of images."""
  film = b"\0\0\0\x18ftypmp42" + noise(100_000).tobytes()
  assert b"\xff\xda" in film
  return [
    film,
    jpeg(),
    jpeg()[:-20],
    b"\xff\xda",
    b"\xff\xda" * 1000 + b"\xff",
    b"\x89PNG\r\n\x1a\n",
    chunk(b"IDAT", b"\xff" * 9),
    b"IEND",
    b"\0" * 1000,
    b"\r\n",
  ]


@pytest.mark.parametrize(
  "form", [("JPEG", options) for options in JPEG_FORMS] + ["PNG", "WEBP", "GIF"]
)
def test_data_behind_a_picture_do_not_matter(form):
  data = jpeg(**form[1]) if isinstance(form, tuple) else encode(noise(48, 64, 3), form)
  for more in trailers():
    np.testing.assert_array_equal(pixels(data + more), pixels(data))


@pytest.mark.parametrize("options", JPEG_FORMS)
def test_a_jpeg_that_is_cut_before_its_data_behind_is_refused(options):
  data, film = jpeg(**options), trailers()[0].replace(b"\xff", b"\xfe")
  for cut in (1, 2, 15):
    refused(data[:-cut] + film, "truncated image")


@pytest.mark.parametrize("options", JPEG_FORMS)
def test_a_jpeg_is_refused_wherever_it_is_cut(options):
  """In its header, in a thumbnail, between the scans of a progressive file, within a marker."""
  data = jpeg(**options)
  for size in range(2, len(data)):
    assert truncation.is_truncated(data[:size]), size
  assert not truncation.is_truncated(data)


def test_a_jpeg_with_repeated_marker_bytes_and_comments():
  data = jpeg()
  comment = b"\xff\xd9\xff\xda\xff"  # which a comment may hold
  part = b"\xff\xff\xff\xfe" + struct.pack(">H", 2 + len(comment)) + comment
  spread = data[:2] + part + data[2:-2] + b"\xff\xff" + data[-2:]
  np.testing.assert_array_equal(pixels(spread), pixels(data))
  for size in range(2, len(spread)):
    assert truncation.is_truncated(spread[:size]), size


def test_a_png_is_refused_wherever_it_is_cut():
  rows = b"\0" + bytes(8) + b"\0" + bytes(8)
  data = png(8, 2, 8, 0, rows, chunk(b"tEXt", b"IEND\xaeB`\x82"))
  images.decode(data)
  for size in range(8, len(data)):
    refused(data[:size], "truncated image")
    # The end of another file does not end this one.
    assert truncation.is_truncated(data[:size].replace(b"\0\0\0\0IEND", b"\0\0\0\0I"))


@pytest.mark.long
@pytest.mark.parametrize(
  "part",
  [
    b"\xff\xda\0\2",
    b"\xff\0",
    b"\xff",
    b"\xff\xd0",
    b"\xff\xd8",
    b"\xff\xda\0\0",
    b"\xff\xe1\0\3\0",
  ],
)
def test_hostile_files_take_linear_time(part):
  began = time.process_time()
  assert truncation.is_truncated(b"\xff\xd8" + part * (4_000_000 // len(part)))
  assert time.process_time() - began < 5


def test_a_png_with_a_changed_pixel_is_refused():
  array = noise(16, 16, 3)
  data = encode(array, compress_level=0)
  place = data.index(array[8].tobytes())
  for shift in range(48):
    broken = bytearray(data)
    broken[place + shift] ^= 1
    refused(bytes(broken), "unreadable image")


@pytest.mark.parametrize(
  "data", [b"", b"hello", b"\x89PNG", b"\xff\xd8", b"%!PS-Adobe-3.0 EPSF-3.0"]
)
def test_what_is_no_image_is_refused(data):
  with pytest.raises(BadRecord) as caught:
    images.decode(data)
  assert caught.value.kind in ("unreadable image", "truncated image")


def test_no_bytes_raise_anything_else():
  whole = [encode(noise(12, 9, 3), form) for form in ("JPEG", "PNG", "GIF", "WEBP", "TIFF", "BMP")]
  random = np.random.default_rng(1)
  refusals = 0
  for data in itertools.chain.from_iterable([file] * 60 for file in whole):
    broken = bytearray(data)
    for place in random.integers(0, len(data), 3):
      broken[place] = random.integers(256)
    try:
      images.decode(bytes(broken))
    except BadRecord:
      refusals += 1
  assert refusals > 60


def test_decompression_bombs_are_refused_by_their_header():
  rows = b"\0" * 1000  # far too few for the size declared: they are never looked at
  refused(png(9000, 9000, 8, 0, rows), "oversized image", "9000x9000")
  refused(png(60000, 60000, 8, 0, rows), "oversized image", "bomb")
  assert images.MAX_PIXELS < PIL.Image.MAX_IMAGE_PIXELS


def test_a_switched_off_limit_of_pillow_changes_nothing(monkeypatch):
  monkeypatch.setattr(PIL.Image, "MAX_IMAGE_PIXELS", None)
  refused(png(60000, 60000, 8, 0, b"\0"), "oversized image", "60000x60000")


@pytest.mark.parametrize("size", [(28, 5600), (5600, 28), (1, 1), (26, 28), (1, 200)])
def test_small_and_long_images_are_accepted(size):
  assert images.decode(encode(PIL.Image.new("RGB", size))).size == size


@pytest.mark.parametrize("size", [(28, 5601), (5601, 28), (1, 201)])
def test_a_ratio_above_200_is_refused(size):
  refused(encode(PIL.Image.new("RGB", size)), "elongated image", f"{size[0]}x{size[1]}")


def test_sizes_that_fit_the_pixel_range_are_accepted():
  images.check_size((31, 639), 3136, 15680)  # becomes 28x560, exactly the limit
  images.check_size((1, 1), 3136, 15680)
  for width, height in np.random.default_rng(0).integers(1, 3000, (300, 2)).tolist():
    if max(width, height) > 20 * min(width, height):
      continue
    images.check_size((width, height), 3136, 15680)
    resized = smart_resize(height, width, min_pixels=3136, max_pixels=15680)
    assert min(resized) >= 28
    assert resized[0] * resized[1] <= 15680


def test_sizes_that_cannot_fit_the_pixel_range_are_refused():
  with pytest.raises(BadRecord, match=r"31x700.*28x588.*max_pixels=15680") as caught:
    images.check_size((31, 700), 3136, 15680)
  assert caught.value.kind == "elongated image"
  with pytest.raises(BadRecord, match="28x5601"):
    images.check_size((28, 5601), 3136, 10**9)


@pytest.mark.long
@real_data.needed
def test_every_real_image_decodes():
  files = real_data.image_files()
  assert len(files) > 1000
  for path in files:
    image = images.decode(path.read_bytes())
    with PIL.Image.open(path) as opened:
      assert (image.mode, image.size) == ("RGB", opened.size), path
      if opened.mode == "RGB" and "transparency" not in opened.info:
        assert image.tobytes() == opened.tobytes(), path


@real_data.needed
@pytest.mark.parametrize("name", ["logicvista/images/v1_431.png", "dynamath/images/q476_v01.png"])
def test_real_transparent_images_are_on_white(name):
  path = pathlib.Path(real_data.DATA) / name
  with PIL.Image.open(path) as opened:
    rgba = np.asarray(opened.convert("RGBA"))
  shown = pixels(path.read_bytes())
  assert (rgba[..., 3] == 0).mean() > 0.1
  assert (shown[rgba[..., 3] == 0] == 255).all()
  np.testing.assert_allclose(shown, on_white(rgba), atol=1.01)  # rounded in two steps
