"""How a row of a data set becomes text: T5's formats (Raffel et al. 2020, appendix D).

Pure functions on plain dicts, without TensorFlow: the same ones serve files (`data_set.py`) and
tensorflow-datasets through seqio (`tfds.py`), so the two cannot drift apart. No vocabulary is used
here: text is tokenised only when a split is loaded.
"""

import dataclasses
import re
import string
import unicodedata
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from prompt_jax.data.example import UNKNOWN, Example, TextExample

RowValues = Mapping[str, Any]


@dataclasses.dataclass(frozen=True)
class Format:
  """The text form of one data set.

  Attributes:
    template: the inputs, with columns in braces; its first word is the task's name.
    labels: label words in the order of the data set's label indices; None for free text.
    metrics: names of metrics; the first one selects prompts.
    write: (row, format) -> its examples: several, or none for a row to leave out.
    fields: names of the fields that its metrics read: "answers" (several right ones), "group"
      (examples scored together), "right" (whether the target is).
    right: whether a text answers an example, where that is more than comparing it with the target;
      `metrics` then score these truth values. None elsewhere.
    long: the column that may be cut where the inputs are too long; '' for the longest of a row.
  """

  template: str
  labels: tuple[str, ...] | None
  metrics: tuple[str, ...]
  write: Callable[[RowValues, 'Format'], Iterable[TextExample]]
  fields: tuple[str, ...] = ()
  right: Callable[[Example, str], bool] | None = None
  long: str = ''

  def examples(self, row: RowValues, taskless: bool = False) -> list[TextExample]:
    """The examples of a row.

    Args:
      row: columns of the data set.
      taskless: without the first word, the task's name, as when a prompt specifies the task.

    Raises:
      ValueError: a label that the format does not know, or a column without a value.
      KeyError: a column that the row lacks.
    """
    columns = self.columns
    empty = [name for name in columns if name in row and row[name] is None]
    if empty:
      raise ValueError(f'column {empty[0]!r} is null')
    written = [
      dataclasses.replace(e, tail=e.tail or self._tail(row, e.inputs))
      for e in self.write(row, self)
    ]
    if not taskless:
      return written
    return [dataclasses.replace(e, inputs=e.inputs.partition(' ')[2]) for e in written]

  @property
  def columns(self) -> list[str]:
    """The columns of the template, in order."""
    return [name for _, name, _, _ in string.Formatter().parse(self.template) if name]

  def _tail(self, row: RowValues, inputs: str) -> str:
    """What stands behind the column that may be cut; '' where that is not found in the inputs."""
    there = [name for name in self.columns if name in row]
    if len(there) < 2:
      return ''
    long = self.long or max(there, key=lambda name: len(str(row[name])))
    _, _, behind = self.template.partition(f'{{{long}}}')
    try:
      tail = behind.format_map(row)
    except KeyError:
      return ''
    return tail if inputs.endswith(tail) else ''


def label_index(label: Any, labels: Sequence[str]) -> int | None:
  """The index of a label given as index, truth value or word; None for -1, which means unknown.

  Raises:
    ValueError: it is none of these.
  """
  if isinstance(label, bool | np.bool_):
    label = str(bool(label))
  if isinstance(label, str):
    if label not in labels:
      raise ValueError(f'label {label!r} is none of {", ".join(labels)}')
    return labels.index(label)
  if not isinstance(label, int | np.integer) or not -1 <= label < len(labels):
    raise ValueError(f'label {label} is no index of {", ".join(labels)}')
  return None if label == -1 else int(label)


def classify(row: RowValues, form: Format) -> Iterable[TextExample]:
  """Inputs after the template, the label's word as target."""
  assert form.labels is not None
  label = label_index(row['label'], form.labels)
  targets = UNKNOWN if label is None else form.labels[label]
  yield TextExample(form.template.format_map(row), targets, label, {'idx': row.get('idx')})


def classify_spaced(row: RowValues, form: Format) -> Iterable[TextExample]:
  """As `classify`, for labels whose words the data set joins with underscores."""
  label = row['label']
  spaced = label.replace('_', ' ') if isinstance(label, str) else label
  return classify({**row, 'label': spaced}, form)


def multirc(row: RowValues, form: Format) -> Iterable[TextExample]:
  """As `classify`, without HTML tags; the answers to one question form a group."""
  for example in classify(row, form):
    text = re.sub('</?b>', '', example.inputs.replace('<br>', ' '))
    group = f'{row["idx"]["paragraph"]}/{row["idx"]["question"]}'
    yield dataclasses.replace(example, inputs=text, fields={'group': group})


def similarity(row: RowValues, form: Format) -> Iterable[TextExample]:
  """STS-B: the score rounded to a fifth, as text; float32 decides the ties, as in T5."""
  score = np.round(np.float32(row['label']) * np.float32(5)) / np.float32(5)
  targets = UNKNOWN if score < 0 else f'{score:.1f}'
  yield TextExample(form.template.format_map(row), targets, None, {'idx': row.get('idx')})


def record(row: RowValues, form: Format) -> Iterable[TextExample]:
  """ReCoRD: an example for each right answer; all of them belong to one group."""
  passage = re.sub(r'([.?!"\'])\n@highlight\n', r'\1 ', row['passage'])
  passage = passage.replace('\n@highlight\n', '. ')
  entities = ', '.join(row['entities'])
  inputs = form.template.format_map({**row, 'passage': passage, 'entities': entities})
  answers = list(row['answers'])
  fields = {'answers': answers, 'group': f'{row["idx"]["passage"]}/{row["idx"]["query"]}'}
  for answer in answers or [UNKNOWN]:
    yield TextExample(inputs, answer, None, fields)


