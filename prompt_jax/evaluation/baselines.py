"""What a task yields without tuning any model of ours: figures to put beside a prompt's."""

import collections
from collections.abc import Mapping, Sequence

from prompt_jax.data.example import Example, Task
from prompt_jax.data.split_statistics import sample
from prompt_jax.evaluation.metrics import Scores
from prompt_jax.evaluation.predictions import Prediction
from prompt_jax.evaluation.suite import GAP, MEAN, summarise

MAJORITY = 'majority class'
WORDS = 'TF-IDF + logistic regression'
UNTUNED = 'the model, untuned'
# Training examples that the linear classifier reads at most: its time and memory grow with them,
# and its score hardly does.
MOST_ROWS = 20_000


def baselines(
  train: Sequence[Example], test: Sequence[Example], task: Task
) -> dict[str, Mapping[str, float]]:
  """Name -> scores in percent, of what needs no model of ours; {} for a task without labels.

  Of several tasks each is learned from its own examples, or those of the one trained on.
  """
  if not task.parts:
    found: dict[str, Scores] = {MAJORITY: _majority(train, test), WORDS: _words(train, test)}
    return {name: scores for name, scores in found.items() if scores}
  each: dict[str, dict[str, Scores]] = {MAJORITY: {}, WORDS: {}}
  for part in task.parts:
    learned = [e for e in train if e.task == (task.source or part.name)]
    asked = [e for e in test if e.task == part.name]
    each[MAJORITY][part.name] = _majority(learned, asked)
    each[WORDS][part.name] = _words(learned, asked)
  summaries = {name: _summary(scores, task) for name, scores in each.items()}
  return {name: scores for name, scores in summaries.items() if scores}


def _summary(scores: Mapping[str, Scores], task: Task) -> Scores:
  """Accuracies of the parts; their mean too if the mean of a model is over the same scores."""
  alike = all(scores[p.name] and p.score is None and p.metrics[0] == 'accuracy' for p in task.parts)
  found = summarise(scores, task.source)
  return found if alike else {n: v for n, v in found.items() if n not in (MEAN, GAP)}


def _majority(train: Sequence[Example], test: Sequence[Example]) -> Scores:
  """Of always answering the most frequent label of `train`."""
  if not _labelled(train, test):
    return {}
  ((label, _),) = collections.Counter(e.label for e in train).most_common(1)
  return {'accuracy': 100 * sum(e.label == label for e in test) / len(test)}


def _words(train: Sequence[Example], test: Sequence[Example]) -> Scores:
  if not _labelled(train, test) or len({e.label for e in train}) < 2:
    return {}
  score = bag_of_words(sample(train, MOST_ROWS), test)
  return {} if score is None else {'accuracy': 100 * score}


def _labelled(train: Sequence[Example], test: Sequence[Example]) -> bool:
  return bool(train and test) and not any(e.label is None for e in (*train, *test))


def bag_of_words(train: Sequence[Example], test: Sequence[Example]) -> float | None:
  """Accuracy in [0, 1] on `test` of logistic regression on TF-IDF of words and pairs of words.

  It reads the whole text, before truncation. The settings are scikit-learn's defaults but for
  sublinear counts and weaker regularisation (C = 10), the usual ones for short texts.
  None where no text has a word (of two letters or digits, as scikit-learn counts), or all have one
  label.
  """
  # Imported here: scikit-learn takes a second to import, and most commands do not need it.
  from sklearn.feature_extraction.text import TfidfVectorizer
  from sklearn.linear_model import LogisticRegression

  vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
  words_of = vectorizer.build_analyzer()
  if not any(words_of(e.inputs_text) for e in train) or len({e.label for e in train}) < 2:
    return None
  features = vectorizer.fit_transform([e.inputs_text for e in train])
  classifier = LogisticRegression(C=10.0, max_iter=1000).fit(features, [e.label for e in train])
  test_features = vectorizer.transform([e.inputs_text for e in test])
  return float(classifier.score(test_features, [e.label for e in test]))


def majority_predictions(
  train: Sequence[Example], examples: Sequence[Example], task: Task
) -> list[Prediction] | None:
  """What answering the most frequent training label of each task gives; None without labels."""
  parts = {part.name: part for part in task.parts or (task,)}
  name_of = lambda e: e.task if task.parts else task.name
  counts: dict[str, collections.Counter] = {name: collections.Counter() for name in parts}
  for e in train:
    counts.setdefault(name_of(e), collections.Counter())[e.label] += 1
  found = []
  for e in examples:
    seen, labels = counts[task.source or name_of(e)], parts[name_of(e)].labels
    if labels is None or e.label is None or not seen or None in seen:
      return None
    label = seen.most_common(1)[0][0]
    found.append(
      Prediction(
        e.inputs_text, e.targets_text, labels[label], label == e.label, {},
        task=e.task if task.parts else None, group=e.fields.get('group'),
      )
    )  # fmt: skip
  return found
