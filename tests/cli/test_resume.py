"""A run goes on where its contents are the same, however they are spelled; damage is found."""

import json
import pathlib
import shutil

import jax
import numpy as np
import pytest

from prompt_jax.checkpoints.prompt_file import load_prompt
from prompt_jax.cli.main import main
from tests.shared import mentions, resumed


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch) -> pathlib.Path:
  monkeypatch.chdir(tmp_path)
  return tmp_path


@pytest.fixture(scope='session')
def finished(tmp_path_factory, model, reviews, sizes) -> pathlib.Path:
  """The folder in which a run of two steps has left `r`, with its model and its data."""
  folder = tmp_path_factory.mktemp('finished')
  shutil.copytree(model, folder / 'model')
  shutil.copy(reviews, folder / 'data.tsv')
  lines = (folder / 'data.tsv').read_text().splitlines()
  (folder / 'valid.tsv').write_text('\n'.join(lines[:21]) + '\n')
  (folder / 'test.tsv').write_text('\n'.join([lines[0], *lines[41:]]) + '\n')
  with pytest.MonkeyPatch.context() as patch:
    patch.chdir(folder)
    assert main(command(sizes)) == 0
  return folder


def command(sizes, verb='train', **changes):
  flags = {
    'output': 'r', 'model': 'model', 'data': 'data.tsv', 'validation': 'valid.tsv',
    'test': 'test.tsv', 'steps': 2, 'length': 2, 'eval_every': 1, 'save_every': 1, **changes,
  }  # fmt: skip
  return [verb, *sizes, *(f'--{name}={value}' for name, value in flags.items())]


@pytest.fixture
def copy(finished, here):
  """The run, copied with all that it reads."""
  shutil.copytree(finished, here, dirs_exist_ok=True)
  return here


def bytes_of(folder):
  return {n: (folder / f'{n}.safetensors').read_bytes() for n in ('initial', 'last', 'prompt')}


def test_other_names_of_the_same_contents_go_on(copy, sizes, capsys):
  shutil.move(copy / 'r', copy / 'moved')
  shutil.copy(copy / 'data.tsv', copy / 'other.tsv')
  shutil.copytree(copy / 'model', copy / 'model2')
  for flags in (
    {'output': 'moved/'},
    {'output': str(copy / 'moved'), 'data': str(copy / 'data.tsv')},
    {'output': './moved', 'data': 'other.tsv', 'model': 'model2/', 'validation': './valid.tsv'},
  ):
    assert main(command(sizes, **flags)) == 0
    assert resumed(2) in capsys.readouterr().out
  # What is recorded is what was said last.
  assert "DATA = 'other.tsv'" in (copy / 'moved' / 'operative_config.gin').read_text()


def test_other_contents_of_the_same_name_do_not(copy, sizes, capsys):
  before = bytes_of(copy / 'r')
  record = (copy / 'r' / 'operative_config.gin').read_bytes()
  for name, says in (('valid.tsv', 'validation'), ('data.tsv', 'examples')):
    good = (copy / name).read_text()
    (copy / name).write_text(good.replace('\tgood', '\t?').replace('\tbad', '\tgood')
                             .replace('\t?', '\tbad'))  # fmt: skip
    (copy / 'r' / 'command.txt').touch()
    assert main(command(sizes, steps=3)) == 2
    assert mentions(capsys.readouterr().err, says, 'output')
    (copy / name).write_text(good)
  assert bytes_of(copy / 'r') == before
  assert (copy / 'r' / 'operative_config.gin').read_bytes() == record  # a refused run leaves it
  assert main(command(sizes, steps=3)) == 0


def test_other_test_examples_are_measured_anew(copy, sizes):
  """They choose nothing."""
  measured = lambda: json.loads((copy / 'r' / 'results.json').read_text())['systems']
  before = measured()['tuned prompt']['scores'][0]['accuracy']
  lines = (copy / 'test.tsv').read_text().splitlines()
  swap = {'good': 'bad', 'bad': 'good'}
  rows = [line.split('\t') for line in lines[1:]]
  rows = [lines[0], *(f'{text}\t{swap[label]}' for text, label in rows)]
  (copy / 'test.tsv').write_text('\n'.join(rows) + '\n')
  assert main(command(sizes)) == 0
  assert measured()['tuned prompt']['scores'][0]['accuracy'] == pytest.approx(100 - before)
  told = (copy / 'r' / 'predictions.jsonl').read_text().splitlines()
  told = [json.loads(line) for line in told]
  assert [row['target'] for row in told] == [row.split('\t')[1] for row in rows[1:]]


def test_a_warm_start_by_another_name_goes_on(copy, sizes, capsys):
  shutil.copy(copy / 'r' / 'prompt.safetensors', copy / 'start.safetensors')
  warm = {'output': 'w', 'steps': 1, 'warm_start': 'start.safetensors'}
  assert main(command(sizes, **warm)) == 0
  shutil.move(copy / 'start.safetensors', copy / 'moved.safetensors')
  assert main(command(sizes, **{**warm, 'warm_start': 'moved.safetensors'})) == 0
  assert resumed(1) in capsys.readouterr().out
  other = {**warm, 'warm_start': 'r/initial.safetensors'}
  assert main(command(sizes, **other)) == 2
  assert mentions(capsys.readouterr().err, 'WARM_START', 'initial.safetensors')
  assert main(command(sizes, output='w', steps=1)) == 2
  assert 'WARM_START' in capsys.readouterr().err


