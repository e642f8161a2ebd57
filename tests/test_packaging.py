"""The wheel holds what a user needs, and works where no checkout is at hand."""

import pathlib
import re
import subprocess
import sys
import zipfile

import pytest

from prompt_jax.runtime.devices import EXTRAS

ROOT = pathlib.Path(__file__).parent.parent


@pytest.fixture(scope='module')
def wheel(tmp_path_factory) -> pathlib.Path:
  folder = tmp_path_factory.mktemp('wheel')
  # Not through pip, which would build in an environment of its own with an index at hand.
  subprocess.run(
    [sys.executable, 'setup.py', '-q', 'build', '-b', folder / 'build', 'egg_info', '-e', folder,
     'bdist_wheel', '-d', folder],
    cwd=ROOT, check=True, capture_output=True, timeout=300,
  )  # fmt: skip
  (path,) = folder.glob('*.whl')
  return path


def test_wheel_holds_the_run_files_the_tasks_and_the_embedded_model(wheel):
  names = set(zipfile.ZipFile(wheel).namelist())
  expected = {f'prompt_jax/{p.relative_to(ROOT)}' for p in (ROOT / 'gin').rglob('*.gin')}
  expected |= {f'prompt_jax/tasks/{p.name}' for p in (ROOT / 'tasks').glob('*.py')}
  expected |= {
    p.relative_to(ROOT).as_posix()
    for p in (ROOT / 'prompt_jax').rglob('*')
    if p.is_file() and '__pycache__' not in p.parts
  }
  assert expected <= names
  assert 'prompt_jax/gin/__init__.py' not in names
  assert not [n for n in names if n.startswith(('tests/', 'gin/', 'tasks/'))]


def test_installed_wheel_finds_its_run_files_and_tasks(wheel, tmp_path):
  site = tmp_path / 'site'
  zipfile.ZipFile(wheel).extractall(site)
  code = (
    f'import sys; sys.path.insert(0, {str(site)!r})\n'
    'import importlib.util\n'
    'from prompt_jax.configuration import run_files\n'
    'print(run_files.folder()); print(importlib.util.find_spec("prompt_jax.tasks").origin)\n'
    'print(len(run_files.names("models")))'
  )
  done = subprocess.run(
    [sys.executable, '-c', code], cwd=tmp_path, capture_output=True, text=True, check=True
  )
  folder, tasks, count = done.stdout.split()
  assert folder == str(site / 'prompt_jax/gin')
  assert tasks == str(site / 'prompt_jax/tasks/__init__.py')
  assert int(count) == len(list((ROOT / 'gin/models').rglob('*.gin')))


def test_every_dependency_has_a_tested_version():
  """setup.py gives ranges; constraints.txt must pin each of those packages."""
  text = (ROOT / 'setup.py').read_text(encoding='utf-8')
  required = {
    re.split('[<>=]', r)[0] for r in re.findall(r"^ +'([a-z][\w.-]+>=[^']+)',?$", text, re.M)
  }
  required |= {
    re.split('[<>=]', r)[0] for r in re.findall(r"'((?:seqio|tensorflow)[\w-]*>=[^']+)'", text)
  }
  pinned = {
    line.split('==')[0].replace('_', '-')
    for line in (ROOT / 'constraints.txt').read_text(encoding='utf-8').splitlines()
    if '==' in line
  }
  required = {name.replace('_', '-') for name in required}
  assert {'jax', 'flax', 'seqio', 'torch'} <= required
  assert required <= pinned, f'add to constraints.txt: {sorted(required - pinned)}'


def test_extras_of_accelerators_are_those_that_the_notice_names(wheel):
  (metadata,) = [n for n in zipfile.ZipFile(wheel).namelist() if n.endswith('/METADATA')]
  text = zipfile.ZipFile(wheel).read(metadata).decode()
  extras = set(re.findall('^Provides-Extra: (.*)$', text, re.M))
  assert set(EXTRAS.values()) <= extras
  # The same range as of JAX itself, so that an extra never moves it.
  ranges = dict(re.findall(r'^Requires-Dist: (jax(?:\[\w+\])?)([<>=.,\d]+)', text, re.M))
  assert ranges['jax[cuda13]'] == ranges['jax']


def test_extras_are_named_in_one_place_and_exist():
  """The package is on no index: a command that names it there works nowhere."""
  extras = set(re.findall(r"^    '(\w+)': \[", (ROOT / 'setup.py').read_text(), re.M))
  asked = set(EXTRAS.values())
  kinds = ('*.py', '*.md', '*.gin', '*.sh', '*.ipynb')
  folders = ('prompt_jax', 'tasks', 'docs', 'examples', 'gin', 'scripts', 'contrib')
  paths = [p for folder in folders for kind in kinds for p in (ROOT / folder).rglob(kind)]
  for path in [ROOT / 'README.md', *paths]:
    text = path.read_text('utf-8')
    assert not re.search(r'install[^\n]{0,30}prompt_jax\[', text), path
    asked |= set(re.findall(r'install\(["\'](\w+)["\']\)', text))
    asked |= set(re.findall(r"constraints\.txt '\.\[(\w+)\]'", text))
  assert {'cuda', 'tpu', 'seqio', 'hub', 'torch', 'datasets'} <= asked <= extras
