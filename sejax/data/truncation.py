"""Detects truncated image files by walking the segments of the file format.

Pillow decodes some truncated files without an error and leaves the bottom grey. Searching for the
end marker anywhere does not detect them: an embedded thumbnail has such a marker too, and phones
append videos and further images (Motion Photo), which may contain any bytes. Therefore the file is
walked from segment to segment by their lengths; data after the end of the image are ignored.
"""

import re

# A JPEG segment begins with a marker: 0xFF, possibly repeated, and a byte. Segments state their
# length, except for the compressed pixels after a start of scan, in which 0xFF 0x00 encodes the
# byte 0xFF and restart markers (D0 to D7) may occur. These and TEM (01) are not segment boundaries.
_JPEG_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd7\xff])", re.DOTALL)
_JPEG_START, _JPEG_END = 0xD8, 0xD9
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def is_truncated(data: bytes) -> bool:
  """Returns whether a JPEG, PNG or WebP file is truncated; False for any other format.

  Takes time linear in the file's size.
  """
  if data.startswith(b"\xff\xd8"):
    return not _jpeg_ends(data)
  if data.startswith(_PNG_SIGNATURE):
    return not _png_ends(data)
  if data.startswith(b"RIFF"):
    return len(data) < 8 + int.from_bytes(data[4:8], "little")
  return False


def _jpeg_ends(data: bytes) -> bool:
  """Whether the file has an end-of-image marker outside of any segment's data."""
  offset = 2
  while marker := _JPEG_MARKER.search(data, offset):
    offset = marker.end()
    kind = data[offset - 1]
    if kind == _JPEG_END:
      return True
    if kind != _JPEG_START:
      offset += int.from_bytes(data[offset : offset + 2], "big")
  return False


def _png_ends(data: bytes) -> bool:
  """Whether the file has a complete IEND chunk. A chunk is length, type, data and a checksum."""
  offset = len(_PNG_SIGNATURE)
  while offset + 12 <= len(data):
    end = offset + 12 + int.from_bytes(data[offset : offset + 4], "big")
    if data[offset + 4 : offset + 8] == b"IEND":
      return end <= len(data)
    offset = end
  return False
