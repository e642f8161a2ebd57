"""Who may import whom, how fast the package imports, and what it must not pull in."""

import ast
import importlib
import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent
PACKAGE = ROOT / 'prompt_jax'

# Room (the longest prefix of a module's name counts) -> our own rooms that it may import.
# Everyone may import `errors`; a room may import itself.
ALLOWED: dict[str, set[str]] = {
  'errors': set(),
  'injections': set(),
  'batch': set(),
  'features': {'injections'},
  'byte_size': set(),
  'html_table': set(),
  'named_prompts': {'checkpoints.prompt_file'},
  'runtime': set(),
  'stacking': {'runtime.devices'},
  'models': {'injections'},
  'sharding': set(),
  'prompts': {'injections', 'data.vocabulary'},
  'prompts.base': {'injections'},
  'method_facts': {'injections', 'prompt_formats', 'prompts'},
  'attach': {'injections'},
  'prompted': {'attach', 'injections', 'batch', 'models', 'prompts.base'},
  'prompted_causal': {'attach', 'batch', 'data.vocabulary', 'injections', 'models', 'prompted'},
  'loading': {
    'checkpoints',
    'data.example',
    'data.splits',
    'injections',
    'models',
    'prompted',
    'prompted_causal',
    'prompts.base',
    'runtime',
    'sharding',
  },
  'training.losses': set(),
  'training.schedules': set(),
  'training.objective': {
    'batch',
    'injections',
    'stacking',
    'training.losses',
  },
  'training.optim': {'training.objective', 'training.schedules'},
  'training.step': {
    'batch',
    'sharding',
    'stacking',
    'training.objective',
    'training.optim',
  },
  'training': {
    'batch',
    'checkpoints',
    'data',
    'injections',
    'prompted',
    'runtime',
    'sharding',
    'training',
  },
  'data': {'batch', 'data', 'features', 'runtime'},
  'inference': {'prompted', 'batch', 'data.vocabulary', 'injections'},
  'evaluation': {
    'features',
    'inference',
    'data',
    'batch',
    'prompted',
    'checkpoints',
    'models',
    'injections',
    'runtime.processes',
    'sharding',
    'stacking',
  },
  'evaluation.inspect': {'injections', 'prompts.base'},
  'causal_formats': {'checkpoints', 'data.vocabulary', 'models'},
  'checkpoints': {
    'causal_formats',
    'models',
    'data.vocabulary',
    'batch',
    'injections',
    'runtime',
  },
  'prompt_formats': {'checkpoints', 'data.vocabulary', 'injections', 'models'},
  'prompt_formats.peft_layers': {
    'checkpoints',
    'injections',
    'prompt_formats',
    'prompts.methods.inside',
  },
  'prompt_formats.peft_multitask': {
    'prompt_formats',
    'prompts.methods.multitask',
    'prompts.tables',
  },
  'testing': {'models', 'data', 'prompted', 'prompts', 'batch', 'checkpoints', 'injections'},
  'scale': {
    'batch',
    'byte_size',
    'checkpoints',
    'inference',
    'injections',
    'loading',
    'models',
    'prompted',
    'prompts',
    'runtime',
    'sharding',
    'training',
  },
  'reports': {
    'named_prompts',
    'checkpoints.on_disk',
    'checkpoints.prompt_file',
    'configuration.description',
    'training.records',
  },
  'reports.listing': {'byte_size', 'checkpoints'},
  'tasks': {'data', 'pretraining.span_corruption', 'pretraining.text_stream'},
  'pretraining': {
    'batch',
    'checkpoints',
    'data',
    'models',
    'prompted',
    'runs.record',
    'runtime',
    'training',
  },
  'export': {
    'named_prompts',
    'byte_size',
    'checkpoints',
    'data.example',
    'data.vocabulary',
    'evaluation.predictions',
    'inference',
    'injections',
    'loading',
    'models',
    'prompt_formats',
    'prompted',
    'prompts.base',
    'runtime',
    'serving.stacked',
  },
  'runs': {
    'batch',
    'features',
    'named_prompts',
    'checkpoints',
    'configuration.description',
    'data',
    'evaluation',
    'html_table',
    'inference',
    'injections',
    'loading',
    'models',
    'prompt_formats',
    'prompted',
    'prompted_causal',
    'prompts',
    'runtime',
    'sharding',
    'stacking',
    'tasks',
    'training',
  },
  'serving': {
    'named_prompts',
    'checkpoints',
    'data',
    'html_table',
    'inference',
    'injections',
    'loading',
    'models',
    'prompted',
    'prompts.base',
    'runs.results',
    'stacking',
  },
  'sweeps': {
    'byte_size',
    'checkpoints',
    'data.splits',
    'models',
    'prompts',
    'runs',
    'runtime',
    'scale',
    'sharding',
    'stacking',
    'training',
  },
  'configuration.description': {'checkpoints', 'data'},
  'configuration.other_names': set(),
  'configuration.run_files': set(),
  'configuration': {'checkpoints', 'data', 'runs', 'training'},
  'cli': {
    'injections',
    'checkpoints',
    'configuration',
    'data',
    'evaluation',
    'export',
    'loading',
    'method_facts',
    'models.module',
    'pretraining',
    'reports',
    'runs',
    'runtime',
    'scale',
    'serving.serve',
    'serving.serve_ctranslate2',
    'sweeps',
    'tasks',
    'transfer',
  },
  'transfer': {'checkpoints', 'injections', 'prompts'},
  'api': {'configuration', 'loading', 'runs', 'serving.tuned_prompts', 'tuned_model'},
  'tuned_model': {
    'html_table',
    'data.example',
    'evaluation.evaluator',
    'inference',
    'loading',
    'runs',
    'sharding.placement',
  },
  '__main__': {'cli'},
  't5x': {
    'batch',
    'checkpoints',
    'data.vocabulary',
    'injections',
    'models',
    'prompt_formats',
    'prompted',
    'prompts',
    'training.objective',
  },
}

