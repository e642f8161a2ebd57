"""Metrics of generated text, in percent. A target is a text or a list of right answers."""

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


def answers(target: Target) -> list[str]:
  """The right answers as a list."""
  if isinstance(target, list | tuple):
    return [str(answer) for answer in target]
  return [str(target)]


def exact_match(targets: Sequence, predictions: Sequence) -> dict[str, float]:
  """Share of predictions equal to one of their answers, as they stand: {"exact_match"}.

  T5's sequence_accuracy; for texts, white space at the ends does not count.
  """
  hits = [right(t, p) for t, p in zip(targets, predictions, strict=True)]
  return {'exact_match': 100 * float(np.mean(hits))}


def right(target: Any, prediction: Any) -> bool:
  """Whether a prediction is its target, or one of the right answers."""
  if not isinstance(prediction, str):
    options = target if isinstance(target, list | tuple) else [target]
    return prediction in options
  return prediction.strip() in [answer.strip() for answer in answers(target)]


def normalize_answer(text: str) -> str:
  """SQuAD's normalisation: lower case, without ASCII punctuation, articles and extra space."""
  text = ''.join(c for c in text.lower() if c not in _PUNCTUATION)
  return ' '.join(_ARTICLES.sub(' ', text).split())


def squad(targets: Sequence[Target], predictions: Sequence[str]) -> dict[str, float]:
  """SQuAD 1.1 (Rajpurkar et al. 2016): {"em", "f1"}, each the best over the right answers."""
  pairs = list(zip(targets, predictions, strict=True))
  return {
    'em': 100 * float(np.mean([_best(_same, t, p) for t, p in pairs])),
    'f1': 100 * float(np.mean([_best(_token_f1, t, p) for t, p in pairs])),
  }


def _best(score: Callable[[str, str], float], target: Target, prediction: str) -> float:
  given = normalize_answer(prediction)
  return max((score(normalize_answer(a), given) for a in answers(target)), default=0.0)


def _same(answer: str, given: str) -> float:
  return float(answer == given)


def _token_f1(answer: str, given: str) -> float:
  """Harmonic mean of the precision and recall of words, with their numbers of occurrences."""
  want, have = collections.Counter(answer.split()), collections.Counter(given.split())
  shared = (want & have).total()
  return 2 * shared / (want.total() + have.total()) if shared else 0.0


def span_f1(targets: Sequence[Target], predictions: Sequence[str]) -> dict[str, float]:
  """F1 of names written as "PER: Ada $$ LOC: Bonn", over all texts together: {"span_f1"}.

  mT5's measure of WikiAnn: a name counts with its kind and as often as it stands there, after
  SQuAD's normalisation; what has no kind is no name. 0 where no name is right.
  """
  found = [span_counts(t, p) for t, p in zip(targets, predictions, strict=True)]
  right, given, wanted = map(sum, zip(*found, strict=True))
  return {'span_f1': 100 * 2 * right / (given + wanted) if right else 0.0}


def span_counts(target: Target, prediction: str) -> tuple[int, int, int]:
  """Of one text the names that are right, given, and wanted."""
  want, have = _names(answers(target)[0]), _names(prediction)
  return (want & have).total(), have.total(), want.total()


def _names(text: str) -> collections.Counter[tuple[str, str]]:
  parts = (part.partition(':') for part in text.split('$$'))
  return collections.Counter(
    (normalize_answer(kind), normalize_answer(name)) for kind, colon, name in parts if colon
  )


def bleu(
  targets: Sequence[Target], predictions: Sequence[str], tokenize: str = 'intl'
) -> dict[str, float]:
  """Corpus BLEU by sacrebleu with T5's settings (tokenisation "intl", exponential smoothing).

  Args:
    targets: a reference each, or several; their number may differ between examples.
    predictions: a text each.
    tokenize: sacrebleu's name of a tokenisation; "13a" is what most papers on WMT report.

  Returns:
    {"bleu": percent}.
  """
  import sacrebleu

  references = [answers(target) for target in targets]
  # sacrebleu wants the i-th references of all examples together, None where there is none.
  streams: list[Any] = [
    [row[i] if i < len(row) else None for row in references]
    for i in range(max(map(len, references)))
  ]
  result = sacrebleu.corpus_bleu(
    list(predictions),
    streams,
    smooth_method='exp',
    force=True,
    tokenize=tokenize,
  )
  return {'bleu': float(result.score)}


