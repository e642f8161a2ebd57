"""Compiled programs that the next process of the same run takes from disk."""

import os
import pathlib
import shutil
import subprocess
import sys
import textwrap
import time

import jax
import pytest

from prompt_jax.errors import UserError
from prompt_jax.runtime import devices
from tests.shared import facts, mentions

# The verb, and how many programs came out of the cache and went into it.
COUNTING = textwrap.dedent("""
  import sys, jax
  counts = {'cache_hits': 0, 'cache_misses': 0}
  def listen(event, **_):
    name = event.rpartition('/')[2]
    if name in counts:
      counts[name] += 1
  jax.monitoring.register_event_listener(listen)
  from prompt_jax.cli.main import main
  code = main(sys.argv[1:])
  print('COUNTS', *counts.values())
  sys.exit(code)
""")


# One small program, and where the cache is.
SMALL = textwrap.dedent("""
  import sys, jax
  from prompt_jax.runtime.devices import enable_compilation_cache
  enable_compilation_cache(sys.argv[1], jax.devices()[0])
  jax.jit(lambda x: x + 1)(1.0)
""")


def process(code: str, tmp_path: pathlib.Path, *arguments: str, **variables: str):
  """A Python process whose user's cache folder is tmp_path / 'user'."""
  environment = {k: v for k, v in os.environ.items() if k != 'JAX_COMPILATION_CACHE_DIR'}
  environment['XDG_CACHE_HOME'] = str(tmp_path / 'user')
  environment['JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS'] = '0'
  done = subprocess.run(
    [sys.executable, '-c', code, *arguments],
    env={**environment, **variables},
    capture_output=True,
    text=True,
  )
  assert done.returncode == 0, done.stderr
  return done


def test_a_second_process_compiles_nothing_and_ends_with_the_same_bytes(
  model, reviews, sizes, tmp_path
):
  command = ['train', '--model', model, '--data', reviews, '--length=4', *sizes, '--steps=2']
  counts, prompts, out = [], [], tmp_path / 'out'
  for _ in range(2):
    done = process(COUNTING, tmp_path, *command, '--output', str(out))
    assert 'ompil' not in done.stderr
    counts.append(tuple(map(int, done.stdout.split()[-2:])))
    prompts.append((out / 'last.safetensors').read_bytes())
    shutil.rmtree(out)
    (folder,) = (tmp_path / 'user' / 'prompt_jax').iterdir()
    shutil.rmtree(folder / 'answers')  # else the untuned model's program is not needed again
  (read, written), again = counts
  assert read == 0
  assert written > 2
  assert again == (written, 0)
  assert prompts[0] == prompts[1]
  assert folder.name.startswith('cpu-')


def test_the_cache_can_be_elsewhere_or_off_and_jax_is_heard(tmp_path):
  own, of_jax = tmp_path / 'own', tmp_path / 'jax'
  process(SMALL, tmp_path, 'off')
  process(SMALL, tmp_path, str(own), JAX_COMPILATION_CACHE_DIR=str(of_jax))
  assert [p.name for p in tmp_path.iterdir()] == ['own']
  assert any(p.is_file() for p in own.glob('cpu-*/*'))
  process(SMALL, tmp_path, 'auto', JAX_COMPILATION_CACHE_DIR=str(of_jax))
  assert {p.name for p in tmp_path.iterdir()} == {'own', 'jax'}
  assert any(p.is_file() for p in of_jax.iterdir())


def test_a_folder_that_cannot_be_written_is_a_notice(tmp_path):
  (tmp_path / 'user').write_text('a file')
  error = process(SMALL, tmp_path, 'auto').stderr
  assert mentions(error, 'UserWarning', 'compil')
  assert str(tmp_path / 'user') in error
  assert 'compilation_cache' in error


def test_programs_of_devices_that_are_not_here_do_not_touch_it(tmp_path):
  """Neither the first program of a process nor a later one; the process's own are kept."""
  described = 'from prompt_jax.runtime.devices import without_compilation_cache as without\n'
  described += 'with without():\n  jax.jit(lambda x: x - {n})(1.0)\n'
  first, second = (described.format(n=n) for n in (2, 3))
  listing = "print(len(list(__import__('pathlib').Path(sys.argv[1]).rglob('jit_*-cache'))))\n"
  program = f'import jax, sys\n{first}{SMALL}{listing}{second}{listing}'
  alone = f'{SMALL}{listing}'
  one = process(alone, tmp_path, str(tmp_path / 'alone')).stdout.split()
  assert int(one[0]) > 0
  assert process(program, tmp_path, str(tmp_path / 'own')).stdout.split() == one * 2


def test_an_address_is_refused():
  with pytest.raises(UserError, match=facts('gs://bucket/x', 'JAX_COMPILATION_CACHE_DIR')):
    devices.enable_compilation_cache('gs://bucket/x', jax.devices()[0])


def test_the_folder_is_the_users_and_that_of_the_machine(monkeypatch):
  home = {'XDG_CACHE_HOME': '/caches'}
  assert devices.folder('auto', 'gpu', home) == pathlib.Path('/caches/prompt_jax/gpu')
  assert devices.folder('/own', 'tpu', home) == pathlib.Path('/own/tpu')
  monkeypatch.setattr(sys, 'platform', 'linux')
  want = pathlib.Path.home() / '.cache' / 'prompt_jax' / 'gpu'
  assert devices.folder('auto', 'gpu', {'XDG_CACHE_HOME': 'relative'}) == want
  one = devices.folder('auto', 'cpu', home)
  assert one == devices.folder('auto', 'cpu', home)
  text = pathlib.Path('/proc/cpuinfo').read_text('utf-8')
  fewer = text.replace(' avx2 ', ' ')
  for words, same in ((text.replace('cpu MHz', 'cpu MHz\t: 1'), True), (fewer, fewer == text)):
    monkeypatch.setattr(pathlib.Path, 'read_text', lambda *_, words=words: words)
    assert (devices.folder('auto', 'cpu', home) == one) == same


def test_the_oldest_programs_go_where_there_are_too_many(tmp_path, monkeypatch):
  monkeypatch.setattr(devices, 'MAX_BYTES', 250)
  names = ['c-cache', 'a-cache', 'b-cache', 'the work of a year']
  for age, name in enumerate(names):
    (tmp_path / name).write_bytes(b'x' * 100)
    os.utime(tmp_path / name, (time.time() - age, time.time() - age))
  devices._make_room(tmp_path)
  left = {path.name for path in tmp_path.iterdir()}
  assert left == {'c-cache', 'a-cache', 'the work of a year'}
