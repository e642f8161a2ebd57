"""Prompt files: what goes in comes out, and every wrong file gets one clear line."""

import dataclasses
import json
import subprocess
import sys

import numpy as np
import pytest
import safetensors.numpy

from prompt_jax.checkpoints import prompt_file
from prompt_jax.checkpoints.prompt_file import (
  Prompt,
  check_model,
  load_facts,
  load_prompt,
  save_prompt,
)
from prompt_jax.errors import UserError
from tests.shared import facts

METADATA = {
  'base_model': 't5_1_1_small',
  'fingerprint': 'aaaa000011112222',
  'method': 'InputPrompt',
  'width': 4,
  'labels': ['negative', 'positiv\u00e9'],
  'value': 0.25,
}


def prompt():
  table = np.arange(12, dtype=np.float32).reshape(3, 4)
  return Prompt(
    params={'table': {'down': table, 'up': np.float32(2.5)}},
    constants={'mask': np.array([1, 0], np.int32)},
    metadata=METADATA,
    initial={'table': {'down': table * 0, 'up': np.float32(0)}},
  )


def test_what_is_saved_is_read(tmp_path):
  path = tmp_path / 'new' / 'p.safetensors'
  save_prompt(path, prompt())
  back = load_prompt(path)
  assert back.metadata == METADATA
  for group in ('params', 'initial'):
    for name in ('down', 'up'):
      want, got = getattr(prompt(), group)['table'][name], getattr(back, group)['table'][name]
      np.testing.assert_array_equal(got, want)
      assert got.shape == want.shape
  assert back.constants['mask'].dtype == np.int32
  assert [p.name for p in path.parent.iterdir()] == ['p.safetensors']


def test_the_facts_of_a_file_are_read_without_its_arrays(tmp_path):
  path = tmp_path / 'p.safetensors'
  save_prompt(path, dataclasses.replace(prompt(), kind='weights'))
  whole = path.read_bytes()
  # Whoever read the arrays would find NaN, and refuse them.
  size = 8 + int.from_bytes(whole[:8], 'little')
  path.write_bytes(whole[:size] + b'\xff' * (len(whole) - size))
  assert load_facts(path) == ('weights', METADATA, 12 + 1)
  path.write_bytes(whole[:-1])
  with pytest.raises(UserError, match='damaged'):
    load_facts(path)
  with pytest.raises(UserError, match='prompt file'):
    load_facts(tmp_path / 'q.safetensors')


def test_equal_prompts_are_equal_bytes(tmp_path):
  paths = [tmp_path / f'{i}.safetensors' for i in range(8)]
  for path in paths:
    save_prompt(path, prompt())
  assert len({path.read_bytes() for path in paths}) == 1


def test_metadata_must_name_the_model(tmp_path):
  lacking = {k: v for k, v in METADATA.items() if k != 'fingerprint'}
  with pytest.raises(ValueError, match='fingerprint'):
    save_prompt(tmp_path / 'p', Prompt({}, {}, lacking))


def test_a_missing_file_names_its_neighbours(tmp_path):
  save_prompt(tmp_path / 'boolq.safetensors', prompt())
  with pytest.raises(UserError, match=r'boolq\.safetensors'):
    load_prompt(tmp_path / 'boolk.safetensors')
  with pytest.raises(UserError, match="absent'"):
    load_prompt(tmp_path / 'absent' / 'p.safetensors')


@pytest.mark.parametrize('cut', [0, 5, 60, -1])
def test_a_damaged_file_is_told(tmp_path, cut):
  path = tmp_path / 'p.safetensors'
  save_prompt(path, prompt())
  path.write_bytes(path.read_bytes()[:cut])
  with pytest.raises(UserError, match=facts('damaged', 'safetensors')):
    load_prompt(path)


def test_every_flipped_byte_is_found(tmp_path):
  path = tmp_path / 'p.safetensors'
  save_prompt(path, prompt())
  good = path.read_bytes()
  for i in range(len(good)):
    for flip in (1 << i % 8, 0xFF):
      path.write_bytes(good[:i] + bytes([good[i] ^ flip]) + good[i + 1 :])
      with pytest.raises(UserError, match=r'p\.safetensors'):
        load_prompt(path)
  path.write_bytes(good)
  assert load_prompt(path).metadata == METADATA


