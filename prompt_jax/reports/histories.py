"""The training history of one seed, from its folder: records and prompt file metadata."""

import os
import pathlib
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from prompt_jax.checkpoints.on_disk import damaged
from prompt_jax.checkpoints.prompt_file import load_facts
from prompt_jax.configuration import description
from prompt_jax.errors import UserError
from prompt_jax.reports.runs import History, Unreadable
from prompt_jax.training.records import read_records

RECORDS = 'metrics.jsonl'
# The first that exists is read: the best prompt, else what there is while a run continues.
FILES = ('prompt', 'weights', 'last', 'initial')
SEED = re.compile(r'(?:^|-)seed_(\d+)$')
# Values of an evaluation's record that are no scores.
ABOUT = ('step', 'kind', 'seconds')


def read_history(
  folder: pathlib.Path, seed: int, unreadable: list[Unreadable], ended: str | None = None
) -> History:
  """The history of one seed; files that cannot be read are added to `unreadable`."""
  records = read_records(folder / RECORDS)
  _count_damaged(folder / RECORDS, len(records), unreadable)
  for stem in FILES:
    path = folder / f'{stem}.safetensors'
    if os.path.isfile(path) and (facts := of_file(path, unreadable)):
      return History(seed, folder, records, facts[0], facts[1], ended)
  return History(seed, folder, records, ended=ended)


def of_file(
  path: pathlib.Path, unreadable: list[Unreadable]
) -> tuple[dict[str, Any], int | None] | None:
  """Metadata of a prompt file and its trained parameters; None if damaged, which is recorded."""
  try:
    kind, facts, numbers = load_facts(path)
  except UserError as e:
    unreadable.append(Unreadable(path, str(e)))
    return None
  return facts, _trained(kind, facts, numbers)


def _count_damaged(path: pathlib.Path, good: int, unreadable: list[Unreadable]) -> None:
  """Records lines that cannot be read, except the last, which may be half written."""
  if damage := damaged(path.parent, path.name):
    unreadable.append(Unreadable(path, damage))
  if not path.is_file():
    return
  lines = [s for s in path.read_text('utf-8', errors='replace').splitlines() if s.strip()]
  bad = len(lines) - good
  if bad > 1:
    unreadable.append(
      Unreadable(path, f'{bad} of {len(lines)} lines are not records and are skipped')
    )


def _trained(kind: str, facts: Mapping[str, Any], numbers: int) -> int | None:
  """The number of trained parameters, if the file holds just these; None for other patterns."""
  patterns = facts.get('patterns')
  whole = patterns == ['prompt/.*'] if kind == 'prompt' else patterns in (None, ['.*'])
  return numbers if whole else None


def settings_of(folder_settings: Mapping[str, str], histories: Iterable[History]) -> dict[str, str]:
  """The configuration of a folder, overridden by that of its prompt file."""
  for c in histories:
    if isinstance(c.facts.get('gin'), str):
      return {**folder_settings, **description.settings_of_text(c.facts['gin'])}
  return dict(folder_settings)


def selected(
  histories: Sequence[History], settings: Mapping[str, str]
) -> tuple[str | None, tuple[float, ...]]:
  """The validation score to select prompts by, and its best value for each seed that has one."""
  good = min if description.value_of(settings, 'settings.Settings.mode') == 'min' else max
  metric = description.value_of(settings, 'METRIC')
  best = []
  for c in histories:
    evaluated = c.of('eval')
    if metric is None and evaluated:
      metric = next((name for name in evaluated[0] if name not in ABOUT), None)
    values = [r[metric] for r in evaluated if isinstance(r.get(metric), int | float)]
    if values:
      best.append(float(good(values)))
  return metric if best else None, tuple(best)


def seconds(histories: Sequence[History]) -> float | None:
  """Seconds of training and evaluation, summed over seeds; None where they are not recorded.

  The examples per second of a record are those of compiled steps, and are used for all its steps,
  so that compilation time is left out. Prompts that train jointly share time by their examples.
  """
  total = 0.0
  for c in histories:
    last = 0
    for r in c.of('train'):
      if 'examples' not in r:
        return None
      if r.get('examples_per_second'):
        total += (r['step'] - last) * r['examples'] / r['examples_per_second']
      last = r['step']
    total += sum(r.get('seconds', 0.0) for r in c.of('eval'))
  return total or None


def method_of(facts: Mapping[str, Any], settings: Mapping[str, str]) -> str | None:
  """The method according to the metadata of a prompt file, else to the configuration.

  "input prompt", "input prompt, decoder" where it precedes both inputs, "input prompt, low rank"
  where its table is not plain; "model tuning" without a prompt.
  """
  prompt = description.value_of(settings, 'PROMPT')  # '@input_prompt.InputPrompt()'
  patterns = facts.get('patterns') or description.value_of(settings, 'TRAINABLE') or ()
  if facts.get('method_config'):
    name = _described(facts['method_config'])
  elif facts.get('method', 'none') != 'none':
    name = _words(str(facts['method']))
  elif isinstance(prompt, str):
    name = _words(prompt.strip('@()').rpartition('.')[2])
  else:
    return 'model tuning' if list(patterns) == ['.*'] else 'some weights' if patterns else None
  return name if list(patterns) in ([], ['prompt/.*']) else f'{name} and {", ".join(patterns)}'


def _described(method: Any) -> str:
  """See `checkpoints.prompt_file.describe_method`."""
  words = [_class(method)]
  fields = method.get('fields', {}) if isinstance(method, dict) else {}
  if fields.get('decoder') is True:
    words.append('decoder' if fields.get('encoder', True) else 'decoder only')
  for field in fields.values():
    if (
      isinstance(field, dict) and '.tables.' in field.get('class', '') and _class(field) != 'plain'
    ):
      words.append(_class(field))
  return ', '.join(words)


def _class(described: Any) -> str:
  if not isinstance(described, dict):
    return '-'
  return _words(str(described.get('class', '')).rpartition('.')[2])


def _words(name: str) -> str:
  """ "PrefixTuning" -> "prefix tuning"; acronyms stay."""
  words = re.split(r'(?<=[a-z0-9])(?=[A-Z])', name)
  return ' '.join(w if w.isupper() else w.lower() for w in words)
