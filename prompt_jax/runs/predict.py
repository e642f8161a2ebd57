"""What was tuned, applied to texts."""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

import jax
import numpy as np

from prompt_jax import loading
from prompt_jax.checkpoints.prompt_file import write_atomically
from prompt_jax.data.batches import evaluation_batches
from prompt_jax.data.example import Example, Lengths, Task, encode
from prompt_jax.data.local_file import local_inputs
from prompt_jax.errors import UserError
from prompt_jax.evaluation.evaluator import Evaluator, Method
from prompt_jax.inference.beam_search import LENGTH_PENALTY, beam_search, gnmt_penalty
from prompt_jax.inference.decode import Variables, sample
from prompt_jax.inference.score import Normalize
from prompt_jax.loading import BaseModel
from prompt_jax.prompted import PromptedT5
from prompt_jax.runs.devices import Devices
from prompt_jax.runs.evaluate import lengths_of
from prompt_jax.runs.results import Answer
from prompt_jax.runtime import processes
from prompt_jax.sharding.placement import Placement


@dataclasses.dataclass(frozen=True)
class Decoding:
  """How text is generated: greedily, if nothing is set.

  Attributes:
    temperature: of sampling, see `inference.decode.sample`; 0 is greedy.
    topk: see `inference.decode.sample`.
    topp: see `inference.decode.sample`.
    beams: width of a beam search, see `inference.beam_search`; 1 is none.
    length_penalty: of the beam search, see `inference.beam_search.gnmt_penalty`.
    seed: of sampling.

  Raises:
    UserError: a value out of range, or both sampling and beam search.
  """

  temperature: float | None = None
  topk: int | None = None
  topp: float | None = None
  beams: int = 1
  length_penalty: float = LENGTH_PENALTY
  seed: int = 0

  def __post_init__(self):
    if not 0 <= self.seed < 2**32:
      raise UserError(f'seed is {self.seed}; expected 0 to 2**32 - 1.')
    if self.beams < 1:
      raise UserError(f'beams is {self.beams}; expected 1 (greedy) or more.')
    gnmt_penalty(self.length_penalty)
    sampled = {'temperature': self.temperature, 'top_k': self.topk, 'top_p': self.topp}
    for name, value in sampled.items():
      if value and self.beams > 1:
        raise UserError(
          f'beams is {self.beams} and {name} is {value}, but beam search does not sample.',
          ['beams', name],
        )

  @property
  def is_set(self) -> bool:
    """Whether sampling, a beam search or greedy decoding (temperature 0) was asked for."""
    sampled = any(v is not None for v in (self.temperature, self.topk, self.topp))
    return sampled or self.beams > 1

  def generate(
    self,
    model: PromptedT5,
    variables: Variables,
    tokens: jax.Array,
    max_len: int,
    batch: int | jax.Array,
    eos_id: int,
  ) -> jax.Array:
    """int32[B, T] tokens of batch number `batch` -> int32[B, U] tokens."""
    if self.beams > 1:
      divisor = gnmt_penalty(self.length_penalty)
      return beam_search(
        model, variables, tokens, max_len, self.beams, divisor=divisor, eos_id=eos_id
      ).tokens
    return sample(
      model,
      variables,
      tokens,
      max_len,
      jax.random.fold_in(jax.random.key(self.seed), batch),
      temperature=self.temperature or 0.0,
      topk=self.topk or 0,
      topp=self.topp or 0.0,
      eos_id=eos_id,
    ).tokens


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
  """Answers each text, in order.

  Args:
    texts: to answer; of several processes those of the first.
    base: the model.
    devices: where to compute.
    prompt_file: a prompt or tuned weights; None for the bare model.
    file: a file of texts, in place of `texts`.
    column: its column or columns, for a table.
    output: a JSON Lines file for the answers; None writes none.
    batch_size: texts at once.
    input_length: most tokens of an input; None as in training.
    target_length: most tokens of an answer; None as in training.
    method: see `Evaluator`; None ranks the labels that the prompt was tuned on, if any.
    normalize: see `Evaluator`.
    decoding: how text is generated; if anything is set there, also in place of a label.

  Raises:
    UserError: a file that is missing, damaged or of another model; settings that exclude each
      other.
  """
  placement = devices.start()
  texts = processes.broadcast(lambda: _texts(texts, file, column))
  (ready,) = loading.load_all(base, [] if prompt_file is None else [prompt_file], placement)
  answer = Predictor(
    ready,
    lengths_of(ready, input_length, target_length),
    method=method,
    normalize=normalize,
    decoding=decoding,
    batch_size=batch_size,
    placement=placement,
  )
  answers = answer(texts)
  if output is not None:
    processes.broadcast(lambda: _save(answers, pathlib.Path(output)))
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
    self._placement = placement
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
      placement=placement,
    )

  def __call__(self, texts: Sequence[str]) -> list[Answer]:
    """The answer to each text, in order.

    Args:
      texts: at least one.
    """
    words = self._ready.backbone.vocabulary
    none = np.asarray([words.eos_id], np.int32)
    examples = [
      Example(encode(t, words, self._lengths.inputs), none, t, '', None, {}, 'infer') for t in texts
    ]
    if self._evaluator is None:
      return self._written(examples)
    (predictions,) = self._evaluator.predict([self._ready.variables], examples)
    return [Answer(p.input, p.prediction, p.confidence) for p in predictions]

  def _generator(self, decoding: Decoding) -> Callable[..., jax.Array]:
    """(variables, int32[B, T], number of the batch) -> int32[B, U]."""

    def generate(variables: Variables, tokens: jax.Array, number: int) -> jax.Array:
      ready, longest = self._ready, self._lengths.targets
      eos_id = ready.backbone.vocabulary.eos_id
      return decoding.generate(ready.model, variables, tokens, longest, number, eos_id)

    return jax.jit(self._placement.with_mesh(generate) if self._placement else generate)

  def _written(self, examples: Sequence[Example]) -> list[Answer]:
    """What the model generates for each text, the same on any mesh."""
    placement, vocabulary = self._placement, self._ready.backbone.vocabulary
    answers: dict[int, Answer] = {}
    size = min(self._batch_size, len(examples))
    for number, (batch, indices) in enumerate(evaluation_batches(examples, size)):
      tokens: Any = batch.encoder_input_tokens
      if placement:  # more rows, and not more texts: what is drawn for one depends on its batch
        tokens = placement.put_rows(
          np.resize(tokens, (placement.pad_to_multiple(size), tokens.shape[1]))
        )
      found = self._generate(self._ready.variables, tokens, number)
      found = jax.device_get(placement.to_local(found) if placement else found)
      for i, row in zip(indices.tolist(), found, strict=False):
        answers[i] = Answer(examples[i].inputs_text, vocabulary.decode(row))
    return [answers[i] for i in range(len(examples))]


def _texts(texts: Sequence[str], file: str | None, column: str | None) -> list[str]:
  if texts and file:
    raise UserError('Give texts or a file of them, not both.', ['input'])
  if file:
    return [e.inputs for e in local_inputs(file, column)]
  found = [t.strip() for t in texts if t.strip()]
  if not found:
    raise UserError('No texts: give some, or a file of them.', ['input'])
  return found


def _save(answers: Sequence[Answer], path: pathlib.Path) -> None:
  lines = [json.dumps(dataclasses.asdict(a), ensure_ascii=False) + '\n' for a in answers]
  write_atomically(path, ''.join(lines).encode())
