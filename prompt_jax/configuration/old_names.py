"""gin text of version 0.1 under the names of today: modules have moved, two parameters too."""

import re

from prompt_jax.checkpoints import method

# Module of version 0.1 -> module of today, both below prompt_jax.
MOVED = {
  'cli.candidates': 'configuration.population',
  'cli.convert': 'export.convert',
  'cli.data': 'runs.task_choice',
  'cli.eval': 'runs.evaluate',
  'cli.infer': 'runs.predict',
  'cli.packing': 'runs.packing',
  'cli.plan': 'scale.plan_run',
  'cli.population': 'runs.population',
  'cli.pretrain': 'pretraining.pretrain',
  'cli.sweep': 'sweeps.sweep',
  'cli.train': 'runs.train',
  'models.config': 'models.t5.config',
  **method.MOVED,
}
# A module of version 0.1 whose classes lie in two modules today.
SPLIT = {'cli.compute': {'BaseModel': 'loading', 'Devices': 'runs.devices'}}

# `Decoding.topk` of version 0.1, also below a heading of `Decoding`.
PARAMETER = re.compile(
  r'^(?P<thing>[\w./]*\bDecoding\.|[ \t]+)top(?P<rest>[kp])(?= *=|$)', re.MULTILINE
)

IMPORT = re.compile(
  r'^(?:from prompt_jax(?:\.(?P<package>[\w.]+))? import (?P<name>\w+)(?: as (?P<alias>\w+))?'
  r'|import prompt_jax\.(?P<whole>[\w.]+) as (?P<whole_alias>\w+))(?P<rest>[^\n]*)$',
  re.MULTILINE,
)


def modernised(text: str) -> str:
  """The text with every import of a moved module, every use of a module that was split, and the
  parameters of today."""
  uses: dict[str, str] = {}

  def line(found: re.Match[str]) -> str:
    package, name = found['package'], found['name']
    old = found['whole'] or (f'{package}.{name}' if package else name)
    alias = found['whole_alias'] or found['alias'] or name
    if old in MOVED:
      return _import(MOVED[old], alias) + found['rest']
    if old in SPLIT:
      lines = []
      for thing, module in SPLIT[old].items():
        short = f'{alias}_{module.rpartition(".")[2]}'
        uses[rf'\b{alias}\.{thing}\b'] = f'{short}.{thing}'
        lines.append(_import(module, short))
      return '\n'.join(lines) + found['rest']
    return found[0]

  text = IMPORT.sub(line, text)
  for old, new in uses.items():
    text = re.sub(old, new, text)
  return modern_name(text)


def modern_name(text: str) -> str:
  """'Decoding.topk' -> 'Decoding.top_k'; also in a text of several lines."""
  return PARAMETER.sub(r'\g<thing>top_\g<rest>', text)


def _import(module: str, alias: str) -> str:
  package, _, name = module.rpartition('.')
  package = f'prompt_jax.{package}' if package else 'prompt_jax'
  return f'from {package} import {name}' + ('' if alias == name else f' as {alias}')
