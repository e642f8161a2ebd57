"""`prompt-jax train --pack`, and what cannot be packed."""

import subprocess
import sys

import pytest

from prompt_jax.cli.main import main
from prompt_jax.training.records import read_records
from tests.sharding.fake_devices import fake_devices
from tests.shared import mentions, resumed


@pytest.fixture
def train(model, reviews, sizes, tmp_path) -> list[str]:
  out = str(tmp_path / 'out')
  return ['train', '--model', model, '--data', reviews, '--length=4', *sizes, '--output', out]


def test_a_packed_run_takes_as_many_examples_a_step_and_goes_on(train, tmp_path, capsys):
  packed = [*train, '--pack', '--gin.ROW_LENGTH=48', '--gin.EVAL_EVERY=0']
  assert main([*packed, '--steps=2']) == 0
  # Inputs of 15 or 16 bytes and 4 rows: two in a row of 40 positions.
  printed = ' '.join(capsys.readouterr().out.split())
  assert mentions(printed, '8', '4', '40')
  assert main([*packed, '--steps=3', '--profile']) == 0
  printed = ' '.join(capsys.readouterr().out.split())
  assert resumed(2) in printed
  assert mentions(printed, '3', str(tmp_path / 'out' / 'profile'))
  records = read_records(tmp_path / 'out' / 'metrics.jsonl')
  assert [r['examples'] for r in records if r['kind'] == 'train'] == [8, 8, 8]
  # The same folder without --pack would be another run.
  assert main([*train, '--gin.EVAL_EVERY=0', '--steps=3']) == 2
  assert 'PACK' in capsys.readouterr().err


def test_on_a_mesh_rows_are_as_many_as_divide_and_the_loss_is_that_of_one_device(train, tmp_path):
  packed = [*train[:-2], '--pack', '--gin.ROW_LENGTH=48', '--steps=1', '--output']
  assert main([*packed, str(tmp_path / 'one')]) == 0
  # The number of devices is fixed when JAX starts.
  done = subprocess.run(
    [sys.executable, '-m', 'prompt_jax', *packed, str(tmp_path / 'eight'), '--mesh=8x1'],
    env=fake_devices(8),
    capture_output=True,
    text=True,
    timeout=400,
  )
  assert done.returncode == 0, done.stderr
  assert mentions(' '.join(done.stdout.split()), '8 examples', '8 rows')
  one, eight = (
    next(r for r in read_records(tmp_path / name / 'metrics.jsonl') if r['kind'] == 'train')
    for name in ('one', 'eight')
  )
  for name in ('loss', 'grad_norm', 'examples', 'tokens'):
    assert eight[name] == pytest.approx(one[name], rel=1e-5), name


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (['--prompt=adept'], ('ADePT', 'embeds')),
    (['--gin.ROW_LENGTH=10'], ('20 positions', '4')),
    (['--gin.ROW_LENGTH=10', '--gin.PROMPT_SEES_INPUT=False'], ('16 positions', '0')),
  ],
)
def test_what_cannot_be_packed_is_refused(train, flags, message, capsys):
  assert main([*train, '--pack', '--steps=2', *flags]) == 2
  err = capsys.readouterr().err
  assert mentions(err, *message)
  assert 'Traceback' not in err