def pronoun(row: RowValues, form: Format) -> Iterable[TextExample]:
  """WSC: the pronoun between stars; the target is the candidate, whether right or not."""
  words = row['text'].split(' ')
  word = row['span2_text']
  # In some rows the index is one off, or punctuation sticks to the word.
  near = sorted(range(len(words)), key=lambda i: abs(i - row['span2_index']))
  place = next(i for i in near if re.fullmatch(re.escape(word) + r'\W*', words[i]))
  rest = words[place][len(word) :]
  words[place] = f'*{word}*' + (f' {rest}' if rest else '')
  inputs = form.template.format_map({'text': ' '.join(words)})
  fields = {'idx': row.get('idx'), 'right': int(row['label'])}
  targets = UNKNOWN if row['label'] == -1 else row['span1_text']
  yield TextExample(inputs, targets, None, fields)


def right_pronoun(row: RowValues, form: Format) -> Iterable[TextExample]:
  """As `pronoun`, but only rows whose candidate is right: what there is to learn from."""
  return pronoun(row, form) if row['label'] == 1 else ()


DETERMINERS = (
  'a an few her his each every many much my our some that the their these this those which whose '
  'your'
)


def names_referent(prediction: str, candidate: str) -> bool:
  """Whether a prediction means the candidate: one holds all words of the other but determiners."""
  said, meant = (
    {w for w in text.strip().lower().split(' ') if w and w not in DETERMINERS.split()}
    for text in (prediction, candidate)
  )
  if not said or ("'" in ' '.join(said)) != ("'" in ' '.join(meant)):
    return False
  return said <= meant or meant <= said


def judges_candidate(example: Example, prediction: str) -> bool:
  """WSC: a prediction is right if it names the candidate exactly where the candidate is right."""
  return names_referent(prediction, example.targets_text) == bool(example.fields['right'])


def answer(row: RowValues, form: Format) -> Iterable[TextExample]:
  """Extractive question answering: the first answer is the target, any of them is right."""
  answers = list(row['answers'])
  yield TextExample(form.template.format_map(row), answers[0], None, {'answers': answers})


def padded(text: str) -> str:
  """T5's text of SQuAD: punctuation marks and symbols stand alone, one space between words."""
  return ' '.join(_MARK.sub(_apart, text).split())


# Python's \w knows letters and digits of all scripts, but no combining marks, hence vowel signs.
_MARK = re.compile(r'[^\w\s]')


def _apart(match: re.Match[str]) -> str:
  mark = match.group()
  return mark if unicodedata.category(mark).startswith('M') else f' {mark} '


def span(row: RowValues, form: Format) -> Iterable[TextExample]:
  """Extractive question answering with T5's spaces around punctuation, in the answers as well."""
  answers = [padded(a) for a in _texts(row['answers'])]
  inputs = form.template.format_map({**row, 'question': padded(row['question']),
                                     'context': padded(row['context'])})  # fmt: skip
  yield TextExample(inputs, answers[0], None, {'answers': answers})


def _texts(answers: Any) -> list[str]:
  """A list of texts, or {"text": [...]} as in tensorflow-datasets."""
  return list(answers['text'] if isinstance(answers, Mapping) else answers)


def reference(row: RowValues, form: Format) -> Iterable[TextExample]:
  """Generation with references: the first is the target, all of them are compared with."""
  references = row['references']
  references = [references] if isinstance(references, str) else list(references)
  values = {**row, 'triples': triples(row['triples'])} if 'triples' in row else row
  fields = {'answers': references}
  yield TextExample(form.template.format_map(values), references[0], None, fields)


def triples(found: str | Sequence[Any]) -> str:
  """Triples "subject | predicate | object", joined with " && "; a meaning in words as it is."""
  if isinstance(found, str):
    return found
  return ' && '.join(t if isinstance(t, str) else ' | '.join(t) for t in found)


def entities(row: RowValues, form: Format) -> Iterable[TextExample]:
  """Names of a sentence as text, "PER: Ada $$ LOC: Bonn" (mT5); "none" where there are none."""
  found: list[list[str]] = []
  for token, tag in zip(row['tokens'], row['tags'], strict=True):
    kind = tag[2:]
    if tag.startswith('B-') or (tag != 'O' and (not found or found[-1][0] != f'{kind}:')):
      found.append([f'{kind}:', token])
    elif tag != 'O':
      found[-1].append(token)
    else:
      found.append([''])  # what follows begins a name of its own
  names = [' '.join(words) for words in found if words[0]]
  inputs = form.template.format_map({'tokens': ' '.join(row['tokens'])})
  yield TextExample(inputs, ' $$ '.join(names) or 'none', None, {})


def candidate(row: RowValues, form: Format) -> Iterable[TextExample]:
  """Definite pronouns in the simple form of WSC: the pronoun between stars, the right candidate."""
  word = row['pronoun']
  marked, count = re.subn(rf'\b{re.escape(word)}\b', f'*{word}*', row['sentence'], count=1)
  if not count:
    raise ValueError(f'the pronoun {word!r} does not stand in {row["sentence"]!r}')
  targets = row['candidates'][int(row['label'])]
  inputs = form.template.format_map({'sentence': marked})
  yield TextExample(inputs, targets, None, {'idx': row.get('idx')})


def question(row: RowValues, form: Format) -> Iterable[TextExample]:
  """Question generation: the question is the target."""
  yield TextExample(form.template.format_map(row), row['question'])


def classification(
  template: str,
  labels: str,
  *metrics: str,
  write=classify,
  fields: tuple[str, ...] = (),
  long: str = '',
) -> Format:
  """A format with label words, given as 'one|two|three', in the order of their indices."""
  words = tuple(labels.split('|'))
  return Format(template, words, metrics or ('accuracy',), write, fields, long=long)
