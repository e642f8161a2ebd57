"""What a task yields without any model of ours: figures to print beside a prompt's."""

import collections
from collections.abc import Sequence

from prompt_jax.data.example import Example


def majority(train: Sequence[Example], test: Sequence[Example]) -> float:
  """Accuracy in [0, 1] on `test` of always answering the most frequent label of `train`."""
  ((label, _),) = collections.Counter(e.label for e in train).most_common(1)
  return sum(e.label == label for e in test) / len(test)


def bag_of_words(train: Sequence[Example], test: Sequence[Example]) -> float | None:
  """Accuracy in [0, 1] on `test` of logistic regression on TF-IDF of words and pairs of words.

  It reads the whole text, before truncation. The settings are scikit-learn's defaults but for
  sublinear counts and weaker regularisation (C = 10), the usual ones for short texts.
  None where no text has a word (of two letters or digits, as scikit-learn counts).
  """
  # Imported here: scikit-learn takes a second to import, and most commands do not need it.
  from sklearn.feature_extraction.text import TfidfVectorizer
  from sklearn.linear_model import LogisticRegression

  vectorizer = TfidfVectorizer(ngram_range=(1, 2), sublinear_tf=True)
  words_of = vectorizer.build_analyzer()
  if not any(words_of(e.inputs_text) for e in train):
    return None
  features = vectorizer.fit_transform([e.inputs_text for e in train])
  classifier = LogisticRegression(C=10.0, max_iter=1000).fit(features, [e.label for e in train])
  test_features = vectorizer.transform([e.inputs_text for e in test])
  return float(classifier.score(test_features, [e.label for e in test]))
