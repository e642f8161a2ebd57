"""What was tuned, applied to texts."""

import dataclasses
import functools
import hashlib
import os
import pathlib
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from prompt_jax import loading
from prompt_jax.batch import Features
from prompt_jax.checkpoints.prompt_file import load_facts
from prompt_jax.data import splits
from prompt_jax.data.batches import evaluation_batches
from prompt_jax.data.example import Example, Lengths, Task, TextExample, encode
from prompt_jax.data.local_file import local_inputs
from prompt_jax.errors import UserError
from prompt_jax.evaluation import answer_file
from prompt_jax.evaluation.evaluator import Evaluator, Method
from prompt_jax.features import ids_of, in_file
from prompt_jax.inference.decode import Variables
from prompt_jax.inference.decoding import Decoding
from prompt_jax.inference.score import Normalize
from prompt_jax.injections import lacking
from prompt_jax.loading import BaseModel, Devices
from prompt_jax.runs.results import Answer
from prompt_jax.runs.task_choice import columns_of
from prompt_jax.runtime import processes
from prompt_jax.sharding.placement import Placement


def infer(
  texts: Sequence[str],
  *,
  base: BaseModel,
  devices: Devices,
  prompt_file: str | None,
  file: str | None,
  column: str | None,
  output: str | None,
  batch_size: int,
  input_length: int | None,
  target_length: int | None,
  method: Method | None,
  normalize: Normalize,
  decoding: Decoding | None,
) -> list[Answer]:
  """Answers each text, in order; that of a blank text is empty.

  Called again it goes on with an output file that an interrupted call has begun.

  Args:
    texts: to answer; of several processes those of the first.
    base: the model.
    devices: where to compute.
    prompt_file: a prompt or tuned weights; None for the bare model, which `base` must then name.
    file: a file of texts, in place of `texts`.
    column: its column or columns, for a table; None for those that the prompt was tuned on, or
      with a usual name.
    output: a JSON Lines file for the answers, with the other columns of a table; None writes none.
    batch_size: texts at once.
    input_length: most tokens of an input; None as in training.
    target_length: most tokens of an answer; None as in training.
    method: see `Evaluator`; None ranks the labels that the prompt was tuned on, if any.
    normalize: see `Evaluator`.
    decoding: how text is generated; if anything is set there, also in place of a label.

  Raises:
    UserError: a file that is missing, damaged or of another model; neither a prompt nor a model;
      settings that exclude each other; an output file that cannot be written.
  """
  if prompt_file is None and base.model is None:
    raise UserError(
      'No prompt file, and a model that was not tuned answers nothing in particular. Give a prompt '
      "file; to see what a bare model writes, name the model ('embedded' is the one in this "
      'package).',
      ['prompt_file', 'model'],
    )
  placement = devices.start()
  asked = processes.broadcast(lambda: _asked(texts, file, column, prompt_file, output))
  (ready,) = loading.load_all(base, [] if prompt_file is None else [prompt_file], placement)
  lengths = ready.lengths(input_length, target_length)
  answer = Predictor(
    ready,
    lengths,
    method=method,
    normalize=normalize,
    decoding=decoding,
    batch_size=batch_size,
    placement=placement,
  )
  if output is None:
    full = [e for e in asked if e.inputs]
    there = iter(answer([e.inputs for e in full], [e.fields for e in full]))
    return [next(there) if e.inputs else Answer('', '') for e in asked]
  about = {
    'texts': hashlib.sha256(repr([(e.inputs, e.fields) for e in asked]).encode()).hexdigest(),
    'model': ready.backbone.fingerprint,
    'prompt': processes.broadcast(lambda: _sha256(prompt_file)),
    'settings': repr([lengths, method, normalize, decoding, batch_size]),
  }
  return _into_file(answer, asked, pathlib.Path(output), about)


