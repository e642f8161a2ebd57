"""The batch stream: once an epoch, exact restart, padding at the end only, nothing cut."""

import itertools

import hypothesis
import numpy as np
import pytest
from hypothesis import strategies

from prompt_jax.data.batches import BatchStream, evaluation_batches
from prompt_jax.data.example import Lengths, TextExample, tokenize
from prompt_jax.data.vocabulary import ByteVocabulary
from prompt_jax.errors import UserError
from tests.shared import facts


def made_up(sizes, cut=Lengths(24, 6)):
  """Examples whose tokens tell which one they are."""
  texts = [
    TextExample(f'{chr(200 + i)}' + 'x' * size, f'{chr(200 + i)}' + 'y' * (size % 7))
    for i, size in enumerate(sizes)
  ]
  return tokenize(texts, ByteVocabulary(), cut, 'made up')


EXAMPLES = strategies.lists(strategies.integers(0, 40), min_size=1, max_size=30).map(made_up)
SETTINGS = {
  'batch_size': strategies.integers(1, 9),
  'seed': strategies.integers(0, 5),
  'buckets': strategies.integers(1, 4),
  'last': strategies.sampled_from(['pad', 'drop']),
}


def some_stream(examples, data):
  settings = {name: data.draw(values) for name, values in SETTINGS.items()}
  settings['batch_size'] = min(settings['batch_size'], len(examples))
  return BatchStream(examples, **settings)


def assert_equal(a, b):
  for name in ('encoder_input_tokens', 'decoder_input_tokens', 'decoder_target_tokens'):
    np.testing.assert_array_equal(getattr(a, name), getattr(b, name))
  np.testing.assert_array_equal(a.decoder_loss_weights, b.decoder_loss_weights)


def unpadded(rows):
  """The rows without their padding, which must all be at the end."""
  found = []
  for row in rows:
    size = int((row != 0).sum())
    assert (row[:size] != 0).all()
    found.append(tuple(row[:size].tolist()))
  return found


@hypothesis.settings(deadline=None)
@hypothesis.given(examples=EXAMPLES, data=strategies.data())
def test_the_shapes_to_come_are_those_that_come(examples, data):
  stream = some_stream(examples, data)
  stream.number = data.draw(strategies.integers(0, 2 * stream.batches_per_epoch))
  count = data.draw(strategies.integers(0, stream.batches_per_epoch))
  shapes = lambda batch: (batch.encoder_input_tokens.shape, batch.decoder_target_tokens.shape)
  said = [shapes(batch) for batch in stream.upcoming_shapes(count)]
  came = [shapes(stream.batch(stream.number + i)) for i in range(count)]
  assert list(dict.fromkeys(said)) == list(dict.fromkeys(came))


@hypothesis.settings(deadline=None)
@hypothesis.given(examples=EXAMPLES, data=strategies.data())
def test_an_epoch_holds_every_example_once_and_whole(examples, data):
  stream = some_stream(examples, data)
  want = sorted((tuple(e.inputs.tolist()), tuple(e.targets.tolist())) for e in examples)
  assert all(inputs[-1] == 1 and targets[-1] == 1 for inputs, targets in want)
  for _ in range(2):
    batches = list(itertools.islice(stream, stream.batches_per_epoch))
    got = []
    for batch in batches:
      assert batch.encoder_input_tokens.shape[0] == stream.batch_size
      pairs = zip(
        unpadded(batch.encoder_input_tokens), unpadded(batch.decoder_target_tokens), strict=True
      )
      got += [pair for pair in pairs if pair[1]]
    if stream.last == 'pad':
      assert sorted(got) == want
    else:
      assert len(got) == len(examples) - len(examples) % stream.batch_size
      assert len(set(got)) == len(got)
      assert set(got) <= set(want)
    shapes = {b.encoder_input_tokens.shape + b.decoder_target_tokens.shape for b in batches}
    assert len(shapes) <= stream.buckets


@hypothesis.settings(deadline=None)
@hypothesis.given(examples=EXAMPLES, data=strategies.data())
def test_features_follow_from_the_targets(examples, data):
  for batch in itertools.islice(some_stream(examples, data), 5):
    targets = batch.decoder_target_tokens
    np.testing.assert_array_equal(batch.decoder_loss_weights, targets != 0)
    np.testing.assert_array_equal(batch.decoder_input_tokens[:, 0], 0)
    np.testing.assert_array_equal(batch.decoder_input_tokens[:, 1:], targets[:, :-1])
    assert batch.encoder_input_tokens.dtype == batch.decoder_input_tokens.dtype == np.int32
    assert batch.decoder_loss_weights.dtype == np.float32
    # Every row has something to attend to.
    assert (batch.encoder_input_tokens[:, 0] != 0).all()
    empty = batch.decoder_loss_weights.sum(-1) == 0
    assert (batch.encoder_input_tokens[empty].sum(-1) == 1).all()


