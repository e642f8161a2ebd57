"""A prompt that reads a column of the data, through every verb that has a place for it."""

import json

import numpy as np
import pytest

import prompt_jax as pj
from prompt_jax.checkpoints.prompt_file import load_prompt
from prompt_jax.cli.main import main
from tests.shared import mentions

METHOD = ['--prompt=control_prefixes', "--gin.PROMPT_ATTRIBUTES=('style',)", '--length=3',
          '--gin.PROMPT_HIDDEN=8']  # fmt: skip
SIZES = ['--batch_size=8', '--input_length=16', '--target_length=6', '--gin.EVAL_EVERY=2']


def write(path, rows):
  path.write_text('text\tlabel\tstyle\n' + ''.join('\t'.join(row) + '\n' for row in rows))
  return str(path)


@pytest.fixture(scope='module')
def data(tmp_path_factory) -> str:
  rows = [(f'it was no {i}', ('good', 'bad')[i % 2], 'xy'[i % 2]) for i in range(40)]
  return write(tmp_path_factory.mktemp('data') / 'rows.tsv', rows)


@pytest.fixture(scope='module')
def trained(model, data, tmp_path_factory):
  out = tmp_path_factory.mktemp('out')
  command = ['train', '--model', model, '--data', data, *METHOD, *SIZES, '--steps=4']
  assert main([*command, '--gin.MICROBATCHES=2', '--output', str(out)]) == 0
  return out


def file_of(trained):
  return str(trained / 'prompt.safetensors')


def predictions(path):
  rows = map(json.loads, path.read_text().splitlines())
  return {row['input']: row['scores'] for row in rows}


def test_the_file_says_the_values_and_holds_keys_of_each(trained):
  found = load_prompt(file_of(trained))
  assert found.metadata['features'] == {'style': ['x', 'y']}
  assert found.params['encoder']['prompt'].shape[0] == 3 + 2 * 2
  assert not (trained / 'task_prompts').exists()


def test_eval_reads_the_column_and_gives_the_scores_of_the_run(trained, data, model, tmp_path):
  command = ['eval', '--prompt_file', file_of(trained), '--data', data]
  assert main([*command, '--split=test', '--output', str(tmp_path / 'a')]) == 0
  found, want = (predictions(at / 'predictions.jsonl') for at in (tmp_path / 'a', trained))
  assert want.keys() < found.keys()
  for text, scores in want.items():
    assert found[text] == pytest.approx(scores, abs=1e-4)


@pytest.mark.parametrize('how', [[], ['--method=constrained'], ['--beams=2'], ['--temperature=0']])
def test_answers_follow_the_column_of_each_text(how, trained, tmp_path):
  both = [(text, 'good', style) for text in ('it was', 'no') for style in 'xy']
  given, out = write(tmp_path / 'both.tsv', both), tmp_path / 'out.jsonl'
  command = ['infer', '--prompt_file', file_of(trained), *how, '--batch_size=3']
  assert main([*command, '--input', given, '--output', str(out)]) == 0
  together = [json.loads(line) for line in out.read_text().splitlines()]
  assert [row['style'] for row in together] == ['x', 'y', 'x', 'y']
  for i, row in enumerate(both):
    one, alone = write(tmp_path / f'{i}.tsv', [row]), tmp_path / f'{i}.jsonl'
    assert main([*command, '--input', one, '--output', str(alone)]) == 0
    said = json.loads(alone.read_text())
    assert said['prediction'] == together[i]['prediction']
  if not how:
    assert together[0]['probability'] != together[1]['probability']


def test_python_takes_features_beside_the_texts(trained):
  tuned, texts = pj.load(file_of(trained)), ['it was', 'it was']
  first, second = tuned.predict(texts, features={'style': ['x', 'y']})
  assert first.probability != second.probability
  assert len(tuned.generate(texts, features={'style': ['x', 'y']})) == 2
  with pytest.raises(pj.UserError, match="'style'"):
    tuned.predict(texts)
  with pytest.raises(pj.UserError, match='2 values'):
    tuned.predict(texts, features={'style': ['x']})


