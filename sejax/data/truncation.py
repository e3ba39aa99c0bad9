"""Whether an image file lacks its end, by its own structure, whatever lies behind the picture.

Pillow accepts some cut files, grey or stale at the bottom. Looking for an end marker anywhere does
not tell them: a thumbnail inside the file has one too, and phones put films and second pictures
behind the first (Motion Photo), in which any bytes may occur. So the file is walked part by part,
from one length to the next; what is behind its end is not looked at.
"""

import re

# In a JPEG a part begins with a marker: 0xFF, repeated at will, and a byte. Parts have lengths, but
# not so the compressed pixels after a start of scan: there 0xFF 0x00 stands for the byte 0xFF, and
# restart markers (D0 to D7) may come between. Neither they nor TEM (01) ends or begins a part.
_JPEG_MARKER = re.compile(rb"\xff([^\x00\x01\xd0-\xd7\xff])", re.DOTALL)
_JPEG_START, _JPEG_END = 0xD8, 0xD9
_PNG_SIGNATURE = b"\x89PNG\r\n\x1a\n"


def is_truncated(data: bytes) -> bool:
  """Returns whether a JPEG, PNG or WebP file ends before its picture does; False for all else.

  Time is linear in the file's size.
  """
  if data.startswith(b"\xff\xd8"):
    return not _jpeg_ends(data)
  if data.startswith(_PNG_SIGNATURE):
    return not _png_ends(data)
  if data.startswith(b"RIFF"):
    return len(data) < 8 + int.from_bytes(data[4:8], "little")
  return False


def _jpeg_ends(data: bytes) -> bool:
  """Whether the end-of-image marker comes, at the level of the file itself."""
  place = 2
  while marker := _JPEG_MARKER.search(data, place):
    place = marker.end()
    kind = data[place - 1]
    if kind == _JPEG_END:
      return True
    if kind != _JPEG_START:
      place += int.from_bytes(data[place : place + 2], "big")
  return False


def _png_ends(data: bytes) -> bool:
  """Whether the chunk IEND comes whole; a chunk is a length, a name, so many bytes, and 4 more."""
  place = len(_PNG_SIGNATURE)
  while place + 12 <= len(data):
    end = place + 12 + int.from_bytes(data[place : place + 4], "big")
    if data[place + 4 : place + 8] == b"IEND":
      return end <= len(data)
    place = end
  return False
