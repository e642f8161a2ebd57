"""`prompt-jax plan` from flags to files."""

import importlib.util
import json

import pytest

from prompt_jax.cli.main import main
from tests.shared import mentions

needs_libtpu = pytest.mark.skipif(
  importlib.util.find_spec('libtpu') is None, reason='libtpu is not installed'
)
TINY = ['plan', '--model=t5_1_1/tiny', '--topology=v5e-1', '--batch=4', '--inputs=28']


@needs_libtpu
def test_a_plan_is_printed_and_written_in_both_forms(tmp_path, capsys):
  for form in ('json', 'md'):
    assert main([*TINY, '--prompt=prefix', f'--output={tmp_path}/plan.{form}']) == 0
  shown = capsys.readouterr().out
  assert 'estimate s' in shown
  (found,) = json.loads((tmp_path / 'plan.json').read_text())
  assert found['setting']['topology'] == 'v5e-1'
  assert found['plan']['fits'] is True
  assert found['plan']['cost']['flops'] > 0
  header, _, row = (tmp_path / 'plan.md').read_text().splitlines()[:3]
  assert header.count('|') == row.count('|')
  assert '| v5e-1 | data | 1x1 | bfloat16 |' in row


@pytest.mark.parametrize(
  ('flags', 'message'),
  [
    (['plan', '--topology=v5e-1'], ('--model', 'gin/models')),
    (['plan', '--model=t5_1_1/huge'], ("'t5_1_1/huge'",)),
    ([*TINY, '--topology=v9-1'], ("'v9-1'",)),
    ([*TINY, '--step=train,fly'], ("'fly'",)),
    ([*TINY, '--output=plan.txt'], ('.json', '.md')),
    ([*TINY, '--remat=none'], ('remat', "'none'", 'cheap', 'all')),
    ([*TINY, '--attention=cudnn'], ('TPU', 'cudnn', 'GPU')),
    ([*TINY, '--microbatches=3'], ('3', 'microbatches')),
    ([*TINY, '--search', '--slices=2'], ('--slices', '--search')),
    ([*TINY, '--mesh=1x1', '--slices=2'], ('1', '2 x v5e-1', '2')),
    ([*TINY, '--fit', '--slices=2'], ('--slices', '--fit')),
    ([*TINY, '--fit', '--search'], ('--search', '--fit')),
    ([*TINY, '--fit', '--layout=tensors'], ("'tensors'",)),
    ([*TINY, '--topology=here,v5e-1'], ("'here'",)),
    ([*TINY, '--topology=here', '--search'], ('--search', 'TPU')),
    ([*TINY, '--topology=here', '--fit'], ('--fit', 'TPU')),
    ([*TINY, '--device=gpu'], ('--device',)),
    ([*TINY, '--topology=here', '--mesh=64x1'], ('64',)),
    ([*TINY, '--topology=here', '--device=gpu'], ('gpu',)),
    (['plan', '--model=/no/folder'], ("'/no/folder'",)),
  ],
)
def test_mistakes_are_told_in_a_line(flags, message, capsys):
  assert main(flags) == 2
  err = capsys.readouterr().err
  assert mentions(err, *message)
  assert len(err.splitlines()) == 1


@needs_libtpu
def test_a_search_by_the_compiler_finds_what_is_not_given(tmp_path):
  """Of a model whose weights take 20 GB in bfloat16 and 10 in int8, on a chip of 16."""
  sizes = {'emb_dim': 1024, 'mlp_dim': 8192, 'num_encoder_layers': 200, 'num_decoder_layers': 200}
  wide = ['--batch=2', *(f'--gin.T5Config.{name}={n}' for name, n in sizes.items())]
  found = lambda *flags: _found(tmp_path, *wide, *flags)
  assert found('--fit', '--layout=data')[0]['weights'] == 'int8'
  best = found('--search', '--layout=data', '--microbatches=2')
  assert [s['weights'] for s in best] == ['int8', 'int8']  # the best, and that of the least slice
  assert {s['microbatches'] for s in best} == {2}


def _found(folder, *flags):
  assert main([*TINY, *flags, f'--output={folder}/found.json']) == 0
  return [row['setting'] for row in json.loads((folder / 'found.json').read_text())]


@pytest.mark.parametrize('more', [[], ['--search'], ['--fit']])
def test_without_libtpu_the_extra_is_named(more, monkeypatch, capsys):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  assert main([*TINY, *more]) == 2
  assert "'.[tpu]'" in capsys.readouterr().err


def test_this_machine_is_planned_for_without_libtpu(tmp_path, monkeypatch, capsys):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  flags = [*TINY, '--topology=here', '--step=train,eval,decode', f'--output={tmp_path}/plan.json']
  assert main(flags) == 0
  assert 'estimate' in ' '.join(capsys.readouterr().out.split())
  train, rank, decode = json.loads((tmp_path / 'plan.json').read_text())
  assert [x['setting']['weights'] for x in (train, rank, decode)] == ['float32'] * 3
  for found in (train, rank, decode):
    assert found['plan']['fits'] is True
    assert found['plan']['memory']['temporaries'] > 0
    # What only the TPU compiler tells is not told.
    assert found['plan']['cost'] is None
    assert found['plan']['estimate_seconds'] is None
  assert train['plan']['ideal_seconds'] > 0
  assert rank['plan']['ideal_seconds'] is None


def test_a_model_folder_is_planned_by_its_shapes(model, tmp_path, capsys):
  small = ['plan', '--topology=here', '--batch=4', '--inputs=28', f'--output={tmp_path}/plan.json']
  assert main([*small, f'--model={model}']) == 0
  (found,) = json.loads((tmp_path / 'plan.json').read_text())
  parameters = 384 * 32 * 2 + 4 * 3 * 32 * 16 + 2 * 3 * 32 * 48
  assert 1 <= found['plan']['memory']['arguments'] / (4 * parameters) < 1.3
