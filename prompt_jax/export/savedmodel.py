"""A model and prompts as a SavedModel of TensorFlow, from ids to ids and from text to text.

The programs of `prompt_groups` are inside; what runs it needs no JAX. Text is cut into ids inside
too: SentencePiece by tensorflow-text, bytes by TensorFlow itself.
"""

import functools
import importlib
import importlib.util
import os
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from prompt_jax.data.vocabulary import Vocabulary
from prompt_jax.errors import UserError, install
from prompt_jax.export import text_in_graph
from prompt_jax.export.asking import padded
from prompt_jax.export.prompt_groups import Axes, Group
from prompt_jax.export.stablehlo import PLATFORMS, PROGRAMS, PlacedPrompt, program

LARGEST = 2**20  # rows, and tokens of a text, are rounded up to powers of two up to this


def check_installed() -> None:
  """Refuses to write where TensorFlow is absent.

  Raises:
    UserError: it is not installed.
  """
  if importlib.util.find_spec('tensorflow') is None:
    raise UserError(f'TensorFlow is not installed; {install("savedmodel")}')


def tensorflow() -> Any:
  """The module, without its notes on the processor."""
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
  import tensorflow as tf

  return tf


def signatures_of(folder: pathlib.Path) -> Any:
  """The signatures of a folder by name; what cuts text is loaded where it is installed."""
  tf = tensorflow()
  if importlib.util.find_spec('tensorflow_text') is not None:
    importlib.import_module('tensorflow_text')
  return tf.saved_model.load(str(folder)).signatures


def save(
  folder: pathlib.Path,
  weights: Mapping[str, Any],
  groups: Sequence[Group],
  prompts: Sequence[PlacedPrompt],
  words: Vocabulary,
) -> None:
  """Writes the folder, with the signatures "write" and "score", and where text can be cut "tokens"
  and "serving_default".

  Args:
    folder: made if absent.
    weights: of the model, by path.
    groups: of prompts.
    prompts: numbered in this order.
    words: the vocabulary.
  """
  tf = tensorflow()
  module: Any = tf.Module()
  # A flat list: TensorFlow renames what lies in dicts.
  module.weights = [tf.Variable(np.asarray(x), trainable=False) for _, x in sorted(weights.items())]
  module.groups = [_OfGroup(group, weights, module.weights) for group in groups]
  module.variables_of_groups = [group.prompts for group in module.groups]
  routed = _Routed(module.groups, prompts)
  signatures = {name: _of_ids(routed, name) for name in PROGRAMS}
  cutter = text_in_graph.cutter(words)
  if cutter is not None:
    module.cutter = cutter.resource
    signatures |= _of_text(routed, prompts, words, cutter)
  tf.saved_model.save(module, str(folder), signatures=signatures)


class _OfGroup:
  """The programs of one group as functions of TensorFlow."""

  def __init__(self, group: Group, weights: Mapping[str, Any], values: Sequence[Any]):
    tf = tensorflow()
    self.longest = group.longest
    self._weights = values
    self.prompts = [tf.Variable(x, trainable=False) for _, x in sorted(group.arrays.items())]
    self._calls = {name: _converted(group, name, weights) for name in PROGRAMS}

  def __call__(self, name: str, *args: Any) -> Any:
    return self._calls[name](tuple(self._weights), tuple(self.prompts), *args)


def _converted(group: Group, name: str, weights: Mapping[str, Any]) -> Callable[..., Any]:
  from jax.experimental import jax2tf

  exported = program(group, name, weights)
  paths, arrays = sorted(weights), sorted(group.arrays)

  def call(values: Any, prompts: Any, *args: Any) -> Any:
    named = [dict(zip(n, x, strict=True)) for n, x in ((paths, values), (arrays, prompts))]
    return exported.call(*named, *args)

  said = lambda axes: f'({", ".join(axis or "_" for axis in axes)}{"," * (len(axes) == 1)})'
  own: list[Axes] = [group.axes[path] for path in arrays]
  args = [said(axes) for _, axes in PROGRAMS[name].values()]
  return jax2tf.convert(
    call,
    polymorphic_shapes=[None, tuple(map(said, own)), *args],
    polymorphic_constraints=['u >= 2'] if name == 'score' else [],
    native_serialization_platforms=PLATFORMS,
    with_gradient=False,
  )