def test_a_population_is_its_runs(trained, data, model, tmp_path):
  command = ['population', '--model', model, '--data', data, *METHOD, *SIZES, '--steps=4']
  out = tmp_path / 'out'
  assert main([*command, '--seeds=0,1', '--output', str(out)]) == 0
  (of_seed,) = out.rglob('seed_0/last.safetensors')
  a, b = (load_prompt(f).params for f in (of_seed, trained / 'last.safetensors'))
  np.testing.assert_allclose(a['encoder']['prompt'], b['encoder']['prompt'], atol=1e-4)


def test_on_a_mesh_a_run_is_the_same(trained, data, model, tmp_path):
  command = ['train', '--model', model, '--data', data, *METHOD, *SIZES, '--steps=4']
  assert main([*command, '--mesh=1x1', '--output', str(tmp_path)]) == 0
  a, b = (load_prompt(at / 'last.safetensors').params for at in (tmp_path, trained))
  np.testing.assert_allclose(a['cross']['prompt'], b['cross']['prompt'], atol=1e-4)


@pytest.mark.parametrize('step', ['train', 'eval', 'decode'])
def test_a_plan_counts_it(step, model, capsys):
  command = ['plan', '--model', model, *METHOD, '--step', step, '--batch_size=4']
  assert main([*command, '--input_length=16', '--target_length=4', '--topology=here']) == 0
  assert capsys.readouterr().out


def refused(capsys, *command):
  assert main(list(map(str, command))) == 2
  return capsys.readouterr().err


def test_data_without_the_column_or_with_an_empty_cell_is_refused(data, model, tmp_path, capsys):
  command = ['train', '--model', model, *METHOD, *SIZES, '--output', tmp_path / 'out']
  bare = tmp_path / 'bare.tsv'
  bare.write_text(
    'text\tlabel\tmood\n' + ''.join(f'a {i}\tgood\tm\nb {i}\tbad\tm\n' for i in range(20))
  )
  assert mentions(refused(capsys, *command, '--data', bare), 'style', 'column', 'mood')
  rows = [(f'n {i}', ('good', 'bad')[i % 2], '' if i == 30 else 'x') for i in range(40)]
  assert mentions(
    refused(capsys, *command, '--data', write(tmp_path / 'hole.tsv', rows)), 'style', 'n 30'
  )
  assert not (tmp_path / 'out').exists()


def test_packing_says_why_not(data, model, tmp_path, capsys):
  command = ['train', '--model', model, '--data', data, *METHOD, *SIZES, '--pack']
  assert mentions(refused(capsys, *command, '--output', tmp_path), 'style', '--pack', 'keys')


def test_texts_alone_and_new_values_are_refused(trained, tmp_path, capsys):
  file = file_of(trained)
  assert mentions(refused(capsys, 'infer', '--prompt_file', file, 'a text'), 'style', 'column')
  new = write(tmp_path / 'new.tsv', [('it was', 'good', 'z')])
  assert mentions(
    refused(capsys, 'infer', '--prompt_file', file, '--input', new), 'style', "'z'", 'x, y'
  )
  assert mentions(refused(capsys, 'eval', '--prompt_file', file, '--data', new), "'z'", 'x, y')


@pytest.mark.parametrize('to', ['npy', 'peft', 'hf', 'ctranslate2', 'stablehlo', 'savedmodel'])
def test_an_export_names_what_can(to, trained, tmp_path, capsys):
  said = refused(capsys, 'export', file_of(trained), tmp_path / 'out', '--to', to)
  assert mentions(said, 'style', 'infer', 'columns')
  assert not (tmp_path / 'out').exists()


def test_a_server_says_what_can(trained, capsys):
  assert mentions(
    refused(capsys, 'serve', file_of(trained), '--port=0'), 'style', 'infer', 'column'
  )
