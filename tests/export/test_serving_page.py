"""docs/serving.md and the example: what they show runs, and answers like `infer`."""

import json
import pathlib
import re
import shutil
import subprocess
import sys

import pytest

import prompt_jax as pj
from prompt_jax.data.vocabulary import load_vocabulary
from prompt_jax.export.hf_prompts import PATTERNS
from prompt_jax.export.tokenizer import tokenizer_json, with_prompts
from tests.shared import mentions

ROOT = pathlib.Path(__file__).parent.parent.parent
PAGE = (ROOT / 'docs' / 'serving.md').read_text(encoding='utf-8')
TEXT = 'a warm and funny film'


def blocks(title: str) -> list[str]:
  """The Python of a section."""
  section = PAGE.split(f'\n## {title}')[1].split('\n## ')[0]
  found = re.findall(r'(?:^ {4}.*\n|^\n(?= {4}))+', section, re.MULTILINE)
  found = [re.sub('^ {4}', '', block, flags=re.MULTILINE) for block in found]
  return [block for block in found if 'import ' in block or '(' in block]


def test_the_python_of_the_page(pair, exported, tmp_path, monkeypatch, capsys):
  shutil.copytree(exported('hf'), tmp_path / 'served')
  monkeypatch.chdir(tmp_path)
  first, second = blocks('transformers')
  names: dict = {}
  exec(first, names)
  assert len(eval(capsys.readouterr().out)) == 2
  exec(second, names)
  (answer,) = pj.load(pair.sst2).predict([TEXT])
  assert capsys.readouterr().out.strip() == answer.prediction


@pytest.mark.parametrize('to', ['ctranslate2', 'stablehlo'])
def test_the_example_answers_two_prompts_in_a_batch(to, pair, exported):
  pytest.importorskip({'ctranslate2': 'ctranslate2', 'stablehlo': 'flatbuffers'}[to])
  script = ROOT / 'examples' / f'serve_{to}.py'
  assert f'python examples/{script.name} served' in PAGE

  def run(asked):
    return subprocess.run(
      [sys.executable, str(script), str(exported(to))],
      input=asked, capture_output=True, text=True, check=False, timeout=300,
    )  # fmt: skip

  done = run(f'sst2\t{TEXT}\ntrec\t{TEXT}\nsst2\tno\n')
  assert done.returncode == 0, done.stderr
  first, second, third = done.stdout.splitlines()
  labels = [a.prediction for a in pj.load(pair.sst2).predict([TEXT, 'no'])]
  assert [first, third] == labels
  assert second.split() == pj.load(pair.text).generate([TEXT])[0].split()
  done = run(f'sst2\t{TEXT}\nnone\tno\nno name\n')
  assert (done.returncode, done.stdout) == (1, '')
  assert mentions(done.stderr.splitlines()[-1], 'none', 'no name', 'sst2', 'trec')
  assert 'Traceback' not in done.stderr


def test_names_that_contain_each_other_are_kept_apart(tmp_path):
  """And a word inside a text is text."""
  import tokenizers

  words = load_vocabulary(ROOT / 'prompt_jax' / 'embedded')
  prompts = {'sst2': 2, 'sst2_1': 1, 'a.b': 1}
  patterns = {
    PATTERNS['before'].format(f'<{name}>'.replace('.', r'\.')): [
      f'<{name}:{i}>' for i in range(count)
    ]
    for name, count in prompts.items()
  }
  made = with_prompts(tokenizer_json(words), words.size + 3, patterns)

  cut = tokenizers.Tokenizer.from_str(json.dumps(made))
  first = words.size + 3
  own = [*words.encode(TEXT), 1]
  assert cut.encode(f'<sst2> {TEXT}').ids == [first, first + 1, *own]
  assert cut.encode(f'<sst2_1>{TEXT}').ids == [first + 2, *own]
  assert cut.encode(f'  <a.b>  {TEXT} ').ids == [first + 3, *own]
  inside = f'{TEXT} <sst2> {TEXT}'
  assert cut.encode(inside).ids == [*words.encode(inside), 1]
  assert cut.encode(f'<axb> {TEXT}').ids == [*words.encode(f'<axb> {TEXT}'), 1]
