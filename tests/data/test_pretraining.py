"""Span corruption, prefix LM, and the stream of batches over a text."""

import functools
import lzma

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from prompt_jax.checkpoints.backbone import embedded_folder
from prompt_jax.data.vocabulary import ByteVocabulary, load_vocabulary
from prompt_jax.errors import UserError
from prompt_jax.pretraining import span_corruption, text_stream, word_choice
from tests.shared import facts

SENTINEL, EOS = 999, 1
SENTINELS = range(999, 899, -1)


def _undo(inputs, targets):
  """The chunk that was corrupted, put together again from both sides."""
  spans, key = {}, None
  for t in targets[:-1]:
    if t > 900:
      key = t
      spans[key] = []
    else:
      spans[key].append(t)
  out = []
  for t in inputs[:-1]:
    out += spans.pop(t) if t > 900 else [t]
  assert not spans
  return out


@given(st.integers(4, 200), st.integers(0, 2**32 - 1))
def test_nothing_is_lost_and_lengths_are_as_promised(length, seed):
  chunk = np.arange(2, length + 2)
  rng = np.random.default_rng(seed)
  x, y = span_corruption.corrupt_spans(rng, chunk, sentinels=SENTINELS, eos=EOS)
  assert (len(x), len(y)) == span_corruption.corrupted_lengths(length, 0.15, 3.0)
  assert x[-1] == y[-1] == EOS
  assert _undo(x, y) == chunk.tolist()
  used = [t for t in x if t > 900]
  assert used == [SENTINEL - i for i in range(len(used))]  # count down, in order, as in T5
  assert x[0] < 900  # a chunk begins with text


def test_t5_masks_15_percent_in_spans_of_3():
  assert span_corruption.noise_counts(568, 0.15, 3.0) == (85, 28)
  # T5's own figures: 568 tokens become 512 inputs and 114 targets.
  assert span_corruption.corrupted_lengths(568, 0.15, 3.0) == (512, 114)
  assert span_corruption.chunk_length(512, 0.15, 3.0) == 568


@given(st.integers(2, 50), st.integers(2, 60), st.integers(1, 60), st.integers(0, 2**32 - 1))
def test_prefix_lm_cuts_once(length, inputs, targets, seed):
  chunk = np.arange(2, length + 2)
  rng = np.random.default_rng(seed)
  x, y = span_corruption.prefix_lm(rng, chunk, inputs, targets, eos=EOS)
  k = len(x) - 1
  assert 1 <= k < min(length, inputs)
  assert x.tolist() == [*chunk[:k], EOS]
  assert y.tolist() == [*chunk[k:], EOS][:targets]


def test_prefix_lm_fills_its_targets():
  batch = _stream(objective='prefix_lm', inputs=24, targets=8).batch(0)
  assert batch.decoder_target_tokens.all()


CONTENT = np.zeros(1000, bool)
CONTENT[100:900] = True


@given(st.integers(1, 60), st.integers(2, 20), st.integers(0, 2**32 - 1))
def test_word_choice_hides_the_words_it_takes_among_others(length, options, seed):
  rng = np.random.default_rng(seed)
  chunk = rng.integers(50, 200, length)
  elsewhere = rng.integers(50, 900, 100)
  made = word_choice.word_choice(
    rng, chunk, elsewhere, CONTENT, options=options, answers=min(5, options - 1), eos=EOS
  )
  if made is None:
    assert not CONTENT[chunk].any()
    return
  x, y = made
  assert x[-1] == y[-1] == EOS
  taken = y[:-1].tolist()
  assert 1 <= len(taken) <= min(5, options - 1)
  left = [t for t in chunk if t not in taken]
  offered = x[: len(x) - 1 - len(left)].tolist()
  assert x[len(offered) : -1].tolist() == left
  assert len(offered) <= options
  assert len(set(offered)) == len(offered)
  assert set(taken) <= set(offered)
  assert CONTENT[offered].all()
  assert not (set(offered) - set(taken)) & set(chunk.tolist())  # the others are wrong
  first = [chunk.tolist().index(t) for t in taken]
  assert first == sorted(first)


