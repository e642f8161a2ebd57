"""What the data of a task tells before any tuning: what is odd about it, and simple baselines."""

import collections
import unicodedata
import warnings
from collections.abc import Mapping, Sequence

from prompt_jax.data.example import UNKNOWN, Example, Task
from prompt_jax.data.splits import sample
from prompt_jax.data.vocabulary import Vocabulary
from prompt_jax.evaluation.metrics import Scores
from prompt_jax.evaluation.predictions import Prediction
from prompt_jax.evaluation.suite import GAP, MEAN, summarise

# How pandas, R and databases write a value that is not there, if they are asked for text.
MISSING = frozenset(
  ['nan', 'NaN', '-nan', 'NA', 'N/A', 'n/a', '#N/A', '<NA>', 'NaT', 'None', 'null', 'NULL', 'Null']
)
# Targets whose text is compared with what the vocabulary makes of it.
READ_BACK = 10_000
SHOWN = 40  # characters of a text in a message


def warn(
  task: Task, splits: Mapping[str, Sequence[Example]], vocabulary: Vocabulary, length: int
) -> None:
  """Warns of each of `findings`."""
  for line in findings(task, splits, vocabulary, length):
    warnings.warn(line, stacklevel=3)


def findings(
  task: Task, splits: Mapping[str, Sequence[Example]], vocabulary: Vocabulary, length: int
) -> list[str]:
  """A line for each kind of oddity of each split.

  Args:
    task: of one part, or several.
    splits: its examples.
    vocabulary: with which they were tokenised.
    length: the most tokens of a target; longer ones were cut.
  """
  lines = []
  of_part: dict[str, dict[str, list[Example]]] = {}
  for split, examples in splits.items():
    for e in examples:
      name = e.task if task.parts else task.name
      of_part.setdefault(name, {}).setdefault(split, []).append(e)
  for part in task.parts or (task,):
    mine = of_part.get(part.name, {})
    labelled = part.labels is not None
    for split, examples in mine.items():
      where = f'{part.name}, {split}'
      lines += [f'{where}: {said}' for said in missing(examples, labelled)]
      lines += [f'{where}: {said}' for said in quoted(examples)]
      if labelled:
        lines += [f'{where}: {said}' for said in contradictory(examples)]
      lines += [f'{where}: {said}' for said in unwritable(part, examples, vocabulary, length)]
    if labelled:
      lines += [f'{part.name}: {said}' for said in alike(part.labels or (), mine)]
    lines += [f'{part.name}: {said}' for said in shared_inputs(mine)]
  return lines


def missing(examples: Sequence[Example], labelled: bool) -> list[str]:
  """Texts and labels that are the word for a missing value."""
  sides = {
    'texts': [e.inputs_text for e in examples],
    'labels' if labelled else 'targets': [e.targets_text for e in examples],
  }
  lines = []
  for what, texts in sides.items():
    found = collections.Counter(text for text in texts if text in MISSING)
    if found:
      words = ', '.join(map(repr, found))
      lines.append(
        f'{found.total()} of {len(examples)} {what} are {words}, which is how a missing value is '
        'often written; it is taken as it stands. Delete these rows if there is nothing in them'
      )
  return lines


def quoted(examples: Sequence[Example]) -> list[str]:
  """Texts in quotes, where most are: a table was written with quotes and read without."""
  texts = [e.inputs_text for e in examples]
  count = sum(len(text) > 1 and text[0] == text[-1] == '"' for text in texts)
  if 2 * count <= len(texts):
    return []
  return [
    f'{count} of {len(texts)} texts begin and end with quotes, which are taken as they stand; '
    'cells of .tsv need none, those of .csv may have them'
  ]


def contradictory(examples: Sequence[Example]) -> list[str]:
  """Texts that stand with several labels."""
  labels: dict[str, dict[str, None]] = collections.defaultdict(dict)
  rows = collections.Counter(e.inputs_text for e in examples if e.label is not None)
  for e in examples:
    if e.label is not None:
      labels[e.inputs_text].setdefault(e.targets_text)
  several = [text for text, found in labels.items() if len(found) > 1]
  if not several:
    return []
  first = several[0]
  return [
    f'{_number(len(several), "text has", "texts have")} more than one label, in '
    f'{sum(rows[text] for text in several)} of {len(examples)} rows ({_short(first)}: '
    f'{", ".join(labels[first])}); no model can be right about all of them'
  ]


def alike(labels: Sequence[str], splits: Mapping[str, Sequence[Example]]) -> list[str]:
  """Labels that differ only in case, spaces, or the way in which a number is written."""
  same = collections.defaultdict(list)
  for label in labels:
    same[_plain(label)].append(label)
  counts = collections.Counter(e.targets_text for es in splits.values() for e in es)
  return [
    f'the labels {", ".join(f"{x!r} ({counts[x]} rows)" for x in group)} differ only in how they '
    'are written, and count as different. Write them alike if they are one'
    for group in same.values()
    if len(group) > 1
  ]


def shared_inputs(splits: Mapping[str, Sequence[Example]]) -> list[str]:
  """Texts of one split that also stand in an earlier one: they are asked after they were seen."""
  order = [s for s in ('train', 'validation', 'test') if s in splits]
  texts = {split: {e.inputs_text for e in splits[split]} for split in order}
  lines = []
  for at, later in enumerate(order):
    for earlier in order[:at]:
      count = sum(e.inputs_text in texts[earlier] for e in splits[later])
      if not count:
        continue
      use = 'selects what it has seen' if later == 'validation' else 'measures what was seen'
      lines.append(
        f'{count} of {len(splits[later])} {later} texts are also in {earlier}, so that '
        f'{later} {use}'
      )
  return lines


def unwritable(
  task: Task, examples: Sequence[Example], vocabulary: Vocabulary, length: int
) -> list[str]:
  """Targets that come back from the vocabulary as another text, so that none can be matched.

  Args:
    task: whose comparison of texts counts.
    examples: tokenised with the vocabulary. Of very many a sample is looked at.
    vocabulary: the model's.
    length: the most tokens of a target; of one that was cut nothing is said.
  """
  chosen = sample([e for e in examples if e.targets_text != UNKNOWN], READ_BACK)
  whole = [e for e in chosen if len(e.targets) < length]
  read_back = lambda e: vocabulary.decode(e.targets.tolist())
  same = lambda e, text: task.postprocess(text) == task.postprocess(e.targets_text)
  wrong = {e.targets_text: read_back(e) for e in whole if not same(e, read_back(e))}
  if not wrong:
    return []
  count = sum(e.targets_text in wrong for e in whole)
  target, text = next(iter(wrong.items()))
  return [
    f'{count} of {len(chosen)} targets hold what the vocabulary cannot write: '
    f'{_difference(target, text)}. No generated text equals them; write them in other characters'
  ]


def _plain(label: str) -> str:
  """A label without case, compatibility forms, spaces, and as a number if it is one."""
  plain = ''.join(unicodedata.normalize('NFKC', label).casefold().split())
  try:
    return repr(float(plain))
  except ValueError:
    return plain


def _difference(text: str, back: str) -> str:
  """Both texts from a little before the first place where they differ."""
  at = next((i for i, (a, b) in enumerate(zip(text, back, strict=False)) if a != b), len(back))
  begin = max(at - 10, 0)
  return f'{_short(text[begin:])} comes back as {_short(back[begin:])}'


def _number(count: int, one: str, many: str) -> str:
  return f'{count} {one if count == 1 else many}'


def _short(text: str) -> str:
  return repr(text if len(text) <= SHOWN else f'{text[:SHOWN]}...')


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
