"""Whole runs on the toy model: what they leave, how they go on, and what stops them."""

import json
import math
import os
import signal
import threading
import time
import warnings

import jax
import numpy as np
import optax
import pytest
from rich.console import Console
from safetensors.numpy import load_file
from toy_model import toy_batch, toy_variables
from toy_run import ToyStream, toy_train

from prompt_jax.checkpoints.prompt_file import load_prompt
from prompt_jax.errors import UserError
from prompt_jax.training import loop, optim
from prompt_jax.training.monitor import Progress
from prompt_jax.training.records import Records, read_records
from prompt_jax.training.run_folder import locked
from prompt_jax.training.settings import Settings
from prompt_jax.training.streams import Prefetch
from tests.shared import facts, mentions

OPTIONS = {
  'steps': 20,
  'eval_every': 5,
  'save_every': 4,
  'log_every': 2,
  'metric': 'loss',
  'mode': 'min',
  'microbatches': 2,
  'eval_at_start': True,
}


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  folder = tmp_path_factory.mktemp('finished')
  return toy_train(folder, **OPTIONS)


def prompt_of(folder, name='last.safetensors'):
  return load_prompt(folder / name).params['prompt']


def test_a_run_leaves_what_the_docstring_says(finished):
  folder = finished.folder
  assert finished.step == 20
  best = load_prompt(folder / 'prompt.safetensors')
  assert finished.file == folder / 'prompt.safetensors'
  assert best.metadata['step'] == finished.selection.step
  assert best.metadata['value'] == finished.selection.best
  assert best.metadata['metric'] == 'loss'
  np.testing.assert_array_equal(prompt_of(folder), finished.trainable['prompt']['prompt'])
  fresh = toy_variables()['params']['prompt']['prompt']
  np.testing.assert_array_equal(best.initial['prompt'], fresh)
  np.testing.assert_array_equal(prompt_of(folder, 'initial.safetensors'), fresh)
  assert float(np.abs(prompt_of(folder) - fresh).max()) > 0.1
  np.testing.assert_array_equal(best.constants['scale'], np.ones(6))
  assert (folder / 'curve.png').read_bytes().startswith(b'\x89PNG')


def test_the_records_are_the_curve(finished):
  records = read_records(finished.folder / 'metrics.jsonl')
  train = [r['step'] for r in records if r['kind'] == 'train']
  evaluated = {r['step']: r['loss'] for r in records if r['kind'] == 'eval'}
  assert train == list(range(2, 21, 2))
  assert list(evaluated) == [0, 5, 10, 15, 20]
  assert min(evaluated.values()) == finished.selection.best
  assert evaluated[20] == finished.metrics['loss']
  assert all(math.isfinite(r['loss']) and r['tokens'] > 0 for r in records if r['kind'] == 'train')


def test_a_stopped_run_goes_on_to_the_same_bytes(finished, tmp_path):
  """The data are taken up at the batch after the last consumed one, not after the prefetched."""
  toy_train(tmp_path, **{**OPTIONS, 'steps': 7})
  stream = ToyStream()
  again = toy_train(tmp_path, **OPTIONS, stream=stream)
  for name in ('last.safetensors', 'prompt.safetensors'):
    assert (tmp_path / name).read_bytes() == (finished.folder / name).read_bytes()
  assert again.selection.best <= finished.selection.best
  assert stream.taken <= 13 + OPTIONS.get('prefetch', 2) + 1
  steps = [r['step'] for r in read_records(tmp_path / 'metrics.jsonl') if r['kind'] == 'train']
  assert steps == sorted(set(steps))


def test_a_finished_run_trains_no_more(finished):
  before = (finished.folder / 'last.safetensors').read_bytes()
  stream = ToyStream()
  again = toy_train(finished.folder, **OPTIONS, stream=stream)
  assert stream.taken == 0
  assert again.metrics == finished.metrics
  assert (finished.folder / 'last.safetensors').read_bytes() == before


def test_another_backbone_fails_printing_both_fingerprints(finished):
  theirs = load_prompt(finished.file).metadata['fingerprint']
  with pytest.raises(UserError, match=facts('fingerprint', theirs)):
    toy_train(finished.folder, backbone_seed=1, **OPTIONS)


def test_another_seed_or_optimizer_fails(finished):
  with pytest.raises(UserError, match=facts('seed', '0', '1')):
    toy_train(finished.folder, **OPTIONS, seed=1)
  with pytest.raises(UserError, match='saved'):
    toy_train(finished.folder, tx=optim.adamw(0.1), **OPTIONS)


