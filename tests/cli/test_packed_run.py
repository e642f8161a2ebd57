"""`prompt-jax train --pack`, and what cannot be packed."""

import pytest

from prompt_jax.main import main
from prompt_jax.training.records import read_records


@pytest.fixture
def train(model, reviews, sizes, tmp_path) -> list[str]:
  out = str(tmp_path / 'out')
  return ['train', '--model', model, '--data', reviews, '--length=4', *sizes, '--output', out]


def test_a_packed_run_takes_as_many_examples_a_step_and_goes_on(train, tmp_path, capsys):
  packed = [*train, '--pack', '--gin.ROW_LENGTH=48', '--gin.EVAL_EVERY=0']
  assert main([*packed, '--steps=2']) == 0
  # Inputs of 15 or 16 bytes and 4 rows: two in a row of 40 positions.
  printed = ' '.join(capsys.readouterr().out.split())
  assert 'Packed: 8 examples a step in 4 rows of 40 positions' in printed
  assert main([*packed, '--steps=3', '--profile']) == 0
  printed = ' '.join(capsys.readouterr().out.split())
  assert 'Going on after step 2' in printed
  assert f'Profile of steps 3 to 3: {tmp_path / "out" / "profile"}' in printed
  records = read_records(tmp_path / 'out' / 'metrics.jsonl')
  assert [r['examples'] for r in records if r['kind'] == 'train'] == [8, 8]
  # The same folder without --pack would be another run.
  assert main([*train, '--gin.EVAL_EVERY=0', '--steps=3']) == 2
  assert 'PACK' in capsys.readouterr().err


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (['--prompt=adept'], 'ADePT reads embeds of each input'),
    (['--gin.ROW_LENGTH=10'], 'takes 20 positions, 4 of them for the prompt'),
    (['--gin.ROW_LENGTH=10', '--gin.PROMPT_SEES_INPUT=False'], 'takes 16 positions, 0 of them'),
  ],
)
def test_what_cannot_be_packed_is_refused(train, flags, message, capsys):
  assert main([*train, '--pack', '--steps=2', *flags]) == 2
  err = capsys.readouterr().err
  assert message in err
  assert 'Traceback' not in err
