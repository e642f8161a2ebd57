"""Predictions and scores of a tuned model on examples."""

import functools
import math
import time
import types
import warnings
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Literal

import jax
import numpy as np
from scipy.special import softmax

from prompt_jax.batch import Features
from prompt_jax.data.batches import choose_buckets
from prompt_jax.data.example import UNKNOWN, Example, Task
from prompt_jax.data.vocabulary import Vocabulary
from prompt_jax.errors import UserError
from prompt_jax.evaluation import bootstrap, calibration, metrics, text_metrics
from prompt_jax.evaluation.predictions import Advance, Prediction
from prompt_jax.features import Numbers, ids_of
from prompt_jax.inference import constrained, decode, score
from prompt_jax.inference.beam_search import LENGTH_PENALTY, beam_search, gnmt_penalty
from prompt_jax.prompted import Prompted
from prompt_jax.sharding.placement import Placement
from prompt_jax.stacking import map_in_parts, map_stacked, parts_for_caches, prompts_at_once

Method = Literal['rank', 'constrained', 'generate']
METHODS: tuple[Method, ...] = ('rank', 'constrained', 'generate')
# Seconds that the bootstrap of a task's own measure may take.
PATIENCE = 60


class Evaluator:
  """Evaluates one model on one task; compiles once per batch shape, however often it is called.

  Rows are sorted by length into few widths; an example's result does not depend on its batch.
  """

  def __init__(
    self,
    model: Prompted,
    vocabulary: Vocabulary,
    task: Task,
    *,
    max_target_length: int,
    method: Method | None = None,
    batch_size: int = 32,
    normalize: score.Normalize = 'none',
    beams: int = 1,
    length_penalty: float = LENGTH_PENALTY,
    features: Numbers = types.MappingProxyType({}),
    at_once: int | None = None,
    placement: Placement | None = None,
  ):
    """Sets what every evaluation shares.

    Args:
      model: the model and its prompt.
      vocabulary: what the examples were tokenised with.
      task: gives labels and metrics.
      max_target_length: most target tokens, end-of-sequence included.
      method: "rank" scores every label's words and takes the best; "constrained" decodes greedily
        among the labels only; "generate" decodes and compares the text. None: "rank" for a task
        with labels and one beam, else "generate".
      batch_size: rows of a batch.
      normalize: for "rank": "tokens" divides a label's score by its number of tokens.
      beams: for "generate": width of a beam search; 1 decodes greedily.
      length_penalty: of the beam search, see `beam_search.gnmt_penalty`.
      features: values of the features that the prompt method reads, see `features`.
      at_once: most prompts that `each` runs together on a batch; None for
        `stacking.prompts_at_once`; on a mesh None means all, whose rows the mesh divides.
      placement: the mesh over which the model lies; None for one device. Batches are then of the
        next number of rows that divides over it.

    Raises:
      UserError: "rank" or "constrained" without labels, or labels that cannot be told apart.
    """
    method = method or ('generate' if task.labels is None or beams > 1 else 'rank')
    _check(task, method, normalize, beams, batch_size)
    self.method, self._vocabulary, self._task = method, vocabulary, task
    self._batch_size, self._features, self._placement = batch_size, features, placement
    call: Callable[..., Any]
    if method == 'rank':
      labels = task.label_tokens(vocabulary, max_target_length)
      call = functools.partial(score.rank, model, label_tokens=labels, normalize=normalize)
    elif method == 'constrained':
      labels = task.label_tokens(vocabulary, max_target_length)
      call = functools.partial(constrained.choose_label, model, label_tokens=labels)
    elif beams > 1:
      call = functools.partial(
        beam_search,
        model,
        max_len=max_target_length,
        beams=beams,
        divisor=gnmt_penalty(length_penalty),
        eos_id=vocabulary.eos_id,
      )
    else:
      call = functools.partial(
        decode.decode,
        model,
        max_len=max_target_length,
        choose=decode.most_probable,
        eos_id=vocabulary.eos_id,
      )

    def each(backbone, own, tokens, ids):
      def run(prompt):
        variables = _join_backbone(backbone, prompt)
        parts = 1 if placement or method != 'rank' else _parts(model, variables, tokens, ids)
        return map_in_parts(lambda x: call(variables, x[0], features=x[1]), (tokens, ids), parts)

      most = len(own) if placement else prompts_at_once(len(own), *tokens.shape)
      return map_stacked(run, own, at_once or most)

    self._call = jax.jit(placement.with_mesh(each) if placement else each)

  @property
  def ranks(self) -> bool:
    """Whether predictions hold the scores of all labels."""
    return self.method == 'rank'

  def __call__(
    self,
    variables: decode.Variables,
    examples: Sequence[Example],
    advance: Advance = lambda count: None,
  ) -> tuple[metrics.Scores, list[Prediction]]:
    """Metrics of the task in percent, {} if no target is known; predictions in order.

    Args:
      variables: the model's "params" and "constants".
      examples: at least one.
      advance: called after each batch with its number of examples.

    Raises:
      UserError: no examples, or only some of them have a label.
    """
    return self.each([variables], examples, advance)[0]

  def each(
    self,
    variables: Sequence[decode.Variables],
    examples: Sequence[Example],
    advance: Advance = lambda count: None,
  ) -> list[tuple[metrics.Scores, list[Prediction]]]:
    """The same for several prompts of equal shapes on one model, in one pass over the data.

    Args:
      variables: of each prompt; the backbone must be the same arrays in all.
      examples: see `__call__`.
      advance: see `__call__`.
    """
    predicted = self.predict(variables, examples, advance)
    return [(self.measure(examples, found), found) for found in predicted]

  def predict(
    self,
    variables: Sequence[decode.Variables],
    examples: Sequence[Example],
    advance: Advance = lambda count: None,
  ) -> list[list[Prediction]]:
    """The predictions of `each`, in order and not measured."""
    found: list[dict[int, Prediction]] = [{} for _ in variables]
    for of_prompts in self.by_batch(variables, examples):
      for at, predictions in zip(found, of_prompts, strict=True):
        at |= predictions
      advance(len(of_prompts[0]))
    return [[at[i] for i in range(len(examples))] for at in found]

  def by_batch(
    self,
    variables: Sequence[decode.Variables],
    examples: Sequence[Example],
    done: Collection[int] = frozenset(),
  ) -> Iterator[list[dict[int, Prediction]]]:
    """{index: prediction} of each prompt, batch by batch, without batches that are all `done`."""
    if not examples:
      raise UserError('There are no examples to evaluate; check the split or the limit on them.')
    backbone, own = _split_backbone(variables)
    for indices, tokens, ids in self._batches(examples):
      if all(i in done for i in indices):
        continue
      found = self._call(backbone, own, tokens, ids)
      if self._placement:  # rows of other processes too
        found = self._placement.to_local(found)
      of_prompts = []
      for one in jax.device_get(found):
        rows = zip(*{'rank': (one,), 'generate': one[:2]}.get(self.method, one), strict=True)
        read = zip(indices, rows, strict=False)  # rows that fill up the batch are left over
        of_prompts.append({i: self._read(examples[i], row) for i, row in read})
      yield of_prompts

  def measure(
    self, examples: Sequence[Example], predictions: Sequence[Prediction]
  ) -> metrics.Scores:
    """Scores of existing predictions, such as those of an ensemble."""
    if self._task.score is not None:
      return self._task.score(examples, [p.prediction for p in predictions])
    compared = self._compared(examples, predictions)
    return {} if compared is None else metrics.compute(*compared)

  def distribution(
    self,
    examples: Sequence[Example],
    predictions: Sequence[Prediction],
    resamples: int = bootstrap.RESAMPLES,
    seed: int | Sequence[int] = 0,
  ) -> dict[str, np.ndarray]:
    """{score: float64[resamples]}, the bootstrap of the scores; {} where there are none."""
    measure = self._task.score
    if measure is not None:

      def of(numbers: Sequence[int]) -> Mapping[str, float]:
        return measure([examples[i] for i in numbers], [predictions[i].prediction for i in numbers])

      began = time.monotonic()
      of(range(len(examples)))
      seconds = resamples * (time.monotonic() - began)
      if seconds > PATIENCE:
        warnings.warn(
          f'No intervals of {self._task.name}: its measure would take {seconds:.0f} s for '
          f'{resamples} resamples. Ask for fewer.',
          stacklevel=2,
        )
        return {}
      return bootstrap.distribution(
        bootstrap.function_statistic(of, len(examples)), resamples, seed
      )
    compared = self._compared(examples, predictions)
    if compared is None:
      return {}
    return bootstrap.distribution(metrics.statistic(*compared), resamples, seed)

  def calibration(
    self, examples: Sequence[Example], predictions: Sequence[Prediction]
  ) -> dict[str, calibration.Calibration]:
    """{task: its calibration} from the scores of ranked labels; else {}."""
    if not self.ranks or any(e.label is None for e in examples):
      return {}
    scores = np.array([list(p.scores.values()) for p in predictions])
    labels = [e.label for e in examples if e.label is not None]
    return {self._task.name: calibration.calibrate(softmax(scores, axis=-1), labels)}

  def _batches(
    self, examples: Sequence[Example]
  ) -> Iterator[tuple[list[int], jax.Array, Features]]:
    """Indices (at most B), tokens int32[B, T] and features, by length."""
    known = ids_of(examples, self._features) if self._features else {}
    shapes, size = choose_buckets(examples), min(self._batch_size, len(examples))
    put: Callable[[Any], Any] = jax.device_put
    if self._placement:
      put, size = self._placement.put_rows, self._placement.pad_to_multiple(size)
    order = np.argsort([len(e.inputs) for e in examples], kind='stable')
    # Only the batch of the shortest rows may not be full.
    ends = range(len(order), 0, -size)
    for end in reversed(ends):
      indices = order[max(end - size, 0) : end].tolist()
      width = shapes.inputs[shapes.member[indices[-1]]]
      # Filled up with examples, not with padding: an empty row might never end decoding.
      filled = np.resize(indices, size).tolist()
      tokens = np.zeros((size, width), np.int32)
      for row, i in zip(tokens, filled, strict=True):
        row[: len(examples[i].inputs)] = examples[i].inputs
      ids = {name: of[filled] for name, of in known.items()}
      yield indices, *put((tokens, ids))

  def _read(self, example: Example, row: tuple[Any, ...]) -> Prediction:
    """The prediction from one row of results."""
    labels = self._task.labels
    confidence = None
    if labels is not None and self.method == 'rank':
      best = int(np.argmax(row[0]))
      text, scores = labels[best], dict(zip(labels, map(float, row[0]), strict=True))
      confidence = float(softmax(np.asarray(row[0], np.float64))[best])
    elif labels is not None and self.method == 'constrained':
      best, log_prob, allowed = row
      text, scores, confidence = labels[best], {'log_prob': float(log_prob)}, math.exp(allowed)
    else:
      tokens, log_prob = row
      text, scores = self._vocabulary.decode(tokens), {'log_prob': float(log_prob)}
    value, target = self._value(example, text), self._target(example)
    if target is None:
      right = None
    elif self._task.right is not None:
      right = value
    elif labels is not None:
      right = value == target
    else:
      right = text_metrics.is_correct(target, value)
    answers = None if labels is not None else example.fields.get('answers')
    return Prediction(
      example.inputs_text,
      example.targets_text,
      text,
      right,
      scores,
      confidence,
      answers=answers and [str(a) for a in answers],
      group=example.fields.get('group'),
    )

  def _value(self, example: Example, text: str) -> Any:
    """The value that metrics compare, from the text of a prediction."""
    labels = self._task.labels
    if self._task.right is not None:
      return self._task.right(example, text)
    if labels is None:
      return self._task.postprocess(text)
    return label_of(text, labels) if self.method == 'generate' else labels.index(text)

  def _target(self, example: Example) -> Any:
    """The target that metrics compare with: a label's index, all correct answers, or a value.

    None where it is not known.
    """
    if self._task.labels is not None:
      return example.label
    if example.targets_text == UNKNOWN:
      return None
    if self._task.right is not None:
      return True
    if 'answers' in example.fields:
      return [self._task.postprocess(str(answer)) for answer in example.fields['answers']]
    return self._task.postprocess(example.targets_text)

  def _compared(
    self, examples: Sequence[Example], predictions: Sequence[Prediction]
  ) -> tuple[Any, ...] | None:
    """The arguments of `metrics.compute`; None if no target is known."""
    targets = [self._target(example) for example in examples]
    unknown = sum(target is None for target in targets)
    if unknown == len(targets):
      return None
    if unknown:
      raise UserError(
        f'{unknown} of {len(targets)} examples of {self._task.name!r} have no label; label them or '
        'leave them out.'
      )
    pairs = zip(examples, predictions, strict=True)
    values = [self._value(example, p.prediction) for example, p in pairs]
    groups = [example.fields.get('group') for example in examples]
    labels = None if self._task.labels is None else len(self._task.labels)
    return self._task.metrics, targets, values, groups, labels, self._vocabulary


