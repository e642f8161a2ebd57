"""Several prompts as one method: what they inject, stacked; a row of a batch takes its own.

A prompt here is plain arrays (see `prompts.base.materialise`) whose batch axis has become the axis
of the prompts, K. Lengths differ: rows and keys are filled up to common ones, and `Injection` says
how many each has.
"""

import dataclasses
from collections.abc import Callable, Hashable
from typing import Any, ClassVar

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from prompt_jax.errors import UserError
from prompt_jax.injections import (
  TASK,
  Context,
  Injection,
  Injections,
  InsideEdit,
  LayerEdit,
  Layout,
  features_of,
)
from prompt_jax.loading import Tuned
from prompt_jax.prompts.base import PromptMethod

Array = jax.Array
PARTS = ('encoder', 'decoder', 'cross')
# Length of the rows and of the keys of each part, by (part, "prefix" or "kv").
Rooms = dict[tuple[str, str], int]


class Stacked(PromptMethod):
  """Row b of a batch gets what prompt `task_id[b]` injects.

  Its constant `stacked` holds `Injections` of K prompts.
  """

  depends_on: ClassVar[frozenset[str]] = frozenset({TASK})

  @nn.compact
  def __call__(self, ctx: Context) -> Injections:
    stacked: Any = self.get_variable('constants', 'stacked')
    places: Any = ctx.task_id
    return mapped(lambda axis, x: jnp.take(x, places, axis=axis), stacked)


@dataclasses.dataclass(frozen=True)
class InsideByRow:
  """`InsideEdit.fn` where each row of the batch has a theta of its own: leaves [B, ...]."""

  fn: Callable[[Any, Array, Array], Array]

  def __call__(self, theta: Any, y: Array, x: Array) -> Array:
    one = lambda theta, y, x: self.fn(theta, y[None], x[None])[0]
    found: Array = jax.vmap(one)(theta, y, x)
    return found


@dataclasses.dataclass(frozen=True)
class ByRow:
  """`LayerEdit.fn` where each row of the batch has a theta of its own: leaves [B, ...]."""

  fn: Callable[[Any, Array, Layout], Array]

  def __call__(self, theta: Any, x: Array, layout: Layout) -> Array:
    whole = jax.tree.map(lambda a: jnp.broadcast_to(a, (x.shape[0], *a.shape[1:])), layout)

    def one(theta: Any, x: Array, layout: Layout) -> Array:
      return self.fn(theta, x[None], jax.tree.map(lambda a: a[None], layout))[0]

    return jax.vmap(one)(theta, x, whole)


def mapped(f: Callable[..., Any], *stacks: Injections) -> Injections:
  """`f(axis of the prompts, leaf of each stack)` for all leaves of stacks of equal kind."""

  def part(name: str) -> Injection:
    parts = [getattr(each, name) for each in stacks]
    own = parts[0]
    found = {}
    for field, axis in (('prefix', 0), ('kv', 2), ('lengths', 0), ('kv_lengths', 0)):
      if getattr(own, field) is not None:
        found[field] = f(axis, *(getattr(each, field) for each in parts))
    if own.hidden is not None:
      thetas = [each.hidden.theta for each in parts]
      theta = jax.tree.map(lambda *leaves: f(1, *leaves), *thetas)
      found['hidden'] = dataclasses.replace(own.hidden, theta=theta)
    thetas = [[edit.theta for edit in each.inside] for each in parts]
    joined = jax.tree.map(lambda *leaves: f(1, *leaves), *thetas)
    found['inside'] = tuple(
      dataclasses.replace(edit, theta=theta) for edit, theta in zip(own.inside, joined, strict=True)
    )
    return dataclasses.replace(own, **found)

  return Injections.of({name: part(name) for name in PARTS})


def alone(name: str, tuned: Tuned) -> Injections:
  """A stack of one prompt.

  Args:
    name: of the prompt, for messages.
    tuned: the prompt on its model.

  Raises:
    UserError: what it injects depends on the input, or has a form that cannot be stacked.
  """
  method: Any = tuned.model.prompt
  if method is None:
    raise UserError(f'{name!r} is the model without a prompt, which has no place among prompts.')
  kind, reads = type(method).__name__, sorted(method.depends_on)
  if reads == [TASK]:
    raise UserError(
      f'{name!r} is a {kind}, which holds a prompt for each of several tasks. Give the prompt of '
      'each task by itself: training has put them into the folder task_prompts beside it.'
    )
  if features := sorted(features_of(method)):
    raise UserError(
      f'{name!r} is a {kind}, which reads {", ".join(features)} of each example, and a request is '
      'a text alone. Answer with it by infer, on a file with these columns.'
    )
  if reads:
    raise UserError(
      f'{name!r} is a {kind}, which reads {", ".join(reads)} of each input and so cannot be '
      'stacked with other prompts; answer with it alone, by infer.'
    )
  found = tuned.injections()
  return Injections.of({part: _alone(name, kind, getattr(found, part)) for part in PARTS})


