"""Metrics against their formulas in NumPy, the libraries' own values and hand-made cases."""

import itertools
import warnings

import numpy as np
import pytest
import sklearn.metrics
from hypothesis import given, settings
from hypothesis import strategies as st

from prompt_jax.errors import UserError
from prompt_jax.evaluation import metrics, text_metrics
from prompt_jax.testing import tiny
from tests.shared import facts

LABELS = st.lists(st.tuples(st.integers(0, 3), st.integers(-1, 3)), min_size=1, max_size=30)
BINARY = st.lists(st.tuples(st.integers(0, 1), st.integers(-1, 1)), min_size=1, max_size=30)
NUMBERS = st.lists(st.tuples(st.integers(-50, 50), st.integers(-50, 50)), min_size=2, max_size=30)


def score(name, targets, predictions, **options):
  """The score of a metric that selects prompts."""
  return metrics.compute([name], targets, predictions, **options)[metrics.scores_of([name])[0]]


def _columns(pairs):
  return [list(column) for column in zip(*pairs, strict=True)]


def _f1(t, p, label):
  hit = np.sum((t == label) & (p == label))
  return 200 * hit / max(np.sum(t == label) + np.sum(p == label), 1)


def _ranks(x):
  """1-based, ties share their mean rank."""
  return np.array([np.sum(x < v) + (np.sum(x == v) + 1) / 2 for v in x])


def _pearson(x, y):
  x, y = x - x.mean(), y - y.mean()
  return 100 * np.sum(x * y) / np.sqrt(np.sum(x * x) * np.sum(y * y))


@settings(deadline=None)
@given(LABELS)
def test_accuracy_and_f1_macro_follow_their_formulas(pairs):
  t, p = _columns(pairs)
  ta, pa = np.array(t), np.array(p)
  assert score('accuracy', t, p) == pytest.approx(100 * np.mean(ta == pa))
  want = np.mean([_f1(ta, pa, label) for label in range(4)])
  assert score('f1_macro', t, p, labels=4) == pytest.approx(want)


def test_f1_macro_is_scikit_learns_over_all_labels_of_the_task():
  t, p = [0, 0, 1, 1], [0, 2, 1, 1]  # label 2 is predicted, but no target; label 3 is neither
  of_seen = 100 * sklearn.metrics.f1_score(t, p, average='macro')
  scores = metrics.compute(['f1_macro'], t, p, labels=3)
  assert scores == {'f1_macro': pytest.approx(of_seen)}
  assert score('f1_macro', t, p, labels=4) == pytest.approx(of_seen * 3 / 4)
  assert score('f1_macro', t, [0, -1, 1, 1], labels=3) == pytest.approx(of_seen)
  with pytest.raises(UserError, match=facts("'f1_macro'", 'labels')):
    metrics.compute(['f1_macro'], ['a'], ['a'])


@settings(deadline=None)
@given(BINARY)
def test_binary_f1_counts_an_invalid_prediction_as_the_other_label(pairs):
  t, p = map(np.array, _columns(pairs))
  want = _f1(t, np.where(p < 0, 1 - t, p), 1)
  assert score('f1', t, p) == pytest.approx(want)


@settings(deadline=None)
@given(BINARY)
def test_matthews_follows_its_formula(pairs):
  t, p = map(np.array, _columns(pairs))
  p = np.abs(p)
  tp, tn = np.sum((t == 1) & (p == 1)), np.sum((t == 0) & (p == 0))
  fp, fn = np.sum((t == 0) & (p == 1)), np.sum((t == 1) & (p == 0))
  under = np.sqrt(float((tp + fp) * (tp + fn) * (tn + fp) * (tn + fn)))
  want = 100 * (tp * tn - fp * fn) / under if under else 0
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    got = score('matthews_corrcoef', t, p)
  assert got == pytest.approx(want, abs=1e-6)


