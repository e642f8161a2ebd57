"""Prompts on one frozen model, held as stacked arrays: added, replaced and removed while in use.

Prompts that inject in the same way (rows before the input, keys and values, ...) are one group: one
stack of arrays with spare places, and rows of one batch may name any of them. A program is compiled
for the shapes of a group, so that a prompt that takes a spare place, and is no longer than the
group has room for, compiles nothing.
"""

import dataclasses
import threading
from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from prompt_jax.checkpoints.backbone import Backbone
from prompt_jax.data.example import Lengths, check_lengths, encode_labels
from prompt_jax.errors import UserError, unknown
from prompt_jax.inference.constrained import Trie, trie
from prompt_jax.injections import Injections
from prompt_jax.loading import Tuned, prompted
from prompt_jax.serving import stacked

SPARE = 8  # places for prompts to come
STEP = 8  # rows and keys have room for multiples of it


@dataclasses.dataclass(frozen=True, eq=False)
class Entry:
  """A prompt in the bank.

  Attributes:
    name: of it.
    group: that it is in.
    place: its number in the group's stack.
    metadata: of its file.
    lengths: most tokens of an input and of an answer.
    labels: the words that it answers with; () for free text.
    label_tokens: int32[C, U] them as targets; [0, 0] for free text.
    tree: the labels as a trie; None for free text.
  """

  name: str
  group: 'Group'
  place: int
  metadata: Mapping[str, Any]
  lengths: Lengths
  labels: tuple[str, ...]
  label_tokens: np.ndarray
  tree: Trie | None


@dataclasses.dataclass(eq=False)
class Group:
  """Prompts that one program serves.

  Attributes:
    stack: what they inject, on the device, with spare places.
    rooms: the longest that have room.
    size: places, the free ones included.
    free: places that nobody has.
  """

  stack: Injections
  rooms: stacked.Rooms
  size: int
  free: list[int]


@dataclasses.dataclass(eq=False)
class Changed(Group):
  """A group as it is to be; `known` are the places that were free."""

  known: set[int]


# (the entry, the stack of its group) -> what is to be called once it is there.
Prepare = Callable[[Entry, Injections], Callable[[], None]]


class Bank:
  """One frozen model and its prompts by name; every method may be called from any thread."""

  def __init__(self, backbone: Backbone, spare: int = SPARE):
    """Begins without prompts.

    Args:
      backbone: the model, on one device.
      spare: places that a new group has beyond the first prompt.
    """
    self.backbone, self._spare = backbone, spare
    self.model = prompted(backbone.config, stacked.Stacked())
    self._entries: dict[str, Entry] = {}
    self._groups: dict[Hashable, Group] = {}
    self._lock, self._adding = threading.Lock(), threading.Lock()

  @property
  def names(self) -> tuple[str, ...]:
    return tuple(self._entries)

  @property
  def entries(self) -> tuple[Entry, ...]:
    with self._lock:
      return tuple(self._entries.values())

  def __getitem__(self, name: str) -> Entry:
    """The prompt of that name.

    Raises:
      UserError: there is none.
    """
    entry = self._entries.get(name)
    if entry is None:
      raise unknown('prompt', name, self.names)
    return entry

  def snapshot(self, names: Sequence[str]) -> tuple[list[Entry | None], dict[Group, Injections]]:
    """The prompts of these names, None where there is none any more, and the stacks they are in.

    Both are of one moment: a place may be another prompt's later.
    """
    with self._lock:
      found = [self._entries.get(name) for name in names]
      return found, {entry.group: entry.group.stack for entry in found if entry is not None}

  def add(self, name: str, tuned: Tuned, prepare: Prepare | None = None) -> None:
    """Adds a prompt, or replaces the one of that name.

    Args:
      name: by which rows of a batch call it.
      tuned: the prompt on the bank's model.
      prepare: called before the prompt is there, with its entry and the stack that will be its
        group's, while batches are answered with what is there; what it returns is called in the
        moment in which the prompt is there.

    Raises:
      UserError: it reads the input or cannot be stacked, or is of another model; labels that
        cannot be told apart; lengths of no text.
    """
    if tuned.backbone.fingerprint != self.backbone.fingerprint:
      raise UserError(
        f'{name!r} is of {tuned.backbone.name!r}, and the prompts here are of '
        f'{self.backbone.name!r}. Load it by itself.'
      )
    theirs, frozen = (
      jax.tree.leaves(params)
      for params in (tuned.variables['params']['backbone'], self.backbone.params)
    )
    if any(a is not b for a, b in zip(theirs, frozen, strict=True)):
      raise UserError(
        f'{name!r} holds weights of a model of its own; answer with it alone, by infer.'
      )
    prompt = stacked.alone(name, tuned)
    check_lengths(lengths := tuned.lengths())
    labels = tuple(tuned.metadata.get('labels') or ())
    tokens = _label_tokens(labels, self.backbone.vocabulary, lengths.targets)
    with self._adding:
      group, changed = self._with_room(prompt)
      place = changed.free.pop(0)
      one = stacked.filled_up(prompt, changed.rooms)
      changed.stack = stacked.put(changed.stack, one, np.int32(place))
      tree = trie(tokens) if labels else None
      entry = Entry(name, group, place, tuned.metadata, lengths, labels, tokens, tree)
      done = None if prepare is None else prepare(entry, changed.stack)
      with self._lock:
        before = self._entries.get(name)
        freed = [n for n in group.free if n not in changed.known]  # while it was prepared
        group.stack, group.rooms, group.size = changed.stack, changed.rooms, changed.size
        group.free = changed.free + freed
        self._groups[stacked.kind_of(prompt)] = group
        self._entries[name] = entry
        if before is not None:
          before.group.free.append(before.place)
        if done is not None:
          done()

  def remove(self, name: str) -> None:
    """Takes a prompt out.

    Raises:
      UserError: there is none of that name.
    """
    with self._lock:
      entry = self[name]
      del self._entries[name]
      entry.group.free.append(entry.place)

  def _with_room(self, prompt: Injections) -> tuple[Group, 'Changed']:
    """The group of a prompt's kind, and what it is to be: with a free place and enough room."""
    rooms = {key: -(-n // STEP) * STEP for key, n in stacked.rooms_of(prompt).items()}
    group = self._groups.get(stacked.kind_of(prompt))
    if group is None:
      size = _power_of_two(1 + self._spare)
      places = stacked.with_places(stacked.filled_up(prompt, rooms), size)
      group = Group(jax.device_put(places), rooms, size, list(range(size)))
    with self._lock:
      changed = Changed(group.stack, dict(group.rooms), group.size, [*group.free], {*group.free})
    wider = {key: max(n, rooms[key]) for key, n in changed.rooms.items()}
    if wider == changed.rooms and changed.free:
      return group, changed
    size = group.size if changed.free else 2 * group.size
    whole = stacked.filled_up(jax.device_get(group.stack), wider)
    changed.stack = jax.device_put(stacked.with_places(whole, size))
    changed.free += range(group.size, size)
    changed.rooms, changed.size = wider, size
    return group, changed


def _label_tokens(labels: tuple[str, ...], vocabulary: Any, longest: int) -> np.ndarray:
  """int32[C, U] the labels as padded targets."""
  ids = encode_labels(labels, vocabulary, longest)
  rows = np.zeros((len(ids), max(map(len, ids), default=0)), np.int32)
  for row, sequence in zip(rows, ids, strict=True):
    row[: len(sequence)] = sequence
  return rows


def _power_of_two(least: int) -> int:
  return 1 << (least - 1).bit_length()
