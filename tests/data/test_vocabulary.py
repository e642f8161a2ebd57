"""Vocabularies: the ids of seqio, its decoding, and errors that say what to do."""

import hashlib
import io
import pickle

import hypothesis
import pytest
import sentencepiece
from hypothesis import strategies

from prompt_jax.data import vocabulary as lib
from prompt_jax.errors import UserError
from tests.shared import facts, shared

TEXTS = (
  '',
  ' ',
  'The house is wonderful. Das Haus ist wunderbar.',
  'A <extra_id_0> sandwich <extra_id_1> .<extra_id_99>',
  'tabs\tand\nnewlines   and  spaces ',
  'Ünïcödé ﬁ ½ 中文 🙂 \u0000 \u00ad',
)


@pytest.fixture(scope='module')
def seqio():
  return pytest.importorskip('seqio')


@pytest.fixture(scope='module')
def pairs(seqio, vocabulary_file):
  """(ours, seqio's) of every kind."""
  found = [
    (lib.SentencePieceVocabulary(p, n), seqio.SentencePieceVocabulary(str(p), n))
    for p, n in ((vocabulary_file, 100), (vocabulary_file, 7), (vocabulary_file, 0))
  ]
  return [*found, (lib.ByteVocabulary(), seqio.ByteVocabulary(125))]


def check_equal(ours, theirs, text):
  ids = ours.encode(text)
  assert ids == list(theirs.encode(text))
  assert ids == theirs.encode_tf(text).numpy().tolist()
  tail = [*ids, 1, *ids, 0, 0]
  # seqio decodes padding of a SentencePiece model to nothing, too, but only before the end.
  assert ours.decode(tail) == theirs.decode(tail)


@pytest.mark.parametrize('text', TEXTS)
def test_ids_and_text_are_those_of_seqio(pairs, text):
  for ours, theirs in pairs:
    check_equal(ours, theirs, text)
    assert ours.size == theirs.vocab_size
    assert (ours.pad_id, ours.eos_id, ours.unk_id) == (0, 1, theirs.unk_id)


@hypothesis.settings(max_examples=50, deadline=None)
@hypothesis.given(text=strategies.text(max_size=40))
def test_any_text_has_the_ids_of_seqio(pairs, text):
  for ours, theirs in pairs:
    assert ours.encode(text) == list(theirs.encode(text))


@hypothesis.settings(max_examples=50, deadline=None)
@hypothesis.given(ids=strategies.lists(strategies.integers(0, 600), max_size=12))
def test_any_ids_decode_as_in_seqio(pairs, ids):
  for ours, theirs in pairs:
    if theirs.unk_id is not None and 0 not in ids:
      assert ours.decode(ids) == theirs.decode(ids)


def test_t5s_own_vocabulary():
  path = shared('vocab', 't5_cc_all_32000.model')
  vocabulary = lib.load_vocabulary(path)
  text = 'Translate English to German: The house is wonderful. Das Haus ist wunderbar.'
  ids = [30355, 15, 1566, 12, 2968, 10, 37, 629, 19, 1627, 5, 644, 4598, 229, 19250, 5]
  assert vocabulary.encode(text) == ids
  assert vocabulary.size == 32100
  assert vocabulary.sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
  assert vocabulary.encode('<extra_id_0> and <extra_id_99>') == [32099, 11, 32000]
  assert vocabulary.pieces(32099) == '▁<extra_id_0>'
  # Rows that only pad the embedding table decode as unknown.
  assert vocabulary.decode([32127]) == vocabulary.decode([2])


def test_decoding_stops_at_the_end_and_skips_padding(vocabulary):
  ids = vocabulary.encode('the lazy dog')
  assert vocabulary.decode([0, *ids, 0, 1, *ids]) == 'the lazy dog'
  assert lib.ByteVocabulary().decode([0, 107, 0, 108, 1, 107]) == 'hi'


def test_byte_pieces():
  vocabulary = lib.ByteVocabulary()
  assert [vocabulary.pieces(i) for i in (0, 1, 2, 68, 3, 259, 383)] == [
    '<pad>',
    '</s>',
    '<unk>',
    'A',
    '<0x00>',
    '<extra_id_124>',
    '<extra_id_0>',
  ]


