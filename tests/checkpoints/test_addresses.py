"""Checkpoints in a bucket (gs://), read from a server on this machine without any credentials."""

import socket
import time

import jax
import numpy as np
import pytest
from flax import traverse_util

from prompt_jax.checkpoints.backbone import load_backbone
from prompt_jax.checkpoints.formats import t5x_checkpoint
from prompt_jax.checkpoints.formats.t5x import from_t5x
from prompt_jax.checkpoints.formats.t5x_checkpoint import open_checkpoint
from prompt_jax.checkpoints.prompt_file import load_prompt
from prompt_jax.checkpoints.tree import unstack_layers
from prompt_jax.cli.main import main
from prompt_jax.errors import UserError
from prompt_jax.export import t5x_writer
from prompt_jax.models.t5.config import T5Config
from prompt_jax.testing.tiny import random_params
from tests.checkpoints.object_store import ObjectStore
from tests.checkpoints.t5x_forms import FORMS
from tests.checkpoints.test_huggingface import CONFIGS
from tests.checkpoints.test_t5x import FORMS as FIXTURES
from tests.checkpoints.test_t5x import unpack
from tests.shared import facts, mentions

PARAMS = random_params(CONFIGS['t5_1_1'])
ROWS = np.random.default_rng(1).normal(size=(5, 8)).astype(np.float32)
NAME = 'encoder/prompt/prompt/prompt'


@pytest.fixture
def without_credentials(tmp_path, monkeypatch):
  monkeypatch.delenv('GOOGLE_APPLICATION_CREDENTIALS', raising=False)
  monkeypatch.setenv('CLOUDSDK_CONFIG', str(tmp_path / 'none'))


@pytest.fixture
def store(tmp_path, monkeypatch, without_credentials):
  (tmp_path / 'buckets/bucket').mkdir(parents=True)
  (tmp_path / 'buckets/private').mkdir()
  with ObjectStore(tmp_path / 'buckets') as server:
    monkeypatch.setenv('TENSORSTORE_GCS_HTTP_URL', f'http://{server.address}')
    monkeypatch.setenv('GCE_METADATA_ROOT', server.address)  # answers that this is no such machine
    yield server


def load(place):
  checkpoint = open_checkpoint(str(place))
  leaves = from_t5x(checkpoint.target, checkpoint.where)[1]
  return traverse_util.unflatten_dict({p: x.read() for p, x in leaves.items()}, sep='/')


def refused(place: str) -> str:
  with pytest.raises(UserError) as e:
    load(place)
  assert '\n' not in str(e.value)
  return str(e.value)


@pytest.mark.parametrize('form', FORMS)
def test_every_form_is_read_from_a_bucket(form, store):
  FORMS[form](store.folder / 'bucket/models/checkpoint_7', unstack_layers(PARAMS))
  place = 'gs://bucket/models/checkpoint_7'
  checkpoint = open_checkpoint(place, prefix='')
  assert checkpoint.form == form
  assert checkpoint.where == place
  jax.tree.map(np.testing.assert_array_equal, load(f'{place}/'), PARAMS)
  assert store.asked
  assert not [headers for _, _, headers in store.asked if 'Authorization' in headers]


@pytest.mark.parametrize('name', FIXTURES)
def test_what_t5x_wrote_is_read_from_a_bucket(name, store):
  local = unpack(name, store.folder / 'bucket')
  place = f'gs://bucket/{local.relative_to(store.folder / "bucket")}'
  jax.tree.map(np.testing.assert_array_equal, load(place), load(local))


def test_the_msgpack_file_by_its_own_address(store):
  FORMS['msgpack and zarr'](store.folder / 'bucket/c', unstack_layers(PARAMS))
  jax.tree.map(np.testing.assert_array_equal, load('gs://bucket/c/checkpoint'), PARAMS)