def _into_file(
  answer: 'Predictor', asked: Sequence[TextExample], path: pathlib.Path, about: Mapping[str, Any]
) -> list[Answer]:
  """The answers, those of an interrupted run among them; the first of several processes writes."""
  numbers = [i for i, example in enumerate(asked) if example.inputs]  # blank lines are not asked
  texts = [asked[i].inputs for i in numbers]
  begun = processes.broadcast(lambda: answer_file.start(path, about))
  found = {j: Answer(texts[j], *row) for j, row in begun.items()}
  for batch in answer.by_batch(texts, [asked[i].fields for i in numbers], found):
    new = {j: a for j, a in batch.items() if j not in found}
    rows = {j: [a.prediction, a.probability] for j, a in new.items()}
    processes.broadcast(functools.partial(answer_file.add, path, rows))
    found |= new
  answers = [Answer('', '') for _ in asked]
  for j, i in enumerate(numbers):
    answers[i] = found[j]
  # A column of the name "text" stays as it is.
  whole = [dataclasses.asdict(a) | dict(e.fields) for e, a in zip(asked, answers, strict=True)]
  processes.broadcast(lambda: answer_file.finish(path, whole))
  return answers


class Predictor:
  """From texts to answers; compiles once for each shape of a batch, however often it is called."""

  def __init__(
    self,
    ready: loading.Tuned,
    lengths: Lengths,
    *,
    method: Method | None = None,
    normalize: Normalize = 'none',
    decoding: Decoding | None = None,
    batch_size: int = 32,
    placement: Placement | None = None,
  ):
    """Fixes how texts are answered.

    Args:
      ready: the model and its prompt.
      lengths: most tokens of a text and of an answer.
      method: see `Evaluator`; None ranks the labels that the prompt was tuned on, if any.
      normalize: see `Evaluator`.
      decoding: how text is generated; if anything is set there, also in place of a label.
      batch_size: texts at a time.
      placement: the mesh over which the model lies; None for one device.

    Raises:
      UserError: settings that exclude each other, or a method that needs labels where there are
        none.
    """
    self._ready, self._lengths, self._batch_size = ready, lengths, batch_size
    self._placement, self._features = placement, in_file(ready.model.prompt, ready.metadata, None)
    labels = ready.metadata.get('labels')
    decoding = decoding or Decoding()
    if method is None:
      method = 'rank' if labels and not decoding.is_set else 'generate'
    self._evaluator: Evaluator | None = None
    if method == 'generate':
      if normalize != 'none':
        raise UserError(
          'normalize is of ranked labels, and here text is generated. Leave it out.', ['normalize']
        )
      self._generate = self._generator(decoding)
      return
    if decoding.is_set:
      raise UserError(
        f'decoding is of generated text, and the method {method} gives a label. Leave out one of '
        'the two.',
        parameters=['decoding', 'method'],
      )
    self._evaluator = Evaluator(
      ready.model,
      ready.backbone.vocabulary,
      Task('infer', {}, labels and tuple(labels), ('accuracy',)),
      max_target_length=lengths.targets,
      method=method,
      batch_size=batch_size,
      normalize=normalize,
      features=self._features,
      placement=placement,
    )

  def __call__(
    self, texts: Sequence[str], fields: Sequence[Mapping[str, Any]] | None = None
  ) -> list[Answer]:
    """The answer to each text, in order.

    Args:
      texts: at least one.
      fields: of each text, the features that the prompt method reads; None for none.

    Raises:
      UserError: a feature is missing, or has a value that the prompt was not tuned on.
    """
    found = {i: answer for part in self.by_batch(texts, fields) for i, answer in part.items()}
    return [found[i] for i in range(len(texts))]

  def by_batch(
    self,
    texts: Sequence[str],
    fields: Sequence[Mapping[str, Any]] | None = None,
    done: Collection[int] = frozenset(),
  ) -> Iterator[dict[int, Answer]]:
    """{number of a text: its answer}, batch by batch, without batches that are all `done`."""
    words = self._ready.backbone.vocabulary
    none = np.asarray([words.eos_id], np.int32)
    fields = fields or [{}] * len(texts)
    if self._features and not any(fields):
      raise lacking(type(self._ready.model.prompt).__name__, self._features.keys())
    examples = [
      Example(encode(t, words, self._lengths.inputs), none, t, '', None, own, 'infer')
      for t, own in zip(texts, fields, strict=True)
    ]
    inputs, _ = splits.cut(examples, words, self._lengths)
    if inputs.cut:
      warnings.warn(f'{inputs}; a higher input_length keeps more', stacklevel=2)
    if self._evaluator is None:
      yield from self._written(examples, done)
      return
    for (found,) in self._evaluator.by_batch([self._ready.variables], examples, done):
      yield {i: Answer(p.input, p.prediction, p.confidence) for i, p in found.items()}

  def _generator(self, decoding: Decoding) -> Callable[..., jax.Array]:
    """(variables, int32[B, T], features, number of the batch) -> int32[B, U]."""

    def generate(variables: Variables, tokens: jax.Array, ids: Features, number: int) -> jax.Array:
      ready, longest = self._ready, self._lengths.targets
      eos_id = ready.backbone.vocabulary.eos_id
      return decoding.generate(ready.model, variables, tokens, longest, number, eos_id, ids)

    return jax.jit(self._placement.with_mesh(generate) if self._placement else generate)

  def _written(
    self, examples: Sequence[Example], done: Collection[int]
  ) -> Iterator[dict[int, Answer]]:
    """What the model generates for each text, batch by batch, the same on any mesh."""
    placement, vocabulary = self._placement, self._ready.backbone.vocabulary
    size, known = min(self._batch_size, len(examples)), ids_of(examples, self._features)
    for number, (batch, indices) in enumerate(evaluation_batches(examples, size)):
      if all(i in done for i in indices.tolist()):
        continue
      tokens: Any = batch.encoder_input_tokens
      ids: Any = {name: np.resize(of[indices], size) for name, of in known.items()}
      if placement:  # more rows, and not more texts: what is drawn for one depends on its batch
        rows = placement.pad_to_multiple(size)
        tokens = np.resize(tokens, (rows, tokens.shape[1]))
        ids = {name: np.resize(of, rows) for name, of in ids.items()}
        tokens, ids = placement.put_rows((tokens, ids))
      found = self._generate(self._ready.variables, tokens, ids, number)
      found = jax.device_get(placement.to_local(found) if placement else found)
      yield {
        i: Answer(examples[i].inputs_text, vocabulary.decode(row))
        for i, row in zip(indices.tolist(), found, strict=False)
      }