def test_a_warm_start_takes_the_constants_that_its_parameters_go_with(copy, sizes, capsys):
  made = {'prompt': 'superpos', 'gin.PROMPT_SIZE': 3, 'steps': 1}
  assert main(command(sizes, output='a', seed=1, **made)) == 0
  warm = {**made, 'warm_start': 'a/prompt.safetensors'}
  assert main(command(sizes, output='b', seed=2, **warm)) == 0
  assert main(command(sizes, 'population', output='c', seeds=2, **warm)) == 0
  first = load_prompt(copy / 'a' / 'prompt.safetensors')
  files = [copy / 'b' / 'initial.safetensors', copy / 'b' / 'last.safetensors']
  for file in (*files, *(copy / 'c').rglob('initial.safetensors')):
    jax.tree.map(np.testing.assert_array_equal, load_prompt(file).constants, first.constants)
  jax.tree.map(np.testing.assert_array_equal, load_prompt(files[0]).params, first.params)
  assert main(command(sizes, output='d', **{**warm, 'gin.PROMPT_SIZE': 4})) == 2
  assert mentions(capsys.readouterr().err, 'basis', '[3, ', '[4, ', '--warm_start')


def test_a_warm_start_of_other_settings_is_told(copy, sizes, capsys):
  warm = {'output': 'w', 'steps': 1, 'warm_start': 'r/prompt.safetensors'}
  assert main(command(sizes, init='zeros', **warm)) == 0
  assert 'another setting' not in capsys.readouterr().err
  flags = {**warm, 'output': 'v', 'gin.PROMPT_PLACEMENT': "'after_eos'"}
  assert main(command(sizes, **flags)) == 0
  assert mentions(capsys.readouterr().err, 'placement', 'before', 'after_eos')


NAMES = (
  'initial.safetensors', 'prompt.safetensors', 'metrics.jsonl', 'operative_config.gin', 'state',
)  # fmt: skip


@pytest.mark.parametrize('name', NAMES)
def test_a_damaged_file_is_told_when_a_run_goes_on(copy, sizes, capsys, name):
  path = copy / 'r' / name
  path = path if path.is_file() else max((p for p in path.rglob('*') if p.is_file()), key=_size)
  good = path.read_bytes()
  place = np.random.default_rng(len(name)).integers(len(good))
  for bad in (good[:place] + bytes([good[place] ^ 0xFF]) + good[place + 1 :], good[:place], b''):
    path.write_bytes(bad)
    assert main(command(sizes, steps=3)) == 2
    said = capsys.readouterr().err
    assert mentions(said, str(path.relative_to(copy)) if name != 'state' else 'r/state', 'again')
    assert 'damaged' in said
  path.write_bytes(good)
  assert main(command(sizes, steps=3)) == 0


def _size(path):
  return path.stat().st_size


def test_a_damaged_file_is_told_where_it_is_read(copy, sizes, capsys):
  read = {
    'results.json': ['report', 'r'],
    'metrics.jsonl': ['report', 'r'],
    'operative_config.gin': ['report', 'r'],
    'predictions.jsonl': ['compare', 'r', 'r'],
    'prompt.safetensors': ['inspect', 'r/prompt.safetensors'],
    'last.safetensors': ['eval', '--data=test.tsv', '--prompt_file=r/last.safetensors'],
  }
  for name, argv in read.items():
    good = (copy / 'r' / name).read_bytes()
    for bad in (good.replace(b'0', b'1'), good[:-1]):
      assert bad != good
      (copy / 'r' / name).write_bytes(bad)
      main(argv)
      streams = capsys.readouterr()
      assert 'damaged' in streams.out + streams.err, (name, streams)
    (copy / 'r' / name).write_bytes(good)
  main(['report', 'r'])
  assert 'damaged' not in capsys.readouterr().out


def test_files_of_a_population_and_of_pretraining(copy, sizes, capsys):
  flags = {'output': 'p', 'seeds': '0,1', 'verb': 'population'}
  assert main(command(sizes, **flags)) == 0
  text = '\n\n'.join(f'the {i} birds sing of {i * 7} old trees and a river' for i in range(300))
  (copy / 'corpus.txt').write_text(text)
  pretrain = [
    'pretrain', '--corpus=corpus.txt', '--vocabulary=bytes', '--steps=2', '--adapt_steps=1',
    '--output=m', '--batch_size=2', '--input_length=16', '--target_length=8',
    '--gin.T5Config.vocab_size=384', '--gin.T5Config.emb_dim=16', '--gin.T5Config.num_heads=1',
    '--gin.T5Config.head_dim=16', '--gin.T5Config.mlp_dim=16', '--save_every=1', '--warmup_steps=0',
  ]  # fmt: skip
  assert main(pretrain) == 0
  for path, argv in (
    ('p/seed_1/metrics.jsonl', command(sizes, **flags)),
    ('p/seed_1/prompt.safetensors', command(sizes, **flags)),
    ('p/seed_0/initial.safetensors', command(sizes, **flags)),
    ('m/runs/span_corruption/metrics.jsonl', pretrain),
    ('m/operative_config.gin', pretrain),
  ):
    good = (copy / path).read_bytes()
    (copy / path).write_bytes(good[:20] + bytes([good[20] ^ 1]) + good[21:])
    assert main(argv) == 2
    assert mentions(capsys.readouterr().err, path, 'damaged', 'again')
    (copy / path).write_bytes(good)
  capsys.readouterr()
  shutil.copytree(copy / 'm', copy / 'm2')
  shutil.copy(copy / 'corpus.txt', copy / 'same.txt')
  again = [a.replace('=corpus.txt', '=./same.txt').replace('=m', '=m2/') for a in pretrain]
  assert main(again) == 0
  assert resumed(2) in capsys.readouterr().out
  assert load_prompt(copy / 'p/seed_1/prompt.safetensors').metadata['seed'] == 1
