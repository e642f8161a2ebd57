"""Several tasks in one run: a prompt for each, taken out, measured, resumed; transfer."""

import json
import pathlib
import shutil

import numpy as np
import pytest

from prompt_jax.checkpoints.prompt_file import load_prompt
from prompt_jax.cli.main import main
from tests.shared import mentions

SIZES = ['--length=3', '--batch_size=6', '--input_length=32', '--target_length=24',
         '--gin.EVAL_EVERY=2', '--gin.SAVE_EVERY=2']  # fmt: skip


def write(path: pathlib.Path, rows):
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text(''.join(json.dumps(row) + '\n' for row in rows))


@pytest.fixture(scope='module')
def folder(tmp_path_factory) -> str:
  root = tmp_path_factory.mktemp('sets')
  for split, count in (('train', 12), ('validation', 4)):
    sst2 = [{'sentence': f's {i}', 'label': ('positive', 'negative')[i % 2]} for i in range(count)]
    trec = [{'question': f'q {i}', 'label': ('human', 'number')[i % 2]} for i in range(count)]
    write(root / 'sst2' / f'{split}.jsonl', sst2)
    write(root / 'trec' / f'{split}.jsonl', trec)
    cb = [{'premise': 'p', 'hypothesis': 'h', 'label': 'neutral'}]
    write(root / 'cb' / 'validation.jsonl', cb)
    for language in ('english', 'ngaju'):
      rows = [{'text': f't {i}', 'label': ('neutral', 'positive')[i % 2]} for i in range(count)]
      write(root / 'nusax_senti' / f'{split}.{language}.jsonl', rows)
  return str(root)


@pytest.fixture(scope='module')
def trained(model, folder, tmp_path_factory) -> pathlib.Path:
  out = tmp_path_factory.mktemp('out')
  command = ['train', '--model', model, '--task', 'sst2', 'trec', '--folder', folder]
  command += ['--prompt', 'task_prompts', *SIZES, '--gin.PROMPT_SHARED=2', '--steps=4']
  assert main([*command, '--output', str(out)]) == 0
  return out


def results(out: pathlib.Path) -> dict[str, float]:
  systems = json.loads((out / 'results.json').read_text())['systems']
  return systems[list(systems)[-1]]['scores'][0]


def test_each_task_has_its_prompt_and_its_score(trained):
  prompt = load_prompt(trained / 'prompt.safetensors')
  assert prompt.metadata['tasks'] == ['sst2', 'trec']
  assert prompt.params['tasks']['prompt'].shape == (2, 3, 32)
  first = load_prompt(trained / 'initial.safetensors').params['tasks']['prompt']
  last = load_prompt(trained / 'last.safetensors').params['tasks']['prompt']
  assert all(np.abs(a - b).max() > 0 for a, b in zip(first, last, strict=True))
  scores = results(trained)
  assert list(scores) == ['mean', 'sst2/accuracy', 'trec/accuracy']
  assert scores['mean'] == pytest.approx((scores['sst2/accuracy'] + scores['trec/accuracy']) / 2)
  lines = (trained / 'predictions.jsonl').read_text().splitlines()
  assert [json.loads(line)['task'] for line in lines] == ['sst2'] * 4 + ['trec'] * 4
  assert 'mean' in (trained / 'metrics.jsonl').read_text()


@pytest.mark.parametrize('name', ['sst2', 'trec'])
def test_a_prompt_taken_out_is_the_one_among_the_others(name, trained, folder, model, tmp_path):
  both = load_prompt(trained / 'prompt.safetensors')
  alone = load_prompt(trained / 'task_prompts' / f'{name}.safetensors')
  rows = np.concatenate(
    [both.params['shared']['prompt'], both.params['tasks']['prompt'][('sst2', 'trec').index(name)]]
  )
  np.testing.assert_array_equal(alone.params['encoder']['prompt'], rows)
  assert alone.initial['encoder']['prompt'].shape == rows.shape
  assert alone.metadata['task'] == name
  assert len(alone.metadata['labels']) == (2 if name == 'sst2' else 6)
  found = {}
  for prompt in (trained / 'prompt.safetensors', trained / 'task_prompts' / f'{name}.safetensors'):
    out = tmp_path / prompt.stem
    command = ['eval', '--prompt_file', str(prompt), '--task', name, '--folder', folder]
    assert main([*command, '--model', model, '--output', str(out)]) == 0
    lines = (out / 'predictions.jsonl').read_text().splitlines()
    found[prompt.stem] = [json.loads(line)['scores'] for line in lines]
  for a, b in zip(found['prompt'], found[name], strict=True):
    assert a == pytest.approx(b, abs=1e-4)


