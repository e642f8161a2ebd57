"""Examples and tasks: the interface between sources of data and training. No TensorFlow."""

import dataclasses
import zlib
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from prompt_jax.data.vocabulary import Vocabulary
from prompt_jax.errors import UserError, unknown

# The target of an example whose answer is not public, as in the test splits of GLUE.
UNKNOWN = '<unk>'
# The column of `TextExample.tail` in a data set of TensorFlow's.
TAIL = 'tail_that_stays'


class Lengths(NamedTuple):
  """The most tokens of a sequence, its end-of-sequence id included."""

  inputs: int
  targets: int


@dataclasses.dataclass(frozen=True, slots=True)
class TextExample:
  """An example before tokenisation.

  Attributes:
    inputs: what the model reads.
    targets: what the model should write.
    label: index of `targets` in the task's labels; None for a task without labels.
    fields: other columns that a metric or a report needs (all answers, an id).
    source: where the example comes from, for messages ("reviews.tsv:12").
    tail: the end of `inputs` that stays when they are too long: they are cut just before it.
  """

  inputs: str
  targets: str
  label: int | None = None
  fields: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  source: str = ''
  tail: str = ''


@dataclasses.dataclass(frozen=True, eq=False, slots=True)
class Example:
  """A tokenised example.

  Attributes:
    inputs: int32[t] token ids, the last one end-of-sequence.
    targets: int32[u] token ids, the last one end-of-sequence.
    inputs_text: the inputs before truncation.
    targets_text: the targets before truncation.
    label: index into the task's labels, or None.
    fields: other columns that a metric or a report needs.
    task: name of the task the example belongs to.
  """

  inputs: np.ndarray
  targets: np.ndarray
  inputs_text: str
  targets_text: str
  label: int | None
  fields: Mapping[str, Any]
  task: str


# One split of a task: examples in the ids of a vocabulary, cut to lengths.
Loader = Callable[[Vocabulary, Lengths], Sequence[Example]]


def same_text(text: str) -> Any:
  """The default postprocessing: the text without surrounding white space."""
  return text.strip()


@dataclasses.dataclass(frozen=True)
class Task:
  """A task: where its examples come from, its labels, and how predictions are scored.

  Attributes:
    name: as on the command line and in reports.
    splits: split name ("train", "validation", "test") -> what loads it.
    labels: the words that the model should generate, in the order of `Example.label`; None for
      free text.
    metrics: names of metrics in `evaluation/metrics.py`; the first one selects prompts.
    postprocess: decoded text -> what the metrics compare, for tasks without labels.
    right: whether a text answers an example, where that is more than comparing it with the target
      (WSC); `metrics` then score these truth values. None elsewhere.
    score: (examples, decoded texts) -> {name: value}, the task's own measure in place of `metrics`
      (a seqio task's); None for `metrics`.
    about: one line about the task, its source and licence.
    words: label as its file has it -> the word in `labels`; None where the two are the same.
    columns: of a file of the user's own, which were read ("inputs", "targets", "kind", see
      `columns.ColumnChoice`); None for other tasks.
    parts: the tasks of a mixture, each scored by its own metrics; () for a single task.
    mixing: how often each part of a mixture is trained on (`mixture.Mixing`).
    source: the part that is trained on, where the others are evaluated without training.
  """

  name: str
  splits: Mapping[str, Loader]
  labels: tuple[str, ...] | None
  metrics: tuple[str, ...]
  postprocess: Callable[[str], Any] = same_text
  right: Callable[[Example, str], bool] | None = None
  score: Callable[[Sequence[Example], Sequence[str]], dict[str, float]] | None = None
  about: str = ''
  words: Mapping[str, str] | None = None
  columns: Mapping[str, Any] | None = None
  parts: tuple['Task', ...] = ()
  mixing: Any = None
  source: str | None = None

  def load(self, split: str, vocabulary: Vocabulary, lengths: Lengths) -> Sequence[Example]:
    """The examples of one split.

    Raises:
      UserError: no such split, or a bad file, row or label; says which and what to do.
    """
    if split not in self.splits:
      raise unknown(f'split of task {self.name!r}', split, self.splits)
    # The examples first: their errors name the file and line of a bad label.
    examples = self.splits[split](vocabulary, lengths)
    if self.labels is not None:
      encode_labels(self.labels, vocabulary, lengths.targets)
    return examples

  def has_answers(self, examples: Sequence[Example]) -> bool:
    """Whether the answer to any of the examples is known."""
    if self.labels is None:
      return any(e.targets_text != UNKNOWN for e in examples)
    return any(e.label is not None for e in examples)

  def label_tokens(self, vocabulary: Vocabulary, length: int) -> np.ndarray:
    """int32[C, U] the labels as padded target sequences, for rank classification."""
    if self.labels is None:
      raise UserError(f'Task {self.name!r} has no labels to rank; decode text instead.')
    ids = encode_labels(self.labels, vocabulary, length)
    rows = np.zeros((len(ids), max(map(len, ids))), np.int32)
    for row, sequence in zip(rows, ids, strict=True):
      row[: len(sequence)] = sequence
    return rows


