"""Whole runs of several prompts on the toy model: each ends as a run of its own."""

import dataclasses

import jax
import numpy as np
import pytest
from toy_model import toy_variables
from toy_run import ToyStream, toy_members, toy_train, toy_train_members

from prompt_jax.checkpoints.prompt_file import load_prompt
from prompt_jax.errors import UserError
from prompt_jax.training import optim
from prompt_jax.training.members import worse_half
from prompt_jax.training.records import read_records
from tests.shared import facts, mentions

OPTIONS = {
  'steps': 12,
  'eval_every': 3,
  'save_every': 4,
  'log_every': 2,
  'mode': 'min',
  'microbatches': 2,
}
RATES = (0.3, 0.1, 1.0)


@pytest.fixture(scope='module')
def finished(tmp_path_factory):
  folder = tmp_path_factory.mktemp('together')
  return folder, toy_train_members(folder, **OPTIONS)


@pytest.fixture(scope='module')
def apart(tmp_path_factory):
  """The same prompts, one run after the other."""
  backbone = toy_variables()['params']['backbone']
  results = []
  for k, rate in enumerate(RATES):
    variables = toy_variables(k)
    variables['params'] = {**variables['params'], 'backbone': backbone}
    results.append(
      toy_train(
        tmp_path_factory.mktemp(f'apart_{k}'),
        seed=k,
        variables=variables,
        tx=optim.adafactor(rate),
        stream=ToyStream(first=1000 * k),
        metric='loss',
        **OPTIONS,
      )
    )
  return results


def test_each_prompt_leaves_what_a_run_of_its_own_leaves(finished, apart):
  folder, results = finished
  for k, (found, want) in enumerate(zip(results, apart, strict=True)):
    assert found.folder == folder / f'seed_{k}'
    assert (found.step, found.selection.step) == (want.step, want.selection.step)
    np.testing.assert_allclose(found.selection.best, want.selection.best, rtol=1e-4)
    for name in ('prompt.safetensors', 'last.safetensors', 'initial.safetensors'):
      one, other = load_prompt(found.folder / name), load_prompt(want.folder / name)
      np.testing.assert_allclose(one.params['prompt'], other.params['prompt'], atol=1e-4)
      assert one.metadata['step'] == other.metadata['step']
      assert one.metadata['seed'] == other.metadata['seed'] == k
    records = [read_records(r.folder / 'metrics.jsonl') for r in (found, want)]
    assert [(r['step'], r['kind']) for r in records[0]] == [
      (r['step'], r['kind']) for r in records[1]
    ]
    for one, other in zip(*records, strict=True):
      np.testing.assert_allclose(one['loss'], other['loss'], rtol=1e-4)
    assert (found.folder / 'curve.png').is_file()
    assert not (found.folder / 'state').exists()


def test_a_stopped_population_goes_on_to_the_same_bytes(finished, tmp_path):
  folder, _ = finished
  streams = [ToyStream(first=1000 * k) for k in range(3)]
  toy_train_members(tmp_path, toy_members(streams=streams), **{**OPTIONS, 'steps': 5})
  toy_train_members(tmp_path, **OPTIONS)
  for k in range(3):
    for name in ('prompt.safetensors', 'last.safetensors', 'initial.safetensors'):
      path = f'seed_{k}/{name}'
      assert (tmp_path / path).read_bytes() == (folder / path).read_bytes(), path


def test_other_prompts_in_the_same_folder_are_refused(finished):
  folder, _ = finished
  with pytest.raises(UserError, match='seed_0, seed_1, seed_2'):
    toy_train_members(folder, toy_members((0.3, 0.1)), **OPTIONS)
  renamed = [dataclasses.replace(m, seed=m.seed + 1) for m in toy_members()]
  with pytest.raises(UserError, match=facts('seed_0', '0', '1')):
    toy_train_members(folder, renamed, **OPTIONS)


def scripted(values):
  """An evaluation that gives member k the values [k], one at each call."""
  left = {k: iter(of_member) for k, of_member in values.items()}
  return lambda numbers, trainables: [{'loss': next(left[k])} for k in numbers]


def test_patience_is_each_prompts_own(tmp_path, apart):
  values = {0: [0.5, 0.6, 0.7], 1: [0.9, 0.8, 0.7, 0.6], 2: [0.4, 0.3, 0.3, 0.3]}
  results = toy_train_members(tmp_path, evaluate=scripted(values), patience=2, **OPTIONS)
  assert [r.step for r in results] == [9, 12, 12]
  assert [r.selection.step for r in results] == [3, 12, 6]
  assert [r.ended and r.ended.why for r in results] == ['patience', None, 'patience']
  # What went on is not disturbed by what stopped, and what stopped trained no more.
  np.testing.assert_allclose(
    results[1].trainable['prompt']['prompt'], apart[1].trainable['prompt']['prompt'], atol=1e-4
  )
  last = load_prompt(tmp_path / 'seed_0' / 'last.safetensors')
  assert last.metadata['step'] == 9
  difference = last.params['prompt'] - apart[0].trainable['prompt']['prompt']
  assert np.abs(difference).max() > 1e-3
  steps = [r['step'] for r in read_records(tmp_path / 'seed_0' / 'metrics.jsonl')]
  assert max(steps) == 9