def test_eval_of_both_gives_the_score_of_the_run(trained, folder, model, tmp_path):
  command = ['eval', '--prompt_file', str(trained / 'prompt.safetensors'), '--folder', folder]
  assert (
    main([*command, '--task', 'sst2', 'trec', '--model', model, '--output', str(tmp_path)]) == 0
  )
  # Beside them eval has the calibration of each task.
  found, want = results(tmp_path), results(trained)
  assert {name: found[name] for name in want} == pytest.approx(want)
  # The order of the command line does not matter, nor that a task is left out.
  assert main([*command, '--task', 'trec', '--model', model, '--output', str(tmp_path / 'b')]) == 0
  assert results(tmp_path / 'b')['accuracy'] == pytest.approx(results(trained)['trec/accuracy'])


@pytest.mark.parametrize('more', [[], ['--pack', '--gin.ROW_LENGTH=72']])
def test_a_run_that_goes_on_is_one_that_never_stopped(more, folder, model, tmp_path):
  command = ['train', '--model', model, '--task', 'sst2', 'trec', '--folder', folder]
  command += [
    '--prompt',
    'task_prompts',
    *SIZES,
    '--gin.PROMPT_SHARED=2',
    '--output',
    str(tmp_path),
  ]
  # A rate that does not depend on the number of steps.
  command += [*more, '--gin_file=runs/published.gin']
  assert main([*command, '--steps=2']) == 0
  assert main([*command, '--steps=6']) == 0
  resumed = load_prompt(tmp_path / 'last.safetensors').params['tasks']['prompt']
  shutil.rmtree(tmp_path)
  assert main([*command, '--steps=6']) == 0
  whole = load_prompt(tmp_path / 'last.safetensors').params['tasks']['prompt']
  np.testing.assert_array_equal(resumed, whole)


def test_mistakes(trained, folder, model, tmp_path, capsys):
  prompt = str(trained / 'prompt.safetensors')
  out = str(tmp_path)
  for command, says in (
    (['eval', '--prompt_file', prompt, '--task', 'rte', '--folder', folder], ['rte']),
    (['eval', '--prompt_file', prompt, '--task', 'nusax_senti.ngaju', '--folder', folder],
     ['nusax_senti.ngaju', 'sst2', 'trec']),
    (['infer', '--prompt_file', prompt, 'a text'], ['task_prompts']),
    (['train', '--task', 'sst2', 'sst2', '--folder', folder, '--output', out],
     ['two', 'tasks']),
    (['train', '--task', 'sst2', 'trec', '--folder', folder, '--gin.MIXING="rates"',
      '--output', out], ['rates']),
    (['train', '--task', 'sst2', 'cb', '--folder', folder, *SIZES, '--output', out],
     ['cb']),
    (['train', '--task', 'nusax_senti.english:all', '--folder', folder, '--prompt',
      'task_prompts', *SIZES, '--output', out], ['train']),
    (['population', '--task', 'sst2', 'trec', '--folder', folder, *SIZES, '--seeds=0,1',
      '--output', out], ['one task']),
    (['train', '--task', 'sst2', '--folder', folder, '--shots', '4', '--output', out],
     ['4']),
  ):  # fmt: skip
    assert main([*command, '--model', model]) == 2, command
    *warned, error = capsys.readouterr().err.splitlines()
    assert mentions(error, *says)
    assert all('warning:' in line for line in warned)


def test_few_shots_and_transfer_leave_a_table_by_language(model, folder, tmp_path):
  command = ['train', '--model', model, '--folder', folder, *SIZES, '--steps=2']
  shots = ['--task', 'sst2', '--shots', '2', '--draw', '3', '--gin.LABEL_NOISE=0.25']
  assert main([*command, *shots, '--output', str(tmp_path / 'a')]) == 0
  assert results(tmp_path / 'a').keys() == {'accuracy'}
  transfer = ['--task', 'nusax_senti.english:all', '--output', str(tmp_path / 'b')]
  assert main([*command, *transfer]) == 0
  scores = results(tmp_path / 'b')
  english, ngaju = (scores[f'nusax_senti.{v}/accuracy'] for v in ('english', 'ngaju'))
  assert scores['gap'] == english - ngaju