def test_warm_start_begins_with_the_prompt_of_a_file(finished, tmp_path):
  first = str(finished.file)
  result = toy_train(
    tmp_path, tx=optax.sgd(0.0), **{**OPTIONS, 'steps': 1, 'warm_start': first, 'eval_every': 0}
  )
  np.testing.assert_array_equal(
    result.trainable['prompt']['prompt'], prompt_of(finished.folder, 'prompt.safetensors')
  )
  np.testing.assert_array_equal(
    load_prompt(result.file).initial['prompt'], prompt_of(finished.folder, 'prompt.safetensors')
  )


def test_warm_start_refuses_another_model(finished, tmp_path):
  with pytest.raises(UserError, match=facts("'toy-0'", "'toy-1'")):
    toy_train(tmp_path, backbone_seed=1, **OPTIONS, warm_start=str(finished.file))


def test_another_pattern_trains_weights_and_leaves_the_prompt(tmp_path):
  result = toy_train(tmp_path, patterns=('backbone/.*',), steps=2, eval_every=0)
  assert result.file.name == 'weights.safetensors'
  names = {name for name in load_file(result.file) if name.startswith('params/')}
  assert len({name for name in names if name.startswith('params/backbone/')}) == 5
  # And the prompt that they were trained with.
  assert {name for name in names if name.startswith('params/prompt/')}
  assert not (tmp_path / 'initial.safetensors').exists()
  with pytest.raises(UserError, match="'weights'"):
    load_prompt(result.file)


def test_the_callers_arrays_are_bit_identical_after_a_run(tmp_path):
  """Frozen leaves are never changed, and nothing but the train state is donated."""
  for folder, settings in (('prompt', {}), ('all', {'patterns': ('.*',)})):
    variables = toy_variables()
    before = jax.tree.map(lambda x: np.array(x, copy=True), variables)
    with warnings.catch_warnings():
      # Where a donated array is not reused, as frozen ones on a CPU, JAX warns.
      warnings.filterwarnings('error', message='.*donated')
      toy_train(tmp_path / folder, variables=variables, steps=3, **settings)
    jax.tree.map(np.testing.assert_array_equal, before, variables)


def test_nan_stops_the_run_and_names_the_step(tmp_path):
  class Spoilt(ToyStream):
    def __iter__(self):
      for n, batch in enumerate(super().__iter__(), start=1):
        if n == 6:
          weights = np.array(batch.decoder_loss_weights)
          weights[0, 0] = np.nan
          batch = batch.replace(decoder_loss_weights=weights)
        yield batch

  with pytest.raises(UserError, match=facts('loss', 'nan', 'step 6')):
    toy_train(tmp_path, steps=20, save_every=1, stream=Spoilt())
  # Step 6 was never saved.
  assert sorted(p.name for p in (tmp_path / 'state').iterdir() if p.name.isdigit()) == ['5']


def test_patience_ends_the_run_and_the_best_stays(tmp_path):
  values = iter([0.5, 0.7, 0.6, 0.7, 0.9])
  result = toy_train(
    tmp_path,
    evaluate=lambda trainable: {'accuracy': next(values)},
    steps=50,
    eval_every=2,
    metric='accuracy',
    patience=2,
  )
  assert (result.step, result.selection.step, result.selection.best) == (8, 4, 0.7)
  assert load_prompt(result.file).metadata['step'] == 4
  again = toy_train(
    tmp_path, evaluate=lambda trainable: {'accuracy': 1.0}, steps=50, metric='accuracy', patience=2
  )
  assert again.step == 8


def test_an_unknown_metric_names_those_that_there_are(tmp_path):
  with pytest.raises(UserError, match=facts("'acuracy'", 'accuracy')):
    toy_train(tmp_path, steps=1, metric='acuracy')


def test_data_that_end_are_an_error(tmp_path):
  with pytest.raises(UserError, match=facts('step 3', '20')):
    toy_train(tmp_path, stream=ToyStream(end=3))


def test_an_error_of_the_data_reaches_the_caller(tmp_path):
  class Broken(ToyStream):
    def __iter__(self):
      yield toy_batch(8)
      raise UserError('line 7 has no label')

  with pytest.raises(UserError, match='line 7 has no label'):
    toy_train(tmp_path, stream=Broken())
  assert not [t for t in threading.enumerate() if t.name == 'prefetch']


def test_the_loop_forbids_implicit_transfers(tmp_path, monkeypatch):
  """Batches that the prefetcher left on the host would be copied at every step, unseen."""
  monkeypatch.setattr(jax, 'device_put', lambda x, device=None: x)
  with pytest.raises(Exception, match='Disallowed host-to-device transfer'):
    toy_train(tmp_path, steps=2)


def test_prefetch_gives_the_position_after_each_batch():
  stream = ToyStream(end=5)
  with Prefetch(stream, ahead=3) as batches:
    taken = list(batches)  # The stream has moved on by the time positions are read.
  assert [position['next'] for _, position in taken] == [1, 2, 3, 4, 5]