def _check(task: Task, method: str, normalize: str, beams: int, batch_size: int) -> None:
  """Refuses options that are unknown or exclude each other."""
  if method not in METHODS:
    raise UserError(f'The method is {method!r}; expected {", ".join(METHODS)}.')
  if normalize not in score.NORMALIZE:
    raise UserError(f'normalize is {normalize!r}; expected {" or ".join(score.NORMALIZE)}.')
  if normalize != 'none' and method != 'rank':
    raise UserError(f'normalize is of the method rank, and {task.name!r} is asked by {method}.')
  if beams > 1 and method != 'generate':
    raise UserError(
      f'beams is {beams}, for generated text, and the method {method} gives a label.',
      ['beams', 'method'],
    )
  if batch_size < 1:
    raise UserError(f'The batch size is {batch_size}; it must be at least 1.', ['batch_size'])


def _split_backbone(variables: Sequence[decode.Variables]) -> tuple[Any, list[dict[str, Any]]]:
  """The backbone that all share, and the other variables of each.

  Raises:
    ValueError: the backbones are not the same arrays.
  """
  first = variables[0]['params']['backbone']
  own = []
  for v in variables:
    leaves = (jax.tree.leaves(tree) for tree in (first, v['params']['backbone']))
    if not all(a is b for a, b in zip(*leaves, strict=True)):
      raise ValueError('Prompts that are evaluated together must be on the same backbone')
    params = {name: tree for name, tree in v['params'].items() if name != 'backbone'}
    own.append({**v, 'params': params})
  return first, own


def _join_backbone(backbone: Any, own: dict[str, Any]) -> dict[str, Any]:
  return {**own, 'params': {'backbone': backbone, **own['params']}}


def _parts(model: Prompted, variables: Any, tokens: jax.Array, ids: Features) -> int:
  """The number of parts in which to rank a batch; 1 if the prompt is computed once for all rows."""
  encoded = jax.eval_shape(
    lambda v, t, i: model.apply(v, t, i, method='encode'), variables, tokens, ids
  )
  return 1 if encoded.prefix_apart else parts_for_caches(*tokens.shape)


def label_of(text: str, labels: Sequence[str]) -> int:
  """The index of the label that `text` is, white space at the ends aside; else INVALID."""
  text = text.strip()
  return labels.index(text) if text in labels else metrics.INVALID