class _Routed:
  """The programs of all groups, each asked with the rows of its own prompts."""

  def __init__(self, groups: Sequence[_OfGroup], prompts: Sequence[PlacedPrompt]):
    self._groups = groups
    self._group_of = np.array([p.group for p in prompts], np.int32)
    self._place_of = np.array([p.place for p in prompts], np.int32)
    self.longest = max(group.longest for group in groups)

  def write(self, prompt: Any, *args: Any) -> tuple[Any, Any]:
    """int32[b] numbers of prompts, and what `Group.write` takes -> tokens, log-probabilities."""
    tf = tensorflow()

    def call(group: _OfGroup, *args: Any) -> tuple[Any, Any]:
      tokens, log_prob = group('write', *args)
      return tf.pad(tokens, [[0, 0], [0, self.longest - group.longest]]), log_prob

    nothing = tf.zeros([0, self.longest], tf.int32), tf.zeros([0])
    return self._asked(call, nothing, prompt, args)

  def score(self, prompt: Any, tokens: Any, targets: Any) -> Any:
    """As `Group.score`."""
    tf = tensorflow()
    call = lambda group, *args: (group('score', *args),)
    nothing = (tf.zeros([0, *tf.unstack(tf.shape(targets)[1:])]),)
    return self._asked(call, nothing, prompt, (tokens, targets))[0]

  def _asked(
    self, call: Callable[..., Any], nothing: Any, prompt: Any, args: Sequence[Any]
  ) -> tuple[Any, ...]:
    tf = tensorflow()
    group_of, places = tf.gather(self._group_of, prompt), tf.gather(self._place_of, prompt)
    rows, found = [], []
    for number, group in enumerate(self._groups):
      own = tf.cast(tf.where(group_of == number)[:, 0], tf.int32)
      some = [tf.gather(x, own) for x in (places, *args)]
      answer = functools.partial(call, group, *some)
      found.append(tf.cond(tf.size(own) > 0, answer, lambda: nothing))
      rows.append(own)
    return tuple(tf.dynamic_stitch(rows, list(x)) for x in zip(*found, strict=True))


def _of_ids(routed: _Routed, name: str) -> Any:
  """The signature of a program."""
  tf = tensorflow()
  specs = [
    tf.TensorSpec([None] * len(axes), dtype, name=argument)
    for argument, (dtype, axes) in PROGRAMS[name].items()
  ]
  if name == 'write':

    @tf.function(autograph=False, input_signature=specs)
    def write(*args: Any) -> dict[str, Any]:
      return dict(zip(('tokens', 'log_prob'), routed.write(*args), strict=True))

    return write

  @tf.function(autograph=False, input_signature=specs)
  def score(*args: Any) -> dict[str, Any]:
    return {'log_probs': routed.score(*args)}

  return score