def test_halving_drops_the_worse_half_at_each_rung(tmp_path):
  values = {0: [0.5, 0.5], 1: [0.9], 2: [0.4, 0.6, 0.7, 0.1], 3: [0.8]}
  results = toy_train_members(
    tmp_path, toy_members((0.3,) * 4), evaluate=scripted(values), rungs=(3, 6), **OPTIONS
  )
  assert [r.step for r in results] == [6, 3, 12, 3]
  # 0.4 at step 3 is better than 0.5 at step 6: the best so far counts.
  assert [r.ended and r.ended.why for r in results] == ['halving', 'halving', None, 'halving']


def test_worse_half():
  assert worse_half({0: 0.1, 4: 0.9, 5: 0.5}, 'max') == [0]
  assert worse_half({0: 0.1, 4: 0.9, 5: 0.5}, 'min') == [4]
  assert worse_half({0: 0.5, 1: 0.5, 2: 0.5, 3: 0.5}, 'max') == [2, 3]
  assert worse_half({0: None, 1: -1.0}, 'max') == [0]
  assert worse_half({3: 1.0}, 'max') == []


@pytest.mark.parametrize('rung', [0, 4, 12, 15])
def test_rungs_without_an_evaluation_are_refused(rung, tmp_path):
  with pytest.raises(UserError, match=facts(str(rung), 'eval_every', '3')):
    toy_train_members(tmp_path, rungs=(rung,), **OPTIONS)


def test_a_prompt_that_diverges_leaves_and_the_others_go_on(tmp_path, apart, capsys):
  members = toy_members()
  members[1] = dataclasses.replace(members[1], update=optim.Update(optim.adafactor(1e38)))
  results = toy_train_members(tmp_path, members, **OPTIONS)
  assert results[1].ended.why == 'diverged'
  assert results[1].step == 1
  assert not results[1].file.exists()
  assert mentions(capsys.readouterr().out, 'seed_1', 'update_norm', 'inf')
  for k in (0, 2):
    np.testing.assert_allclose(
      results[k].trainable['prompt']['prompt'], apart[k].trainable['prompt']['prompt'], atol=1e-4
    )
  again = toy_train_members(tmp_path, members, **{**OPTIONS, 'steps': 14})
  assert [r.step for r in again] == [14, 1, 14]


@pytest.mark.parametrize('at', [7, 9])  # 9: seen while that step is evaluated
def test_the_last_to_go_on_may_diverge_and_the_others_keep_their_results(at, tmp_path):
  members = toy_members()
  rate = lambda step: jax.numpy.where(step < at - 1, 0.1, 1e38)
  members[1] = dataclasses.replace(members[1], update=optim.Update(optim.adafactor(rate)))
  values = {0: [0.5, 0.6], 1: [0.9, 0.8], 2: [0.4, 0.4]}
  options = {**OPTIONS, 'patience': 1}
  results = toy_train_members(tmp_path, members, evaluate=scripted(values), **options)
  assert [(r.ended.step, r.ended.why) for r in results] == [
    (6, 'patience'), (at, 'diverged'), (6, 'patience')
  ]  # fmt: skip
  assert [r.selection.step for r in results] == [3, 6, 3]
  assert load_prompt(results[1].file).metadata['step'] == 6
  again = toy_train_members(tmp_path, members, evaluate=scripted(values), **options)
  assert [r.ended for r in again] == [r.ended for r in results]


def test_a_population_of_which_all_diverge_is_an_error(tmp_path):
  members = [
    dataclasses.replace(m, update=optim.Update(optim.adafactor(1e38))) for m in toy_members()
  ]
  with pytest.raises(UserError, match=facts('update_norm', 'inf', 'step 1', 'seed_2')):
    toy_train_members(tmp_path, members, **OPTIONS)


def test_one_step_after_another_saves_memory_and_changes_nothing(finished, tmp_path):
  _, want = finished
  found = toy_train_members(tmp_path, at_once=1, **OPTIONS)
  close = lambda a, b: np.testing.assert_allclose(a, b, atol=1e-4)
  for one, other in zip(found, want, strict=True):
    jax.tree.map(close, one.trainable, other.trainable)


def test_a_warm_start_is_each_prompts_own(finished, tmp_path):
  _, results = finished
  members = toy_members()
  members[2] = dataclasses.replace(members[2], warm_start=str(results[0].file))
  toy_train_members(tmp_path, members, **{**OPTIONS, 'steps': 1})
  began = [load_prompt(tmp_path / f'seed_{k}' / 'initial.safetensors') for k in range(3)]
  want = load_prompt(results[0].file).params['prompt']
  np.testing.assert_array_equal(began[2].params['prompt'], want)
  fresh = toy_variables(1)['params']['prompt']['prompt']
  np.testing.assert_array_equal(began[1].params['prompt'], fresh)


def test_the_shared_model_cannot_train(tmp_path):
  with pytest.raises(UserError, match='backbone'):
    toy_train_members(tmp_path, patterns=('backbone/.*',), **OPTIONS)


def test_halving_needs_a_validation_metric(tmp_path):
  members = toy_members(metric=None)
  with pytest.raises(UserError, match='validation'):
    toy_train_members(tmp_path, members, rungs=(3,), **OPTIONS)
