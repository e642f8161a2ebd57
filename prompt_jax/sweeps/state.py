"""The state of each cell of a sweep: a small record in the folder of its command."""

import dataclasses
import json
import pathlib
from collections.abc import Mapping
from typing import Any

from prompt_jax.checkpoints.on_disk import write_atomically
from prompt_jax.errors import UserError
from prompt_jax.sweeps.cells import Cell, Job

# Scores in percent, and the number of trained parameters if known.
Scored = tuple[Mapping[str, float], int | None]

RECORD = 'sweep.json'
LOG = 'log.txt'


@dataclasses.dataclass(frozen=True)
class State:
  """The state of a command.

  Attributes:
    what: "new", "running" (or it was killed), "submitted", "done" or "failed".
    flags: that it was started with.
    seconds: total time of its attempts, of those that ended.
    resumed: whether it took several attempts, so that `seconds` is no estimate for others.
    last_line: the last line of output of a failed command.
    batch: id of its job on a cluster.
  """

  what: str = 'new'
  flags: tuple[str, ...] = ()
  seconds: float = 0.0
  resumed: bool = False
  last_line: str = ''
  batch: str | None = None


def read(output: pathlib.Path, job: Job) -> State:
  """The state of a command.

  Raises:
    UserError: its folder belongs to a command with other flags, or the record is damaged.
  """
  path = output / job.name / RECORD
  if not path.is_file():
    return State()
  try:
    found = json.loads(path.read_text(encoding='utf-8'))
    state = State(**{**found, 'flags': tuple(found['flags'])})
  except (ValueError, TypeError, KeyError):
    raise UserError(f'The file {path} is damaged; remove it to run its cell again.') from None
  if state.flags != job.flags:
    before, now = (
      sorted(set(state.flags) - set(job.flags)),
      sorted(set(job.flags) - set(state.flags)),
    )
    raise UserError(
      f'Cell {job.name} was begun with {" ".join(before) or "less"}, and now has '
      f'{" ".join(now) or "less"}. Give what it was begun with, or another output folder.',
      ['output'],
    )
  return state


def write(output: pathlib.Path, job: Job, state: State) -> None:
  """Writes the state of a command."""
  record = dataclasses.asdict(state)
  write_atomically(output / job.name / RECORD, (json.dumps(record, indent=2) + '\n').encode())


def scores(output: pathlib.Path, job: Job) -> dict[str, Scored]:
  """The scores of each cell of a finished command, by cell name.

  A run without evaluation examples has none.
  """
  found: dict[str, Scored] = {}
  for path in sorted((output / job.name).glob('results*.json')):
    results = json.loads(path.read_text(encoding='utf-8'))
    if job.verb == 'train':
      tuned = list(results['systems'].values())[-1]
      return {job.cells[0].name: (tuned['scores'][0], tuned['trained'])}
    for prompt in results['prompts']:
      cell = _cell(job, prompt)
      if cell is not None and prompt['scores']:
        found[cell.name] = (prompt['scores'], None)
  return found


def _cell(job: Job, prompt: Mapping[str, Any]) -> Cell | None:
  """The cell of one prompt of a population."""
  macros = {'learning_rate': 'LEARNING_RATE', 'length': 'PROMPT_LENGTH'}
  plain = lambda v: v if isinstance(v, int | float | str) else repr(v)
  for cell in job.cells:
    setting = {macros.get(n, n): plain(v) for n, v in cell.setting.items()}
    same = all(setting.get(n) == v for n, v in prompt['setting'].items())
    if same and cell.seed == prompt['seed']:
      return cell
  return None
