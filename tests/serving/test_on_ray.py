"""`prompt-jax serve --ray`: replicas of the server behind the proxies of Ray."""

import os
import socket
import subprocess
import sys
import time

import pytest

import prompt_jax as pj
from prompt_jax.cli.main import main
from prompt_jax.errors import UserError
from prompt_jax.prompts.methods.input.input_prompt import InputPrompt
from prompt_jax.serving.asking import Limits
from prompt_jax.serving.on_ray import Cluster
from tests.serving.conftest import YES_NO
from tests.serving.over_http import call, complete
from tests.serving.test_serve_verb import ROOT
from tests.serving.test_streaming import choices, joined, streaming
from tests.shared import mentions


def test_replicas_are_a_number_or_two():
  options = lambda *given: Cluster(*given).options(Limits(rows=8, waiting=50, seconds=7))
  one = options(None, None, None)
  assert (one['num_replicas'], one['ray_actor_options']) == (1, {'num_cpus': 1, 'num_gpus': 0})
  assert (one['max_ongoing_requests'], one['graceful_shutdown_timeout_s']) == (50, 7)
  scaled = options('1-4', 0.5, 1)
  assert scaled['ray_actor_options'] == {'num_cpus': 0.5, 'num_gpus': 1}
  assert 'num_replicas' not in scaled
  assert scaled['autoscaling_config'] == {
    'min_replicas': 1, 'max_replicas': 4, 'target_ongoing_requests': 8
  }  # fmt: skip
  for given in (('0', 1, 0), ('4-2', 1, 0), ('-3', 1, 0), ('two', 1, 0), ('2', -1, 0)):
    with pytest.raises(UserError) as error:
      options(*given)
    assert error.value.parameters


def test_mistakes_are_told_before_anything_begins(write, tmp_path, capsys, monkeypatch):
  monkeypatch.setattr('prompt_jax.serving.listening.check', lambda *_: None)  # with or without Ray
  file = write(tmp_path / 'a.safetensors', InputPrompt(length=2))
  (tmp_path / 'admin.txt').write_text('root\n')
  (tmp_path / 'damaged.safetensors').write_bytes(b'nothing')
  for flags, said in (
    ([file, '--replicas=2'], ['--replicas']),
    ([file, '--ray', f'--admin_token_file={tmp_path}/admin.txt'], ['--admin_token_file']),
    ([file, '--ray', '--port=0'], ['--port']),
    ([file, '--ray', '--replicas=2-1'], ['2-1', '--replicas']),
    ([file, '--ray', '--replica_gpus=-1'], ['-1', '--replica_gpus']),
    (['--ray'], ['prompt']),
    ([f'{tmp_path}/damaged.safetensors', '--ray'], ['damaged.safetensors']),
  ):  # fmt: skip
    assert main(['serve', *flags]) == 2
    error = capsys.readouterr().err
    assert mentions(error, *said), error
    assert error.count('\n') == 1


def test_where_ray_is_not_installed_it_is_named(write, tmp_path, capsys, monkeypatch):
  missing = lambda name: None if name == 'ray' else object()
  monkeypatch.setattr('importlib.util.find_spec', missing)
  assert main(['serve', write(tmp_path / 'a.safetensors', InputPrompt(length=2)), '--ray']) == 2
  assert mentions(capsys.readouterr().err, 'ray', "'.[ray]'")


def test_a_replica_answers_streams_watches_and_ends(write, tmp_path):
  pytest.importorskip('ray', reason='Ray is not installed')
  (tmp_path / 'watched').mkdir()
  files = [
    write(tmp_path / 'label.safetensors', InputPrompt(length=2), 1, YES_NO),
    write(tmp_path / 'watched' / 'text.safetensors', InputPrompt(length=3), 2),
  ]
  with socket.socket() as free:
    free.bind(('127.0.0.1', 0))
    address = free.getsockname()
  flags = ['--watch=watched', '--ray', f'--port={address[1]}', '--batch_size=2']
  server = subprocess.Popen(
    [sys.executable, '-m', 'prompt_jax', 'serve', 'label.safetensors', *flags],
    stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=tmp_path,
    env={**os.environ, 'PYTHONUNBUFFERED': '1', 'PYTHONPATH': str(ROOT), 'RAY_ADDRESS': 'local'},
  )  # fmt: skip
  try:
    said = []
    while not said or f'127.0.0.1:{address[1]}' not in said[-1]:
      said.append(server.stdout.readline())
      assert said[-1], said
    assert call(address, 'GET', '/health')[0] == 200
    (expected,) = pj.load(files[0]).predict(['some text'])
    assert complete(address, 'label', 'some text')[1]['choices'][0]['text'] == expected.prediction
    (text,) = pj.load(files[1]).predict(['some text'])
    with streaming(address, model='text', prompt='some text') as events:
      assert joined(choices(events)) == [text.prediction]
    assert complete(address, 'none', 'a')[1]['error']['code'] == 'model_not_found'
    status, found, _ = call(address, 'POST', '/v1/completions', b'{"model": "label"')
    assert (status, found['error']['code']) == (400, 'invalid_request')
    write(tmp_path / 'watched' / 'new.safetensors', InputPrompt(length=2), 3, YES_NO)
    until = time.monotonic() + 60
    while complete(address, 'new', 'a')[0] == 404 and time.monotonic() < until:
      time.sleep(0.2)
    assert complete(address, 'new', 'a')[0] == 200
    server.terminate()
    assert server.wait(60) == 0
  finally:
    server.kill()
    rest = server.communicate()[0]
  assert 'Traceback' not in rest