def _alone(name: str, kind: str, part: Injection) -> Injection:
  rows = part.prefix
  if not is_plain(part):
    raise UserError(
      f'{name!r} is a {kind}, which injects a delta, a head or rows of several examples and so '
      'cannot be stacked with other prompts; answer with it alone, by infer.'
    )
  count = lambda n: np.array([n], np.int32)
  edit, one = part.hidden, lambda theta: jax.tree.map(lambda x: np.asarray(x)[:, None], theta)
  if edit is not None:
    edit = LayerEdit(one(edit.theta), ByRow(edit.fn), edit.by_slot)
  inside = (InsideEdit(one(each.theta), each.point, InsideByRow(each.fn)) for each in part.inside)
  own: dict[str, Any] = {'hidden': edit, 'inside': tuple(inside)}
  if rows is not None:
    own |= {'prefix': np.asarray(rows), 'lengths': count(rows.shape[1])}
  if part.kv is not None:
    own |= {'kv': np.asarray(part.kv), 'kv_lengths': count(part.kv.shape[3])}
  return dataclasses.replace(part, **own)


def is_plain(part: Injection) -> bool:
  """Whether what a stack of layers gets has a form that can be stacked."""
  rows = part.prefix
  return part.delta is None and part.head is None and (rows is None or rows.ndim == 3)


def rooms_of(prompt: Injections) -> Rooms:
  """The lengths of a stack."""
  rooms: Rooms = {}
  for name in PARTS:
    part = getattr(prompt, name)
    if part.prefix is not None:
      rooms[name, 'prefix'] = part.prefix.shape[1]
    if part.kv is not None:
      rooms[name, 'kv'] = part.kv.shape[3]
  return rooms


def kind_of(prompt: Injections) -> Hashable:
  """Equal for prompts that can be one stack, whatever their lengths and number."""
  found: list[Any] = [jax.tree.structure(prompt)]

  def note(x: Any, free: tuple[int, ...]) -> None:
    found.append((tuple(n for i, n in enumerate(x.shape) if i not in free), x.dtype))

  for name in PARTS:
    part = getattr(prompt, name)
    for field, free in (('prefix', (0, 1)), ('kv', (2, 3))):
      if getattr(part, field) is not None:
        note(getattr(part, field), free)
    if part.hidden is not None:
      for leaf in jax.tree.leaves(part.hidden.theta):
        note(leaf, (1, 2) if part.hidden.by_slot else (1,))
    for leaf in jax.tree.leaves([edit.theta for edit in part.inside]):
      note(leaf, (1,))
  return tuple(found)


def filled_up(prompt: Injections, rooms: Rooms) -> Injections:
  """A stack with room for so many rows and keys: rows behind its own, keys in front of its own."""

  def part(name: str) -> Injection:
    own = getattr(prompt, name)
    if own.prefix is not None:
      missing = rooms[name, 'prefix'] - own.prefix.shape[1]
      own = dataclasses.replace(own, prefix=_padded(own.prefix, 1, (0, missing)))
      if own.hidden is not None and own.hidden.by_slot:
        theta = jax.tree.map(lambda x: _padded(x, 2, (0, missing)), own.hidden.theta)
        own = dataclasses.replace(own, hidden=dataclasses.replace(own.hidden, theta=theta))
    if own.kv is not None:
      missing = rooms[name, 'kv'] - own.kv.shape[3]
      own = dataclasses.replace(own, kv=_padded(own.kv, 3, (missing, 0)))
    return own

  return Injections.of({name: part(name) for name in PARTS})


def _padded(x: Any, axis: int, width: tuple[int, int]) -> np.ndarray:
  return np.pad(x, [width if i == axis else (0, 0) for i in range(np.ndim(x))])


def with_places(prompt: Injections, count: int) -> Injections:
  """A stack of so many prompts, of which those that are not there inject nothing."""
  return mapped(lambda axis, x: _padded(x, axis, (0, count - x.shape[axis])), prompt)


@jax.jit
def put(stacked: Injections, prompt: Injections, at: Array) -> Injections:
  """A stack with another prompt at number `at`; `prompt` has the same rooms."""
  update = lambda axis, x, new: jax.lax.dynamic_update_slice_in_dim(x, new, at, axis)
  return mapped(update, stacked, prompt)