def test_what_is_said_of_a_file_is_checked_without_its_arrays(tmp_path):
  path = tmp_path / 'p.safetensors'
  save_prompt(path, prompt())
  path.write_bytes(path.read_bytes().replace(b'0.25', b'0.75'))
  with pytest.raises(UserError, match=facts('damaged', 'again')):
    load_facts(path)


def test_a_file_of_before_there_were_checksums_is_read(tmp_path):
  header = {'prompt_jax': json.dumps({'version': 1, 'kind': 'prompt', **METADATA})}
  assert load_prompt(_with_header(tmp_path / 'p.safetensors', header)).metadata == METADATA


def _with_header(path, header):
  safetensors.numpy.save_file({'params/x': np.ones(1)}, path, header)
  return path


def test_other_safetensors_files_are_told(tmp_path):
  path = tmp_path / 'p.safetensors'
  good = {'version': 1, 'kind': 'prompt', **METADATA}
  for header, match in (
    (None, 'prompt_jax'),
    ({'format': 'pt'}, 'prompt_jax'),
    ({'prompt_jax': '{'}, 'read'),
    ({'prompt_jax': '[]'}, 'read'),
    ({'prompt_jax': json.dumps({**good, 'version': 9})}, 'version 9'),
    ({'prompt_jax': json.dumps({**good, 'kind': 'weights'})}, "'weights'"),
    ({'prompt_jax': json.dumps({'version': 1, 'kind': 'prompt'})}, 'base_model'),
  ):
    with pytest.raises(UserError, match=match):
      load_prompt(_with_header(path, header))
  safetensors.numpy.save_file({'x': np.ones(1)}, path, {'prompt_jax': json.dumps(good)})
  with pytest.raises(UserError, match="'x'"):
    load_prompt(path)


def test_another_model_is_refused_with_both_fingerprints_and_widths():
  same = {'base_model': 'other name', 'fingerprint': METADATA['fingerprint'], 'width': 4}
  check_model(prompt(), **same)  # The weights decide, not their name.
  other = {'base_model': 't5_1_1_base', 'fingerprint': 'bbbb', 'width': 8}
  with pytest.raises(UserError, match=facts('aaaa000011112222', 'bbbb', '4', '8', 'width')):
    check_model(prompt(), **other, path='x.safetensors')
  with pytest.raises(UserError, match=r'(?!.*widths).*bbbb'):
    check_model(prompt(), **{**other, 'width': 4})


def test_a_folder_that_is_a_file_is_named(tmp_path):
  (tmp_path / 'out').write_text('')
  with pytest.raises(UserError, match=facts(f'{tmp_path}/out')):
    save_prompt(tmp_path / 'out' / 'p.safetensors', prompt())


def test_a_write_that_fails_keeps_the_old_file(tmp_path, monkeypatch):
  path = tmp_path / 'p.safetensors'
  save_prompt(path, prompt())
  before = path.read_bytes()

  def full(_):
    raise OSError(28, 'No space left on device')

  monkeypatch.setattr(prompt_file.os, 'fsync', full)
  with pytest.raises(UserError, match='No space left on device'):
    save_prompt(path, prompt())
  assert path.read_bytes() == before
  assert [p.name for p in tmp_path.iterdir()] == ['p.safetensors']


def test_reading_imports_neither_jax_nor_flax(tmp_path):
  path = tmp_path / 'p.safetensors'
  save_prompt(path, prompt())
  code = (
    'import sys; from prompt_jax.checkpoints.prompt_file import load_prompt; '
    'print(load_prompt(sys.argv[1]).metadata["method"]); '
    'print(sorted({"jax", "flax", "orbax", "torch"} & set(sys.modules)))'
  )
  done = subprocess.run(
    [sys.executable, '-c', code, str(path)], capture_output=True, text=True, check=True
  )
  assert done.stdout.split() == ['InputPrompt', '[]']