def bleu_counts(
  targets: Sequence[Target], predictions: Sequence[str], tokenize: str = 'intl'
) -> np.ndarray:
  """float64[N, 10]: of each text the n-grams (n = 1 to 4) that are right and that there are, its
  length, and the length of the reference nearest in length. BLEU is a function of their sums."""
  from sacrebleu.metrics import BLEU

  # The order changes the scores of single sentences, which are not read.
  counter = BLEU(tokenize=tokenize, force=True, effective_order=True)
  rows = []
  for target, prediction in zip(targets, predictions, strict=True):
    found = counter.sentence_score(prediction, answers(target))
    rows.append([*found.counts, *found.totals, found.sys_len, found.ref_len])
  return np.array(rows, np.float64)


def bleu_of_counts(sums: np.ndarray) -> float:
  """BLEU in percent from the sums of `bleu_counts`, float64[10]."""
  from sacrebleu.metrics import BLEU

  *counts, length, wanted = (int(n) for n in sums)
  found = BLEU.compute_bleu(counts[:4], counts[4:], length, wanted, smooth_method='exp')
  return float(found.score)


def rouge(targets: Sequence[Target], predictions: Sequence[str]) -> dict[str, float]:
  """Mean F-measure of ROUGE-1, -2 and -Lsum (rouge-score, no stemming).

  Of several references the best counts. T5 reports the middle of bootstrap samples of the same
  quantity, which changes from run to run; this is the mean itself. rouge-score reads ASCII
  letters and digits only: use `sp_rouge` for other scripts.

  Returns:
    {"rouge1", "rouge2", "rougeLsum": percent}.
  """
  return _rouge(targets, predictions, None)


def sp_rouge(
  targets: Sequence[Target], predictions: Sequence[str], vocabulary: Vocabulary
) -> dict[str, float]:
  """ROUGE of the tokens of a vocabulary in place of words, for any script (Vu et al. 2022).

  The figures that were published are with mT5's vocabulary; those of another are not comparable.
  A token that the vocabulary does not know equals no other.

  Args:
    targets: as in `rouge`.
    predictions: as in `rouge`.
    vocabulary: whose tokens are compared.

  Returns:
    {"sp_rouge1", "sp_rouge2", "sp_rougeLsum": percent}.
  """
  found = _rouge(targets, predictions, _Tokens(vocabulary))
  return {f'sp_{kind}': value for kind, value in found.items()}


class _Tokens:
  """A vocabulary as rouge-score's tokenizer."""

  def __init__(self, vocabulary: Vocabulary):
    self._vocabulary = vocabulary

  def tokenize(self, text: str) -> list[Any]:
    unknown = self._vocabulary.unk_id
    return [object() if i == unknown else i for i in self._vocabulary.encode(text)]


def _rouge(
  targets: Sequence[Target], predictions: Sequence[str], tokenizer: _Tokens | None
) -> dict[str, float]:
  from rouge_score import rouge_scorer

  scorer = rouge_scorer.RougeScorer(list(ROUGE_TYPES), tokenizer=tokenizer)
  rows = [
    scorer.score_multi([_sentences(a) for a in answers(target)], _sentences(prediction))
    for target, prediction in zip(targets, predictions, strict=True)
  ]
  return {kind: 100 * float(np.mean([row[kind].fmeasure for row in rows])) for kind in ROUGE_TYPES}


def _sentences(text: str) -> str:
  """Lsum compares line by line; T5's data separates sentences by ' . '."""
  return text.replace(' . ', ' .\n')