def test_content_words_are_whole_and_not_the_commonest():
  words = load_vocabulary(embedded_folder() / 'sentencepiece.model')
  text = 'the network protocol of the server and the client; a socket is open'
  tokens = np.array(words.encode(text) * word_choice.FEWEST)
  chosen = word_choice.content_words(tokens, words, common=1)
  named = {words.pieces(i) for i in np.flatnonzero(chosen)}
  assert {'▁network', '▁protocol', '▁server'} <= named
  assert '▁the' not in named  # the commonest
  assert all(len(n) > 3 and n.startswith('▁') for n in named)  # not "▁of", not "et"
  rare = word_choice.content_words(tokens[: len(tokens) // 2], words, common=1)
  assert not rare.any()


def test_a_share_of_the_rows_is_word_choice():
  stream = _stream(objective='prefix_lm', inputs=44, content=CONTENT, choice_share=0.5)
  chosen = rows = 0
  for i in range(20):
    batch = stream.batch(i)
    for x, y in zip(batch.encoder_input_tokens, batch.decoder_target_tokens, strict=True):
      rows += 1
      chosen += y[y > 1][0] in x  # the text of this stream never repeats
  assert 0.3 < chosen / rows < 0.7


def test_word_choice_needs_room():
  with pytest.raises(UserError, match='36'):
    _stream(objective='prefix_lm', inputs=30, content=CONTENT, choice_share=0.5)


def _stream(**settings):
  defaults = {'batch_size': 4, 'inputs': 24, 'targets': 24, 'sentinels': SENTINELS}
  return text_stream.TextStream(np.arange(2, 802), **(defaults | settings))


@pytest.mark.parametrize('objective', ['span_corruption', 'prefix_lm'])
def test_a_restored_stream_goes_on_exactly(objective):
  whole, part = _stream(objective=objective), _stream(objective=objective)
  wanted = [b for b, _ in zip(whole, range(30), strict=False)]
  iterator = iter(part)
  for _ in range(7):
    next(iterator)
  again = _stream(objective=objective)
  again.restore(part.position)
  for want, got in zip(wanted[7:], again, strict=False):
    np.testing.assert_array_equal(want.encoder_input_tokens, got.encoder_input_tokens)
    np.testing.assert_array_equal(want.decoder_target_tokens, got.decoder_target_tokens)
  assert not np.array_equal(
    _stream(objective=objective, seed=1).batch(0).encoder_input_tokens,
    wanted[0].encoder_input_tokens,
  )


def test_every_token_of_an_epoch_is_read_once():
  stream = _stream(batch_size=1)
  seen = []
  for i in range(stream.rows):
    batch = stream.batch(i)
    seen += _undo(batch.encoder_input_tokens[0], batch.decoder_target_tokens[0])
  assert len(seen) == len(set(seen)) == stream.rows * stream.chunk


def test_decoder_inputs_are_shifted_targets_and_padding_weighs_nothing():
  batch = _stream(objective='prefix_lm').batch(3)
  np.testing.assert_array_equal(
    batch.decoder_input_tokens[:, 1:], batch.decoder_target_tokens[:, :-1]
  )
  assert not batch.decoder_input_tokens[:, 0].any()
  np.testing.assert_array_equal(batch.decoder_loss_weights, batch.decoder_target_tokens > 0)


def test_documents_end_with_eos(tmp_path):
  path = tmp_path / 'text.txt'
  path.write_text('one\ntwo\n\nthree\n')
  documents = text_stream.read_documents(path)
  assert documents == ['one two', 'three']
  ids = text_stream.tokenise(documents, ByteVocabulary())
  assert ids.tolist() == [
    *ByteVocabulary().encode('one two'),
    1,
    *ByteVocabulary().encode('three'),
    1,
  ]


@pytest.mark.parametrize(
  ('content', 'words'), [(b'', 'text'), (b'ab\n\xff', facts('text.txt:2', 'UTF-8'))]
)
def test_bad_text_is_named(tmp_path, content, words):
  path = tmp_path / 'text.txt'
  path.write_bytes(content)
  with pytest.raises(UserError, match=words):
    text_stream.read_documents(path)


@pytest.mark.parametrize('raw', [b'', b'no xz', lzma.compress(b'text' * 99)[:-20]])
def test_a_broken_xz_file_is_named(tmp_path, raw):
  path = tmp_path / 'text.txt.xz'
  path.write_bytes(lzma.compress(b'text'))
  assert text_stream.read_documents(path) == ['text']
  path.write_bytes(raw)
  with pytest.raises(UserError, match=facts('text.txt.xz', 'xz file')):
    text_stream.read_documents(path)


def test_a_missing_text_is_named():
  with pytest.raises(UserError, match='xx'):
    text_stream.read_documents('x' * 300)


@pytest.mark.parametrize('sentinels', [1, 2, 7, 100, 125])
def test_every_span_has_a_sentinel_of_its_own(sentinels):
  most = span_corruption.longest_inputs(sentinels, 0.15, 3.0)
  spans = [
    span_corruption.noise_counts(span_corruption.chunk_length(n, 0.15, 3.0), 0.15, 3.0)[1]
    for n in (most, most + 1)
  ]
  assert spans == [sentinels, sentinels + 1]


def test_inputs_of_more_spans_than_sentinels_are_refused():
  tokens = np.arange(2, 8002)
  make = functools.partial(
    text_stream.TextStream, tokens, batch_size=1, targets=8, sentinels=range(9999, 9899, -1)
  )
  with pytest.raises(UserError, match=facts('2048', '100', '1809')):
    make(inputs=2048)
  assert make(inputs=1809).batch(0).encoder_input_tokens.min() >= 0
  assert make(inputs=2048, sentinels=range(9999, 9874, -1)).inputs == 2048
  assert make(inputs=2048, objective='prefix_lm').inputs == 2048


def test_too_little_text_says_how_much_there_is():
  with pytest.raises(UserError, match='800'):
    _stream(batch_size=400)
