"""How many validation examples judge a prompt while it trains, and which."""

import numpy as np
import pytest

from prompt_jax.data.example import Example, Task
from prompt_jax.data.splits import LEAST, judges


def examples(n, tokens=20, task='t', groups=None):
  inputs, targets = np.ones(tokens, np.int32), np.ones(2, np.int32)
  fields = (lambda i: {'group': i // groups}) if groups else lambda i: {}
  return [Example(inputs, targets, f'{task} {i}', 'a', 0, fields(i), task) for i in range(n)]


def task(labels=3, parts=()):
  words = None if labels is None else tuple('abcdefghijklmnopqrstuvwxyz' * 4)[:labels]
  return Task('t', {}, words, ('accuracy',), parts=parts)


def drawn(validation, of=None, given=None, eval_every=100, batch_size=32):
  return judges(
    examples(50), validation, of or task(), given=given, eval_every=eval_every,
    batch_size=batch_size, target_length=64,
  )  # fmt: skip


def test_the_sample_is_the_same_each_time_and_in_order():
  validation = examples(3000)
  found = drawn(validation, given=200)
  numbers = [int(e.inputs_text.split()[1]) for e in found]
  assert len(numbers) == 200
  assert numbers == sorted(set(numbers))
  assert numbers[-1] > 2500  # not the first ones
  assert found == drawn(validation, given=200)


def test_few_examples_are_all_taken():
  validation = examples(90)
  assert drawn(validation, eval_every=1, batch_size=1) is validation
  assert drawn(validation, given=90) is validation


def test_the_default_follows_the_work_of_training():
  validation = examples(10**4)
  found = len(drawn(validation))
  # 20 + 2 tokens forth and back against 20 + 3 * 2 tokens, a fifth of 3,200 training examples.
  assert found == int(0.2 * 3200 * 2 * 22 / 26)
  assert len(drawn(validation, batch_size=64)) == pytest.approx(2 * found, abs=2)
  assert len(drawn(validation, task(77))) < found / 5
  assert len(drawn(validation, task(None))) < found / 5
  assert len(drawn(validation, eval_every=1)) == LEAST


def test_one_evaluation_at_the_end_takes_all():
  validation = examples(3000)
  assert drawn(validation, eval_every=0) is validation


def test_each_task_is_drawn_from_alike_and_groups_are_whole():
  both = task(parts=(task(), task()))
  validation = [*examples(2000, task='a'), *examples(60, task='b')]
  found = [e.task for e in drawn(validation, both, given=100)]
  assert (found.count('a'), found.count('b')) == (50, 50)
  grouped = drawn(examples(900, groups=3), given=100)
  sizes = np.unique([e.fields['group'] for e in grouped], return_counts=True)[1]
  assert set(sizes) == {3}
  assert len(grouped) == 102


def test_long_data_are_measured_by_a_thousand_examples():
  """Whoever goes on with a run must be judged on the same examples."""
  draw = np.random.Generator(np.random.Philox(7))
  lengths = [int(n) for n in draw.lognormal(3, 1.5, 8000)]
  unlike = [e for n in lengths for e in examples(1, tokens=1 + n)]
  found = judges(
    unlike[:4000],
    unlike[4000:],
    task(),
    given=None,
    eval_every=100,
    batch_size=32,
    target_length=64,
  )
  assert len(found) == 1176
