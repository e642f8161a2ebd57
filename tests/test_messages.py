"""The library speaks of Python parameters; flags and commands are words of the command line."""

import ast
import pathlib
import re

import pytest

PACKAGE = pathlib.Path(__file__).parent.parent / 'prompt_jax'
# What reads flags or writes commands may name them.
OF_THE_COMMAND_LINE = {'cli', 'configuration', 'sweeps', 'main.py'}
WORDS = re.compile(r'--[a-z][\w.]*|prompt-jax \w+')
# Commands that are printed to be copied, and flags of other programs.
ALLOWED = {
  'checkpoints/formats/t5x.py': {'prompt-jax import', '--model'},
  'checkpoints/prompt_file.py': {'prompt-jax import'},
  'data/vocabulary.py': {'--pad_id', '--eos_id', '--unk_id', '--bos_id'},
  'export/prompt.py': {'prompt-jax convert', '--to'},
  'export/prompt_ids.py': {'prompt-jax infer'},  # what answers with any prompt
  'loading.py': {'--prompt_file', '--model', '--vocabulary'},
  'pretraining/pretrain.py': {'prompt-jax train', '--model', '--data'},
  'reports/page.py': {'prompt-jax report'},
  'serving/ctranslate2_engine.py': {'prompt-jax export', '--to'},
  'training/monitor.py': {'--logdir'},
}
DOCUMENTED = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)


def said(source: str) -> set[str]:
  """The flags and commands in the texts of a module, its docstrings aside."""
  tree = ast.parse(source)
  documented = [n for n in ast.walk(tree) if isinstance(n, DOCUMENTED) and ast.get_docstring(n)]
  docstrings = {id(n.body[0].value) for n in documented}
  return {
    word
    for node in ast.walk(tree)
    if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in docstrings
    for word in WORDS.findall(node.value)
  }


def sources() -> list[str]:
  paths = [p.relative_to(PACKAGE) for p in sorted(PACKAGE.rglob('*.py'))]
  return [p.as_posix() for p in paths if p.parts[0] not in OF_THE_COMMAND_LINE]


@pytest.mark.parametrize('source', sources())
def test_messages_name_no_flag_and_no_command(source):
  assert said((PACKAGE / source).read_text(encoding='utf-8')) == ALLOWED.get(source, set())


def test_what_is_found():
  text = '"""A docstring of --steps."""\nx = f"{1} give --steps 3"\ny = "use prompt-jax train"'
  assert said(text) == {'--steps', 'prompt-jax train'}
