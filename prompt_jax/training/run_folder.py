"""The folder of a run: held by one process, with its saved states and the files of its members."""

import contextlib
import dataclasses
import fcntl
import os
import pathlib
import warnings
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from prompt_jax.checkpoints import on_disk
from prompt_jax.checkpoints.prompt_file import (
  Prompt,
  check_model,
  differing_setting,
  load_prompt,
  save_prompt,
)
from prompt_jax.checkpoints.run_state import RunStates, from_arrays, to_arrays
from prompt_jax.errors import UserError
from prompt_jax.runtime import processes
from prompt_jax.training.members import Ended, Member, MemberState, Selection, TrainingState
from prompt_jax.training.objective import Tree, merge
from prompt_jax.training.settings import Settings
from prompt_jax.training.streams import Streams


class MemberFiles:
  """Writes the trained leaves of one member into its folder; the first of several processes does.

  If only the prompt trains, that is a prompt file; with any other pattern it is a file of kind
  "weights" with everything that trained, from the root of the model's tree. Both have the whole
  prompt, whatever part of it trains.

  Attributes:
    folder: where they are.
    best: path of the file of the best step.
    last: path of the file of the last step, where another is the best.
    records: path of its metrics.
  """

  def __init__(
    self, folder: pathlib.Path, trainable: Tree, frozen: Tree, constants: Tree, metadata: Tree
  ):
    """Args: where to; both sides of the split; the model's collection "constants"; what is known
    of the prompt before it is trained."""
    self._kind = 'prompt' if set(trainable) == {'prompt'} else 'weights'
    self.folder = folder
    self.best = folder / f'{self._kind}.safetensors'
    self.last = folder / 'last.safetensors'
    self.records = folder / 'metrics.jsonl'
    self._initial_path = folder / 'initial.safetensors'
    self._rest = {'prompt': frozen['prompt']} if 'prompt' in frozen else {}
    self._constants, self._metadata = constants.get('prompt', {}), metadata
    self._initial: Tree = {}

  def begin(self, trainable: Tree) -> None:
    """Keeps the initial prompt, from which task vectors are computed, for a run that begins."""
    if self._kind == 'prompt' and processes.is_first():
      prompt = self._prompt(trainable, {'step': 0})
      self._initial = prompt.params
      save_prompt(self._initial_path, prompt)

  def resume(self, chosen: bool) -> None:
    """Reads the files of a run that is resumed; `chosen`: it has a best step."""
    if self._kind == 'prompt' and processes.is_first():
      self._initial = load_prompt(self._initial_path).params
    if chosen and processes.is_first():
      load_prompt(self.best, self._kind)  # damage is told now, and not when all steps are done

  def write(self, path: pathlib.Path, trainable: Tree, metadata: dict[str, Any]) -> None:
    """Writes one file with further metadata."""
    if processes.is_first():
      save_prompt(path, self._prompt(trainable, metadata))

  def _prompt(self, trainable: Tree, metadata: dict[str, Any]) -> Prompt:
    params = merge(trainable, self._rest)
    if self._kind == 'prompt':
      params = params['prompt']
    return Prompt(
      params=_nested(to_arrays(params)),
      constants=_nested(to_arrays(self._constants)),
      metadata={**self._metadata, **metadata},
      initial=self._initial,
      kind=self._kind,
    )


