"""The packed stream: once an epoch and whole, nothing overlaps, exact restart anywhere."""

import collections
import dataclasses
import itertools

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies

from prompt_jax.data.batches import BatchStream
from prompt_jax.data.example import Lengths, TextExample, tokenize
from prompt_jax.data.packing import PackedStream, Shape, Slots, pack
from prompt_jax.data.vocabulary import ByteVocabulary
from prompt_jax.errors import UserError
from tests.shared import facts

PLACEMENTS = ('before', 'after_bos', 'before_eos', 'after_eos')
MOST = 24  # tokens of an input


def made_up(sizes):
  """Examples whose tokens tell which one they are; inputs and targets of unlike lengths."""
  texts = [
    TextExample(f'{chr(200 + i)}' + 'x' * size, f'{chr(200 + i)}' + 'y' * (size * 5 % 7))
    for i, size in enumerate(sizes)
  ]
  return tokenize(texts, ByteVocabulary(), Lengths(MOST, 9), 'made up')


EXAMPLES = strategies.lists(strategies.integers(0, 30), min_size=1, max_size=40).map(made_up)
SLOTS = strategies.builds(
  Slots, rows=strategies.integers(0, 3), placement=strategies.sampled_from(PLACEMENTS)
)
SETTINGS = {
  'batch_size': strategies.integers(1, 12),
  'seed': strategies.integers(0, 5),
  'row_length': strategies.integers(MOST + 3, 80),
  'look_ahead': strategies.integers(0, 20),
  'encoder': SLOTS,
  'decoder': SLOTS,
  'multiple': strategies.sampled_from([1, 8, 16]),
  'row_multiple': strategies.integers(1, 3),
}


def drawn(data):
  return {name: data.draw(values, label=name) for name, values in SETTINGS.items()}


def first_slot(slots, n):
  return {'before': 0, 'after_bos': 1, 'before_eos': n - 1, 'after_eos': n}[slots.placement]


def unpacked(batch, stream):
  """(inputs, targets) of each example of a batch, after checking how they lie in their rows."""
  found = []
  for r in range(len(batch.encoder_input_tokens)):
    parts = []
    for name, slots in (('encoder', stream.encoder), ('decoder', stream.decoder)):
      segments = getattr(batch, f'{name}_segment_ids')[r]
      tokens = getattr(batch, f'{name}_input_tokens')[r]
      slot = batch.prompt_slot if name == 'encoder' else batch.decoder_prompt_slot
      assert (slot is None) == (slots.rows == 0)
      slot = np.full(len(tokens), -1) if slot is None else slot[r]
      count = segments.max(initial=0)
      # 1, 1, 2, 2, 2, ..., then padding: examples side by side in order, nothing between them.
      used = (segments > 0).sum()
      assert (np.diff(segments[:used]) >= 0).all()
      assert set(segments[:used]) == set(range(1, count + 1))
      assert not tokens[used:].any()
      assert (slot[used:] == -1).all()
      for g in range(1, count + 1):
        own = segments == g
        n = own.sum()
        np.testing.assert_array_equal(getattr(batch, f'{name}_positions')[r][own], np.arange(n))
        first = first_slot(slots, n - slots.rows)
        want = np.full(n, -1)
        want[first : first + slots.rows] = np.arange(slots.rows)
        np.testing.assert_array_equal(slot[own], want)
        assert not tokens[own][want >= 0].any()
      parts.append((segments, tokens, slot, count))
    (segments, tokens, slot, count), (own, inputs, own_slot, own_count) = parts
    assert count == own_count
    for g in range(1, count + 1):
      weights = batch.decoder_loss_weights[r][own == g]
      targets = batch.decoder_target_tokens[r][own == g]
      shifted = inputs[(own == g) & (own_slot < 0)]
      np.testing.assert_array_equal(weights, np.arange(len(weights)) >= stream.decoder.rows)
      targets = targets[weights > 0]
      np.testing.assert_array_equal(shifted, [0, *targets[:-1]])
      found.append((tuple(tokens[(segments == g) & (slot < 0)].tolist()), tuple(targets.tolist())))
    assert batch.decoder_loss_weights[r][own == 0].sum() == 0
  return found


