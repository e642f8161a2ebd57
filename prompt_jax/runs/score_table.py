"""The table of scores at the end of a run, with baselines that need no model of ours."""

import collections
import json
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

from rich.console import Console
from rich.table import Table

from prompt_jax.checkpoints.prompt_file import write_atomically
from prompt_jax.data.example import Example, Task
from prompt_jax.evaluation.suite import GAP, MEAN, summarise
from prompt_jax.runs.results import SystemScores
from prompt_jax.training.records import MeanStd, summarize

MAJORITY = 'majority class'
WORDS = 'TF-IDF + logistic regression'


def baselines(train: Sequence[Example], test: Sequence[Example], task: Task) -> list[SystemScores]:
  """The scores of systems that need no model of ours; none for a task without labels.

  Each of several tasks is learned from its own examples, or from those of the task trained on.
  """
  if not task.parts:
    found = {MAJORITY: _majority(train, test), WORDS: _words(train, test)}
  else:
    each: dict[str, dict[str, dict[str, float]]] = {MAJORITY: {}, WORDS: {}}
    for part in task.parts:
      learned = [e for e in train if e.task == (task.source or part.name)]
      asked = [e for e in test if e.task == part.name]
      each[MAJORITY][part.name] = _majority(learned, asked)
      each[WORDS][part.name] = _words(learned, asked)
    found = {name: _summary(scores, task) for name, scores in each.items()}
  return [SystemScores(name, [scores]) for name, scores in found.items() if scores]


def _summary(scores: Mapping[str, Mapping[str, float]], task: Task) -> dict[str, float]:
  """Accuracies of the parts; their mean too if the mean of a model is over the same scores."""
  alike = all(scores[p.name] and p.score is None and p.metrics[0] == 'accuracy' for p in task.parts)
  found = summarise(scores, task.source)
  return found if alike else {n: v for n, v in found.items() if n not in (MEAN, GAP)}


def _majority(train: Sequence[Example], test: Sequence[Example]) -> dict[str, float]:
  return {'accuracy': 100 * majority(train, test)} if _labelled(train, test) else {}


def _words(train: Sequence[Example], test: Sequence[Example]) -> dict[str, float]:
  if not _labelled(train, test) or len({e.label for e in train}) < 2:
    return {}
  score = bag_of_words(train, test)
  return {} if score is None else {'accuracy': 100 * score}


def _labelled(train: Sequence[Example], test: Sequence[Example]) -> bool:
  return bool(train and test) and not any(e.label is None for e in (*train, *test))


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


def print_scores(
  systems: Sequence[SystemScores], title: str, console: Console, parts: Sequence[Task] = ()
) -> None:
  """Prints a row per system and a column per score; "-" where a system has none.

  Several tasks (`parts`) have many scores: then a row per score and a column per system.
  """
  if parts:
    _print_parts(systems, title, console)
    return
  names = list(dict.fromkeys(name for found in systems for s in found.scores for name in s))
  table = Table(title=title, title_justify='left', title_style='bold')
  table.add_column('system')
  for name in names:
    table.add_column(name, justify='right')
  table.add_column('trained parameters', justify='right')
  for found in systems:
    values = summarize(found.scores)
    cells = [_cell(values.get(name)) for name in names]
    table.add_row(found.name, *cells, '-' if found.trained is None else f'{found.trained:,}')
  console.print(table)


def _print_parts(systems: Sequence[SystemScores], title: str, console: Console) -> None:
  table = Table(title=title, title_justify='left', title_style='bold')
  table.add_column('task/score', no_wrap=True)  # a cropped name is none
  summaries = [summarize(found.scores) for found in systems]
  for found in systems:
    table.add_column(found.name, justify='right')
  for name in dict.fromkeys(name for s in reversed(summaries) for name in s):
    table.add_row(name, *(_cell(s.get(name)) for s in summaries))
  console.print(table)


def _cell(value: MeanStd | None) -> str:
  if value is None:
    return '-'
  return f'{value.mean:.1f}' if value.n == 1 else f'{value.mean:.1f} ± {value.std:.1f}'


def write_scores(path: pathlib.Path, systems: Sequence[SystemScores], **facts: Any) -> None:
  """The same as JSON: {"systems": {name: {"scores": [...], "trained": n}}, ...}."""
  scores = {
    found.name: {'scores': [dict(s) for s in found.scores], 'trained': found.trained}
    for found in systems
  }
  write_atomically(path, (json.dumps({**facts, 'systems': scores}, indent=2) + '\n').encode())
