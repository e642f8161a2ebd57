"""Parsing of the command line: settings as flags, gin settings, and what a mistake says."""

import shlex

import pytest

from prompt_jax.cli import arguments
from prompt_jax.cli.main import main
from prompt_jax.cli.usage import EXAMPLES, VERBS
from prompt_jax.configuration.run_files import settings_of
from prompt_jax.errors import UserError


def given(*argv: str) -> dict[str, object]:
  return {s.macro: s.value(value) for s, value in arguments.given(arguments.parse(list(argv)))}


@pytest.mark.parametrize(
  ('argv', 'macros'),
  [
    ('train --steps 30 --batch-size=4 --seeds 0,2,5',
     {'STEPS': 30, 'BATCH_SIZE': 4, 'SEEDS': [0, 2, 5]}),
    ('train --patience 3 --eval_every 0 --save-every=7 --dtype bfloat16 --pack',
     {'PATIENCE': 3, 'EVAL_EVERY': 0, 'SAVE_EVERY': 7, 'DTYPE': 'bfloat16', 'PACK': True}),
    ('train --length 5', {'PROMPT_LENGTH': 5}),
    ('train --prompt_length 5', {'PROMPT_LENGTH': 5}),
    ('train --task a', {'TASK': 'a'}),
    ('train --task a b --task c', {'TASK': ['a', 'b', 'c']}),
    ('train --module a', {'MODULES': ['a']}),
    ('train --module a --modules b', {'MODULES': ['a', 'b']}),
    ('train --train x.* --train y', {'TRAINABLE': ['x.*', 'y']}),
    ("train --mixing_rates {'a':2}", {'MIXING_RATES': {'a': 2}}),
    ('train --mesh 4x2 --learning_rate 1e-3', {'MESH': (4, 2), 'LEARNING_RATE': 0.001}),
    ('plan --batch 3 --input_length 5', {'BATCH_SIZE': 3, 'INPUT_LENGTH': 5}),
    ('plan --topology v5e-1,here', {'TOPOLOGY': ['v5e-1', 'here']}),
    ('sweep --no-plan --learning_rates 0.3,1', {'PLAN': False, 'LEARNING_RATES': [0.3, 1.0]}),
    ('infer --max_new_tokens 9', {'TARGET_LENGTH': 9}),
    ('eval --prompt_file a b', {'PROMPT_FILE': ['a', 'b']}),
  ],
)  # fmt: skip
def test_flags_become_macros(argv, macros):
  assert given(*argv.split()) == macros


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
    ([], ['verb', 'train', 'infer']),
    (['trian'], ["'trian'", "'train'"]),
    (['train', '--stesp', '3'], ["'--stesp'", "'--steps'"]),
    (['train', '--steps', 'many'], ['--steps', "'many'"]),
    (['train', '--steps', '0'], ['--steps', "'0'", 'at least 1']),
    (['train', '--eval_every', '-1'], ['--eval_every', "'-1'", 'at least 0']),
    (['train', '--dropout', 'some'], ['--dropout', "'some'", 'number']),
    (['train', '--mixing_rates', '3'], ['--mixing_rates', "'3'", "{'"]),
    (['train', '--lr', '0.3'], ["'--lr'", "'--learning_rate'"]),
    (['train', '--epochs=3'], ["'--epochs'", "'--steps'", 'N / --batch_size']),
    (['train', '--num_train_epochs', '3'], ["'--num_train_epochs'", "'--steps'"]),
    (['population', '--output-dir', 'x'], ["'--output_dir'", "'--output'"]),
    (['train', '--num_virtual_tokens', '3'], ["'--num_virtual_tokens'", "'--length'"]),
    (['infer', '--max_tokens', '3'], ["'--max_tokens'", "'--max_new_tokens'"]),
    (['eval', '--epochs', '3'], ["'--epochs'", 'prompt-jax eval --help']),
    (['population', '--train', 'all'], ["'--train'"]),
    (['train', '--seeds', '1;2'], ["'1;2'", '0,1,2']),
    (['train', '--seeds', '0,4294967296'], ["'4294967296'", '4294967295']),
    (['train', '--seed', '99999999999999999999'], ['4294967295']),
    (['pretrain', '--seed', '-1'], ['4294967295']),
    (['infer', 'a', 'caf\udce9'], ['3', r"'caf\udce9'", 'UTF-8']),
    (['train', '--gin.MODEL="caf\udce9"'], ['2', 'UTF-8']),
    (['train', '--gin.STEPS'], ['--gin.NAME=VALUE']),
    (['tasks', '--gin.STEPS=1'], ['gin']),
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


@pytest.mark.parametrize('verb', VERBS)
def test_every_verb_has_help_with_examples(verb, capsys):
  with pytest.raises(SystemExit) as done:
    main([verb, '--help'])
  assert done.value.code == 0
  out = capsys.readouterr().out
  assert f'prompt-jax {verb}' in out
  assert 'examples:' in out
  for name in settings_of(verb):
    assert f'--{name}' in out or f'--no_{name}' in out


def test_examples_in_the_help_parse():
  for verb, text in EXAMPLES.items():
    for line in text.splitlines():
      command = shlex.split(line.split('    (')[0].split('|')[-1])
      if command:
        args = arguments.parse(command[1:])
        assert args.verb in {verb, 'train'}


def test_abbreviations_are_refused():
  with pytest.raises(UserError, match='--prom'):
    arguments.parse(['eval', '--prom', 'x'])