class RunFolder:
  """The saved states of a run, and the files of its members.

  Attributes:
    path: of the folder.
    files: of each member.
  """

  def __init__(
    self,
    path: pathlib.Path,
    members: Sequence[Member],
    files: Sequence[MemberFiles],
    states: RunStates,
  ):
    self.path, self.files = path, files
    self._members, self._states = members, states
    self._fingerprint = members[0].metadata['fingerprint']

  def restore(
    self, fresh: list[MemberState], streams: Streams, steps: int
  ) -> tuple[TrainingState, bool]:
    """The state that a run continues from: a saved one, else a warm start, else the fresh one.

    Args:
      fresh: the state of each member before the first step.
      streams: of the members; those of a resumed run are restored too.
      steps: of the run in all.

    Returns:
      The state, and whether the run is resumed.

    Raises:
      UserError: the folder holds a run of another model, seed or set-up, or of more steps; a warm
        start from a prompt of another model or shape.
    """
    done = self._states.steps()
    if done and done[-1] > steps:
      raise UserError(
        f'The run in {str(self.path)!r} has done {done[-1]} steps, more than {steps}. '
        'Give as many or more, or another output folder.'
      )
    if done:
      training = self._resume(done[-1], fresh)
      streams.restore(training.position)
      for files, state in zip(self.files, training.members, strict=True):
        files.resume(state.selection.step is not None)
      return training, True
    for member, new, files in zip(self._members, fresh, self.files, strict=True):
      if member.warm_start is not None:
        _warm_start(member, new)
      files.begin(new.train.trainable)
    return TrainingState(fresh, streams.position, step=0), False

  def begin(self, begun: Callable[[], None]) -> None:
    """Forgets the checksums of what will change, then calls `begun`; in the first process."""

    def change() -> None:
      on_disk.unseal(*(files.folder for files in self.files))
      begun()

    processes.broadcast(change)

  def save(self, training: TrainingState, value: float | None) -> None:
    """Begins to save the state of this step; `value` is its validation metric, if there is one."""
    info = {
      'fingerprint': self._fingerprint,
      'position': training.position,
      'members': {
        m.key: {
          'seed': m.seed,
          'selection': dataclasses.asdict(s.selection),
          'ended': s.ended and dataclasses.asdict(s.ended),
          'window': s.window,
          'judged_on': m.judged_on,
          'records': on_disk.of_file(f.records) if processes.is_first() else None,
        }
        for m, s, f in zip(self._members, training.members, self.files, strict=True)
      },
    }
    self._states.save(training.step, to_arrays(self._tree(training.members)), info, value)

  def wait(self) -> None:
    """Until what was saved is on disk."""
    self._states.wait()

  def _resume(self, step: int, fresh: list[MemberState]) -> TrainingState:
    """The saved state of a step, if it is of this model and this set-up."""
    arrays, info = self._states.restore(step)
    saved = info['members']
    for what, before, given in (
      ('model fingerprint', info['fingerprint'], self._fingerprint),
      ('prompts', ', '.join(saved), ', '.join(m.key for m in self._members)),
      *((f'seed of {m.key}' if m.name else 'seed', saved.get(m.key, {}).get('seed'), m.seed)
        for m in self._members),
    ):  # fmt: skip
      if before != given:
        raise UserError(
          f'The run in {str(self.path)!r} has the {what} {before}, but {given} was given. '
          'Give what it was started with, or another output folder.'
        )
    for m, files in zip(self._members, self.files, strict=True):
      self._check_validation(m, saved[m.key])
      _check_records(files.records, saved[m.key].get('records'))
    tree = from_arrays(self._tree(fresh), arrays, str(self.path))
    # Copies: a donated array must not share the memory of a NumPy one.
    tree = jax.tree.map(jnp.array, tree)
    states = []
    for m in self._members:
      facts = saved[m.key]
      states.append(
        MemberState(
          tree[m.key]['state'],
          tree[m.key]['constants'],
          Selection(**facts['selection']),
          Ended(**facts['ended']) if facts['ended'] else None,
          facts.get('window', []),
        )
      )
    return TrainingState(states, info['position'], step)

  def _check_validation(self, member: Member, saved: dict[str, Any]) -> None:
    """Refuses other validation examples than those that chose the best step so far."""
    step, before = saved['selection']['step'], saved.get('judged_on')
    if step is not None and before is not None and before != member.judged_on:
      of_member = f' of {member.name}' if member.name else ''
      raise UserError(
        f'The run in {str(self.path)!r} chose its best step{of_member}, {step}, on other '
        'validation examples than those given, and scores of the two cannot be compared. Give the '
        'validation data that it was started with, or another output folder.',
        parameters=['validation', 'output'],
      )

  def _tree(self, states: Sequence[MemberState]) -> Tree:
    """The arrays of a saved state."""
    pairs = zip(self._members, states, strict=True)
    return {m.key: {'state': s.train, 'constants': s.constants} for m, s in pairs}


@contextlib.contextmanager
def opened(
  path: pathlib.Path,
  members: Sequence[Member],
  files: Sequence[MemberFiles],
  settings: Settings,
) -> Iterator[RunFolder]:
  """The folder of a run, held and closed again.

  Raises:
    UserError: another run holds it, or it cannot be written.
  """
  with locked(path), RunStates(path / 'state', settings.keep, settings.mode) as states:
    yield RunFolder(path, members, files, states)


