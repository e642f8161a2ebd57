"""`prompt-jax train` on a mesh, and with its frozen weights in int8."""

import json

import numpy as np
import pytest

from prompt_jax.checkpoints.prompt_file import load_prompt
from prompt_jax.main import main

FLAGS = ['--length=4', '--steps=2', '--seed=3']


def train(model, reviews, sizes, folder, *more):
  data = [f'--data={reviews}', f'--validation={reviews}', f'--model={model}']
  assert main(['train', *data, *sizes, *FLAGS, f'--output={folder}', *more]) == 0
  return json.loads((folder / 'metrics.jsonl').read_text().splitlines()[-1])


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


def test_weights_in_int8_train_a_prompt(model, reviews, sizes, tmp_path):
  train(model, reviews, sizes, tmp_path / 'int8', "--gin.WEIGHTS='int8'", '--gin.QUERY_CHUNK=8')
  assert (tmp_path / 'int8' / 'prompt.safetensors').exists()


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (['--mesh=64x1'], 'mesh 64x1 needs 64 devices'),
    (['--mesh=4'], "'4' is no mesh; write DATAxMODEL devices, as 4x2"),
    (['--layout=tensr'], "Unknown layout 'tensr'. Did you mean 'tensor'"),
    (["--gin.WEIGHTS='int4'"], "WEIGHTS is 'int4'; expected None or int8"),
    (["--gin.WEIGHTS='int8'", '--train=all'], 'Weights in int8 cannot be trained'),
  ],
)
def test_what_cannot_be_is_refused(model, reviews, tmp_path, capsys, flags, message):
  command = ['train', f'--data={reviews}', f'--model={model}', f'--output={tmp_path / "out"}']
  assert main([*command, *flags]) == 2
  assert message in capsys.readouterr().err