@hypothesis.settings(deadline=None, max_examples=40)
@hypothesis.given(examples=EXAMPLES, data=strategies.data())
def test_an_epoch_holds_every_example_once_and_whole(examples, data):
  stream = PackedStream(examples, **drawn(data))
  want = sorted((tuple(e.inputs.tolist()), tuple(e.targets.tolist())) for e in examples)
  for _ in range(2):
    batches = list(itertools.islice(stream, stream.batches_per_epoch))
    found = [unpacked(batch, stream) for batch in batches]
    assert sorted(itertools.chain(*found)) == want
    # A step sees as many examples as it does of rows of their own.
    assert all(len(part) == stream.batch_size for part in found[:-1])
    for batch in batches:
      rows, length = batch.encoder_input_tokens.shape
      assert length == stream.shape.inputs <= stream.row_length
      assert rows % stream.shape.rows == rows % stream.row_multiple == 0
      assert batch.decoder_target_tokens.shape == (rows, stream.shape.targets)
      assert batch.decoder_loss_weights.dtype == np.float32
      assert batch.encoder_input_tokens.dtype == batch.encoder_positions.dtype == np.int32


@hypothesis.settings(deadline=None, max_examples=40)
@hypothesis.given(examples=EXAMPLES, data=strategies.data(), start=strategies.integers(0, 40))
def test_restart_is_exact_anywhere(examples, data, start):
  settings = drawn(data)
  reader = PackedStream(examples, **settings)
  batches = iter(reader)
  for _ in range(start):
    next(batches)
  position = reader.position
  assert all(type(value) is int for value in position.values())
  again = PackedStream(examples, **settings)
  again.restore(position)
  for a, b in zip(itertools.islice(batches, 4), again, strict=False):
    for name, value in vars(a).items():
      np.testing.assert_array_equal(getattr(b, name), value, err_msg=name)


def lengths(seed, count=600):
  """Lengths of short sentences."""
  return np.random.default_rng(seed).gamma(4, 2, count).astype(int).clip(1, 22).tolist()


def test_rows_are_nearly_full():
  stream = PackedStream(tokens_of(lengths(0)), 64, row_length=128, multiple=1)
  batches = [stream.batch(i) for i in range(stream.batches_per_epoch)]
  filled = [(b.encoder_segment_ids > 0).mean() for b in batches]
  assert np.mean(filled[:-1]) > 0.85
  assert stream.filled == pytest.approx(np.mean(filled))
  assert {len(b.encoder_input_tokens) for b in batches} == {stream.shape.rows}


def tokens_of(sizes):
  texts = [TextExample('x' * size, 'y') for size in sizes]
  return tokenize(texts, ByteVocabulary(), Lengths(MOST, 9), 'made up')


def test_looking_ahead_fills_rows_that_the_next_example_does_not():
  """Rows of 24: 14 and 14 do not fit into one, 14 and 10 do."""
  costs = [(14, 2)] * 4 + [(10, 2)] * 4
  shape = Shape(rows=2, inputs=24, targets=4)
  ahead = pack(range(8), costs, 4, shape, look_ahead=4)
  assert [packed.examples.tolist() for packed in ahead] == [[0, 1, 4, 5], [2, 3, 6, 7]]
  assert [packed.row.tolist() for packed in ahead] == [[0, 1, 0, 1]] * 2
  assert [packed.rows for packed in ahead] == [2, 2]
  # In order, the first four need rows of their own, as many more as there were.
  assert [packed.rows for packed in pack(range(8), costs, 4, shape, look_ahead=0)] == [4, 2]


