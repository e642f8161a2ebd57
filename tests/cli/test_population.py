"""`prompt-jax population` on a tiny model: a grid of prompts, its table and its files."""

import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from prompt_jax.checkpoints.prompt_file import load_prompt
from prompt_jax.cli.main import main
from prompt_jax.training.records import curve_png, read_records
from tests.several import ROOT
from tests.sharding.fake_devices import fake_devices
from tests.shared import mentions, resumed


def flags(model, reviews, sizes, out, length=('--length=4',)) -> list[str]:
  fixed = [*length, '--steps=4', '--gin.EVAL_EVERY=2', '--output', str(out)]
  return ['--model', model, '--data', reviews, *sizes, *fixed]


@pytest.fixture(scope='module')
def population(model, reviews, sizes, tmp_path_factory):
  """Two rates and two seeds; each with a learning rate, first values and an order of its own."""
  out = tmp_path_factory.mktemp('out')
  command = ['population', *flags(model, reviews, sizes, out)]
  assert main([*command, '--seeds=0,1', '--learning_rates=0.3,3.0']) == 0
  return out


def test_a_population_leaves_what_the_documentation_says(population):
  names = [f'learning_rate_{rate}-seed_{seed}' for rate in (0.3, 3.0) for seed in (0, 1)]
  results = json.loads((population / 'results.json').read_text())
  assert [p['name'] for p in results['prompts']] == names
  for name in names:
    for file in ('prompt.safetensors', 'metrics.jsonl', 'predictions.jsonl', 'curve.png'):
      assert (population / name / file).is_file(), (name, file)
  systems = results['systems']
  assert len(systems['learning_rate 0.3']['scores']) == 2
  assert len(systems['learning_rate 3.0']['scores']) == 2
  assert systems['learning_rate 3.0']['trained'] == 4 * 32
  assert 'accuracy' in systems['majority vote of 4']['scores'][0]
  assert len((population / 'vote.jsonl').read_text().splitlines()) == 6
  best = max(results['prompts'], key=lambda p: p['validation'])  # the first of equals
  kept = (population / 'prompt.safetensors').read_bytes()
  assert kept == (population / best['name'] / 'prompt.safetensors').read_bytes()
  majority, untuned = results['verdicts']  # of the best prompt
  assert majority['tuned'] == untuned['tuned'] == pytest.approx(best['scores']['accuracy'])
  assert majority['of_baseline'] == systems['majority class']['scores'][0]['accuracy']
  assert untuned['of_baseline'] == systems['the model, untuned']['scores'][0]['accuracy']


def test_the_curve_of_a_prompt_has_the_baselines(population):
  results = json.loads((population / 'results.json').read_text())
  for of_prompt in results['prompts']:
    lines, folder = of_prompt['on_validation'], population / of_prompt['name']
    assert set(lines) == {'majority class', 'the model, untuned'}
    records = read_records(folder / 'metrics.jsonl')
    assert (folder / 'curve.png').read_bytes() == curve_png(records, 'accuracy', lines)
    assert lines['majority class'] == 50.0  # half of them are of each label


def test_a_prompt_of_a_population_is_that_of_a_run_of_its_own(
  population, model, reviews, sizes, tmp_path
):
  command = ['train', *flags(model, reviews, sizes, tmp_path)]
  assert main([*command, '--seed=1', '--learning_rate=3.0']) == 0
  for name in ('last', 'initial', 'prompt'):
    apart = load_prompt(tmp_path / f'{name}.safetensors')
    together = load_prompt(population / 'learning_rate_3.0-seed_1' / f'{name}.safetensors')
    rows = [p.params['encoder']['prompt'] for p in (apart, together)]
    np.testing.assert_allclose(*rows, atol=1e-3)
    for fact in ('seed', 'step', 'labels', 'method_config', 'fingerprint'):
      assert apart.metadata.get(fact) == together.metadata.get(fact), fact
    assert 'LEARNING_RATE = 3.0' in together.metadata['gin']
  other = load_prompt(population / 'learning_rate_0.3-seed_1' / 'last.safetensors')
  assert np.abs(other.params['encoder']['prompt'] - rows[0]).max() > 1e-2


