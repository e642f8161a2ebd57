"""`prompt-jax train` on a mesh, and with its frozen weights in int8."""

import json

import numpy as np
import pytest

from prompt_jax.checkpoints.prompt_file import load_prompt
from prompt_jax.cli.main import main
from tests.shared import mentions

FLAGS = ['--length=4', '--steps=2', '--seed=3']


def train(model, reviews, sizes, folder, *more):
  data = [f'--data={reviews}', f'--validation={reviews}', f'--model={model}']
  assert main(['train', *data, *sizes, *FLAGS, f'--output={folder}', *more]) == 0
  return last_step(folder)


def last_step(folder):
  lines = (folder / 'metrics.jsonl').read_text().splitlines()
  return [record for record in map(json.loads, lines) if record['kind'] == 'train'][-1]


def test_a_mesh_of_one_device_trains_as_no_mesh_does(model, reviews, sizes, tmp_path):
  plain = train(model, reviews, sizes, tmp_path / 'plain')
  meshed = train(model, reviews, sizes, tmp_path / 'mesh', '--mesh=1x1', '--layout=2d')
  for name in ('loss', 'grad_norm', 'update_norm'):
    assert meshed[name] == pytest.approx(plain[name], rel=1e-5)
  rows = [
    load_prompt(tmp_path / f / 'prompt.safetensors').params['encoder']['prompt']
    for f in ('plain', 'mesh')
  ]
  np.testing.assert_allclose(*rows, rtol=1e-4)


def test_a_prompt_on_weights_in_int8(model, reviews, sizes, tmp_path, capsys):
  int8 = "--gin.WEIGHTS='int8'"
  train(model, reviews, sizes, tmp_path / 'one', int8, '--gin.QUERY_CHUNK=8')
  prompt = str(tmp_path / 'one/prompt.safetensors')
  found = {}
  for name, flags in {'plain': [], 'int8': [int8]}.items():
    out = tmp_path / name
    evaluate = ['eval', f'--prompt_file={prompt}', f'--data={reviews}', f'--output={out}']
    assert main([*evaluate, *flags]) == 0
    lines = (out / 'predictions.jsonl').read_text().splitlines()
    found[name] = np.array([list(json.loads(line)['scores'].values()) for line in lines])
  assert 0 < np.abs(found['int8'] - found['plain']).max() < 0.5
  capsys.readouterr()
  assert main(['infer', f'--prompt_file={prompt}', int8, 'it was good']) == 0
  assert capsys.readouterr().out.split('\t')[0] in ('good', 'bad')


def test_a_population_on_weights_in_int8(model, reviews, sizes, tmp_path):
  int8 = "--gin.WEIGHTS='int8'"
  alone = train(model, reviews, sizes, tmp_path / 'alone', int8)
  data = [f'--data={reviews}', f'--validation={reviews}', f'--model={model}']
  command = ['population', *data, *sizes, '--length=4', '--steps=2', '--seeds=3,4', int8]
  assert main([*command, f'--output={tmp_path / "all"}']) == 0
  assert last_step(tmp_path / 'all/seed_3')['loss'] == pytest.approx(alone['loss'], rel=1e-5)


def test_trained_weights_are_not_stored_in_int8(model, reviews, sizes, tmp_path, capsys):
  data = [f'--data={reviews}', f'--model={model}', *sizes, '--steps=1']
  assert main(['train', *data, '--train=all', f'--output={tmp_path / "out"}']) == 0
  file = str(tmp_path / 'out/weights.safetensors')
  command = ['eval', f'--prompt_file={file}', f'--data={reviews}', "--gin.WEIGHTS='int8'"]
  assert main(command) == 2
  assert mentions(capsys.readouterr().err, 'weights', 'train')


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (['--mesh=64x1'], ('64x1', '64')),
    (['--mesh=4'], ("'4'", '4x2')),
    (['--mesh=1x1', '--slices=2'], ('2', 'slices')),
    (['--slices=2'], ('slices', 'mesh')),
    (['--slices=0'], ('1', 'whole number')),
    (['--layout=tensr'], ("'tensr'", "'tensor'")),
    (["--gin.WEIGHTS='int4'"], ("'int4'", 'None', 'int8')),
    (["--gin.WEIGHTS='int8'", '--train=all'], ('int8', 'train')),
  ],
)
def test_what_cannot_be_is_refused(model, reviews, tmp_path, capsys, flags, message):
  command = ['train', f'--data={reviews}', f'--model={model}', f'--output={tmp_path / "out"}']
  assert main([*command, *flags]) == 2
  assert mentions(capsys.readouterr().err, *message)