def test_no_example_waits_for_long():
  """What a batch passes over comes first in the next one, so that it is in one of the next few."""
  examples = tokens_of(lengths(1))
  stream = PackedStream(examples, 16, row_length=48, look_ahead=64)
  rng = np.random.Generator(np.random.Philox(key=[0, 0]))
  turn = {int(e): i // 16 for i, e in enumerate(rng.permutation(len(examples)))}
  late = [
    n - turn[int(e)] for n in range(stream.batches_per_epoch) for e in stream.packed(n).examples
  ]
  assert min(late) >= -4
  assert max(late) <= 4


def test_the_seed_and_the_epoch_decide_the_order():
  examples = tokens_of(lengths(2, 60))
  order = lambda seed, epoch: PackedStream(examples, 8, seed).packed(8 * epoch).examples.tolist()
  assert order(1, 0) == order(1, 0)
  assert order(1, 0) != order(2, 0)
  assert order(1, 0) != order(1, 1)


def test_a_mixture_has_so_many_of_each_task_and_tells_whose_each_example_is():
  tasks, quota, numbers = 'abb', {'a': 30, 'b': 10}, {'a': 4, 'b': 2}
  examples = [
    dataclasses.replace(e, task=tasks[i % 3]) for i, e in enumerate(made_up([2, 5, 1, 9] * 6))
  ]
  whose = {tuple(e.inputs.tolist()): e.task for e in examples}
  settings = {'row_length': 48, 'encoder': Slots(2), 'features': {'task_id': numbers}}
  stream = PackedStream(examples, 6, quota=quota, **settings)
  assert stream.batches_per_epoch == 7
  found, used = [], 0
  for number in range(7):
    batch = stream.batch(number)
    used += (batch.encoder_segment_ids > 0).sum()
    for r, row in enumerate(batch.encoder_segment_ids):
      for g in range(1, row.max() + 1):
        own = (row == g) & (batch.prompt_slot[r] < 0)
        task = whose[tuple(batch.encoder_input_tokens[r][own].tolist())]
        assert batch.features['task_id'][r, g - 1] == numbers[task]
        found.append(task)
    assert batch.features['task_id'].shape[1] * 2 < batch.encoder_input_tokens.shape[1]
  assert collections.Counter(found) == quota
  assert stream.filled == pytest.approx(
    used / (7 * stream.shape.rows * stream.shape.inputs), rel=0.05
  )
  # Every seed has the same shape, and an order of its own.
  other = PackedStream(examples, 6, seed=1, quota=quota, **settings)
  assert other.shape == stream.shape
  assert other.packed(0).examples.tolist() != stream.packed(0).examples.tolist()
  with pytest.raises(UserError, match='examples'):
    PackedStream(examples, 6, quota={'a': 31, 'b': 9}, **settings).restore(stream.position)


def test_other_data_or_settings_cannot_be_resumed():
  examples = made_up(range(20))
  position = PackedStream(examples, 4, row_length=64).position
  slots = Slots(2)
  for name, given, was in (
    ('seed', {'seed': 1}, 0),
    ('batch_size', {'batch_size': 5}, 4),
    ('row_length', {'row_length': 80}, 64),
    ('look_ahead', {'look_ahead': 3}, 256),
    ('encoder_slots', {'encoder': slots}, 0),
    ('decoder_slots', {'decoder': slots}, 0),
    ('multiple', {'multiple': 4}, 8),
    ('row_multiple', {'row_multiple': 2}, 1),
  ):
    other = PackedStream(examples, **{'batch_size': 4, 'row_length': 64, **given})
    with pytest.raises(UserError, match=facts(name, str(was))):
      other.restore(position)
  with pytest.raises(UserError, match='examples'):
    PackedStream(examples[::-1], 4, row_length=64).restore(position)
  with pytest.raises(UserError, match='packed'):
    BatchStream(examples, 4).restore(position)


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'batch_size': 0}, facts('batch size', '0')),
    ({'batch_size': 4, 'seed': -1}, facts('seed', '-1')),
    ({'batch_size': 4, 'look_ahead': -1}, facts('look_ahead', '-1')),
    ({'batch_size': 4, 'row_length': 20}, facts('24 positions', '0', '20')),
    (
      {'batch_size': 4, 'row_length': 24, 'encoder': Slots(3)},
      facts('27 positions', 'row_length to 27'),
    ),
  ],
)
def test_bad_settings(settings, message):
  with pytest.raises(UserError, match=message):
    PackedStream(made_up(range(30)), **settings)
  with pytest.raises(UserError, match='no examples'):
    PackedStream([], 4)