def test_the_same_command_again_changes_nothing(population, model, reviews, sizes, capsys):
  before = (population / 'prompt.safetensors').read_bytes()
  command = ['population', *flags(model, reviews, sizes, population)]
  assert main([*command, '--seeds=0,1', '--learning_rates=0.3,3.0']) == 0
  assert resumed(4) in capsys.readouterr().out
  assert (population / 'prompt.safetensors').read_bytes() == before
  assert main([*command, '--seeds=0,1', '--learning_rates=0.3,1.0']) == 2
  assert 'LEARNING_RATES' in capsys.readouterr().err


ON_TWO_DEVICES = """
import json, sys
from prompt_jax.cli.main import main
sys.exit([main(command) for command in json.loads(sys.argv[1])] != [2, 0])
"""


def test_a_mesh_of_two_devices_makes_the_same_prompts_and_one_device_goes_on(
  population, model, reviews, sizes, tmp_path, capsys
):
  """Three prompts, whose rows are spread; from step 2 on two, of which each device has one."""
  command = ['population', *flags(model, reviews, sizes, tmp_path), '--halving=2']
  command += ['--seeds=0,1,2', '--learning_rates=3.0', '--gin.Settings.keep=2']
  on_mesh = [*command, '--mesh=2x1', '--layout=fully_sharded']
  done = subprocess.run(
    [sys.executable, '-c', ON_TWO_DEVICES, json.dumps([[*on_mesh, '--batch_size=7'], on_mesh])],
    env=fake_devices(2),
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=600,
  )
  assert done.returncode == 0, done.stdout + done.stderr
  assert mentions(done.stderr, '7', '2')
  assert '1x1' in done.stderr
  left = assert_part_of(population, tmp_path)
  # As if it had been killed after step 2.
  shutil.rmtree(tmp_path / 'state' / '4')
  for name in left:
    (tmp_path / name / 'last.safetensors').unlink()
  assert main(command) == 0
  assert resumed(2) in capsys.readouterr().out
  assert assert_part_of(population, tmp_path) == left


def assert_part_of(population, folder) -> list[str]:
  """Prompts and scores are those of the larger population; the names of those that went on."""
  prompts = json.loads((folder / 'results.json').read_text())['prompts']
  left = [p['name'] for p in prompts if p['steps'] == 4 and 'seed_2' not in p['name']]
  assert sum(p['steps'] == 4 for p in prompts) == 2
  assert left
  for p in prompts[:2]:
    evaluated = [
      [json.loads(line) for line in (f / p['name'] / 'metrics.jsonl').read_text().splitlines()]
      for f in (population, folder)
    ]
    at_two = [[r for r in of_one if r['step'] == 2][-1] for of_one in evaluated]
    assert at_two[0]['kind'] == 'eval'
    assert at_two[0]['accuracy'] == at_two[1]['accuracy']
  for name in left:
    rows, scores = [], []
    for f in (population, folder):
      rows.append(load_prompt(f / name / 'last.safetensors').params['encoder']['prompt'])
      lines = (f / name / 'predictions.jsonl').read_text().splitlines()
      scores.append([list(json.loads(line)['scores'].values()) for line in lines])
    np.testing.assert_allclose(*rows, atol=1e-3)
    np.testing.assert_allclose(*scores, atol=1e-3)
  return left


def test_lengths_initialisers_and_other_settings_vary(model, reviews, sizes, tmp_path, capsys):
  command = ['population', *flags(model, reviews, sizes, tmp_path, length=()), '--seeds=0']
  grid = '--gin.GRID={"adafactor.weight_decay": [0.0, 0.1]}'
  several = ['--lengths=2,3', '--inits=sampled_vocabulary,class_labels', grid]
  assert main([*command, '--steps=2', *several, '--halving=1', '--gin.EVAL_EVERY=1']) == 0
  prompts = json.loads((tmp_path / 'results.json').read_text())['prompts']
  assert len(prompts) == 8
  assert sorted(p['steps'] for p in prompts) == [1] * 4 + [2] * 4
  assert {tuple(p['setting']) for p in prompts} == {
    ('PROMPT_LENGTH', 'init', 'adafactor.weight_decay')
  }
  for p in prompts:
    first = load_prompt(tmp_path / p['name'] / 'initial.safetensors')
    assert first.params['encoder']['prompt'].shape[0] == p['setting']['PROMPT_LENGTH']
    labels = p['setting']['init'] == 'class_labels'
    assert ('ClassLabels' in json.dumps(first.metadata['method_config'])) == labels
    assert f'weight_decay = {p["setting"]["adafactor.weight_decay"]}' in first.metadata['gin']
  ends = {}
  for p in prompts:
    if p['setting']['PROMPT_LENGTH'] == 2 and p['setting']['init'] == 'class_labels':
      decay = p['setting']['adafactor.weight_decay']
      ends[decay] = load_prompt(tmp_path / p['name'] / 'last.safetensors').params['encoder'][
        'prompt'
      ]
  assert np.abs(ends[0.0] - ends[0.1]).max() > 1e-3