def text_task(
  name: str,
  splits: Mapping[str, Callable[[], Sequence[TextExample]]],
  labels: Sequence[str] | None,
  metrics: Sequence[str],
  postprocess: Callable[[str], Any] = same_text,
  about: str = '',
) -> Task:
  """A task from functions that return text; tokenisation happens when a split is loaded."""

  def loader(read: Callable[[], Sequence[TextExample]]) -> Loader:
    return lambda vocabulary, lengths: tokenize_across_processes(read(), vocabulary, lengths, name)

  return Task(
    name=name,
    splits={split: loader(read) for split, read in splits.items()},
    labels=None if labels is None else tuple(labels),
    metrics=tuple(metrics),
    postprocess=postprocess,
    about=about,
  )


def encode(text: str, vocabulary: Vocabulary, length: int, tail: str = '') -> np.ndarray:
  """int32[<= length] the ids of `text`, cut so that the last one is always end-of-sequence.

  A `text` that is too long and ends in `tail` is cut before it; a tail that takes more than half of
  the length is no such end, and what is too long is then cut at the end.
  """
  ids = vocabulary.encode(text)
  if len(ids) >= length and tail:
    end = vocabulary.encode(tail)
    if 2 * len(end) <= length:
      ids = [*vocabulary.encode(text.removesuffix(tail))[: length - 1 - len(end)], *end]
  return np.asarray([*ids[: length - 1], vocabulary.eos_id], np.int32)


def tokenize(
  examples: Iterable[TextExample],
  vocabulary: Vocabulary,
  lengths: Lengths,
  task: str,
  first: int = 1,
) -> list[Example]:
  """Token ids of text examples; targets that would be empty are refused.

  Args:
    examples: in their order.
    vocabulary: of the model.
    lengths: to which they are cut.
    task: its name.
    first: number of the first example, for messages.

  Raises:
    UserError: a length below 2, or a target of no tokens; names the example's source.
  """
  check_lengths(lengths)
  done = []
  known: dict[str, np.ndarray] = {}  # a label is encoded, and held, once
  for number, example in enumerate(examples, first):
    where = example.source or f'{task}, example {number}'
    targets = known.get(example.targets)
    if targets is None:
      targets = encode(example.targets, vocabulary, lengths.targets)
    if example.label is not None:
      known[example.targets] = targets
    if len(targets) < 2:
      raise UserError(
        f'{where}: the target {example.targets!r} has no tokens in this vocabulary; '
        'give it a text, or leave the example out.'
      )
    done.append(
      Example(
        inputs=encode(example.inputs, vocabulary, lengths.inputs, example.tail),
        targets=targets,
        inputs_text=example.inputs,
        targets_text=example.targets,
        label=example.label,
        fields=example.fields,
        task=task,
      )
    )
  return done


