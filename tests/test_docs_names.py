"""Flags, settings and commands in the documentation exist, and names in docstrings."""

import argparse
import ast
import functools
import pathlib
import re
import shlex

import pytest

from prompt_jax.cli import arguments
from prompt_jax.cli.usage import VERBS
from prompt_jax.errors import UserError

ROOT = pathlib.Path(__file__).parent.parent
PAGES = [ROOT / 'README.md', *sorted((ROOT / 'docs').glob('*.md'))]
# Of programs that are not ours: pip, xpk, XLA.
OTHER_FLAGS = {'--no-deps', '--auto-mount', '--xla_gpu_deterministic_ops'}
# Variables of the environment, macros of T5X, and a misspelt macro in an example of an error.
OTHER_NAMES = {'TENSORSTORE_GCS_HTTP_URL', 'XLA_FLAGS', 'XDG_CACHE_HOME', 'PYTHONPATH', 'STESP',
               'JAX_COMPILATION_CACHE_DIR', 'JAX_PLATFORMS', 'MIXTURE_OR_TASK_MODULE',
               'OMP_NUM_THREADS', 'RAY_ADDRESS', 'RAY_USAGE_STATS_ENABLED'}  # fmt: skip


def text_of(*folders: str) -> str:
  files = [p for f in folders for p in (ROOT / f).rglob('*') if p.suffix in ('.py', '.sh', '.gin')]
  return '\n'.join(p.read_text(encoding='utf-8') for p in files)


@pytest.fixture(scope='module')
def flags() -> set[str]:
  """Those of every verb, and of the scripts."""
  found = set(re.findall(r'--[a-z][\w-]*', text_of('scripts', 'contrib')))
  for verb in VERBS:
    (verbs,) = [
      a for a in arguments.build(verb)._actions if isinstance(a, argparse._SubParsersAction)
    ]
    found |= {option for action in verbs.choices[verb]._actions for option in action.option_strings}
  return found


@pytest.mark.parametrize('page', PAGES, ids=lambda p: p.stem)
def test_flags_exist(page, flags):
  named = re.findall(r'(?<![\w-])--[a-zA-Z][\w-]*', page.read_text(encoding='utf-8'))
  named = {name for name in named if name != '--gin'} - OTHER_FLAGS
  unknown = {name for name in named if not {name, name.replace('-', '_')} & flags}
  assert not unknown


@pytest.mark.parametrize('page', PAGES, ids=lambda p: p.stem)
def test_macros_exist(page):
  text = page.read_text(encoding='utf-8')
  # With an underscore; alone in backquotes; set on the command line or in a gin file.
  forms = (r'(?<![\w./$-])[A-Z][A-Z0-9]*_[A-Z0-9_]+\b', r'`([A-Z][A-Z0-9_]+)`',
           r'--gin\.([A-Z][A-Z0-9_]*)=', r'^ {4}([A-Z][A-Z0-9_]+) = ')  # fmt: skip
  named = {name for form in forms for name in re.findall(form, text, re.MULTILINE)}
  known = set(re.findall(r'\b[A-Z][A-Z0-9_]+\b', text_of('gin')))
  assert not named - known - OTHER_NAMES


@pytest.mark.parametrize('page', PAGES, ids=lambda p: p.stem)
def test_commands_parse(page):
  text = page.read_text(encoding='utf-8').replace('\\\n', ' ')
  for line in re.findall(r'^(?: {4}|)(?:\$ )?(prompt-jax .*)', text, re.MULTILINE):
    words = shlex.split(re.split(r'\s{2,}[#(]| # ', line)[0])
    words = words[: next((i for i, w in enumerate(words) if w in ('|', '&&', '>', '&')), None)]
    if '...' in words:
      continue
    try:
      assert arguments.parse(words[1:]).verb in VERBS
    except SystemExit:  # --help and --version
      continue
    except UserError as e:
      pytest.fail(f'{line}: {e}')


PACKAGE = ROOT / 'prompt_jax'
PLACES = {p.stem for p in PACKAGE.iterdir() if p.is_dir() or p.suffix == '.py'}


@functools.cache
def names_in(path: pathlib.Path) -> set[str]:
  """What a module defines or imports, and "Class.name" of what its classes have."""
  found = set()
  for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
    if isinstance(node, ast.ClassDef):
      inner = {n.id for n in ast.walk(node) if isinstance(n, ast.Name)}
      inner |= {n.attr for n in ast.walk(node) if isinstance(n, ast.Attribute)}
      inner |= {n.name for n in ast.walk(node) if isinstance(n, ast.FunctionDef)}
      found |= {node.name, *(f'{node.name}.{name}' for name in inner)}
    elif isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
      found.add(node.name)
    elif isinstance(node, ast.Name):
      found.add(node.id)
    elif isinstance(node, ast.ImportFrom | ast.Import):
      found |= {alias.asname or alias.name for alias in node.names}
  return found


def resolves(name: str) -> bool:
  """Whether "models.t5.config.T5Config" is a folder, a module, or something in one."""
  parts = name.split('.')
  for n in range(len(parts), 0, -1):
    place = PACKAGE.joinpath(*parts[:n])
    if place.is_dir():
      return n == len(parts)
    if (file := place.with_suffix('.py')).is_file():
      return n == len(parts) or '.'.join(parts[n:]) in names_in(file)
  return False


def docstrings(path: pathlib.Path) -> list[str]:
  kinds = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
  tree = ast.parse(path.read_text(encoding='utf-8'))
  return [ast.get_docstring(n) or '' for n in ast.walk(tree) if isinstance(n, kinds)]


@pytest.mark.parametrize('folder', sorted(PLACES))
def test_names_in_docstrings_exist(folder):
  place = PACKAGE / folder
  files = sorted(place.rglob('*.py')) if place.is_dir() else [place.with_suffix('.py')]
  stale = [
    f'{file.relative_to(ROOT)}: {name}'
    for file in files
    for text in docstrings(file)
    for name in re.findall(r'`(?:prompt_jax\.)?([a-z]\w*(?:\.\w+)+)`', text)
    if name.split('.')[0] in PLACES and not resolves(name)
  ]
  assert not stale