TENSORFLOW = {'tensorflow', 'tensorflow_datasets', 'tensorflow_text', 'seqio', 'tf_keras', 'keras'}
MAY_IMPORT_TENSORFLOW = {
  'data.seqio_source',
  'export.savedmodel',
  'export.text_in_graph',
  't5x',
  'tasks',
}


def modules() -> dict[str, pathlib.Path]:
  found = {}
  for folder, prefix in ((PACKAGE, ''), (ROOT / 'tasks', 'tasks')):
    for path in folder.rglob('*.py'):
      parts = path.relative_to(folder).with_suffix('').parts
      name = '.'.join(p for p in (prefix, *parts) if p and p != '__init__')
      found[name] = path
  return found


MODULES = modules()


def imports(path: pathlib.Path) -> set[str]:
  """Every module that a file imports, at the top or inside a function."""
  found: set[str] = set()
  for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
    if isinstance(node, ast.Import):
      found |= {alias.name for alias in node.names}
    elif isinstance(node, ast.ImportFrom):
      assert node.level == 0, f'{path}: relative import; write the whole name'
      assert node.module
      # `from prompt_jax.data import batches` imports a module, `from ... import Batch` a name.
      subs = {f'{node.module}.{alias.name}' for alias in node.names}
      ours = {s for s in subs if s.removeprefix('prompt_jax.') in MODULES}
      found |= ours or {node.module}
  return found


def room(module: str, rooms) -> str | None:
  """The longest of `rooms` that `module` lies in."""
  inside = [r for r in rooms if module == r or module.startswith(f'{r}.')]
  return max(inside, key=len, default=None)


