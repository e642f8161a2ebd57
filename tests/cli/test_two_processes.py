"""`prompt-jax train` of two processes over loopback: what it writes is what one process writes."""

import json

import numpy as np
import pytest

from prompt_jax.checkpoints.prompt_file import load_prompt
from prompt_jax.main import main
from tests.several import Processes, forkserver, free_port, run_command


@pytest.fixture(scope='module')
def server():
  with forkserver('tests.several') as context:
    yield context


def test_two_processes_with_parts_of_a_model_write_what_one_with_all_of_it_does(
  server, model, reviews, sizes, tmp_path
):
  """Each holds half of every matrix; scores, predictions and prompt are those of one process."""
  runs = '--length=4', '--steps=20', '--seed=3', '--gin.EVAL_EVERY=20'
  flags = ['train', f'--data={reviews}', f'--model={model}', *sizes, *runs]
  assert main([*flags, '--mesh=1x1', f'--output={tmp_path / "one"}']) == 0
  where = [f'--coordinator=127.0.0.1:{free_port()}', '--processes=2', '--mesh=1x2']
  flags = [*flags, *where, '--layout=tensor']
  commands = [
    [*flags, f'--process={i}', f'--output={tmp_path / name}']
    for i, name in enumerate(('two', 'no'))
  ]
  (code, output), (other, silent) = Processes(
    server, run_command, [[command] for command in commands]
  ).finish()
  assert (code, other) == (0, 0), output + silent
  assert 'accuracy' in output
  assert [line for line in silent.splitlines() if '[Gloo]' not in line] == []
  assert not (tmp_path / 'no').exists()
  one, two = (json.loads((tmp_path / n / 'results.json').read_text()) for n in ('one', 'two'))
  assert one == two
  for a, b in zip(*(_predictions(tmp_path / n) for n in ('one', 'two')), strict=True):
    assert a['prediction'] == b['prediction']
    assert a['scores'] == pytest.approx(b['scores'], rel=1e-3)
  rows = [
    load_prompt(tmp_path / n / 'last.safetensors').params['encoder']['prompt']
    for n in ('one', 'two')
  ]
  np.testing.assert_allclose(*rows, rtol=1e-3, atol=1e-4)


def _predictions(folder):
  return [json.loads(line) for line in (folder / 'predictions.jsonl').read_text().splitlines()]


@pytest.mark.parametrize(
  ('given', 'message'),
  [
    (['--coordinator=a:1'], '--coordinator without --processes, --process: give all three'),
    (
      ['--coordinator=a', '--processes=2', '--process=0'],
      "is 'a'; expected HOST:PORT",
    ),
    (['--coordinator=a:1', '--processes=2', '--process=2'], 'expected at most 1'),
  ],
)
def test_impossible_flags(given, message, capsys):
  assert main(['train', '--task=docstrings_iid', *given]) == 2
  assert message in capsys.readouterr().err
