"""Files, functions and folders stay small enough to be read at once."""

import ast
import pathlib

import pytest

ROOT = pathlib.Path(__file__).parent.parent
# Lines; of a function without its docstring, which names every argument.
FILE, FUNCTION, FOLDER = 400, 60, 3500
# A file that is longer says why in its docstring.
LONGER = {'tests/test_conformance.py': 'one long file'}
SOURCES = [
  path
  for folder in ('prompt_jax', 'tasks', 'scripts', 'tests', 'contrib', 'docs')
  for path in sorted((ROOT / folder).rglob('*.py'))
]


def lines_of(function: ast.FunctionDef | ast.AsyncFunctionDef) -> int:
  docstring = ast.get_docstring(function, clean=False)
  lines = (function.end_lineno or function.lineno) - function.lineno + 1
  return lines - (docstring.count('\n') + 1 if docstring else 0)


@pytest.mark.parametrize('path', SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_file_and_its_functions(path):
  text, name = path.read_text(), path.relative_to(ROOT).as_posix()
  tree = ast.parse(text)
  if name in LONGER:
    assert LONGER[name] in ast.get_docstring(tree)
  else:
    assert text.count('\n') <= FILE
  functions = (n for n in ast.walk(tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef))
  assert {f.name: lines_of(f) for f in functions if lines_of(f) > FUNCTION} == {}


def test_folders():
  sizes = {
    room.name: sum(path.read_text().count('\n') for path in room.rglob('*.py'))
    for room in (ROOT / 'prompt_jax').iterdir()
    if room.is_dir()
  }
  assert 'checkpoints' in sizes
  assert {room: size for room, size in sizes.items() if size > FOLDER} == {}


@pytest.mark.parametrize('path', SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_a_module_binds_a_name_once(path):
  """A second constant or function of one name would change what the first part of a file reads."""
  names: list[str] = []
  for node in ast.parse(path.read_text()).body:
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
      names += [node.name] if not node.decorator_list else []  # overloads, hypothesis
    elif isinstance(node, ast.Assign):
      names += [t.id for t in node.targets if isinstance(t, ast.Name)]
    elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
      names.append(node.target.id)
  assert sorted({name for name in names if names.count(name) > 1}) == []