def ours(path: pathlib.Path) -> set[str]:
  names = {i.removeprefix('prompt_jax').removeprefix('.') for i in imports(path)
           if i.split('.')[0] == 'prompt_jax'}  # fmt: skip
  return names - {''}


@pytest.mark.parametrize('name', sorted(n for n in MODULES if n))
def test_imports_only_allowed_rooms(name):
  home = room(name, ALLOWED)
  assert home, f'{name} is in no room of the allow-list: add it there, with what it may import'
  allowed = ALLOWED[home] | {'errors', home}
  bad = {i for i in ours(MODULES[name]) if room(i, allowed) is None}
  assert not bad, f'{name} imports {sorted(bad)}; {home} may import {sorted(allowed)}'


@pytest.mark.parametrize('name', sorted(n for n in MODULES if n))
def test_tensorflow_and_seqio_only_where_allowed(name):
  roots = {i.split('.')[0] for i in imports(MODULES[name])}
  if room(name, MAY_IMPORT_TENSORFLOW) is None:
    assert not roots & TENSORFLOW


@pytest.mark.parametrize('name', sorted(n for n in MODULES if n))
def test_gin_is_read_in_one_room(name):
  if room(name, {'configuration'}) is None:
    assert 'gin' not in {i.split('.')[0] for i in imports(MODULES[name])}


def test_every_allowed_room_exists():
  unused = [r for r in ALLOWED if not any(room(m, {r}) for m in MODULES)]
  assert not unused, f'the allow-list names rooms that do not exist: {unused}'


def test_no_gin_package_shadows_the_library():
  assert not list((ROOT / 'gin').rglob('*.py'))


@pytest.mark.parametrize('path', sorted((ROOT / 'scripts').glob('*.py')), ids=lambda p: p.stem)
def test_scripts_import_what_there_is(path):
  """Most of their imports stand in functions, which no test calls: they are benchmarks."""
  for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
    if isinstance(node, ast.ImportFrom) and node.module.split('.')[0] == 'prompt_jax':
      module = importlib.import_module(node.module)
      for alias in node.names:
        if not hasattr(module, alias.name):
          importlib.import_module(f'{node.module}.{alias.name}')


def run(code: str) -> str:
  done = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=True, timeout=120
  )
  return done.stdout.strip()


def test_package_imports_fast_and_without_the_heavy_libraries():
  # CPU time of the process, which a loaded machine does not stretch much.
  seconds, heavy = run(
    'import os, sys; before = sum(os.times()[:2]); import prompt_jax; '
    'print(sum(os.times()[:2]) - before, end=" "); '
    'print(sorted({m.split(".")[0] for m in sys.modules} & {"tensorflow", "seqio", "jax"}))'
  ).split(' ', 1)
  assert float(seconds) < 0.3
  assert heavy == '[]'


def test_help_is_immediate():
  seconds, heavy = run(
    'import contextlib, io, os, sys\n'
    'from prompt_jax.cli.main import main\n'
    'with contextlib.suppress(SystemExit), contextlib.redirect_stdout(io.StringIO()):\n'
    '  main(["train", "--help"])\n'
    'print(sum(os.times()[:2]), end=" ")\n'
    'print(sorted({m.split(".")[0] for m in sys.modules} & {"tensorflow", "seqio", "jax", "gin"}))'
  ).split(' ', 1)
  assert float(seconds) < 0.3  # about 0.15 where nothing else runs
  assert heavy == '[]'


def test_the_training_side_imports_without_tensorflow_or_seqio():
  """Every module that may not import them is imported in a process where they do not exist."""
  safe = [m for m in MODULES if m and room(m, {*MAY_IMPORT_TENSORFLOW, '__main__'}) is None]
  blocked = 'import sys\n' + ''.join(f'sys.modules[{m!r}] = None\n' for m in sorted(TENSORFLOW))
  assert (
    run(blocked + ''.join(f'import prompt_jax.{m}\n' for m in safe) + 'print("done")') == 'done'
  )
