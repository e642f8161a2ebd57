"""`prompt-jax serve` as a process: it answers, and ends when it is told to."""

import concurrent.futures
import json
import os
import pathlib
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request

import prompt_jax as pj
from prompt_jax.cli.main import main
from prompt_jax.loading import BaseModel
from prompt_jax.prompts.methods.input.input_prompt import InputPrompt
from prompt_jax.serving import serve
from tests.serving.conftest import YES_NO
from tests.shared import mentions

ROOT = pathlib.Path(__file__).parent.parent.parent


def get(url, body=None, token=None):
  """(status, JSON)."""
  data = None if body is None else json.dumps(body).encode()
  headers = {} if token is None else {'Authorization': f'Bearer {token}'}
  try:
    with urllib.request.urlopen(urllib.request.Request(url, data, headers), timeout=60) as found:
      return found.status, json.load(found)
  except urllib.error.HTTPError as error:
    with error:
      return error.code, json.load(error)


def test_it_answers_and_ends_with_what_it_has_begun(write, tmp_path):
  files = [write(tmp_path / f'{n}.safetensors', InputPrompt(length=n), n, YES_NO) for n in (2, 5)]
  (tmp_path / 'token.txt').write_text('secret\n')
  (tmp_path / 'admin.txt').write_text('root\n')
  (tmp_path / 'watched').mkdir()
  flags = [
    '--names=two,five', '--port=0', '--batch_size=1', f'--token_file={tmp_path}/token.txt',
    f'--admin_token_file={tmp_path}/admin.txt', f'--watch={tmp_path}/watched',
  ]  # fmt: skip
  server = subprocess.Popen(
    [sys.executable, '-m', 'prompt_jax', 'serve', *files, *flags],
    stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=ROOT,
    env={**os.environ, 'PYTHONUNBUFFERED': '1'},
  )  # fmt: skip
  try:
    address = server.stdout.readline().split()[-1]
    assert get(f'{address}/v1/models')[0] == 401
    status, models = get(f'{address}/v1/models', token='secret')
    assert (status, [m['id'] for m in models['data']]) == (200, ['two', 'five'])
    until = time.monotonic() + 300
    while get(f'{address}/health')[0] == 503 and time.monotonic() < until:
      time.sleep(0.5)
    ask = lambda text: get(
      f'{address}/v1/completions', {'model': 'two', 'prompt': text}, token='secret'
    )
    (expected,) = pj.load(files[0]).predict(['some text'])
    status, found = ask('some text')
    assert (status, found['choices'][0]['text']) == (200, expected.prediction)
    new = write(tmp_path / 'watched' / 'third.safetensors', InputPrompt(length=4), 7, YES_NO)
    put = urllib.request.Request(
      f'{address}/admin/prompts/four', pathlib.Path(new).read_bytes(),
      {'Authorization': 'Bearer root'}, method='PUT',
    )  # fmt: skip
    with urllib.request.urlopen(put, timeout=60) as done:
      assert done.status == 201
    listed = lambda: [m['id'] for m in get(f'{address}/v1/models', token='secret')[1]['data']]
    while 'third' not in listed() and time.monotonic() < until:
      time.sleep(0.2)
    assert sorted(listed()) == ['five', 'four', 'third', 'two']
    with concurrent.futures.ThreadPoolExecutor(8) as clients:
      waiting = [clients.submit(ask, ['some text'] * 16) for _ in range(8)]
      time.sleep(0.3)
      server.send_signal(signal.SIGTERM)
      answered = 0
      for each in waiting:
        try:
          status, found = each.result()
        except urllib.error.URLError:  # it came after the signal
          continue
        assert status == 200
        assert {c['text'] for c in found['choices']} == {expected.prediction}
        answered += 1
    assert answered
    assert server.wait(60) == 0
  finally:
    server.kill()
    rest = server.communicate()[0]
  assert 'Traceback' not in rest


def test_mistakes_are_told_in_one_line(write, tmp_path, capsys):
  file = write(tmp_path / 'a.safetensors', InputPrompt(length=2))
  (tmp_path / 'empty.txt').write_text('\n')
  (tmp_path / 'one.txt').write_text('same\n')
  (tmp_path / 'two.txt').write_text('same\n')
  (tmp_path / 'none').mkdir()
  for flags, said in (
    ([file, f'--token_file={tmp_path}/none.txt'], ['none.txt', '--token_file']),
    ([file, f'--token_file={tmp_path}/empty.txt'], ['empty.txt']),
    (
      [file, f'--token_file={tmp_path}/one.txt', f'--admin_token_file={tmp_path}/two.txt'],
      ['same', '--token_file', '--admin_token_file'],
    ),
    ([file, '--host=nowhere.invalid'], ['nowhere.invalid', '--host']),
    ([file, '--timeout=0'], ['0', '--timeout']),
    ([file, f'--admin_token_file={tmp_path}/empty.txt'], ['empty.txt', '--admin_token_file']),
    (['--watch', f'{tmp_path}/gone', '--port=0'], [f'{tmp_path}/gone', '--watch']),
    (['--watch', f'{tmp_path}/none', '--port=0'], [f'{tmp_path}/none', '--model']),
    (['--port=0'], ['prompt']),
    ([file, '--names=a,b', '--port=0'], ['1', '2', '--names']),
    ([f'{tmp_path}/gone.safetensors', '--port=0'], ['gone.safetensors']),
  ):
    assert main(['serve', *flags]) == 2
    error = capsys.readouterr().err
    assert mentions(error, *said), error
    assert error.count('\n') == 1


def test_a_folder_alone_is_served(write, tmp_path, folder, caplog):
  """Its damaged files are told, and do not keep the server from starting; nor does it lack any."""
  (tmp_path / 'a.safetensors').write_bytes(b'damaged')
  write(tmp_path / 'b.safetensors', InputPrompt(length=2), 1, YES_NO)
  engine, _ = serve._engine([], BaseModel(), None, str(tmp_path), (4, 1))
  assert engine.names == ('b',)
  assert [r.getMessage().count('a.safetensors') > 0 for r in caplog.records] == [True]
  (tmp_path / 'b.safetensors').unlink()
  engine, watched = serve._engine([], BaseModel(folder), None, str(tmp_path), (4, 1))
  assert (engine.names, list(engine.programs())) == ((), [])
  write(tmp_path / 'c.safetensors', InputPrompt(length=2), 1, YES_NO)
  watched.look()
  watched.look()
  assert engine.names == ('c',)
