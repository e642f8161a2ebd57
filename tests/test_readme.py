"""Every command and every piece of Python in the README is run, in order, in a folder of its own.

They are run word for word, but for this, so that they end in seconds: the flags of `APPENDED` are
added (two steps, a tiny random model), in Python `steps=500` becomes the keywords of `KEYWORDS`,
the quick start's script finds an installer that installs nothing, and pip only says what it would
install (`DRY`). `reviews.tsv` and `texts.txt` have more lines than the README shows.
"""

import contextlib
import io
import json
import os
import pathlib
import re
import shlex
import shutil
import subprocess
import sys
from typing import NamedTuple

import numpy as np
import pytest

from prompt_jax.checkpoints.backbone import save_backbone
from prompt_jax.cli.main import main
from prompt_jax.data.vocabulary import ByteVocabulary
from prompt_jax.models.t5.config import T5Config
from prompt_jax.testing import tiny

ROOT = pathlib.Path(__file__).parent.parent
README = (ROOT / 'README.md').read_text(encoding='utf-8')
WIDTH = 32  # of the tiny model
SHORT = ['--steps=2', '--batch_size=8', '--model={model}']
APPENDED = {
  'prompt-jax train': SHORT,
  'prompt-jax import': ['--model={model}'],
  'scripts/quickstart.sh': [*SHORT, '--input_length=16'],
}
KEYWORDS = 'steps=2, batch_size=8, model={model!r}'
DRY = ['--dry-run', '--no-deps', '--no-index', '--no-build-isolation', '-q']
COMMANDS = ('prompt-jax', 'pip', 'scripts/', 'python', 'export')


class Block(NamedTuple):
  """An indented block: the section that it is in, and its text."""

  section: str
  text: str

  @property
  def kind(self) -> str:
    first = self.text.split('\n')[0]
    if first.startswith('$ '):
      return 'transcript'
    if first.startswith(COMMANDS):
      return 'shell'
    if first.startswith(('import ', 'from ')):
      return 'python'
    return 'other'


def blocks() -> list[Block]:
  found: list[Block] = []
  section, lines = '', []
  for line in [*README.split('\n'), 'end']:
    if line.startswith('    ') or (lines and not line):
      lines.append(line[4:])
      continue
    if lines:
      found.append(Block(section, '\n'.join(lines).strip('\n')))
      lines = []
    if line.startswith('#'):
      section = line.lstrip('# ')
  return found


BLOCKS = blocks()


def commands(section: str) -> list[list[str]]:
  """The words of each command of a section, without comments."""
  lines = [l for b in BLOCKS if b.section == section and b.kind == 'shell'
           for l in b.text.split('\n')]  # fmt: skip
  return [words for line in lines if (words := shlex.split(line, comments=True))]


def appended(command: str, model: str) -> list[str]:
  return [flag.format(model=model) for flag in APPENDED.get(command, [])]


def python(section: str, model: str) -> list[str]:
  return [
    b.text.replace('steps=500', KEYWORDS.format(model=model))
    for b in BLOCKS
    if b.section == section and b.kind == 'python'
  ]


def run(words: list[str], model: str) -> str:
  """What a `prompt-jax` command prints."""
  out = io.StringIO()
  with contextlib.redirect_stdout(out):
    assert main([*words[1:], *appended(' '.join(words[:2]), model)]) == 0, shlex.join(words)
  return out.getvalue()


@pytest.fixture(scope='module')
def model(tmp_path_factory) -> str:
  """A folder with a random byte-level model, drawn without compiling it."""
  cfg = T5Config(384, WIDTH, 2, 8, 1, 1, 48)
  folder = tmp_path_factory.mktemp('model') / 'tiny'
  params = tiny.random_params(cfg)
  save_backbone(folder, name='tiny', config=cfg, params=params, vocabulary=ByteVocabulary())
  return str(folder)