@pytest.mark.parametrize(
  ('more', 'words'),
  [
    (['--seeds=0,0'], ['seeds', '0, 0']),
    (['--learning_rates=1,1.0'], ['LEARNING_RATE']),
    (['--gin.GRID={"STEPS": [1, 2]}'], ['STEPS']),
    (['--gin.GRID={"LEARNIG_RATE": [1.0]}'], ["'LEARNIG_RATE'", "'LEARNING_RATE'"]),
    (['--gin.GRID={"adamw.b1": [0.9]}'], ["'adamw.b1'"]),
    (['--gin.GRID={"LEARNING_RATE": 1.0}'], ['list']),
    (['--gin.GRID={"LEARNING_RATE": [1.0]}', '--learning_rates=1'], ['LEARNING_RATE', 'twice']),
    (['--lengths=2,3'], ['--length', '--lengths']),
    (['--inits=clas_labels'], ["'clas_labels'", "'class_labels'"]),
    (['--gin.LENGTHS=["3"]'], ['LENGTHS', "['3']", 'list']),
    (['--gin.GRID={"LEARNING_RATE": ["a"]}'], ['LEARNING_RATE', "'a'"]),
    (['--gin.GRID=[1]'], ['GRID', '[1]', 'mapping']),
    (['--halving=2,2'], ['rung', '2, 2']),
    (['--halving=3'], ['rung', '3', '--eval_every', '2']),
    (['--learning_rates=many'], ["'many'", 'list']),
    (['--gin.TRAINABLE=("backbone/.*",)'], ['backbone']),
    (['--mesh=64x1'], ['64x1', '64']),
    (['--layout=2d'], ["'2d'", 'mesh']),
  ],
)
def test_a_mistake_is_one_line(more, words, model, reviews, sizes, tmp_path, capsys):
  assert main(['population', *flags(model, reviews, sizes, tmp_path), *more]) == 2
  err = capsys.readouterr().err
  for word in words:
    assert word in err
  assert 'Traceback' not in err


def rows(path, *pairs) -> str:
  path.parent.mkdir(parents=True, exist_ok=True)
  path.write_text('text\tlabel\n' + ''.join(f'{a}\t{b}\n' for a, b in pairs), encoding='utf-8')
  return str(path)


def test_each_prompt_is_judged_by_the_validation_examples_of_its_own_setting(
  model, reviews, sizes, tmp_path, capsys
):
  # The same five texts, all good in one file and all bad in the other.
  files = [rows(tmp_path / f'{y}.tsv', *((f'a {i}', y) for i in range(5))) for y in ('good', 'bad')]
  out = tmp_path / 'out'
  command = ['population', *flags(model, reviews, sizes, out), '--steps=1', '--gin.EVAL_EVERY=1']
  grid = ['--seeds=0', f'--gin.GRID={{"VALIDATION": {files!r}}}', '--test', reviews]
  assert main([*command, *grid, '--halving=1']) == 2
  assert 'validation' in capsys.readouterr().err
  assert main([*command, *grid]) == 0
  good, bad = (p['validation'] for p in json.loads((out / 'results.json').read_text())['prompts'])
  assert good + bad == 100
  assert good != bad


def test_files_of_one_name_are_not_one_task(model, sizes, tmp_path, capsys):
  pairs = [(f'text {i}', ('good', 'bad')[i % 2]) for i in range(40)]
  files = [rows(tmp_path / f / 'train.tsv', *pairs[n:]) for f, n in (('a', 0), ('b', 10))]
  command = ['population', *flags(model, files[0], sizes, tmp_path / 'out'), '--seeds=0']
  assert main([*command, f'--gin.GRID={{"DATA": {files!r}}}']) == 2
  error = capsys.readouterr().err
  assert mentions(error, "'train'", 'examples')
  assert 'other names' in error
