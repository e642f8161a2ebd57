"""Prompts that are added, replaced and removed over HTTP."""

import asyncio
import dataclasses
import pathlib
import threading

import pytest

import prompt_jax as pj
from prompt_jax.checkpoints.prompt_file import describe_method, load_prompt, save_prompt
from prompt_jax.loading import BaseModel
from prompt_jax.prompts.initializers import FromFile
from prompt_jax.prompts.methods.deep.deep_prompt import DeepPrompt
from prompt_jax.prompts.methods.input.adept import ADePT
from prompt_jax.prompts.methods.input.input_prompt import InputPrompt
from prompt_jax.prompts.tables import Plain
from prompt_jax.serving import tuned_prompts
from prompt_jax.serving.admin import Admin
from prompt_jax.serving.app import Server
from prompt_jax.serving.asking import Limits
from prompt_jax.serving.jax_engine import JaxEngine
from prompt_jax.serving.refused import Refused
from tests.serving.conftest import MANY, YES_NO
from tests.serving.over_http import call, complete, running, server_of
from tests.serving.test_bank import counted

ROOT = {'Authorization': 'Bearer root'}


@pytest.fixture(scope='module')
def served(write, tmp_path_factory):
  """The address of a server with one prompt, whose prompts may be changed."""
  first = write(
    tmp_path_factory.mktemp('admin') / 'first.safetensors', InputPrompt(length=2), 1, YES_NO
  )
  engine = JaxEngine(tuned_prompts.load(BaseModel(), [first]), 2)
  with running(Server(engine, Limits(rows=2), None, Admin(engine, 'root', 50_000))) as address:
    yield address


def put(address, name, file, headers=ROOT):
  data = pathlib.Path(file).read_bytes() if isinstance(file, str) else file
  return call(address, 'PUT', f'/admin/prompts/{name}', data, headers)[:2]


def names(address):
  return [m['id'] for m in call(address, 'GET', '/v1/models')[1]['data']]


@pytest.mark.parametrize(
  ('method', 'labels'),
  [
    (InputPrompt(length=7), YES_NO),  # of the kind that is there, with more labels, with text
    (InputPrompt(length=20), MANY),
    (InputPrompt(length=3), None),
    (DeepPrompt(length=3), YES_NO),
  ],
  ids=['alike', 'longer', 'text', 'another kind'],
)
def test_a_prompt_is_there_compiled_and_gone(served, write, tmp_path, method, labels):
  file = write(tmp_path / 'x.safetensors', method, 5, labels)
  assert put(served, 'new', file) == (
    201, {'id': 'new', 'object': 'model', 'labels': labels and list(labels)}
  )  # fmt: skip
  assert names(served) == ['first', 'new']
  with counted() as compiled:
    found = [complete(served, name, 'a text')[1]['choices'][0] for name in ('first', 'new')]
  assert compiled == []
  (expected,) = pj.load(file).predict(['a text'])
  assert found[1]['text'] == expected.prediction
  if labels:
    share = found[1]['probabilities'][expected.prediction]
    assert share == pytest.approx(expected.probability, abs=1e-5)
  assert put(served, 'new', write(tmp_path / 'y.safetensors', method, 6, labels))[0] == 200
  assert call(served, 'DELETE', '/admin/prompts/new', headers=ROOT)[0] == 200
  assert names(served) == ['first']
  assert complete(served, 'new', 'a text')[0] == 404
  assert call(served, 'DELETE', '/admin/prompts/new', headers=ROOT)[0] == 404


def changed(file, to, **metadata):
  """A file whose checksums are right and whose metadata are others."""
  old = load_prompt(file)
  save_prompt(to, dataclasses.replace(old, metadata=old.metadata | metadata))
  return str(to)


