"""Event files read back by a parser written here from the format, and by TensorFlow if present."""

import struct

import pytest

from prompt_jax.errors import UserError
from prompt_jax.evaluation.tensorboard import EventFile


def _crc32c(data):
  """Bit by bit, from the polynomial 0x1EDC6F41 reflected."""
  crc = 0xFFFFFFFF
  for byte in data:
    for bit in range(8):
      crc = (crc >> 1) ^ (0x82F63B78 if (crc ^ (byte >> bit)) & 1 else 0)
  return crc ^ 0xFFFFFFFF


def _masked(data):
  crc = _crc32c(data)
  return (((crc >> 15) | (crc << 17)) & 0xFFFFFFFF) + 0xA282EAD8 & 0xFFFFFFFF


def _records(data):
  while data:
    (length,) = struct.unpack('<Q', data[:8])
    body = data[12 : 12 + length]
    assert struct.unpack('<I', data[8:12])[0] == _masked(data[:8])
    assert struct.unpack('<I', data[12 + length : 16 + length])[0] == _masked(body)
    yield body
    data = data[16 + length :]


def _write(folder):
  events = EventFile(folder)
  events.add(7, {'test/accuracy': 91.25, 'loss': -0.5})
  events.add(300, {'loss': 1e30})
  return events.path


def test_the_test_s_checksum_is_castagnoli_s():
  assert _crc32c(b'123456789') == 0xE3069283


def test_records_have_right_checksums_and_fields(tmp_path):
  first, second, third = _records(_write(tmp_path / 'tb').read_bytes())
  assert first[9:] == b'\x1a\x0dbrain.Event:2'
  # step 7; a summary of two values, each a tag and a float
  one = b'\x0a\x0dtest/accuracy\x15' + struct.pack('<f', 91.25)
  two = b'\x0a\x04loss\x15' + struct.pack('<f', -0.5)
  summary = b''.join(b'\x0a' + bytes([len(v)]) + v for v in (one, two))
  assert second[9:] == b'\x10\x07\x2a' + bytes([len(summary)]) + summary
  assert third[9:12] == b'\x10\xac\x02'  # 300 takes two bytes


def test_tensorflow_reads_them(tmp_path):
  tf = pytest.importorskip('tensorflow', reason='TensorFlow is an optional extra')
  path = _write(tmp_path)
  got = []
  for record in tf.data.TFRecordDataset(str(path)):
    event = tf.compat.v1.Event.FromString(record.numpy())
    got += [(event.step, v.tag, v.simple_value) for v in event.summary.value]
  want = [(7, 'test/accuracy', 91.25), (7, 'loss', -0.5), (300, 'loss', pytest.approx(1e30))]
  assert got == want


def test_a_folder_that_cannot_be_made_is_named(tmp_path):
  (tmp_path / 'file').write_text('')
  with pytest.raises(UserError, match=r'file/tb'):
    EventFile(tmp_path / 'file' / 'tb')
