"""Shares and quotas of mixtures, and an order that goes through each task's examples in turn."""

import collections
import itertools
import math

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prompt_jax.data.batches import BatchStream
from prompt_jax.data.example import UNKNOWN, Lengths, TextExample, text_task
from prompt_jax.data.mixture import Mixing, mixture, order, quotas, shares
from prompt_jax.data.vocabulary import ByteVocabulary
from prompt_jax.errors import UserError
from tests.shared import facts

SIZES = {'a': 900, 'b': 90, 'c': 10}
LENGTHS = Lengths(20, 8)


def test_shares():
  approx = pytest.approx
  assert shares(SIZES, Mixing()) == approx({'a': 0.9, 'b': 0.09, 'c': 0.01})
  assert shares(SIZES, Mixing(cap=100)) == approx({'a': 0.5, 'b': 0.45, 'c': 0.05})
  assert shares(SIZES, Mixing('equal')) == approx(dict.fromkeys('abc', 1 / 3))
  assert shares(SIZES, Mixing('rates', rates={'a': 1, 'b': 2, 'c': 5})) == approx(
    {'a': 1 / 8, 'b': 2 / 8, 'c': 5 / 8}
  )
  total = math.sqrt(900) + math.sqrt(90) + math.sqrt(10)
  assert shares(SIZES, Mixing(temperature=2.0))['c'] == approx(math.sqrt(10) / total)
  assert shares(SIZES, Mixing(temperature=1e6)) == approx(dict.fromkeys('abc', 1 / 3), rel=1e-4)
  assert shares(SIZES, Mixing(temperature=1e-6)) == {'a': 1, 'b': 0, 'c': 0}


def test_impossible_mixings_are_refused():
  for arguments, says in (
    ({'how': 'some'}, facts('proportional', 'equal', 'rates')),
    ({'how': 'rates'}, 'rates'),
    ({'rates': {'a': 1}}, 'rates'),
    ({'how': 'equal', 'cap': 5}, facts('cap', "'proportional'")),
    ({'how': 'equal', 'temperature': 2.0}, facts('temperature', "'proportional'")),
    ({'cap': 0}, facts('cap', '1')),
    ({'temperature': 0.0}, facts('temperature', '0')),
    ({'temperature': float('nan')}, facts('temperature', '0')),
    ({'how': 'rates', 'rates': {'a': 0}}, 'positive'),
    ({'how': 'rates', 'rates': {'a': '2'}}, facts("'2'", 'positive')),
  ):
    with pytest.raises(UserError, match=says):
      Mixing(**arguments)
  with pytest.raises(UserError, match="'a'"):
    shares({'a': 1, 'b': 1}, Mixing('rates', rates={'a ': 1, 'b': 1}))
  with pytest.raises(UserError, match=facts('rates', 'b')):
    shares({'a': 1, 'b': 1}, Mixing('rates', rates={'a': 1}))


@settings(max_examples=60, deadline=None)
@given(
  sizes=st.lists(st.integers(1, 500), min_size=2, max_size=6),
  temperature=st.floats(0.5, 20),
  cap=st.none() | st.integers(1, 200),
)
def test_quotas_fill_an_epoch_and_forget_no_task(sizes, temperature, cap):
  named = {str(i): size for i, size in enumerate(sizes)}
  mixing = Mixing(temperature=temperature, cap=cap)
  found, share, total = quotas(named, mixing), shares(named, mixing), sum(sizes)
  assert min(found.values()) >= 1
  assert total <= sum(found.values()) < total + len(sizes)
  for name, count in found.items():
    assert count == 1 or abs(count - share[name] * total) <= 1


