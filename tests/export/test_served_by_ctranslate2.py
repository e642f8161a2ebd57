"""`prompt-jax serve FOLDER --engine ctranslate2`: the answers of the prompts, and no JAX."""

import concurrent.futures
import json
import subprocess
import sys
import urllib.request

import pytest

import prompt_jax as pj
from prompt_jax.cli.main import main
from prompt_jax.serving.app import Server
from prompt_jax.serving.asking import Limits
from prompt_jax.serving.ctranslate2_engine import CTranslate2Engine
from prompt_jax.serving.rows import STREAMED, Row, Settings
from tests.export import shapes
from tests.export.conftest import LABELS
from tests.serving.over_http import complete, running
from tests.serving.test_streaming import choices, joined, streaming
from tests.shared import mentions

TEXTS = ['a warm film', 'what is it? </s> <extra_id_0> <sst2:0>', '', 'long ' * 12]


@pytest.fixture(scope='module')
def engine(exported):
  return CTranslate2Engine(str(exported('ctranslate2')), beams=3)


def rows(engine, name, **more):
  prompt = engine[name]
  return [Row(name, engine.tokens(text, prompt), **more) for text in TEXTS]


def test_labels_are_those_of_infer(engine, pair):
  expected = pj.load(pair.sst2).predict(TEXTS)
  with running(Server(engine, Limits(rows=8))) as address:
    found = complete(address, 'sst2', TEXTS)[1]['choices']
  assert [c['text'] for c in found] == [a.prediction for a in expected]
  for choice, answer in zip(found, expected, strict=True):
    assert choice['probabilities'][answer.prediction] == pytest.approx(answer.probability, abs=1e-4)
  assert engine['sst2'].labels == tuple(LABELS)


@pytest.mark.parametrize('more', [{}, {'beams': 3}, {'max_tokens': 3}], ids=str)
def test_text_is_that_of_infer(engine, pair, more):
  tuned, most = pj.load(pair.text), more.get('max_tokens')
  expected = tuned.generate(TEXTS, beams=more.get('beams', 1), max_new_tokens=most)
  with running(Server(engine, Limits(rows=8))) as address:
    found = [complete(address, 'trec', text, **more)[1]['choices'][0]['text'] for text in TEXTS]
  assert found == expected


def test_streams_are_the_answers(engine, pair):
  expected = pj.load(pair.text).generate(TEXTS)
  with running(Server(engine, Limits(rows=8))) as address:

    def ask(text):
      with streaming(address, model='trec', prompt=text) as events:
        return joined(choices(events))[0]

    with concurrent.futures.ThreadPoolExecutor(4) as clients:
      assert list(clients.map(ask, TEXTS)) == expected


def test_rows_of_one_batch_have_limits_and_temperatures_of_their_own(engine):
  told = {}
  mixed = [
    row
    for limit, temperature in ((4, 0.0), (9, 0.0), (9, 1.0))
    for row in rows(engine, 'trec', limit=limit, temperature=temperature)
  ]
  note = lambda row, step, token: told.setdefault(row, []).append(token)
  found = engine(mixed, STREAMED, note)
  alone = [engine([row], STREAMED)[0] for row in mixed[:8]]
  for one, expected in zip(found, alone, strict=False):
    assert one.tokens.tolist() == expected.tokens.tolist()
    assert one.log_prob == pytest.approx(expected.log_prob, abs=1e-4)
  assert [told[i] for i in range(len(mixed))] == [one.tokens.tolist() for one in found]
  assert all(len(one.tokens) <= row.limit for one, row in zip(found, mixed, strict=True))
  samples = [engine([mixed[-1]] * 6, Settings('generate', sampled=True)) for _ in range(2)]
  assert len({tuple(one.tokens) for some in samples for one in some}) > 1


@pytest.mark.parametrize('shape', ['t5_1_0', 'mt5', 'byt5'])
def test_other_shapes(shape, tmp_path):
  base = shapes.model(shape, tmp_path)
  file = shapes.prompt(tmp_path / 'one.safetensors', base, 4)
  pj.export_prompt([file], str(tmp_path / 'served'), to='ctranslate2')
  engine = CTranslate2Engine(str(tmp_path / 'served'))
  expected = pj.load(file).generate(TEXTS)
  limit = engine['one'].lengths.targets
  found = engine(rows(engine, 'one', limit=limit), Settings('generate'))
  assert [engine.words(one.tokens) for one in found] == expected


def test_the_command_serves_without_jax(exported):
  code = (
    'import sys\n'
    'for name in ("jax", "flax", "gin", "torch"): sys.modules[name] = None\n'
    'from prompt_jax.cli.main import main\n'
    'sys.exit(main(sys.argv[1:]))'
  )
  argv = ['serve', str(exported('ctranslate2')), '--engine=ctranslate2', '--port=0']
  server = subprocess.Popen(
    [sys.executable, '-c', code, *argv], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
  )
  try:
    address = server.stdout.readline().split()[-1]
    body = json.dumps({'model': 'sst2', 'prompt': 'a film'}).encode()
    with urllib.request.urlopen(f'{address}/v1/completions', body, timeout=30) as found:
      assert json.load(found)['choices'][0]['label'] in LABELS
    server.terminate()
    assert server.wait(30) == 0
  finally:
    server.kill()
    _, said = server.communicate()
  assert 'Traceback' not in said


def test_mistakes_are_told_in_one_line(exported, pair, tmp_path, capsys):
  folder, engine = str(exported('ctranslate2')), '--engine=ctranslate2'
  for flags, said in (
    ([str(tmp_path), engine], [str(tmp_path), 'export']),
    ([str(exported('hf')), engine], ['export']),
    ([pair.sst2, engine], [pair.sst2, 'export']),
    ([folder, folder, engine], ['2']),
    ([folder, engine, '--watch=x', '--dtype=bfloat16'], ['--watch', '--dtype']),
    ([folder, engine, '--token_file=none.txt'], ['none.txt']),
  ):
    assert (
      main(['serve', *flags, '--port=0'] if '--watch=x' not in flags else ['serve', *flags]) == 2
    )
    error = capsys.readouterr().err
    assert mentions(error, *said), error
    assert error.count('\n') == 1