def _of_text(
  routed: _Routed,
  prompts: Sequence[PlacedPrompt],
  words: Vocabulary,
  cutter: text_in_graph.Cutter,
) -> dict[str, Any]:
  """The signatures that take text and the name of its prompt."""
  tf = tensorflow()
  names = tf.constant([p.name for p in prompts])
  most = tf.constant([p.lengths.inputs for p in prompts])
  limits = tf.constant([p.lengths.targets for p in prompts])
  ids, counts, said = _labels(prompts)
  specs = [tf.TensorSpec([None], tf.string, name=name) for name in ('task', 'text')]

  def asked(task: Any, text: Any) -> tuple[Any, Any]:
    """Numbers of prompts, and ids of texts."""
    same = task[:, None] == names[None]
    known = tf.debugging.assert_equal(
      tf.reduce_any(same, 1), True, message=f'known tasks: {[p.name for p in prompts]}'
    )
    with tf.control_dependencies([known]):
      prompt = tf.argmax(same, 1, tf.int32)
    ragged = cutter.encode(text, tf.gather(most, prompt) - 1)
    ends = tf.fill([tf.shape(text)[0], 1], words.eos_id)
    return prompt, tf.concat([ragged, tf.cast(ends, tf.int32)], 1).to_tensor(words.pad_id)

  @tf.function(autograph=False, input_signature=specs)
  def tokens(task: Any, text: Any) -> dict[str, Any]:
    return {'tokens': asked(task, text)[1]}

  def ranked(prompt: Any, rows: Any) -> tuple[Any, Any]:
    targets = tf.gather(ids, prompt)
    values = tf.reduce_sum(routed.score(prompt, rows, targets), 2)
    there = tf.range(tf.shape(values)[1])[None] < tf.gather(counts, prompt)[:, None]
    values = tf.where(there, values, -np.inf)
    best = tf.argmax(values, 1, tf.int32)
    return tf.gather(tf.gather(said, prompt), best, batch_dims=1), tf.reduce_max(values, 1)

  def written(prompt: Any, rows: Any) -> tuple[Any, Any]:
    each = lambda dtype: tf.zeros_like(prompt, dtype)
    greedy = (each(np.float32), each(np.int32), each(np.float32), each(np.int32))
    done, log_prob = routed.write(prompt, rows, tf.gather(limits, prompt), *greedy)
    return cutter.decode(done), log_prob

  @tf.function(autograph=False, input_signature=specs)
  def answer(task: Any, text: Any) -> dict[str, Any]:
    prompt, rows = asked(task, text)
    width = _power_of_two(tf.maximum(tf.shape(rows)[1], 8)) - tf.shape(rows)[1]
    rows = tf.pad(rows, [[0, 0], [0, width]])
    labelled, parts, numbers = tf.gather(counts, prompt) > 0, [], []
    for call, mine in ((ranked, labelled), (written, ~labelled)):
      own = tf.cast(tf.where(mine)[:, 0], tf.int32)
      parts.append(_filled(call, own, prompt, rows))
      numbers.append(own)
    found, log_prob = (tf.dynamic_stitch(numbers, list(x)) for x in zip(*parts, strict=True))
    return {'text': found, 'log_prob': log_prob}

  return {'tokens': tokens, 'serving_default': answer}


def _filled(call: Callable[..., Any], own: Any, prompt: Any, rows: Any) -> Any:
  """A call with some of the rows, filled up to a power of two with the last: few are compiled."""
  tf = tensorflow()
  count = tf.size(own)

  def answer() -> Any:
    filled = tf.gather(own, tf.minimum(tf.range(_power_of_two(count)), count - 1))
    return tuple(x[:count] for x in call(tf.gather(prompt, filled), tf.gather(rows, filled)))

  nothing = lambda: (tf.zeros([0], tf.string), tf.zeros([0]))
  return tf.cond(count > 0, answer, nothing)


def _power_of_two(n: Any) -> Any:
  """The smallest that is at least n."""
  tf = tensorflow()
  powers = tf.constant([1 << i for i in range(LARGEST.bit_length())])
  return powers[tf.searchsorted(powers, n[None])[0]]


def _labels(prompts: Sequence[PlacedPrompt]) -> tuple[Any, Any, Any]:
  """int32[K, C, U] ids of labels, int32[K] how many each prompt has, string[K, C] they."""
  tf = tensorflow()
  every = [p.label_ids or [] for p in prompts]
  width = max([2, *(len(ids) for own in every for ids in own)])
  most = max([1, *map(len, every)])
  ids = np.stack([padded([*own, *[[]] * (most - len(own))], width) for own in every])
  said = [[*(p.labels or []), *[''] * (most - len(p.labels or []))] for p in prompts]
  return tf.constant(ids), tf.constant([len(own) for own in every]), tf.constant(said)
