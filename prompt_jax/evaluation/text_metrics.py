"""What one generated text scores against its target: a text, or a list of correct answers."""

import collections
import re
import string
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from prompt_jax.data.vocabulary import Vocabulary

Target = str | Sequence[str]
_ARTICLES = re.compile(r'\b(a|an|the)\b')
_PUNCTUATION = frozenset(string.punctuation)
ROUGE_TYPES = ('rouge1', 'rouge2', 'rougeLsum')


def correct_answers(target: Target) -> list[str]:
  """The correct answers as a list."""
  if isinstance(target, list | tuple):
    return [str(answer) for answer in target]
  return [str(target)]


def is_correct(target: Any, prediction: Any) -> bool:
  """Whether a prediction is its target, or one of the correct answers.

  White space at the ends of texts does not count.
  """
  if not isinstance(prediction, str):
    options = target if isinstance(target, list | tuple) else [target]
    return prediction in options
  return prediction.strip() in [answer.strip() for answer in correct_answers(target)]


def normalize_answer(text: str) -> str:
  """SQuAD's normalisation: lower case, without ASCII punctuation, articles and extra space."""
  text = ''.join(c for c in text.lower() if c not in _PUNCTUATION)
  return ' '.join(_ARTICLES.sub(' ', text).split())


def squad_scores(target: Target, prediction: str) -> tuple[float, float]:
  """SQuAD 1.1's (exact match, F1 of words) from 0 to 1, each the best over the correct answers."""
  given = normalize_answer(prediction)
  answers = [normalize_answer(answer) for answer in correct_answers(target)]
  best = lambda score: max((score(answer, given) for answer in answers), default=0.0)
  return best(_same), best(_word_f1)


def _same(answer: str, given: str) -> float:
  return float(answer == given)


def _word_f1(answer: str, given: str) -> float:
  """Harmonic mean of the precision and recall of words, with their numbers of occurrences."""
  want, have = collections.Counter(answer.split()), collections.Counter(given.split())
  shared = (want & have).total()
  return 2 * shared / (want.total() + have.total()) if shared else 0.0


def span_counts(target: Target, prediction: str) -> tuple[int, int, int]:
  """How many names of a text are correct, given, and wanted (`metrics.span_f1`)."""
  want, have = _names(correct_answers(target)[0]), _names(prediction)
  return (want & have).total(), have.total(), want.total()


def _names(text: str) -> collections.Counter[tuple[str, str]]:
  parts = (part.partition(':') for part in text.split('$$'))
  return collections.Counter(
    (normalize_answer(kind), normalize_answer(name)) for kind, colon, name in parts if colon
  )


def bleu_counts(
  targets: Sequence[Target], predictions: Sequence[str], tokenize: str = 'intl'
) -> np.ndarray:
  """float64[N, 10]: the numbers of which BLEU is a function, summed over texts.

  Of each text the n-grams (n = 1 to 4) that are correct and that there are, its length, and the
  length of the reference nearest in length.

  Args:
    targets: one reference each, or several; their number may differ between examples.
    predictions: a text each.
    tokenize: sacrebleu's name of a tokenisation; "13a" is what most papers on WMT report.
  """
  from sacrebleu.metrics import BLEU

  # effective_order changes the scores of single sentences, which are not read.
  counter = BLEU(tokenize=tokenize, force=True, effective_order=True)
  rows = []
  for target, prediction in zip(targets, predictions, strict=True):
    found = counter.sentence_score(prediction, correct_answers(target))
    rows.append([*found.counts, *found.totals, found.sys_len, found.ref_len])
  return np.array(rows, np.float64)


def bleu_of_counts(sums: np.ndarray) -> float:
  """Corpus BLEU in percent from the sums of `bleu_counts`, float64[10]."""
  from sacrebleu.metrics import BLEU

  *counts, length, wanted = (int(n) for n in sums)
  found = BLEU.compute_bleu(counts[:4], counts[4:], length, wanted, smooth_method='exp')
  return float(found.score)


def rouge_scores(
  targets: Sequence[Target], predictions: Sequence[str], vocabulary: Vocabulary | None = None
) -> list[tuple[float, ...]]:
  """The F-measures of ROUGE_TYPES of each text from 0 to 1, the best over the references.

  Args:
    targets: one reference each, or several.
    predictions: a text each.
    vocabulary: whose tokens are compared; None for words.
  """
  from rouge_score import rouge_scorer

  tokenizer = None if vocabulary is None else _VocabularyTokenizer(vocabulary)
  scorer = rouge_scorer.RougeScorer(list(ROUGE_TYPES), tokenizer=tokenizer)
  score: Callable[[Target, str], Any] = lambda target, prediction: scorer.score_multi(
    [_sentences(a) for a in correct_answers(target)], _sentences(prediction)
  )
  rows = [score(t, p) for t, p in zip(targets, predictions, strict=True)]
  return [tuple(row[kind].fmeasure for kind in ROUGE_TYPES) for row in rows]


class _VocabularyTokenizer:
  """A vocabulary as rouge-score's tokenizer."""

  def __init__(self, vocabulary: Vocabulary):
    self._vocabulary = vocabulary

  def tokenize(self, text: str) -> list[Any]:
    unknown = self._vocabulary.unk_id
    return [object() if i == unknown else i for i in self._vocabulary.encode(text)]


def _sentences(text: str) -> str:
  """Lsum compares line by line; T5's data separates sentences by ' . '."""
  return text.replace(' . ', ' .\n')
