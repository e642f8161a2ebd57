"""Scalars for TensorBoard, written as event files without TensorFlow.

An event file is a sequence of records, each length, checksum, data, checksum (TFRecord); the data
is an `Event` protocol buffer, of which four fields are needed here.
"""

import os
import pathlib
import socket
import struct
import time
from collections.abc import Mapping

from prompt_jax.errors import UserError


class EventFile:
  """Appends scalars to a new event file in a folder; TensorBoard finds it there."""

  def __init__(self, folder: str | os.PathLike):
    """Creates the folder and the file.

    Raises:
      UserError: they cannot be written.
    """
    folder = pathlib.Path(folder)
    # TensorBoard looks for "tfevents" in names and reads files in the order of their seconds.
    name = f'events.out.tfevents.{time.time_ns() // 10**9}.{socket.gethostname()}.{os.getpid()}'
    self.path = folder / name
    self._table = _crc_table()
    try:
      folder.mkdir(parents=True, exist_ok=True)
    except OSError as e:
      raise self._error(e) from None
    self._append(_text(3, 'brain.Event:2'))

  def add(self, step: int, scalars: Mapping[str, float]) -> None:
    """Appends one event; every call leaves a readable file.

    Args:
      step: not negative.
      scalars: tag -> value; a "/" in a tag makes a group.

    Raises:
      UserError: the file cannot be written.
    """
    values = b''.join(
      _text(1, _text(1, tag) + b'\x15' + struct.pack('<f', value)) for tag, value in scalars.items()
    )
    self._append(b'\x10' + _varint(step) + _text(5, values))

  def _append(self, event: bytes) -> None:
    event = b'\x09' + struct.pack('<d', time.time()) + event
    length = struct.pack('<Q', len(event))
    record = length + self._checksum(length) + event + self._checksum(event)
    try:
      with open(self.path, 'ab') as file:
        file.write(record)
    except OSError as e:
      raise self._error(e) from None

  def _error(self, e: OSError) -> UserError:
    return UserError(
      f'Cannot write TensorBoard events into {str(self.path.parent)!r}: {e.strerror}. '
      'Free some space or give another folder.'
    )

  def _checksum(self, data: bytes) -> bytes:
    """CRC-32C, rotated and offset as TFRecord has it."""
    crc = 0xFFFFFFFF
    for byte in data:
      crc = self._table[(crc ^ byte) & 0xFF] ^ (crc >> 8)
    crc ^= 0xFFFFFFFF
    return struct.pack('<I', ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


def _crc_table() -> list[int]:
  """CRC-32C (Castagnoli) of each byte."""
  table = []
  for crc in range(256):
    for _ in range(8):
      crc = crc >> 1 ^ (0x82F63B78 if crc & 1 else 0)
    table.append(crc)
  return table


def _varint(number: int) -> bytes:
  """Seven bits a byte, lowest first; the top bit says that more follow."""
  out = bytearray()
  while number > 0x7F:
    out.append(number & 0x7F | 0x80)
    number >>= 7
  return bytes([*out, number])


def _text(field: int, data: str | bytes) -> bytes:
  """A length-delimited field."""
  data = data.encode() if isinstance(data, str) else data
  return bytes([field << 3 | 2]) + _varint(len(data)) + data
