"""Each initialiser against a few lines of NumPy, and what it refuses."""

import warnings

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prompt_jax.errors import UserError
from prompt_jax.prompts import initializers as ini
from prompt_jax.testing import tiny
from tests.shared import facts

H = 8
VOCABULARY = tiny.Vocabulary()
# Rows differ and their values are exact in bfloat16, so that a row tells which id it came from.
TABLE = np.random.default_rng(0).permutation(64 * H).reshape(64, H).astype(np.float32) % 251
WORDS = set(range(3, 40))  # of VOCABULARY: no padding, end, unknown or sentinel
KEY = jax.random.key(7)


def make(init, *shape, key=KEY, embedding=TABLE, vocabulary=VOCABULARY):
  return np.asarray(init(key, shape, embedding, vocabulary))


def ids_of(rows):
  """The table row that each row of the result equals."""
  equal = np.all(rows[..., None, :] == TABLE, axis=-1)
  assert equal.any(-1).all(), 'a row is no embedding'
  return equal.argmax(-1)


@pytest.mark.parametrize(
  ('init', 'low', 'high'),
  [(ini.Uniform(), -0.5, 0.5), (ini.PositiveUniform(), 0.0, 0.5), (ini.Uniform(2.0), -2.0, 2.0)],
)
def test_uniform_fills_its_interval_and_nothing_else(init, low, high):
  value = make(init, 1000, H)
  assert value.dtype == np.float32
  width = high - low
  assert low <= value.min() < low + 0.01 * width
  assert high - 0.01 * width < value.max() < high
  np.testing.assert_allclose(value.mean(), (low + high) / 2, atol=0.02 * width)
  np.testing.assert_allclose(value.std(), width / np.sqrt(12), rtol=0.02)


def test_zeros_and_normal():
  assert not make(ini.Zeros(), 2, 3, H).any()
  value = make(ini.Normal(0.5), 2000, H)
  np.testing.assert_allclose([value.mean(), value.std()], [0.0, 0.5], atol=0.02)


def test_matched_normal_has_the_moments_of_the_real_rows():
  table = np.concatenate([TABLE[: VOCABULARY.size], np.full((14, H), 1e6, np.float32)])
  value = make(ini.MatchedNormal(), 20000, H, embedding=table)
  real = TABLE[: VOCABULARY.size]
  np.testing.assert_allclose(value.mean(0), real.mean(0), atol=0.03 * real.std())
  np.testing.assert_allclose(value.std(0), real.std(0), rtol=0.03)
  all_rows = make(ini.MatchedNormal(), 20000, H, vocabulary=None)
  np.testing.assert_allclose(all_rows.std(0), TABLE.std(0), rtol=0.03)


@settings(max_examples=25, deadline=None)
@given(
  p=st.integers(1, 60),
  population=st.integers(4, 200),
  lead=st.sampled_from([(), (3,), (2, 2)]),
  seed=st.integers(0, 99),
)
def test_sampled_vocabulary_draws_words_without_repeating_while_it_can(p, population, lead, seed):
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    value = make(ini.SampledVocabulary(population), *lead, p, H, key=jax.random.key(seed))
  ids = ids_of(value).reshape(-1, p)
  allowed = WORDS & set(range(population))
  assert set(ids.ravel()) <= allowed
  for row in ids:
    if p <= len(allowed):
      assert len(set(row)) == p


def test_sampled_vocabulary_reaches_the_whole_population_and_depends_on_the_key():
  init = ini.SampledVocabulary(10)
  assert set(ids_of(make(init, 7, H))) == set(range(3, 10))
  assert set(ids_of(make(init, 300, H))) == set(range(3, 10))  # with replacement
  many = make(ini.SampledVocabulary(40), 4, 20, H)
  assert len({tuple(ids_of(many[i])) for i in range(4)}) == 4  # one draw for each layer
  assert not np.array_equal(make(init, 5, H), make(init, 5, H, key=jax.random.key(8)))


def test_sampled_vocabulary_matches_jax_choice_as_the_reference_draws():
  want = TABLE[np.asarray(jax.random.choice(KEY, np.arange(3, 40), (6,), replace=False))]
  np.testing.assert_array_equal(make(ini.SampledVocabulary(40), 6, H), want)


def test_sampled_vocabulary_warns_of_a_large_population_and_refuses_an_empty_one():
  with pytest.warns(UserWarning, match=facts('5000', '40')):
    make(ini.SampledVocabulary(), 3, H)
  with pytest.raises(UserError, match=facts('3', 'padding')):
    make(ini.SampledVocabulary(3), 3, H)
  with pytest.raises(UserError, match='at least 1'):
    ini.SampledVocabulary(0)


def test_class_labels_are_means_of_their_pieces_then_the_fallback():
  init = ini.ClassLabels(['cat', 'a', 'no 7'], ini.Zeros())
  value = make(init, 5, H)
  for i, label in enumerate(['cat', 'a', 'no 7']):
    np.testing.assert_allclose(value[i], TABLE[VOCABULARY.encode(label)].mean(0), rtol=1e-6)
  assert not value[3:].any()
  rest = make(ini.ClassLabels(('a',), ini.SampledVocabulary(40)), 5, H)[1:]
  assert set(ids_of(rest)) <= WORDS
  layers = make(init, 2, 5, H)
  np.testing.assert_array_equal(layers, np.stack([value, value]))


