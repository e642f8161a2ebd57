"""Every metric against the library or the definition that it stands for, to 1e-9."""

import collections
import itertools
import re
import string

import numpy as np
import pytest
import sacrebleu
import scipy.stats
import sklearn.metrics
from rouge_score import rouge_scorer

from prompt_jax.evaluation import metrics
from prompt_jax.testing import tiny

WORDS = ['the', 'a', 'an', 'cat', 'Cat.', 'dog,', 'no', '3.5', 'U.S.', "isn't", '£5']
TEXTS = ('random', 'empty predictions', 'one prediction', 'as the targets', 'one text')


def texts(kind: str, seed: int):
  """Targets (some with several answers) and predictions."""
  rng = np.random.default_rng(seed)
  write = lambda low: ' '.join(rng.choice(WORDS, rng.integers(low, 9)))
  count = 1 if kind == 'one text' else 12
  targets = [[write(1) for _ in range(1 + i % 3)] for i in range(count)]
  random = [' '.join([t[0], write(0)]) if i % 2 else write(0) for i, t in enumerate(targets)]
  return targets, {
    'empty predictions': [''] * count,
    'one prediction': ['the cat'] * count,
    'as the targets': [t[-1] for t in targets],
  }.get(kind, random)


CLASSES = ('random', 'one class predicted', 'one class', 'all wrong', 'one example')


def classes(kind: str, seed: int, top: int):
  """Label indices of targets and predictions."""
  rng = np.random.default_rng(seed)
  count = 1 if kind == 'one example' else 40
  t, p = rng.integers(0, top, (2, count))
  if kind == 'one class':
    t[:] = 1
  if kind in ('one class', 'one class predicted'):
    p[:] = 1
  if kind == 'all wrong':
    p = (t + 1) % top
  return t.tolist(), p.tolist()


def close(found, want):
  assert found == pytest.approx(want, abs=1e-9, rel=0)


@pytest.mark.parametrize('kind', CLASSES)
@pytest.mark.parametrize('seed', range(3))
def test_labels(kind, seed):
  t, p = classes(kind, seed, 2)
  close(metrics.compute(['accuracy'], t, p)['accuracy'], 100 * sklearn.metrics.accuracy_score(t, p))
  _, _, f1, _ = sklearn.metrics.precision_recall_fscore_support(
    t, p, labels=[0, 1], zero_division=0
  )
  close(metrics.compute(['f1'], t, p)['f1'], 100 * f1[1])
  # The phi coefficient, which is Pearson's correlation of two binary variables.
  constant = len(set(t)) == 1 or len(set(p)) == 1
  phi = 0 if constant else np.corrcoef(t, p)[0, 1]
  close(metrics.compute(['matthews_corrcoef'], t, p)['matthews_corrcoef'], 100 * phi)
  t, p = classes(kind, seed, 3)
  _, _, f1, _ = sklearn.metrics.precision_recall_fscore_support(
    t, p, labels=[0, 1, 2], zero_division=0
  )
  close(metrics.compute(['f1_macro'], t, p, labels=3)['f1_macro'], 100 * f1.mean())  # CB


@pytest.mark.parametrize('kind', CLASSES)
@pytest.mark.parametrize('seed', range(3))
def test_numbers(kind, seed):
  t, p = (np.array(x) / 5 for x in classes(kind, seed, 26))
  found = metrics.compute(['pearson_corrcoef', 'spearman_corrcoef'], t, p)
  if np.ptp(t) == 0 or np.ptp(p) == 0:
    assert set(found.values()) == {0.0}
    return
  close(found['pearson_corrcoef'], 100 * np.corrcoef(t, p)[0, 1])
  ranks = [scipy.stats.rankdata(x) for x in (t, p)]
  close(found['spearman_corrcoef'], 100 * np.corrcoef(*ranks)[0, 1])


