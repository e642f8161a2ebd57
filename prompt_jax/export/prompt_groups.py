"""Prompts that inject alike as arrays by name, and the programs that answer with any of them.

A program is a function of arrays alone: the model's weights, the group's prompts, and a batch whose
rows each name a prompt by its place in the group. Prompts that are the same for every input are
stacked, so that one program answers for all of one kind; a method that reads the input is code, and
its program answers for that prompt alone.
"""

import dataclasses
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from flax import traverse_util

from prompt_jax.inference import decode, score
from prompt_jax.injections import TASK, Injections
from prompt_jax.loading import Tuned, prompted
from prompt_jax.named_prompts import NamedFile
from prompt_jax.prompted import Prompted
from prompt_jax.serving import stacked

Array = jax.Array
Named = Mapping[str, Any]  # arrays by name
# Of each axis of an array of a group: the name of its size where that is free, else None.
Axes = tuple[str | None, ...]
PROMPTS = 'k'  # the size that is the number of prompts
# What the programs are called with, behind the weights and the prompts: dtype and axes.
WRITE: dict[str, tuple[Any, Axes]] = {
  'prompt': (np.int32, ('b',)),
  'tokens': (np.int32, ('b', 't')),
  'limit': (np.int32, ('b',)),
  'temperature': (np.float32, ('b',)),
  'top_k': (np.int32, ('b',)),
  'top_p': (np.float32, ('b',)),
  'seed': (np.int32, ('b',)),
}
SCORE: dict[str, tuple[Any, Axes]] = {
  'prompt': (np.int32, ('b',)),
  'tokens': (np.int32, ('b', 't')),
  'targets': (np.int32, ('b', 'c', 'u')),
}


@dataclasses.dataclass(frozen=True, eq=False)
class Group:
  """Prompts for which one program answers.

  Attributes:
    names: of the prompts, in the order of their places.
    arrays: what is theirs.
    axes: of each of the arrays.
    model: the backbone with what reads the arrays.
    collections: arrays -> what `model` takes beside the weights, by collection.
    longest: most tokens that are written.
    eos_id: ends what is written.
  """

  names: tuple[str, ...]
  arrays: dict[str, np.ndarray]
  axes: dict[str, Axes]
  model: Prompted
  collections: Callable[[Named], dict[str, Any]]
  longest: int
  eos_id: int

  def write(
    self,
    weights: Named,
    prompts: Named,
    prompt: Array,
    tokens: Array,
    limit: Array,
    temperature: Array,
    top_k: Array,
    top_p: Array,
    seed: Array,
  ) -> tuple[Array, Array]:
    """Decodes, each row greedily or by sampling; see `inference.decode.RowSampling`.

    Args:
      weights: of the model, by path.
      prompts: as `arrays`.
      prompt: int32[B] the place of each row's prompt.
      tokens: int32[B, T] ids of the texts, 0 behind their ends.
      limit: int32[B] most tokens of an answer, at most `longest`.
      temperature: float32[B] 0 is greedy.
      top_k: int32[B] 0 is all.
      top_p: float32[B] 0 is all.
      seed: int32[B] of sampling.

    Returns:
      int32[B, longest] ids, the end of the sequence included and 0 after it; float32[B] their
      log-probability in nats.
    """
    keys = jax.vmap(jax.random.key)(seed)
    by_row = decode.choose_by_row(decode.RowSampling(temperature, top_k, top_p, keys))
    sampled = jnp.any(temperature >= decode.MIN_TEMPERATURE)

    def choose(logits: Array, position: Array) -> Array:  # sorts only where a row is sampled
      call = lambda x: by_row(x, position).astype(jnp.int32)
      first = lambda x: decode.most_probable(x, position).astype(jnp.int32)
      return jax.lax.cond(sampled, call, first, logits)

    variables = self._variables(weights, prompts)
    found = decode.decode(
      self.model, variables, tokens, self.longest, choose, self.eos_id, {TASK: prompt}, limit
    )
    return found.tokens, found.log_probs

  def score(
    self, weights: Named, prompts: Named, prompt: Array, tokens: Array, targets: Array
  ) -> Array:
    """float32[B, C, U] log-probabilities of the tokens of targets, int32[B, C, U] of each row."""
    # One at a time, so that their number may be free.
    return score.token_log_probs(
      self.model,
      self._variables(weights, prompts),
      tokens,
      targets,
      {TASK: prompt},
      labels_at_once=1,
    )

  def _variables(self, weights: Named, prompts: Named) -> dict[str, Any]:
    found = self.collections(prompts)
    backbone = traverse_util.unflatten_dict(dict(weights), sep='/')
    return {**found, 'params': {'backbone': backbone, **found.get('params', {})}}