def tokenize_across_processes(
  examples: Sequence[TextExample], vocabulary: Vocabulary, lengths: Lengths, task: str
) -> list[Example]:
  """`tokenize`, with the work shared among the processes of a run; every process gets all examples.

  All processes must call this in the same order, with the same examples.

  Raises:
    UserError: as `tokenize`, and the same in all; the processes have read different examples.
  """
  from prompt_jax.runtime import processes  # it needs JAX, which only this does

  several = processes.count()
  if several == 1:
    return tokenize(examples, vocabulary, lengths, task)
  bounds = [len(examples) * i // several for i in range(several + 1)]
  begin, end = bounds[processes.index() :][:2]
  checksum = 0
  for e in examples:
    checksum = zlib.crc32(repr((e.inputs, e.targets)).encode(), checksum)

  def share() -> tuple[int, list[np.ndarray]]:
    """A checksum of all texts, and for inputs and for targets the ids of all examples and their
    lengths."""
    found = tokenize(examples[begin:end], vocabulary, lengths, task, begin + 1)
    sides = [e.inputs for e in found], [e.targets for e in found]
    nothing = np.zeros(0, np.int32)
    rows = [(np.concatenate([nothing, *side]), np.array([*map(len, side)])) for side in sides]
    return checksum, [x for row in rows for x in row]

  shares = processes.allgather(share)
  if len({checksum for checksum, _ in shares}) > 1:
    raise UserError(
      f'The processes of this run have read different examples of {task!r}. Give every host the '
      'same files, or a folder that all see.'
    )
  ids: tuple[list[np.ndarray], list[np.ndarray]] = ([], [])
  for _, (inputs, input_sizes, targets, target_sizes) in shares:
    for done, side, sizes in ((ids[0], inputs, input_sizes), (ids[1], targets, target_sizes)):
      done += np.split(side, np.cumsum(sizes)[:-1]) if len(sizes) else []
  return [
    Example(i, t, e.inputs, e.targets, e.label, e.fields, task)
    for i, t, e in zip(*ids, examples, strict=True)
  ]


def check_lengths(lengths: Lengths) -> None:
  """Refuses lengths that leave no room for one token and the end of the sequence."""
  for name, length in lengths._asdict().items():
    if length < 2:
      raise UserError(
        f'The length of {name} is {length}; it must be at least 2: one token and the end of the '
        'sequence.',
        [f'{name.removesuffix("s")}_length'],
      )


def encode_labels(
  labels: Sequence[str], vocabulary: Vocabulary, length: int
) -> tuple[np.ndarray, ...]:
  """The target ids of each label, end-of-sequence included; all different and none cut.

  Raises:
    UserError: a label of no tokens, one longer than `length`, or two with the same tokens.
  """
  seen: dict[bytes, str] = {}
  encoded = []
  for label in labels:
    ids = np.asarray([*vocabulary.encode(label), vocabulary.eos_id], np.int32)
    if len(ids) < 2:
      raise UserError(
        f'The label {label!r} has no tokens in this vocabulary; choose another word for it.'
      )
    if len(ids) > length:
      raise UserError(
        f'The label {label!r} has {len(ids)} tokens, its end included, but targets may have '
        f'{length}; set a higher target_length or choose a shorter word.',
        ['target_length'],
      )
    if ids.tobytes() in seen:
      raise UserError(
        f'The labels {seen[ids.tobytes()]!a} and {label!a} have the same tokens '
        f'{ids.tolist()} in this vocabulary; choose other words.'
      )
    seen[ids.tobytes()] = label
    encoded.append(ids)
  return tuple(encoded)


def checked_texts(texts: Sequence[str]) -> list[str]:
  """Texts that a user gave, as a list.

  Raises:
    UserError: none, a single text, or something that is no text.
  """
  if isinstance(texts, str):
    raise UserError('texts is one text; expected a list of texts. Write [text].', ['texts'])
  found = list(texts)
  wrong = next((t for t in found if not isinstance(t, str)), None)
  if wrong is not None:
    raise UserError(f'texts holds {wrong!r}, a {type(wrong).__name__}; expected texts.', ['texts'])
  if not found:
    raise UserError('texts is empty; expected at least one text.', ['texts'])
  return found
