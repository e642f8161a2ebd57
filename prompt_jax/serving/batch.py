"""Rows that name their prompts, answered in batches of few shapes.

Shapes are buckets: of rows, of the tokens of a text, of labels and their tokens, and of the tokens
to be written. With the shapes of the groups (see `bank`) they are all that a program is compiled
for.
"""

import copy
import dataclasses
import functools
import itertools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from prompt_jax.inference import constrained, decode, score
from prompt_jax.inference.beam_search import beam_search, gnmt_penalty
from prompt_jax.injections import TASK
from prompt_jax.serving.bank import Bank, Entry, Group
from prompt_jax.serving.rows import Found, Row, Settings, Tell
from prompt_jax.serving.stacked import Injections
from prompt_jax.stacking import map_in_parts, parts_for_caches

Array = jax.Array
# (number of the tokens, int32[B] them) -> None
Listener = Callable[[int, np.ndarray], None]


def bucket(n: int, least: int = 8) -> int:
  """The smallest of 8, 12, 16, 24, 32, 48, 64, ... that is at least n; from `least` on."""
  power = 1 << max(n - 1, least - 1).bit_length()
  return power * 3 // 4 if least < n <= power * 3 // 4 else power


@dataclasses.dataclass(frozen=True)
class Shapes:
  """The sizes that batches are rounded up to; beyond the last, and where there are none, the
  steps of `bucket`, of which there are more.

  Attributes:
    rows: of a batch.
    texts: tokens of a text.
    answers: tokens to be written.
    labels: of a group of prompts: least number of labels, and of tokens of one.
  """

  rows: tuple[int, ...] = ()
  texts: tuple[int, ...] = ()
  answers: tuple[int, ...] = ()
  labels: Mapping[Group, tuple[int, int]] = dataclasses.field(default_factory=dict)


def fit(n: int, sizes: Sequence[int], least: int = 8) -> int:
  """The first of `sizes` that is at least n; else `bucket`."""
  return next((size for size in sizes if size >= n), 0) or bucket(n, least)