@pytest.fixture
def folder(tmp_path, monkeypatch) -> pathlib.Path:
  """The working directory, with the files that the README speaks of."""
  monkeypatch.chdir(tmp_path)
  (shown,) = [b.text for b in BLOCKS if b.text.startswith('text\tlabel')]
  head, *rows = [line for line in shown.split('\n') if '\t' in line]
  more = [row.replace('\t', f' {i}\t') for i in range(20) for row in rows]
  (tmp_path / 'reviews.tsv').write_text('\n'.join([head, *rows, *more, '']))
  (tmp_path / 'texts.txt').write_text('better than I feared\nnever again\n')
  return tmp_path


def test_every_block_is_run_or_is_known_to_be_none():
  """A block of a new kind, or in a section without a test, is not passed over."""
  assert [b.section for b in BLOCKS if b.kind == 'other'] == ['Your own text', 'Citation']
  assert {b.section for b in BLOCKS if b.kind != 'other'} == {
    'prompt_jax', 'Install', 'Quick start', 'Your own text', 'Python', 'Your own method',
  }  # fmt: skip


def test_links_lead_somewhere():
  targets = re.findall(r'\]\(((?!https?:)[^)#]+)[^)]*\)', README)
  missing = [t for t in targets if not (ROOT / t).exists()]
  assert targets
  assert not missing


def test_it_is_short():
  assert len(README.split('\n')) < 200


def test_install():
  (words,) = commands('Install')
  assert words[:2] == ['pip', 'install']
  subprocess.run(
    [sys.executable, '-m', *words, *DRY], cwd=ROOT, check=True, capture_output=True, timeout=300
  )


def test_quick_start_and_the_answer_at_the_top(model, tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  (words,) = commands('Quick start')
  script = tmp_path / words[0]
  script.parent.mkdir()
  shutil.copy(ROOT / words[0], script)
  (script.parent / 'install.sh').write_text('')
  beside = pathlib.Path(sys.executable).parent
  done = subprocess.run(
    ['bash', *words, *appended(words[0], model)],
    env={**os.environ, 'PATH': f'{beside}{os.pathsep}{os.environ["PATH"]}'},
    capture_output=True,
    text=True,
    timeout=900,
  )
  assert done.returncode == 0, done.stdout + done.stderr
  assert 'majority class' in done.stdout
  assert 'tuned prompt' in done.stdout
  (shown,) = [b for b in BLOCKS if b.kind == 'transcript']
  command, answer = shown.text.split('\n')
  printed = run(shlex.split(command.removeprefix('$ ')), model)
  assert len(printed.strip().split('\t')) == len(answer.split('\t')) == 3


def test_your_own_text(folder, model):
  answers = {}
  for words in commands('Your own text'):
    answers[' '.join(words[:2])] = run(words, model)
  assert 'answers.jsonl' in answers['prompt-jax infer']
  lines = [json.loads(l) for l in (folder / 'answers.jsonl').read_text().split('\n') if l]
  assert [line['text'] for line in lines] == ['better than I feared', 'never again']
  assert {line['prediction'] for line in lines} <= {'positive', 'negative'}
  assert (folder / 'report/report.html').exists()
  assert (folder / 'peft_folder/adapter_config.json').exists()
  assert (folder / 'prompt.safetensors').exists()


def test_python(folder, model):
  names: dict = {}
  for text in python('Python', model):
    exec(text, names)
  run_result, tuned = names['run'], names['tuned']
  assert run_result.scores
  assert (folder / 'runs/prefix/prompt.safetensors').exists()
  (answer,) = tuned.predict(['better than I feared'])
  assert answer.prediction in ('positive', 'negative')
  assert 0 <= answer.probability <= 1


def test_your_own_method(folder, model):
  """In processes of their own, so that nothing but the files connects them."""
  method, script = python('Your own method', model)
  (folder / 'gated.py').write_text(method)
  (folder / 'train.py').write_text(script)
  assert len([line for line in method.split('\n') if line.strip()]) <= 20
  exported, *verbs = commands('Your own method')
  assert exported[0] == 'export'
  name, value = exported[1].split('=')
  environment = {**os.environ, name: value}
  for words in ([sys.executable, 'train.py'], *verbs):
    if words[0] == 'prompt-jax':
      words = [sys.executable, '-m', 'prompt_jax', *words[1:]]
    done = subprocess.run(words, env=environment, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, shlex.join(words) + done.stdout + done.stderr
  assert np.load('gated.npy').shape == (20, WIDTH)