def test_load_by_folder_file_and_name(vocabulary_file):
  assert lib.load_vocabulary(vocabulary_file.parent) == lib.load_vocabulary(vocabulary_file)
  assert lib.load_vocabulary('bytes') == lib.ByteVocabulary()
  assert lib.load_vocabulary(vocabulary_file, extra_ids=3).extra_ids == 3


def test_a_model_with_its_own_sentinels_gets_no_others(tmp_path, vocabulary_file):
  raw = vocabulary_file.read_bytes() + b''.join(lib._piece(f'▁<extra_id_{i}>') for i in (1, 0))
  (tmp_path / 'own.model').write_bytes(raw)
  vocabulary = lib.load_vocabulary(tmp_path / 'own.model')
  assert vocabulary.extra_ids == 0
  assert vocabulary.encode('<extra_id_0>') == [vocabulary.size - 1]


def test_equality_and_pickling(vocabulary_file):
  vocabulary = lib.SentencePieceVocabulary(vocabulary_file)
  again = pickle.loads(pickle.dumps(vocabulary))
  assert again == vocabulary
  assert hash(again) == hash(vocabulary)
  assert again.encode('a <extra_id_5> fox') == vocabulary.encode('a <extra_id_5> fox')
  assert vocabulary != lib.SentencePieceVocabulary(vocabulary_file, extra_ids=3)
  assert vocabulary != lib.ByteVocabulary()


def test_missing_and_damaged_files(tmp_path):
  with pytest.raises(UserError, match=r'nowhere\.model'):
    lib.load_vocabulary(tmp_path / 'nowhere.model')
  with pytest.raises(UserError, match=r'sentencepiece\.model'):
    lib.load_vocabulary(tmp_path)
  (tmp_path / 'text.model').write_text('not a model')
  with pytest.raises(UserError, match=facts('text.model', 'SentencePiece')):
    lib.SentencePieceVocabulary(tmp_path / 'text.model')


def test_other_special_ids_are_refused(tmp_path):
  model = io.BytesIO()
  sentencepiece.SentencePieceTrainer.train(
    sentence_iterator=iter(['some words']),
    model_writer=model,
    vocab_size=30,
    hard_vocab_limit=False,
    minloglevel=2,
  )
  (tmp_path / 'bos.model').write_bytes(model.getvalue())
  with pytest.raises(UserError, match=facts('--pad_id=0', '--eos_id=1')):
    lib.SentencePieceVocabulary(tmp_path / 'bos.model')


def test_the_number_of_sentinels_is_said_beside_or_behind(vocabulary_file, tmp_path):
  path = tmp_path / 'v.model'
  path.write_bytes(vocabulary_file.read_bytes())
  pieces = lib.load_vocabulary(path, 0).size
  assert lib.load_vocabulary(path).assumed
  assert lib.load_vocabulary(path).size == pieces + 100
  counted = lib.load_vocabulary(f'{path}:300')
  assert (counted.size, counted.assumed) == (pieces + 300, False)
  assert counted.encode('<extra_id_299>') == [pieces]
  assert lib.load_vocabulary('bytes:0').size == 259
  (tmp_path / 'tokenizer_config.json').write_text('{"extra_ids": 96}')
  assert lib.load_vocabulary(path).size == pieces + 96
  assert lib.load_vocabulary(f'{path}:5').size == pieces + 5
  (tmp_path / 'tokenizer_config.json').write_text('{"extra_ids": "96"}')
  with pytest.raises(UserError, match=facts('tokenizer_config.json', 'extra_ids', "'96'")):
    lib.load_vocabulary(path)


def test_sentinels_are_ids(vocabulary_file, tmp_path):
  words = lib.load_vocabulary(vocabulary_file)
  assert [words.encode(f'<extra_id_{i}>')[-1] for i in range(100)] == list(words.sentinels)
  assert lib.ByteVocabulary().sentinels[:2] == (258, 257)  # ByT5's last bytes
  raw = vocabulary_file.read_bytes() + b''.join(lib._piece(f'▁<extra_id_{i}>') for i in (0, 1))
  (tmp_path / 'own.model').write_bytes(raw)
  own = lib.load_vocabulary(tmp_path / 'own.model')
  assert own.sentinels == (own.size - 2, own.size - 1)