@settings(deadline=None)
@given(NUMBERS)
def test_correlations_follow_their_formulas_and_are_0_for_constants(pairs):
  t, p = map(np.array, _columns(pairs))
  pearson = score('pearson_corrcoef', t, p)
  spearman = score('spearman_corrcoef', t, p)
  if np.ptp(t) == 0 or np.ptp(p) == 0:
    assert pearson == spearman == 0
  else:
    assert pearson == pytest.approx(_pearson(t, p), abs=1e-6)
    assert spearman == pytest.approx(_pearson(_ranks(t), _ranks(p)), abs=1e-6)


def test_correlations_read_texts_and_count_other_words_as_minus_one():
  t, p = ['0.0', '2.5', '5.0'], ['-1', '2', '5']
  same = score('pearson_corrcoef', t, p)
  assert score('pearson_corrcoef', t, ['entailment', '2', '5']) == same
  assert score('pearson_corrcoef', t, ['nan', '2', '5']) == same


def test_f1_refuses_more_than_two_labels():
  with pytest.raises(UserError, match='f1_macro'):
    score('f1', [0, 1, 2], [0, 1, 2])


def test_grouped_metrics():
  t, p, groups = [1, 0, 1, 1], [1, 0, 1, 0], ['a', 'a', 'b', 'b']
  names = ['accuracy', 'group_exact_match']
  assert metrics.compute(names, t, p, groups) == {'accuracy': 75.0, 'exact_match': 50.0}
  scores = metrics.compute(['squad_by_group'], ['x', 'y', 'z'], ['x', 'no', 'no'], [7, 7, 8])
  assert scores == {'em': 50.0, 'f1': 50.0}
  with pytest.raises(UserError, match="'group'"):
    metrics.compute(['group_exact_match'], t, p)


def test_compute_names_what_it_does_not_know_and_refuses_nothing_to_measure():
  with pytest.raises(UserError, match="'accuracy'"):
    metrics.compute(['acuracy'], [1], [1])
  with pytest.raises(UserError, match='examples'):
    metrics.compute(['accuracy'], [], [])
  with pytest.raises(UserError, match='vocabulary'):
    metrics.compute(['sp_rouge'], ['a'], ['a'])
  with pytest.raises(ValueError, match='zip'):
    score('accuracy', [1, 2], [1])


@pytest.mark.parametrize(
  'name', [n for n in metrics.METRICS if metrics.METRICS[n].needs in (None, 'labels')]
)
def test_every_metric_gives_finite_percentages_for_one_example(name):
  text = name in ('bleu', 'rouge', 'squad', 'span_f1')
  scores = metrics.compute([name], ['a word' if text else 1], ['a word' if text else 1], labels=2)
  assert scores
  assert all(np.isfinite(v) and -100 <= v <= 100.000001 for v in scores.values())


def test_exact_match_accepts_any_answer_and_ignores_outer_space_only():
  t = ['Paris', ['a', 'b'], 'x', 3]
  assert score('exact_match', t, [' Paris ', 'b', 'X', 3]) == 75.0


@pytest.mark.parametrize(
  ('text', 'normal'),
  [
    ('The  Cat, sat.', 'cat sat'),
    ('an apple a day', 'apple day'),
    ('theme of Anna', 'theme of anna'),
    ('U.S.A.', 'usa'),
    ('\tÉcole\n', 'école'),
    ('the', ''),
  ],
)
def test_normalisation_is_squads(text, normal):
  assert text_metrics.normalize_answer(text) == normal


def test_squad_takes_the_best_of_the_answers():
  got = metrics.compute(
    ['squad'], [['the red cat', 'dog'], ['blue house'], []], ['Dog!', 'a blue car', 'x']
  )
  assert got['em'] == pytest.approx(100 / 3)
  assert got['f1'] == pytest.approx(100 * (1 + 0.5 + 0) / 3)


@given(st.lists(st.sampled_from('abc'), max_size=6), st.lists(st.sampled_from('abc'), max_size=6))
def test_squad_f1_counts_repeated_words(answer, given_words):
  answer = [w + 'x' for w in answer]  # a lone "a" would be an article
  given_words = [w + 'x' for w in given_words]
  shared = sum(min(answer.count(w), given_words.count(w)) for w in set(answer))
  want = 0.0
  if shared:
    precision, recall = shared / len(given_words), shared / len(answer)
    want = 200 * precision * recall / (precision + recall)
  got = score('squad', [' '.join(answer)], [' '.join(given_words)])
  assert got == pytest.approx(want)