def test_class_labels_that_do_not_fit_are_named_in_a_warning():
  with pytest.warns(UserWarning, match=facts('2', '3', "'c'")):
    value = make(ini.ClassLabels(('a', 'b', 'c')), 2, H)
  np.testing.assert_array_equal(ids_of(value), [3, 4])


@settings(max_examples=25, deadline=None)
@given(text=st.text('abc xyz!', min_size=1, max_size=6), p=st.integers(6, 14))
def test_text_gives_row_i_to_piece_i_and_tiles_on_request(text, p):
  ids = VOCABULARY.encode(text)
  value = make(ini.Text(text, fallback=ini.Zeros()), p, H)
  np.testing.assert_array_equal(value[: len(ids)], TABLE[ids])
  assert not value[len(ids) :].any()
  tiled = make(ini.Text(text, tile=True), p, H)
  np.testing.assert_array_equal(tiled, TABLE[(ids * p)[:p]])


def test_a_long_text_is_cut_with_a_warning():
  with pytest.warns(UserWarning, match=facts('2', '5', '3')):
    value = make(ini.Text('hello'), 2, H)
  np.testing.assert_array_equal(value, TABLE[VOCABULARY.encode('he')])


def test_array_and_file_are_taken_as_they_are(tmp_path):
  want = np.random.default_rng(1).normal(size=(3, H))
  np.save(tmp_path / 'prompt.npy', want)
  (tmp_path / 'encoder.prompt').write_bytes((tmp_path / 'prompt.npy').read_bytes())
  for init in (
    ini.FromArray(want),
    ini.FromFile(str(tmp_path / 'prompt.npy')),
    ini.FromFile(str(tmp_path / 'encoder.prompt')),
  ):
    value = make(init, 3, H, embedding=None, vocabulary=None)
    assert value.dtype == np.float32
    np.testing.assert_array_equal(value, want.astype(np.float32))


def test_files_that_are_no_prompt_are_refused(tmp_path):
  np.save(tmp_path / 'short.npy', np.zeros((2, H)))
  np.save(tmp_path / 'words.npy', np.array([['a'] * H] * 3))
  np.save(tmp_path / 'nan.npy', np.full((3, H), np.nan))
  np.savez(tmp_path / 'many.npz', a=np.zeros((3, H)), b=np.zeros((3, H)))
  (tmp_path / 'text.npy').write_text('0.1 0.2')
  for name, match in [
    ('absent.npy', 'absent.npy'),
    ('short.npy', facts('short.npy', '(3, 8)', '(2, 8)')),
    ('words.npy', 'numbers'),
    ('nan.npy', facts('finite', '[0, 0]')),
    ('many.npz', facts('(a, b)')),
    ('text.npy', '.npy array'),
  ]:
    with pytest.raises(UserError, match=match):
      make(ini.FromFile(str(tmp_path / name)), 3, H)


READS_TABLE = (
  ini.SampledVocabulary(40),
  ini.ClassLabels(('a',), fallback=ini.SampledVocabulary(40)),
  ini.Text('a', fallback=ini.SampledVocabulary(40)),
  ini.MatchedNormal(),
)


@pytest.mark.parametrize('init', READS_TABLE, ids=lambda i: type(i).__name__)
def test_table_and_width_are_needed_and_bfloat16_is_read(init):
  with pytest.raises(UserError, match='embedding table'):
    init(KEY, (3, H))
  with pytest.raises(UserError, match=facts('8', '6')):
    make(init, 3, 6)
  half = make(init, 3, H, embedding=jax.numpy.asarray(TABLE, jax.numpy.bfloat16))
  assert half.dtype == np.float32
  np.testing.assert_allclose(half, make(init, 3, H), rtol=2e-2)


def test_without_labels_every_row_is_sampled():
  fallback = ini.SampledVocabulary(population=20)
  np.testing.assert_array_equal(
    make(ini.ClassLabels(fallback=fallback), 3, H), make(fallback, 3, H)
  )


def test_words_need_a_vocabulary_and_pieces():
  for init in READS_TABLE[:3]:
    with pytest.raises(UserError, match='vocabulary'):
      make(init, 3, H, vocabulary=None)
  with pytest.raises(UserError, match='pieces'):
    make(ini.Text(''), 3, H)
  with pytest.raises(UserError, match='pieces'):
    make(ini.ClassLabels(('a', '')), 3, H)
  with pytest.raises(UserError, match="'yes'"):
    ini.ClassLabels('yes')


def test_initialisers_hash_and_compare_by_value():
  assert ini.ClassLabels(['a', 'b']) == ini.ClassLabels(('a', 'b'))
  assert hash(ini.ClassLabels(['a', 'b'])) == hash(ini.ClassLabels(('a', 'b')))
  assert ini.Uniform(0.5) != ini.Uniform(0.4)
  hash(ini.FromArray(np.zeros(3)))
