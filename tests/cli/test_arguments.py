"""Parsing of the command line: shortcuts, gin settings, and what a mistake says."""

import shlex

import pytest

from prompt_jax.cli import arguments, shortcuts
from prompt_jax.errors import UserError
from prompt_jax.main import main


def test_shortcuts_become_macros():
  args = arguments.parse(['train', '--steps', '30', '--batch-size=4', '--seeds', '0,2,5'])
  given = {flag.macro: value for flag, value in arguments.shortcuts(args)}
  assert given == {'STEPS': 30, 'BATCH_SIZE': 4, 'SEEDS': [0, 2, 5]}


def test_gin_settings_keep_their_order_and_their_equals_signs():
  args = arguments.parse(['train', '--gin.A=1', '--steps=2', '--gin.f.x="a=b"', '--gin_file=q.gin'])
  assert args.gin == [('A', '1'), ('f.x', '"a=b"')]
  assert args.gin_file == ['q.gin']


def test_texts_are_positional_and_not_flags():
  args = arguments.parse(['infer', '--prompt_file', 'p', 'good-natured', '-', 'text'])
  assert args.texts == ['good-natured', '-', 'text']


def test_what_stands_behind_two_dashes_is_taken_as_it_is():
  texts = ['--well-known text', '--gin.X=1 is a flag', '--steps', '-5']
  args = arguments.parse(['infer', '--prompt-file', 'p', '--gin.SEED=1', 'a-b', '--', *texts])
  assert args.texts == ['a-b', *texts]
  assert args.gin == [('SEED', '1')]


def test_seeds_have_32_bits():
  args = arguments.parse(['train', '--seed', '4294967295'])
  assert args.seed == 2**32 - 1


@pytest.mark.parametrize(
  ('argv', 'words'),
  [
    ([], ['no verb', 'train', 'infer']),
    (['trian'], ["'trian'", "'train'"]),
    (['train', '--stesp', '3'], ["'--stesp'", "'--steps'", 'Did you mean']),
    (['train', '--steps', 'many'], ['--steps', "'many'"]),
    (['train', '--steps', '0'], ['at least 1']),
    (['train', '--seeds', '1;2'], ["'1;2'", '0,1,2']),
    (['train', '--seeds', '0,4294967296'], ["'4294967296'", 'from 0 to 4294967295']),
    (['train', '--seed', '99999999999999999999'], ['from 0 to 4294967295']),
    (['pretrain', '--seed', '-1'], ['from 0 to 4294967295']),
    (['infer', 'a', 'caf\udce9'], ['Argument 3', r"'caf\udce9'", 'not UTF-8']),
    (['train', '--gin.MODEL="caf\udce9"'], ['Argument 2', 'not UTF-8']),
    (['train', '--gin.STEPS'], ['--gin.NAME=VALUE']),
    (['tasks', '--gin.STEPS=1'], ['no gin configuration']),
    (['inspect'], ['FILE', '--help']),
  ],
)
def test_a_mistake_is_one_line_and_exit_code_2(argv, words, capsys):
  assert main(argv) == 2
  out, err = capsys.readouterr()
  assert out == ''
  assert err.startswith('prompt-jax: ')
  assert err.count('\n') == 1
  assert 'Traceback' not in err
  for word in words:
    assert word in err


@pytest.mark.parametrize('verb', arguments.VERBS)
def test_every_verb_has_help_with_examples(verb, capsys):
  with pytest.raises(SystemExit) as done:
    main([verb, '--help'])
  assert done.value.code == 0
  out = capsys.readouterr().out
  assert f'prompt-jax {verb}' in out
  assert 'examples:' in out
  for flag in shortcuts.SHORTCUTS[verb]:
    assert f'--{flag.name}' in out


def test_examples_in_the_help_parse():
  for verb, text in arguments.EXAMPLES.items():
    for line in text.splitlines():
      command = shlex.split(line.split('    (')[0].split('|')[-1])
      if command:
        args = arguments.parse(command[1:])
        assert args.verb in {verb, 'train'}


def test_no_two_flags_set_one_macro():
  for verb, flags in shortcuts.SHORTCUTS.items():
    macros = [f.macro for f in flags]
    assert len(macros) == len(set(macros)), verb


def test_abbreviations_are_refused():
  with pytest.raises(UserError, match='--prom'):
    arguments.parse(['eval', '--prom', 'x'])