def test_prefetch_stops_when_the_consumer_leaves():
  with Prefetch(ToyStream(), ahead=1) as batches:
    next(iter(batches))
  assert not [t for t in threading.enumerate() if t.name == 'prefetch']


def test_learning_goes_through_the_loop(tmp_path):
  """The first target depends on the input; with all weights trained the loss must fall."""
  toy_train(
    tmp_path,
    patterns=('.*',),
    tx=optim.adamw(0.02),
    steps=150,
    log_every=10,
    save_every=0,
    eval_every=0,
    dropout=False,
  )
  curve = [r['cross_entropy'] for r in read_records(tmp_path / 'metrics.jsonl')]
  assert curve[-1] < curve[0] - 0.15


def test_progress_is_plain_lines_where_there_is_no_terminal(capsys):
  with Progress(10, 0, Console(force_terminal=False, width=80)) as progress:
    for step in range(1, 11):
      progress.update(step, 0.5, log=step == 5)
  out = capsys.readouterr().out
  assert out.count('\n') == 1
  assert mentions(out, '5/10', '0.5000')
  assert 'ends' in out


def test_progress_is_a_bar_on_a_terminal(capsys):
  with Progress(10, 0, Console(force_terminal=True, width=120)) as progress:
    progress.update(10, 0.25, log=False)
    progress.say('step 10: accuracy 0.9')
  out = capsys.readouterr().out
  assert '10/10' in out
  assert '0.2500' in out
  assert mentions(out, '10', 'accuracy', '0.9')


def test_records_after_a_kill(tmp_path):
  """Later records and a line cut in two are dropped; earlier ones stay."""
  path = tmp_path / 'metrics.jsonl'
  lines = [json.dumps({'step': n, 'kind': 'train', 'loss': 1.0}) for n in (1, 2, 3)]
  path.write_text('\n'.join(lines) + '\n{"step": 4, "ki')
  Records(path, step=2).add(3, 'train', {'loss': 0.5})
  assert [(r['step'], r['loss']) for r in read_records(path)] == [(1, 1.0), (2, 1.0), (3, 0.5)]
  Records(path, step=0)
  assert read_records(path) == []


def test_settings_are_checked():
  for bad, match in (
    ({'steps': -1}, facts('steps', '-1')),
    ({'steps': 5, 'mode': 'maximum'}, "'maximum'"),
    ({'steps': 5, 'save_every': -1}, facts('save_every', '-1')),
    ({'steps': 1.5}, facts('steps', '1.5')),
    ({'steps': 5, 'seed': 2**32}, facts('seed', '4294967296')),
  ):
    with pytest.raises(UserError, match=match):
      Settings(**bad)


def test_patience_needs_a_validation_metric(tmp_path):
  with pytest.raises(UserError, match='validation'):
    toy_train(tmp_path, patience=3)


def test_fewer_steps_than_were_done_are_refused(finished):
  with pytest.raises(UserError, match=facts('20 steps', '5')):
    toy_train(finished.folder, steps=5)


def test_one_run_at_a_time_in_a_folder(tmp_path):
  with locked(tmp_path), pytest.raises(UserError, match='Another process'):
    toy_train(tmp_path)
  toy_train(tmp_path, steps=1)


def test_a_signal_after_the_last_step_is_not_lost(tmp_path, monkeypatch):
  plot = loop.plot_curve

  def interrupted(*args):
    os.kill(os.getpid(), signal.SIGTERM)
    plot(*args)

  monkeypatch.setattr(loop, 'plot_curve', interrupted)
  with pytest.raises(SystemExit) as e:
    toy_train(tmp_path, steps=2)
  assert e.value.code == 143
  assert (tmp_path / 'prompt.safetensors').exists()


def test_an_update_that_is_not_finite_is_not_saved(tmp_path):
  with pytest.raises(UserError, match=facts('update_norm', 'inf', 'step 1')):
    toy_train(tmp_path, tx=optim.adafactor(1e38), save_every=1, eval_every=0)
  assert not list((tmp_path / 'state').glob('[0-9]*'))


def test_evaluations_do_not_count_as_training_time(tmp_path):
  def slow(trainable):
    time.sleep(0.3)
    return {'loss': 0.0}

  toy_train(tmp_path, evaluate=slow, steps=6, eval_every=2, log_every=2)
  records = [r for r in read_records(tmp_path / 'metrics.jsonl') if r['kind'] == 'train']
  assert records[-1]['examples_per_second'] > 2 * 8 / 0.3


def test_a_short_run_records_its_loss(tmp_path):
  toy_train(tmp_path, steps=3, log_every=50)
  trained = [r for r in read_records(tmp_path / 'metrics.jsonl') if r['kind'] == 'train']
  assert [r['step'] for r in trained] == [1, 2, 3]