@contextlib.contextmanager
def locked(folder: pathlib.Path) -> Iterator[None]:
  """One run at a time in a folder: held by the first of several processes for all of them.

  The system frees it when the process ends, however it ends.

  Raises:
    UserError: another run holds it, or the folder cannot be written.
  """
  held: list[int] = []
  processes.broadcast(lambda: held.append(_lock(folder)))
  try:
    yield
  finally:
    for file in held:
      os.close(file)


def _lock(folder: pathlib.Path) -> int:
  """An open file that holds the lock."""
  try:
    folder.mkdir(parents=True, exist_ok=True)
    file = os.open(folder / '.lock', os.O_RDWR | os.O_CREAT, 0o644)
  except OSError as e:
    raise UserError(
      f'Cannot write into the folder {str(folder)!r}: {e.strerror}. Give another folder.'
    ) from None
  try:
    fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
  except OSError:
    os.close(file)
    raise UserError(
      f'Another process is training in the folder {str(folder)!r}. Wait for it to end, or give '
      'another output folder.'
    ) from None
  return file


def _check_records(path: pathlib.Path, saved: list[Any] | None) -> None:
  """Refuses metrics that are not those of the saved state; the first process has them."""
  if saved is None or not processes.is_first():
    return
  if not os.path.isfile(path):
    warnings.warn(f'{path} is gone: the run goes on without what it held.', stacklevel=2)
  elif on_disk.of_file(path, saved[0]) != saved:
    raise UserError(
      f'{path} is damaged: its first {saved[0]} bytes are not those of the saved state. Copy it '
      'again, remove it to go on without its records, or give another output folder.',
      parameters=['output'],
    )


def _warm_start(member: Member, state: MemberState) -> None:
  """Puts the prompt of a file in place of the fresh one."""
  path, metadata = str(member.warm_start), member.metadata
  prompt = load_prompt(path)
  check_model(
    prompt,
    base_model=metadata['base_model'],
    fingerprint=metadata['fingerprint'],
    width=metadata['width'],
    path=path,
  )
  if set(state.train.trainable) != {'prompt'}:
    raise UserError(
      'warm_start takes a prompt file, so it needs a run that trains the prompt only.'
    )
  saved, fresh = to_arrays(prompt.params), to_arrays(state.train.trainable['prompt'])
  lines = []
  for name in sorted(fresh):
    if name not in saved:
      lines.append(f'  {name}: this run {list(fresh[name].shape)}, the file has none')
    elif saved[name].shape != fresh[name].shape:
      lines.append(f'  {name}: this run {list(fresh[name].shape)}, {list(saved[name].shape)}')
  if lines:
    raise UserError(
      f'The prompt {path!r} does not fit this run:\n' + '\n'.join(lines) + '\n'
      'Give the method and length that it was trained with.'
    )
  this_run = dataclasses.replace(prompt, metadata=metadata)
  if unlike := differing_setting(prompt, this_run):
    warnings.warn(
      f'The prompt {path!r} was trained with another setting than this run has: {unlike}. Its '
      'numbers may mean something else here.',
      stacklevel=2,
    )
  leaves = _nested({name: jnp.array(saved[name], jnp.float32) for name in fresh})
  state.train = dataclasses.replace(state.train, trainable={'prompt': leaves})


def constants_to_begin_with(fresh: Tree, warm_start: str | None) -> Tree:
  """The constants of the prompt file that a run begins with, which its parameters go with.

  Args:
    fresh: a method's constants as they would be drawn; {} for none.
    warm_start: path of the prompt file; None for a fresh prompt.

  Raises:
    UserError: the file has other constants than the method.
  """
  if not fresh or warm_start is None:
    return fresh
  saved, own = to_arrays(load_prompt(warm_start).constants), to_arrays(fresh)
  if {n: x.shape for n, x in saved.items()} != {n: x.shape for n, x in own.items()}:
    shown = lambda arrays: ', '.join(f'{n} {list(x.shape)}' for n, x in arrays.items()) or 'none'
    raise UserError(
      f'The constants of {warm_start!r} do not fit this run: {shown(saved)}; expected '
      f'{shown(own)}. '
      'Give the method and length that it was trained with.',
      ['warm_start'],
    )
  return _nested({name: jnp.asarray(x, own[name].dtype) for name, x in saved.items()})


def _nested(arrays: dict[str, Any]) -> Tree:
  tree: Tree = {}
  for name, array in arrays.items():
    *keys, last = name.split('/')
    branch = tree
    for key in keys:
      branch = branch.setdefault(key, {})
    branch[last] = array
  return tree