@pytest.mark.parametrize('kind', CLASSES)
def test_multirc(kind):
  """F1a is over all answers of all questions; a question counts if all its answers are right."""
  t, p = classes(kind, 0, 2)
  groups = [i // 3 for i in range(len(t))]
  found = metrics.compute(['f1', 'group_exact_match'], t, p, groups)
  right = [
    all(t[i] == p[i] for i in members)
    for _, members in itertools.groupby(range(len(t)), lambda i: groups[i])
  ]
  close(found['exact_match'], 100 * np.mean(right))
  close(found['f1'], 100 * sklearn.metrics.f1_score(t, p, zero_division=0))
  assert list(found) == ['f1', 'exact_match']


def _squad(answers, prediction):
  """em and f1 of SQuAD 1.1's script (Rajpurkar et al. 2016), written out."""

  def normal(text):
    kept = ''.join(c for c in text.lower() if c not in string.punctuation)
    return ' '.join(w for w in re.sub(r'\b(a|an|the)\b', ' ', kept).split())

  em = f1 = 0.0
  have = normal(prediction).split()
  for answer in answers:
    want = normal(answer).split()
    em = max(em, float(want == have))
    same = sum((collections.Counter(want) & collections.Counter(have)).values())
    if same:
      precision, recall = same / len(have), same / len(want)
      f1 = max(f1, 2 * precision * recall / (precision + recall))
  return em, f1


@pytest.mark.parametrize('kind', TEXTS)
def test_squad_and_record(kind):
  for seed in range(3):
    t, p = texts(kind, seed)
    want = 100 * np.mean([_squad(*pair) for pair in zip(t, p, strict=True)], axis=0)
    found = metrics.compute(['squad'], t, p)
    close([found['em'], found['f1']], want.tolist())
    # ReCoRD's questions stand once for each right answer, and count once.
    twice = [t[0], *t], [p[0], *p], [0, *range(len(t))]
    close(list(metrics.compute(['squad_by_group'], *twice).values()), [found['f1'], found['em']])


@pytest.mark.parametrize('kind', TEXTS)
def test_bleu(kind):
  for seed in range(3):
    t, p = texts(kind, seed)
    bleu = sacrebleu.BLEU(tokenize='intl', smooth_method='exp', force=True)
    streams = [[a[i] if i < len(a) else None for a in t] for i in range(max(map(len, t)))]
    close(metrics.compute(['bleu'], t, p)['bleu'], bleu.corpus_score(p, streams).score)


@pytest.mark.parametrize('kind', TEXTS)
def test_rouge(kind):
  t, p = texts(kind, 0)
  scorer = rouge_scorer.RougeScorer(['rouge1', 'rouge2', 'rougeLsum'])
  for name, value in metrics.compute(['rouge'], t, p).items():
    best = [
      max(scorer.score(a, x)[name].fmeasure for a in answers)
      for answers, x in zip(t, p, strict=True)
    ]
    close(value, 100 * np.mean(best))


class Characters:
  """What the tiny vocabulary's tokens are, for rouge-score."""

  def tokenize(self, text):
    known = tiny.Vocabulary.characters
    return [c if c in known else f'{c}{i}' for i, c in enumerate(text)]


@pytest.mark.parametrize('kind', TEXTS)
def test_sp_rouge(kind):
  t, p = texts(kind, 1)
  t, p = [[a.lower() for a in answers] for answers in t], [x.lower() for x in p]
  strip = lambda x: re.sub('[^a-z0-9 ]', '', x)  # every character is a token
  t, p = [[strip(a) for a in answers] for answers in t], [strip(x) for x in p]
  scorer = rouge_scorer.RougeScorer(['rouge1', 'rouge2', 'rougeLsum'], tokenizer=Characters())
  found = metrics.compute(['sp_rouge'], t, p, vocabulary=tiny.Vocabulary())
  assert list(found) == ['sp_rougeLsum', 'sp_rouge1', 'sp_rouge2']
  for name, value in found.items():
    best = [
      max(scorer.score(a, x)[name.removeprefix('sp_')].fmeasure for a in answers)
      for answers, x in zip(t, p, strict=True)
    ]
    close(value, 100 * np.mean(best))


def test_sp_rouge_reads_any_script_that_its_vocabulary_knows():
  from prompt_jax.data.vocabulary import ByteVocabulary

  both = ['кошка спит'], ['кошка ест']
  assert metrics.compute(['rouge'], *both)['rouge1'] == 0
  known = metrics.compute(['sp_rouge'], *both, vocabulary=ByteVocabulary())
  assert 50 < known['sp_rouge1'] < 100
  # A token that is not known equals no other, not even itself.
  unknown = metrics.compute(['sp_rouge'], ['кот'], ['кот'], vocabulary=tiny.Vocabulary())
  assert unknown['sp_rouge1'] == 0