@hypothesis.settings(deadline=None)
@hypothesis.given(examples=EXAMPLES, data=strategies.data(), start=strategies.integers(0, 40))
def test_restart_is_exact_anywhere(examples, data, start):
  stream = some_stream(examples, data)
  settings = {name: getattr(stream, name) for name in ('batch_size', 'seed', 'buckets', 'last')}
  reader = iter(stream)
  for _ in range(start):
    next(reader)
  position = stream.position
  assert all(type(value) is int for value in position.values())
  expected = list(itertools.islice(reader, 4))
  again = BatchStream(examples, **settings)
  again.restore(position)
  for a, b in zip(expected, again, strict=False):
    assert_equal(a, b)


def test_every_seed_has_the_same_widths_in_the_same_order():
  """Prompts of several seeds train together without padding one to the width of another."""
  sizes = np.random.default_rng(0).integers(3, 60, 90).tolist()
  examples = made_up(sizes, Lengths(64, 6))
  streams = [BatchStream(examples, 8, seed) for seed in range(3)]
  assert len(streams[0].shapes.inputs) > 1
  numbers = range(3 * streams[0].batches_per_epoch)
  widths = [[stream.rows(n).bucket for n in numbers] for stream in streams]
  assert widths[0] == widths[1] == widths[2]
  epoch = streams[0].batches_per_epoch
  assert widths[0][:epoch] != widths[0][epoch : 2 * epoch]
  assert widths[0][:epoch] != sorted(widths[0][:epoch])
  first = [stream.rows(0).examples.tolist() for stream in streams]
  assert first[0] != first[1]


def test_the_seed_and_the_epoch_decide_the_order():
  examples = made_up(range(30))

  def order(seed, number):
    return np.concatenate(
      [BatchStream(examples, 4, seed).rows(number + i).examples for i in (0, 1)]
    )

  assert order(1, 0).tolist() == order(1, 0).tolist()
  assert order(1, 0).tolist() != order(2, 0).tolist()
  assert order(1, 0).tolist() != order(1, 8).tolist()


def test_lengths_do_not_come_in_order():
  stream = BatchStream(made_up([2] * 40 + [20] * 40), 8)
  widths = [b.encoder_input_tokens.shape[1] for b in itertools.islice(stream, 10)]
  assert set(widths) == {8, 24}
  assert widths != sorted(widths)


def test_no_more_than_one_short_batch():
  # Three buckets of lengths, each with a remainder.
  stream = BatchStream(made_up([2] * 9 + [12] * 9 + [22] * 9), 8)
  short = [len(stream.rows(i).examples) for i in range(stream.batches_per_epoch)]
  assert sorted(short) == [3, 8, 8, 8]


def test_other_data_or_settings_cannot_be_resumed():
  examples = made_up(range(20))
  position = BatchStream(examples, 4).position
  with pytest.raises(UserError, match=facts('batch_size', '4', '5')):
    BatchStream(examples, 5).restore(position)
  with pytest.raises(UserError, match=facts('seed', '0', '1')):
    BatchStream(examples, 4, seed=1).restore(position)
  with pytest.raises(UserError, match='examples'):
    BatchStream(examples[::-1], 4).restore(position)


def test_task_ids():
  texts = [TextExample('a', 'b')]
  first, second = (tokenize(texts * 3, ByteVocabulary(), Lengths(4, 4), t) for t in ('one', 'two'))
  stream = BatchStream([*first, *second], 4, features={'task_id': {'one': 5, 'two': 7}})
  ids = np.concatenate([stream.batch(i).features['task_id'] for i in (0, 1)])
  assert ids.dtype == np.int32
  assert sorted(ids.tolist()) == [0, 0, 5, 5, 5, 7, 7, 7]
  assert BatchStream(first, 2).batch(0).features == {}


@pytest.mark.parametrize(
  ('settings', 'message'),
  [
    ({'batch_size': 0}, facts('batch size', '0')),
    ({'batch_size': 4, 'seed': -1}, facts('seed', '-1')),
    ({'batch_size': 4, 'last': 'drop'}, facts('3', '4')),
    ({'batch_size': 2, 'last': 'keep'}, facts("'pad'", "'drop'")),
  ],
)
def test_bad_settings(settings, message):
  with pytest.raises(UserError, match=message):
    BatchStream(made_up(range(3)), **settings)
  with pytest.raises(UserError, match='examples'):
    BatchStream([], 4)


@hypothesis.settings(deadline=None)
@hypothesis.given(
  examples=EXAMPLES, batch_size=strategies.integers(1, 9), buckets=strategies.integers(1, 4)
)
def test_evaluation_sees_every_example_once(examples, batch_size, buckets):
  seen = []
  batches = list(evaluation_batches(examples, batch_size, buckets))
  for number, (batch, indices) in enumerate(batches):
    assert len(batch.encoder_input_tokens) == batch_size
    assert len(indices) == batch_size or number == len(batches) - 1
    inputs = unpadded(batch.encoder_input_tokens)
    targets = unpadded(batch.decoder_target_tokens)
    for row, i in enumerate(indices):
      assert inputs[row] == tuple(examples[i].inputs.tolist())
      assert targets[row] == tuple(examples[i].targets.tolist())
    # Rows that only fill the batch are examples of it.
    assert set(inputs[len(indices) :]) <= set(inputs[: len(indices)])
    seen += indices.tolist()
  assert sorted(seen) == list(range(len(examples)))


def test_evaluation_needs_examples():
  with pytest.raises(UserError, match='examples'):
    next(evaluation_batches([], 4))
