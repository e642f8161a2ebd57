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
from prompt_jax.prompts.methods.input.input_prompt import InputPrompt
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
  flags = ['--names=two,five', '--port=0', '--batch_size=1', f'--token_file={tmp_path}/token.txt']
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
  for flags, said in (
    ([file, f'--token_file={tmp_path}/none.txt'], ['none.txt', '--token_file']),
    ([file, f'--token_file={tmp_path}/empty.txt'], ['empty.txt']),
    ([file, '--host=nowhere.invalid'], ['nowhere.invalid', '--host']),
    ([file, '--timeout=0'], ['0', '--timeout']),
    ([file, '--names=a,b', '--port=0'], ['1', '2', '--names']),
    ([f'{tmp_path}/gone.safetensors', '--port=0'], ['gone.safetensors']),
  ):
    assert main(['serve', *flags]) == 2
    error = capsys.readouterr().err
    assert mentions(error, *said), error
    assert error.count('\n') == 1