def _bleu(references, hypotheses):
  """Papineni et al. 2002 for white-space tokens, one reference, no zero counts."""
  hits, total = np.zeros(4), np.zeros(4)
  for r, h in zip(references, hypotheses, strict=True):
    r, h = r.split(), h.split()
    for n in range(4):
      grams = lambda x, n=n: list(zip(*(x[i:] for i in range(n + 1)), strict=False))
      hits[n] += sum(min(grams(h).count(g), grams(r).count(g)) for g in set(grams(h)))
      total[n] += len(grams(h))
  lengths = [sum(len(x.split()) for x in xs) for xs in (references, hypotheses)]
  brevity = min(1, np.exp(1 - lengths[0] / lengths[1]))
  return 100 * brevity * np.exp(np.mean(np.log(hits / total)))


def test_bleu_is_papinenis():
  references = ['the cat sat on the mat today', 'it is a fine day out here']
  hypotheses = ['the cat sat on the mat', 'it is a fine day there']
  got = score('bleu', references, hypotheses)
  assert got == pytest.approx(_bleu(references, hypotheses))


def test_bleu_takes_references_of_different_number_and_t5s_tokens():
  full = 'one two three four five'
  assert score('bleu', [['no', full], [full]], [full, full]) == pytest.approx(100)
  # "intl" splits symbols off words, "13a" does not.
  pair = (['one two three four £5 six'], ['one two three four £ 5 six'])
  assert score('bleu', *pair) == pytest.approx(100)
  counts = text_metrics.bleu_counts(*pair, tokenize='13a')
  assert text_metrics.bleu_of_counts(counts.sum(axis=0)) < 99


def _lcs(a, b):
  best = np.zeros((len(a) + 1, len(b) + 1))
  for i, j in itertools.product(range(len(a)), range(len(b))):
    best[i + 1, j + 1] = max(best[i, j + 1], best[i + 1, j], best[i, j] + (a[i] == b[j]))
  return best[-1, -1]


@settings(deadline=None)
@given(*[st.lists(st.sampled_from(['red', 'blue', 'cat']), min_size=2, max_size=6)] * 2)
def test_rouge_of_one_sentence_is_lins(reference, hypothesis):
  def overlap(n):
    grams = lambda x: list(zip(*(x[i:] for i in range(n)), strict=False))
    r, h = grams(reference), grams(hypothesis)
    return 200 * sum(min(r.count(g), h.count(g)) for g in set(h)) / (len(r) + len(h))

  got = metrics.compute(['rouge'], [' '.join(reference)], [' '.join(hypothesis)])
  longest = 200 * _lcs(reference, hypothesis) / (len(reference) + len(hypothesis))
  assert got['rouge1'] == pytest.approx(overlap(1))
  assert got['rouge2'] == pytest.approx(overlap(2))
  assert got['rougeLsum'] == pytest.approx(longest)


def test_rouge_takes_the_best_reference_and_sums_over_sentences():
  assert metrics.compute(['rouge'], [['x y', 'a b']], ['a b'])['rouge2'] == pytest.approx(100)
  # Swapped sentences keep their words together only if they are compared line by line.
  got = metrics.compute(['rouge'], ['a b c . d e f'], ['d e f . a b c'])
  assert got['rougeLsum'] == pytest.approx(100)


@pytest.mark.parametrize('name', metrics.METRICS)
def test_the_names_of_scores_are_those_that_are_given(name):
  text = name not in ('accuracy', 'f1', 'f1_macro', 'group_exact_match') and 'corrcoef' not in name
  values = ['a b c d', 'b c d e'] if text else [0, 1]
  found = metrics.compute([name], values, values, ['one', 'two'], 2, tiny.Vocabulary())
  assert metrics.scores_of([name]) == list(found)