def test_what_is_drawn_and_its_order_are_random():
  tasks = ['a'] * 100 + ['b'] * 100
  whole = order(tasks, {'a': 100, 'b': 100}, seed=0, epoch=0)
  assert 30 < np.sum(whole[:100] < 100) < 70  # both tasks in every part of an epoch
  drawn = [order(tasks, {'a': 10, 'b': 10}, seed, epoch=0) for seed in (0, 1)]
  assert set(drawn[0]) != set(drawn[1])
  a, b = (set(drawn[0][drawn[0] // 100 == task] % 100) for task in (0, 1))
  assert a != b  # tasks of one size do not go in step


@settings(max_examples=40, deadline=None)
@given(
  sizes=st.lists(st.integers(1, 30), min_size=1, max_size=4),
  data=st.data(),
  seed=st.integers(0, 2**32 - 1),
)
def test_a_task_goes_through_its_examples_before_any_comes_again(sizes, data, seed):
  tasks = [str(i) for i, size in enumerate(sizes) for _ in range(size)]
  quota = {str(i): data.draw(st.integers(1, 40)) for i in range(len(sizes))}
  seen = collections.defaultdict(collections.Counter)
  for epoch in range(5):
    found = order(tasks, quota, seed, epoch)
    np.testing.assert_array_equal(found, order(np.array(tasks), quota, seed, epoch))
    assert collections.Counter(tasks[i] for i in found) == quota
    for i in found:
      seen[tasks[i]][i] += 1
    for name, size in zip(quota, sizes, strict=True):
      # Whole turns so far, and some a last time.
      times = [seen[name][i] for i, task in enumerate(tasks) if task == name]
      assert max(times) - min(times) <= 1
      assert sum(times) == (epoch + 1) * quota[name]
      assert len(times) == size


def test_epochs_and_seeds_and_tasks_differ():
  tasks = ['a'] * 50 + ['b'] * 50
  quota = {'a': 50, 'b': 50}
  found = [tuple(order(tasks, quota, seed, epoch)) for seed in (0, 1) for epoch in (0, 1)]
  assert len(set(found)) == 4
  rows = order(tasks, quota, 0, 0)
  assert [i for i in rows if i < 50] != [i - 50 for i in rows if i >= 50]


def task(name, size, splits=('train', 'validation'), labels=('yes', 'no')):
  def rows():
    label = lambda i: i % 2 if labels else None
    return [TextExample(f'{name} {i}', ('yes', 'no')[i % 2], label(i)) for i in range(size)]

  return text_task(name, dict.fromkeys(splits, rows), labels, ['accuracy'])


def test_a_stream_of_a_mixture_restarts_anywhere_and_tells_tasks_apart():
  both = mixture([task('rte', 40), task('cb', 4)], Mixing('equal'))
  examples = both.load('train', ByteVocabulary(), LENGTHS)
  quota = quotas({'rte': 40, 'cb': 4}, both.mixing)
  ids = {'rte': 0, 'cb': 1}

  def stream(**changes):
    return BatchStream(
      examples, 8, **{'seed': 3, 'quota': quota, 'features': {'task_id': ids}, **changes}
    )

  batches = list(itertools.islice(iter(stream()), 15))
  assert stream().batches_per_epoch == 6
  for number in (0, 5, 6, 14):
    np.testing.assert_array_equal(
      stream().batch(number).encoder_input_tokens, batches[number].encoder_input_tokens
    )
  epoch = np.concatenate(
    [b.features['task_id'][b.decoder_loss_weights[:, 0] > 0] for b in batches[:6]]
  )
  assert collections.Counter(epoch.tolist()) == {0: 22, 1: 22}
  for batch in batches:
    first = batch.encoder_input_tokens[:, 0] - 3
    real = batch.decoder_loss_weights[:, 0] > 0
    assert [chr(c) for c in first[real]] == ['rc'[t] for t in batch.features['task_id'][real]]
  resumed = stream()
  resumed.restore(stream(number=7).position)
  np.testing.assert_array_equal(
    next(iter(resumed)).encoder_input_tokens, batches[7].encoder_input_tokens
  )
  with pytest.raises(UserError, match='examples'):
    stream(quota={'rte': 30, 'cb': 14}).restore(stream().position)


def test_the_parts_of_a_mixture():
  words, text = task('rte', 6), task('free', 4, ('train', 'test'), labels=None)
  both = mixture([words, text], Mixing())
  assert both.parts == (words, text)
  assert both.labels is None
  assert mixture([words, task('b', 2)], Mixing()).labels == ('yes', 'no')
  load = lambda split: collections.Counter(
    e.task for e in both.load(split, ByteVocabulary(), LENGTHS)
  )
  assert load('train') == {'rte': 6, 'free': 4}
  assert load('validation') == {'rte': 6}
  assert load('test') == {'rte': 6, 'free': 4}  # where there is no test split, validation
  with pytest.raises(UserError, match=facts('rte+free', 'tasks')):
    mixture([both, task('b', 2)], Mixing())
  for tasks in ([words], [words, words]):
    with pytest.raises(UserError, match=facts('two', 'tasks')):
      mixture(tasks, Mixing())


def test_each_part_is_measured_on_a_split_whose_answers_are_known():
  rows = lambda size: [TextExample(str(i), 'x') for i in range(size)]
  unknown = lambda: [TextExample('?', UNKNOWN)]

  def part(name, validation, test):
    splits = {'train': lambda: rows(3), 'validation': validation, 'test': test}
    return text_task(name, splits, None, ('exact_match',))

  known = part('known', lambda: rows(5), lambda: rows(2))
  hidden = part('hidden', lambda: rows(5), unknown)
  blind = part('blind', unknown, unknown)
  both = mixture([known, hidden, blind], Mixing())
  load = lambda split: collections.Counter(
    e.task for e in both.load(split, ByteVocabulary(), LENGTHS)
  )
  assert load('train') == {'known': 3, 'hidden': 3, 'blind': 3}
  assert load('validation') == {'known': 5, 'hidden': 5}
  assert load('test') == {'known': 2, 'hidden': 5}