class Programs:
  """The compiled functions of a bank."""

  def __init__(self, bank: Bank, shapes: Shapes = Shapes()):
    self._bank, self.shapes = bank, shapes
    self._tickets, self._listeners = itertools.count(), dict[int, Listener]()
    self._rank = jax.jit(self._ranked, static_argnames=('normalize',))
    self._choose = jax.jit(self._chosen, static_argnames=('length',))
    self._write = jax.jit(self._written, static_argnames=('settings', 'longest'))

  def with_shapes(self, shapes: Shapes) -> 'Programs':
    """The same compiled functions for batches of other sizes."""
    found = copy.copy(self)
    found.shapes = shapes
    return found

  def __call__(
    self,
    rows: Sequence[Row],
    settings: Settings,
    tell: Tell | None = None,
    takes: Callable[[Entry], bool] = lambda entry: True,
  ) -> list[Found | None]:
    """The answer to each row; None where its prompt is not there any more, or not taken.

    Rows of one group are one batch; "rank" and "constrained" need prompts with labels.

    Args:
      rows: a batch.
      settings: of all of them.
      tell: called for each token, in order, if the settings are streamed; not for what fills up.
      takes: whether a prompt, which may have been replaced since, is asked with these settings.
    """
    entries, stacks = self._bank.snapshot([row.prompt for row in rows])
    found: list[Found | None] = [None] * len(rows)
    entries = [e if e is not None and takes(e) else None for e in entries]
    for group, stack in stacks.items():
      numbers = [i for i, e in enumerate(entries) if e is not None and e.group is group]
      if not numbers:
        continue
      some: list[Any] = [entries[i] for i in numbers]
      listener = None if tell is None else _in_order(tell, numbers)
      answers = self.of_group(stack, some, [rows[i] for i in numbers], settings, listener)
      for i, answer in zip(numbers, answers, strict=True):
        found[i] = answer
    return found

  def of_group(
    self,
    stack: Injections,
    entries: list[Entry],
    rows: list[Row],
    settings: Settings,
    listener: Listener | None = None,
  ) -> list[Found]:
    """The answers of rows whose prompts, the entries, are in one stack."""
    count = len(rows)
    # Filled up with the last row, not with padding: an empty row might never end decoding.
    more = fit(count, self.shapes.rows) if self.shapes.rows else 1 << (count - 1).bit_length()
    entries, rows = ([*some, *[some[-1]] * (more - count)] for some in (entries, rows))
    width = fit(max(len(row.tokens) for row in rows), self.shapes.texts)
    tokens = np.zeros((more, width), np.int32)
    for own, row in zip(tokens, rows, strict=True):
      own[: len(row.tokens)] = row.tokens
    places = np.array([entry.place for entry in entries], np.int32)
    call = {'rank': self._by_rank, 'constrained': self._by_trie, 'generate': self._by_decoding}
    inputs = (self._bank.backbone.params, stack, places, tokens)
    if listener is None:
      return call[settings.way](inputs, entries, rows, settings)[:count]
    ticket = self._new_ticket(listener)
    try:
      return self._by_decoding(inputs, entries, rows, settings, ticket)[:count]
    finally:
      jax.effects_barrier()  # all of it was told
      del self._listeners[ticket]

  def _by_rank(self, inputs: Any, entries: Any, rows: Any, settings: Settings) -> list[Found]:
    most, longest = (max(e.label_tokens.shape[i] for e in entries) for i in (0, 1))
    least = self.shapes.labels.get(entries[0].group, (2, 2))
    shape = [max(bucket(n, 2), m) for n, m in zip((most, longest), least, strict=True)]
    labels = np.zeros((len(rows), *shape), np.int32)
    for own, entry in zip(labels, entries, strict=True):
      own[: len(entry.labels), : entry.label_tokens.shape[1]] = entry.label_tokens
    scores = jax.device_get(self._rank(*inputs, labels, normalize=settings.normalize))
    answers = []
    for entry, of_row in zip(entries, scores, strict=True):
      own = of_row[: len(entry.labels)]
      best = int(np.argmax(own))
      answers.append(Found(entry, np.zeros(0, np.int32), float(own[best]), best, own))
    return answers

  def _by_trie(self, inputs: Any, entries: Any, rows: Any, settings: Settings) -> list[Found]:
    del settings
    nodes, arcs = (bucket(max(e.tree.tokens.shape[i] for e in entries), 2) for i in (0, 1))
    shape = (len(rows), nodes, arcs)
    tree = constrained.Trie(
      np.zeros(shape, np.int32), np.zeros(shape, np.int32), np.full(shape[:2], -1, np.int32)
    )
    for i, entry in enumerate(entries):
      n, a = entry.tree.tokens.shape
      tree.tokens[i, :n, :a], tree.children[i, :n, :a] = entry.tree[:2]
      tree.label[i, :n] = entry.tree.label
    longest = bucket(max(e.label_tokens.shape[1] for e in entries), 2)
    chosen = jax.device_get(self._choose(*inputs, tree, length=longest))
    nothing = np.zeros(0, np.int32)
    return [
      Found(entry, nothing, float(log_prob), int(label), allowed=float(allowed))
      for entry, label, log_prob, allowed in zip(entries, *chosen, strict=True)
    ]

  def _new_ticket(self, listener: Listener) -> int:
    """A number by which a program that runs calls its listener."""
    ticket = next(self._tickets)
    self._listeners[ticket] = listener
    return ticket

  def _tell(self, ticket: Any, step: Any, tokens: Any) -> None:
    listener = self._listeners.get(int(ticket))
    if listener is not None:
      listener(int(step), np.asarray(tokens))

  def _by_decoding(
    self, inputs: Any, entries: Any, rows: Any, settings: Settings, ticket: int = -1
  ) -> list[Found]:
    longest = fit(max(row.limit for row in rows), self.shapes.answers)
    of = lambda name, dtype: np.array([getattr(row, name) for row in rows], dtype)
    limits = of('limit', np.int32)
    how = None
    if settings.sampled:
      how = (
        of('temperature', np.float32), of('top_k', np.int32), of('top_p', np.float32),
        of('seed', np.uint32), of('number', np.uint32),
      )  # fmt: skip
    number = np.int32(ticket)
    done = self._write(*inputs, limits, how, number, settings=settings, longest=longest)
    tokens, log_probs, _ = jax.device_get(done)
    return [
      Found(entry, own, float(log_prob))
      for entry, own, log_prob in zip(entries, tokens, log_probs, strict=True)
    ]

  def _ranked(
    self, backbone: Any, stack: Any, places: Array, tokens: Array, labels: Array, normalize: Any
  ) -> Array:
    call = functools.partial(score.rank, self._bank.model, _variables(backbone, stack))
    one = lambda x: call(x[0], x[1], normalize, {TASK: x[2]})
    parts = parts_for_caches(*tokens.shape)
    return map_in_parts(one, (tokens, labels, places), parts)

  def _chosen(
    self, backbone: Any, stack: Any, places: Array, tokens: Array, tree: Any, length: int
  ) -> Any:
    variables = _variables(backbone, stack)
    return constrained.follow(self._bank.model, variables, tokens, tree, length, {TASK: places})

  def _written(
    self,
    backbone: Any,
    stack: Any,
    places: Array,
    tokens: Array,
    limits: Array,
    how: Any,
    ticket: Array,
    settings: Settings,
    longest: int,
  ) -> decode.Decoded:
    model, variables = self._bank.model, _variables(backbone, stack)
    options: dict[str, Any] = {
      'eos_id': self._bank.backbone.vocabulary.eos_id, 'features': {TASK: places}, 'limits': limits
    }  # fmt: skip
    if settings.beams > 1:
      given = settings.length_penalty
      divisor = None if given is None else gnmt_penalty(given)
      return beam_search(
        model, variables, tokens, longest, settings.beams, divisor=divisor, **options
      )
    choose: decode.Choose = decode.most_probable
    if how is not None:
      temperature, top_k, top_p, seeds, samples = how
      keys = jax.vmap(lambda seed, n: jax.random.fold_in(jax.random.key(seed), n))(seeds, samples)
      choose = decode.choose_by_row(decode.RowSampling(temperature, top_k, top_p, keys))
    tell = None
    if settings.streamed:
      tell = lambda step, tokens: jax.debug.callback(self._tell, ticket, step, tokens)
    return decode.decode(model, variables, tokens, longest, choose, tell=tell, **options)


def _in_order(tell: Tell, numbers: Sequence[int]) -> Listener:
  """Tells the tokens of rows with these numbers, whatever the order in which steps come."""
  came: dict[int, np.ndarray] = {}
  following = 0

  def listener(step: int, tokens: np.ndarray) -> None:
    nonlocal following
    came[step] = tokens
    while following in came:
      for number, token in zip(numbers, came.pop(following), strict=False):
        tell(number, following, int(token))
      following += 1

  return listener


def _variables(backbone: Any, stack: Injections) -> dict[str, Any]:
  return {'params': {'backbone': backbone}, 'constants': {'prompt': {'stacked': stack}}}