def weights_of(params: Mapping[str, Any]) -> dict[str, Any]:
  """The model's tree as arrays by path."""
  return traverse_util.flatten_dict(params, sep='/')


def grouped(found: Sequence[NamedFile], ready: Sequence[Tuned]) -> list[Group]:
  """All prompts, those of one kind together; in the order of the first of each.

  Raises:
    UserError: a file holds no prompt.
  """
  kinds: dict[Hashable, list[tuple[str, Tuned, Injections | None]]] = {}
  for (name, _), tuned in zip(found, ready, strict=True):
    one = stacked.alone(name, tuned) if _can_be_stacked(tuned) else None
    kind: Hashable = name if one is None else ('stacked', stacked.kind_of(one))
    kinds.setdefault(kind, []).append((name, tuned, one))
  return [
    _stack(members) if members[0][2] else _code(*members[0][:2]) for members in kinds.values()
  ]


def _can_be_stacked(tuned: Tuned) -> bool:
  """Whether a prompt injects the same for every input, and that in a form that `stacked` has."""
  method: Any = tuned.model.prompt
  if method.depends_on:
    return False
  found = tuned.injections()
  return all(map(stacked.is_plain, (found.encoder, found.decoder, found.cross)))


def _stack(members: Sequence[tuple[str, Tuned, Any]]) -> Group:
  rooms: stacked.Rooms = {}
  for _, _, one in members:
    for key, n in stacked.rooms_of(one).items():
      rooms[key] = max(n, rooms.get(key, 0))
  wide = [stacked.filled_up(one, rooms) for _, _, one in members]
  whole = stacked.mapped(lambda axis, *leaves: np.concatenate(leaves, axis), *wide)
  axes = _axes(whole)
  leaves, structure = jax.tree_util.tree_flatten_with_path(whole)
  paths = [_path(path) for path, _ in leaves]

  def collections(prompts: Named) -> dict[str, Any]:
    # The auxiliary loss is no array of the prompts, and nothing reads it here.
    values = [0.0 if path == 'aux_loss' else prompts[path] for path in paths]
    stack = jax.tree.unflatten(structure, values)
    return {'constants': {'prompt': {'stacked': stack}}}

  arrays = {path: np.asarray(x) for path, (_, x) in zip(paths, leaves, strict=True) if path in axes}
  backbone = members[0][1].backbone
  model = prompted(backbone.config, stacked.Stacked())
  return _group(members, arrays, axes, model, collections)


def _path(path: Any) -> str:
  return jax.tree_util.keystr(path, simple=True, separator='/')


def _axes(stack: Injections) -> dict[str, Axes]:
  """Of each array of a stack; prompts may be added, and longer ones."""
  of_prompts = stacked.mapped(lambda axis, x: axis, stack)
  shapes = {_path(path): np.ndim(x) for path, x in jax.tree_util.tree_flatten_with_path(stack)[0]}
  found: dict[str, Axes] = {}
  for path, axis in jax.tree_util.tree_flatten_with_path(of_prompts)[0]:
    name = _path(path)
    part, field, *_ = [*name.split('/'), '']
    if part not in stacked.PARTS:
      continue
    free = {axis: PROMPTS}
    hidden = getattr(stack, part).hidden
    if field == 'prefix':
      free[1] = f'{part}_rows'
    elif field == 'kv':
      free[3] = f'{part}_keys'
    elif field == 'hidden' and hidden.by_slot and getattr(stack, part).prefix is not None:
      free[2] = f'{part}_rows'
    found[name] = tuple(free.get(i) for i in range(shapes[name]))
  return found


def _code(name: str, tuned: Tuned) -> Group:
  own = {part: tuned.variables.get(part, {}).get('prompt', {}) for part in ('params', 'constants')}
  arrays = {path: np.asarray(x) for path, x in traverse_util.flatten_dict(own, sep='/').items()}

  def collections(prompts: Named) -> dict[str, Any]:
    tree = traverse_util.unflatten_dict(dict(prompts), sep='/')
    return {part: {'prompt': tree[part]} for part in tree}

  axes: dict[str, Axes] = {path: (None,) * np.ndim(x) for path, x in arrays.items()}
  return _group([(name, tuned, None)], arrays, axes, tuned.model, collections)


def _group(
  members: Sequence[tuple[str, Tuned, Any]],
  arrays: dict[str, np.ndarray],
  axes: dict[str, Axes],
  model: Prompted,
  collections: Callable[[Named], dict[str, Any]],
) -> Group:
  longest = max(tuned.lengths().targets for _, tuned, _ in members)
  eos_id = members[0][1].backbone.vocabulary.eos_id
  names = tuple(name for name, _, _ in members)
  return Group(names, arrays, axes, model, collections, longest, eos_id)