def _asked(
  texts: Sequence[str],
  file: str | None,
  column: str | None,
  prompt_file: str | None,
  output: str | None,
) -> list[TextExample]:
  """The texts, with the other columns of a table; all that is wrong with them, before a model."""
  if texts and file:
    raise UserError('Give texts or a file of them, not both.', ['input'])
  if not file:
    if not any(t.strip() for t in texts):
      raise UserError('No texts: give some, or a file of them.', ['input'])
    return [TextExample(t.strip(), '') for t in texts]
  like = columns_of(load_facts(prompt_file).metadata) if prompt_file else None
  asked = local_inputs(file, column, like)
  if output and os.path.exists(output) and os.path.samefile(file, output):
    raise UserError(f'{output} is the file of the texts, which would be replaced.', ['output'])
  ours = {f.name for f in dataclasses.fields(Answer)} - {'text'}
  if taken := sorted(ours & {name for e in asked for name in e.fields}):
    raise UserError(
      f'{file} has a column {" and ".join(taken)}, and so have the answers, which are written '
      'beside its columns. Rename it.',
      ['output'],
    )
  return asked


def _sha256(file: str | None) -> str | None:
  if file is None:
    return None
  with open(file, 'rb') as opened:
    return hashlib.file_digest(opened, 'sha256').hexdigest()
