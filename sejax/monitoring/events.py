"""Writes scalars as TensorBoard event files.

The encoding is our own because tensorboardX, which imports no tensorflow, imports torch wherever
torch is installed, and sejax never loads torch.

A file is a sequence of TFRecords, each of which holds one `Event` protocol buffer
(tensorflow/core/util/event.proto, tensorflow/core/framework/summary.proto).
"""

import struct
import time
from collections.abc import Mapping

import numpy as np

from sejax import storage

# Seconds of events per file in a bucket, where files cannot be appended to, and the fewest that a
# checkpoint makes a file of. TensorBoard reads many files slowly.
_INTERVAL, _SHORTEST = 600.0, 60.0


class EventFile:
  """Event files of scalars, flushed after every step.

  No background thread holds events back, so what a killed run had written is in the file. In a
  bucket, each interval's events are a file of their own, written at its end or by `flush`.
  """

  def __init__(self, directory: storage.Path, first_step: int):
    """Opens a new file in the directory, which TensorBoard reads after the files already there.

    Args:
      directory: created if missing.
      first_step: TensorBoard discards the values of older files from this step on.
    """
    directory.mkdir(parents=True, exist_ok=True)
    # TensorBoard reads files in the order of their names. The time keeps names distinct even after
    # some files were removed.
    self._number = len(storage.glob(directory, "events.out.tfevents.*"))
    self._directory, self._is_remote = directory, storage.is_remote(directory)
    self._open()
    start = _varint(1 << 3) + _varint(1)  # SessionLog.status = START
    self._write(_step(first_step) + _bytes(7, start))

  def write(self, step: int, scalars: Mapping[str, float]) -> None:
    """Writes the scalars of a step, rounded to float32."""
    values = [_bytes(1, tag.encode()) + _float(2, value) for tag, value in scalars.items()]
    summary = b"".join(_bytes(1, value) for value in values)
    self._write(_step(step) + _bytes(5, summary))
    self._begin_anew_after(_INTERVAL)

  def flush(self) -> None:
    """Writes the events that wait in a bucket, unless the file was begun less than a minute ago."""
    self._begin_anew_after(_SHORTEST)

  def close(self) -> None:
    """Closes the file."""
    self._file.close()

  def _begin_anew_after(self, seconds: float) -> None:
    """Writes the file to a bucket and opens the next, if it has been open for so long."""
    if self._is_remote and time.monotonic() - self._opened > seconds:
      self._file.close()
      self._open()

  def _open(self) -> None:
    """Opens the next file; one in a bucket is written when it is closed."""
    name = f"events.out.tfevents.{self._number:06d}.{time.time_ns()}"
    self._number, self._opened = self._number + 1, time.monotonic()
    path = self._directory / name
    self._file = path.open("wb") if self._is_remote else open(path, "xb")  # noqa: SIM115 (stays open)
    self._write(_bytes(3, b"brain.Event:2"))  # file_version

  def _write(self, event: bytes) -> None:
    """Adds the time to an `Event` and writes it as a TFRecord."""
    event = _varint(1 << 3 | 1) + struct.pack("<d", time.time()) + event  # wall_time
    length = struct.pack("<Q", len(event))
    self._file.write(length + _masked_crc(length) + event + _masked_crc(event))
    self._file.flush()


def _varint(value: int) -> bytes:
  """Encodes a number in protocol buffers' variable-length format: 7 bits a byte, lowest first."""
  encoded = bytearray()
  while value > 127:
    encoded.append(value & 127 | 128)
    value >>= 7
  return bytes([*encoded, value])


def _step(step: int) -> bytes:
  return _varint(2 << 3) + _varint(step)


def _bytes(field: int, value: bytes) -> bytes:
  return _varint(field << 3 | 2) + _varint(len(value)) + value


def _float(field: int, value: float) -> bytes:
  with np.errstate(over="ignore"):
    return _varint(field << 3 | 5) + np.asarray(value).astype("<f4").tobytes()


def _crc_of_byte(byte: int) -> int:
  for _ in range(8):
    byte = byte >> 1 ^ (byte & 1) * 0x82F63B78
  return byte


_CRC = [_crc_of_byte(byte) for byte in range(256)]  # CRC-32C (Castagnoli), RFC 3720 appendix B.4


def _masked_crc(data: bytes) -> bytes:
  """Returns a TFRecord's checksum: CRC-32C, rotated and offset because data may contain CRCs."""
  crc = 0xFFFFFFFF
  for byte in data:
    crc = crc >> 8 ^ _CRC[(crc ^ byte) & 255]
  crc ^= 0xFFFFFFFF
  rotated = crc >> 15 | crc << 17 & 0xFFFFFFFF
  return struct.pack("<I", rotated + 0xA282EAD8 & 0xFFFFFFFF)
