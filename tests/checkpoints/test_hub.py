"""A model by its name on the Hugging Face hub, which is here a server on this machine.

The hub's address is read when huggingface_hub is imported, so each download has its own process.
"""

import http.server
import json
import os
import pathlib
import subprocess
import sys
import threading
import time
import urllib.parse

import pytest

from prompt_jax.checkpoints.backbone import find, load_backbone
from prompt_jax.checkpoints.formats import huggingface_tokens
from prompt_jax.checkpoints.hub import is_name
from prompt_jax.errors import UserError
from prompt_jax.export.model import listed, write
from tests.shared import facts

pytest.importorskip('huggingface_hub')
NAME = 'somebody/tiny-t5'
SHA = '0123456789abcdef0123456789abcdef01234567'


class Handler(http.server.BaseHTTPRequestHandler):
  """What the hub answers of one model: its files, their sizes and their contents."""

  protocol_version = 'HTTP/1.1'
  wbufsize = -1  # an answer is one write
  server: 'Hub'

  def do_GET(self):
    path = urllib.parse.urlsplit(self.path).path
    files = {p.name: p for p in self.server.folder.iterdir()}
    about = [
      {'type': 'file', 'path': n, 'rfilename': n, 'size': p.stat().st_size, 'oid': f'{n}-oid'}
      for n, p in files.items()
    ]
    self.server.asked.append(path)
    if path == f'/api/models/{NAME}' or path.startswith(f'/api/models/{NAME}/revision/'):
      return self.answer({'id': NAME, 'sha': SHA, 'siblings': about})
    if path.startswith(f'/api/models/{NAME}/tree/'):
      return self.answer(about)
    name = path.rpartition('/')[2]
    if path.startswith(f'/{NAME}/resolve/') and name in files:
      return self.send(200, files[name].read_bytes(), {'ETag': f'"{name}-oid"'})
    return self.send(404, b'', {'X-Error-Code': 'RepoNotFound', 'X-Error-Message': 'no such model'})

  do_HEAD = do_GET

  def answer(self, content):
    self.send(200, json.dumps(content).encode(), {'Content-Type': 'application/json'})

  def send(self, code: int, content: bytes, more: dict[str, str]):
    self.send_response(code)
    for name, value in {'Content-Length': str(len(content)), 'X-Repo-Commit': SHA, **more}.items():
      self.send_header(name, value)
    self.end_headers()
    if self.command == 'GET':
      self.wfile.write(content)

  def log_message(self, *_):
    """Nothing into the output of the tests."""


class Hub(http.server.ThreadingHTTPServer):
  def __init__(self, folder: pathlib.Path):
    super().__init__(('127.0.0.1', 0), Handler)
    self.folder, self.asked = folder, []


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> pathlib.Path:
  """The embedded model as a folder of Hugging Face, and files that no model needs."""
  folder = tmp_path_factory.mktemp('hub') / 'tiny-t5'
  write(folder, 'hf', listed(find('embedded'), None), lambda count: None)
  (folder / 'tf_model.h5').write_bytes(b'large')
  (folder / 'README.md').write_text('a model')
  return folder


def run(address: str, cache: pathlib.Path, *command: str) -> subprocess.CompletedProcess:
  env = {k: v for k, v in os.environ.items() if not k.startswith(('HF_', 'HUGGING_FACE'))}
  env |= {'HF_ENDPOINT': address, 'HF_HOME': str(cache), 'HF_HUB_DISABLE_TELEMETRY': '1'}
  return subprocess.run(
    [sys.executable, '-m', 'prompt_jax', *command],
    env=env, capture_output=True, text=True, timeout=120,
  )  # fmt: skip


def test_a_model_is_fetched_by_its_name_and_kept(folder, tmp_path):
  model, again = str(tmp_path / 'model'), str(tmp_path / 'again')
  with Hub(folder) as hub:
    threading.Thread(target=hub.serve_forever, args=(0.01,), daemon=True).start()
    address = f'http://127.0.0.1:{hub.server_port}'
    done = run(address, tmp_path / 'cache', 'convert', NAME, model, '--verify=values')
    assert done.returncode == 0, done.stderr
    fetched = {path.rpartition('/')[2] for path in hub.asked if '/resolve/' in path}
    gone = run(address, tmp_path / 'cache', 'convert', 'somebody/else', 'none')
    hub.shutdown()
  assert {'config.json', 'model.safetensors', huggingface_tokens.PIECES} <= fetched
  assert fetched.isdisjoint({'tf_model.h5', 'README.md'})
  fetched_model = load_backbone(model)
  assert fetched_model.fingerprint == load_backbone('embedded').fingerprint
  assert fetched_model.name == NAME
  assert gone.returncode == 2
  assert gone.stderr.startswith("prompt-jax: No model 'somebody/else': there is no such folder")
  assert gone.stderr.count('\n') == 1
  # Without the hub, what was fetched is there and what was not is told soon.
  done = run(address, tmp_path / 'cache', 'convert', NAME, again, '--verify=values')
  assert done.returncode == 0, done.stderr
  done = run(address, tmp_path / 'cache', 'inspect', NAME)
  assert done.returncode == 0, done.stderr
  assert 'parameters,' in done.stdout
  began = time.monotonic()
  done = run(address, tmp_path / 'empty', 'convert', NAME, 'none')
  assert time.monotonic() - began < 60
  assert done.returncode == 2
  assert done.stderr.count('\n') == 1
  assert 'Hugging Face' in done.stderr


@pytest.mark.parametrize('text', ['a', 'a/b/c', '../b', './b', 'a b/c', '/a/b'])
def test_what_is_no_name(text):
  assert not is_name(text)


@pytest.mark.parametrize(
  ('name', 'whole'),
  [
    ('t5-small', 'google-t5/t5-small'),
    ('flan-t5-base', 'google/flan-t5-base'),
    ('umt5-small', 'google/umt5-small'),
    ('my-model', 'google/flan-t5-small'),
  ],
)
def test_a_name_without_its_owner_is_completed(name, whole):
  with pytest.raises(UserError, match=facts(name, whole, 'hub')):
    find(name)