def test_what_is_no_prompt_of_the_model_is_refused(served, write, tmp_path):
  good = write(tmp_path / 'good.safetensors', InputPrompt(length=2), 1, YES_NO)
  whole = pathlib.Path(good).read_bytes()
  new = lambda **more: changed(good, tmp_path / 'changed.safetensors', **more)
  make = lambda **more: pathlib.Path(new(**more)).read_bytes()
  method = load_prompt(good).metadata['method_config']
  reads = write(tmp_path / 'reads.safetensors', ADePT(length=2, rank=2), 1, YES_NO)
  weights = tmp_path / 'weights.safetensors'
  save_prompt(weights, dataclasses.replace(load_prompt(good), kind='weights'))
  for given, said in (
    (b'', 'new'), (b'nothing', 'new'), (whole[:-9], 'damaged'), (whole[:-4] + b'1234', 'damaged'),
    (make(fingerprint='another'), 'another'), (str(weights), 'weights'), (reads, 'ADePT'),
    (make(method_config={**method, 'class': 'subprocess.Popen'}), 'subprocess.Popen'),
    (make(method_config={'class': 'prompt_jax.prompts.base.os', 'fields': {}}), 'method'),
    (make(method_config={'shape': [1 << 20, 1 << 20]}), 'large'),
    (make(input_length=-5), '-5'), (make(input_length=1 << 20), 'input_length'),
    (make(target_length=1 << 20), 'target_length'),
    (make(method_config=None), 'method_config'), (make(labels=['yes', 'yes']), 'yes'),
  ):  # fmt: skip
    status, body = put(served, 'new', given)
    assert (status, body['error']['code']) == (400, 'invalid_prompt')
    assert said in body['error']['message']
    assert '/' not in body['error']['message'].replace('params/', '')  # no path of this machine
  assert put(served, 'new', b'x' * 60_000)[0] == 413
  for name in ('a b', '.', '..', '%2e%2e', '..%2f..%2fx', 'a%2fb', '%00', 'x' * 201):
    assert put(served, name.replace(' ', '%20'), whole)[0] in (400, 404)
  assert names(served) == ['first']
  assert complete(served, 'first', 'a text')[0] == 200


def test_files_that_a_prompt_began_with_are_not_read(served, write, tmp_path):
  method = InputPrompt(length=2, table=Plain(initializer=FromFile('/nowhere.npy')))
  assert put(served, 'new', write(tmp_path / 'x.safetensors', InputPrompt(length=2)))[0] == 201
  file = changed(
    write(tmp_path / 'y.safetensors', InputPrompt(length=2)), tmp_path / 'z.safetensors',
    method_config=describe_method(method),
  )  # fmt: skip
  assert put(served, 'new', file)[0] == 200
  call(served, 'DELETE', '/admin/prompts/new', headers=ROOT)


def test_only_who_may_changes_prompts(served):
  for headers in ({}, {'Authorization': 'Bearer user'}):
    assert put(served, 'new', b'', headers)[0] == 401
    assert call(served, 'DELETE', '/admin/prompts/first', headers=headers)[0] == 401
  with running(server_of(token='root')) as address:  # off by default, for everybody
    assert put(address, 'new', b'')[0] == 404
    assert call(address, 'DELETE', '/admin/prompts/back', headers=ROOT)[0] == 404


class Slow:
  """Takes a prompt when it is let."""

  def __init__(self):
    self.go, self.adding, self.by_name = threading.Event(), threading.Event(), {'old': ()}

  names = property(lambda self: tuple(self.by_name))
  prompts = ()

  def add(self, name, file):
    self.adding.set()
    assert self.go.wait(20)
    self.by_name[name] = ()

  def remove(self, name):
    del self.by_name[name]


def test_while_a_prompt_is_compiled_others_go_and_none_comes(monkeypatch):
  monkeypatch.setattr('prompt_jax.serving.uploads.add', lambda engine, *given: engine.add(*given))

  async def run():
    engine = Slow()
    admin = Admin(engine, 'root', 50, seconds=0.1)
    first = asyncio.create_task(admin.add('new', b''))
    await asyncio.to_thread(engine.adding.wait, 20)
    assert (await admin.remove('old'))[1] == 200
    with pytest.raises(Refused) as refused:
      await admin.add('other', b'')
    assert (refused.value.status, refused.value.code) == (503, 'busy')
    assert int(refused.value.headers['Retry-After']) >= 1
    engine.go.set()
    assert (await first)[1] == 201
    assert (await admin.add('other', b''))[1] == 201
    assert engine.names == ('new', 'other')

  asyncio.run(run())