def test_a_missing_chunk_is_named(store, monkeypatch):
  FORMS['msgpack and zarr'](store.folder / 'bucket/c', unstack_layers(PARAMS))
  # Rows of one, so that an array has more chunks than a page of names.
  monkeypatch.setattr(t5x_writer, 'BLOCK', 1)
  name, values = (
    'encoder/layers_1/mlp/wo/kernel',
    PARAMS['encoder']['layers']['mlp']['wo']['kernel'],
  )
  t5x_writer.write_array(store.folder / 'bucket/c', f'target/{name}', values[1])
  leaf = open_checkpoint('gs://bucket/c', f'target/{name}').target[name]
  np.testing.assert_array_equal(leaf.read(), values[1])
  assert any('pageToken' in query for _, query, _ in store.asked)
  (store.folder / f'bucket/c/target.{name.replace("/", ".")}/9.0').unlink()
  with pytest.raises(
    UserError, match=facts('gs://bucket/c', f'target/{name}', '1', '12', 'chunks')
  ):
    leaf.read()


def test_what_is_not_there_is_told_in_one_line(store):
  for place in ('gs://bucket/none', 'gs://no-such-bucket/c', 'gs://bucket'):
    message = refused(place)
    assert mentions(message, place, 'T5X', 'bucket')
  assert 'gs://x/c' in refused('gs://x/c')  # names have three letters or more
  message = refused('gs://private/c')
  assert mentions(message, 'gs://private/c', '401')


def test_a_bucket_that_is_out_of_reach(monkeypatch, without_credentials):
  retries = t5x_checkpoint.RETRIES
  with socket.socket() as free:  # bound and not listening: connections are refused
    free.bind(('127.0.0.1', 0))
    address = '{}:{}'.format(*free.getsockname())
    monkeypatch.setenv('TENSORSTORE_GCS_HTTP_URL', f'http://{address}')
    monkeypatch.setenv('GCE_METADATA_ROOT', address)
    monkeypatch.setattr(t5x_checkpoint, 'RETRIES', {**retries, 'max_retries': 1})
    began = time.monotonic()
    message = refused('gs://bucket/checkpoint_7')
  assert time.monotonic() - began < 5
  assert message.startswith('Cannot read gs://bucket/checkpoint_7: ')
  assert 'All 1 retry attempts failed' in message
  assert 'network' in message
  # With as many as there are it takes seconds: each delay is twice the one before.
  first = float(str(retries['initial_delay']).removesuffix('ms')) / 1000
  assert sum(first * 2**n for n in range(int(retries['max_retries']))) < 10


def test_verbs_take_addresses(store, tmp_path, capsys):
  cfg = T5Config(384, 8, 2, 4, 1, 1, 12)
  params = random_params(cfg)
  target = unstack_layers(params)
  FORMS['msgpack and zarr'](store.folder / 'bucket/base/checkpoint_7', target)
  target['encoder']['prompt'] = {'prompt': {'prompt': ROWS}}
  FORMS['Orbax'](store.folder / 'bucket/run/checkpoint_7', target)
  base, run = 'gs://bucket/base/checkpoint_7', 'gs://bucket/run/checkpoint_7'
  model, prompt = str(tmp_path / 'model'), str(tmp_path / 'prompt.safetensors')
  assert main(['convert', base, model, '--vocabulary=bytes', '--verify=values']) == 0
  jax.tree.map(np.testing.assert_array_equal, load_backbone(model).params, params)
  assert main(['import', run, prompt, '--model', base, '--vocabulary=bytes']) == 0
  saved = load_prompt(prompt)
  assert saved.params['encoder']['prompt'].tobytes() == ROWS.tobytes()
  assert saved.metadata['fingerprint'] == load_backbone(model).fingerprint
  assert main(['inspect', run]) == 0
  assert f'target/{NAME}' in capsys.readouterr().out
  assert main(['infer', '--model', run, '--vocabulary=bytes', 'a text']) == 2
  assert f'prompt-jax import {run} ' in capsys.readouterr().err
