"""`prompt-jax edit` and its arithmetic, on files of the embedded model."""

import numpy as np
import pytest

from prompt_jax.checkpoints.backbone import EMBEDDED, find
from prompt_jax.checkpoints.prompt_file import (
  Prompt,
  build_method,
  describe_method,
  load_prompt,
  save_prompt,
)
from prompt_jax.cli import own_arguments
from prompt_jax.cli.main import main
from prompt_jax.prompts.base import materialise
from prompt_jax.prompts.initializers import SampledVocabulary
from prompt_jax.prompts.methods.deep.late_prompt import LatePrompt
from prompt_jax.prompts.methods.input.input_prompt import InputPrompt
from prompt_jax.prompts.methods.inside.lora import LoRA
from prompt_jax.prompts.methods.multitask.mpt import MPT
from prompt_jax.prompts.methods.prefix.prefix_tuning import PrefixTuning
from prompt_jax.prompts.tables import LowRank, Plain
from prompt_jax.transfer.edit import OPERATIONS
from tests.shared import mentions

SIZES = find(EMBEDDED).model()[0].sizes
H = SIZES.stacks['encoder'].H
START = np.random.default_rng(9).normal(size=(4, H)).astype(np.float32)


@pytest.fixture
def write(tmp_path):
  """(name, method, params, ...) -> a prompt file."""

  def make(name, method, params, initial=None, **more) -> str:
    metadata = {
      'base_model': 'embedded', 'fingerprint': 'f', 'vocabulary': 'v', 'width': H,
      'method': type(method).__name__, 'method_config': describe_method(method), 'length': 4,
      'labels': ['yes', 'no'], 'task': name, 'input_length': 20 + len(params), **more,
    }  # fmt: skip
    path = tmp_path / f'{name}.safetensors'
    save_prompt(path, Prompt(params, {}, metadata, initial or {}))
    return str(path)

  return make


def rows(seed, length=4):
  return np.random.default_rng(seed).normal(size=(length, H)).astype(np.float32)


@pytest.fixture
def two(write):
  make = lambda name, seed: write(
    name, InputPrompt(4), {'encoder': {'prompt': rows(seed)}}, {'encoder': {'prompt': START}}
  )
  return make('a', 1), make('b', 2)


def edited(tmp_path, *command):
  place = str(tmp_path / 'new.safetensors')
  at = next((i for i, x in enumerate(command) if x.startswith('--')), len(command))
  assert main(['edit', *command[:at], place, *command[at:]]) == 0
  found = load_prompt(place)
  return found, found.params['encoder']['prompt'] if 'encoder' in found.params else None


def refused(capsys, tmp_path, *command) -> str:
  place = tmp_path / 'new.safetensors'
  at = next((i for i, x in enumerate(command) if x.startswith('--')), len(command))
  assert main(['edit', *command[:at], str(place), *command[at:]]) == 2
  assert not place.exists()
  return capsys.readouterr().err


def test_operations_of_the_command_line():
  assert own_arguments.OPERATIONS == OPERATIONS


@pytest.mark.parametrize(('flags', 't'), [((), 0.5), (('--weights=3,1',), 0.25)])
def test_average_is_on_the_line_between(tmp_path, two, flags, t):
  found, value = edited(tmp_path, 'average', *two, *flags)
  np.testing.assert_allclose(value, (1 - t) * rows(1) + t * rows(2), rtol=1e-5, atol=1e-6)
  assert found.metadata['edited']['of'] == list(two)
  assert found.metadata['labels'] == ['yes', 'no']
  assert found.metadata.get('task') is None  # they are of two


def test_task_vectors_add_up_from_the_common_start(tmp_path, two):
  found, value = edited(tmp_path, 'add', *two, '--weights=1,-0.5')
  want = START + (rows(1) - START) - 0.5 * (rows(2) - START)
  np.testing.assert_allclose(value, want, rtol=1e-5, atol=1e-5)
  np.testing.assert_array_equal(found.initial['encoder']['prompt'], START)


def test_adding_one_task_is_that_task_and_nothing_of_it_the_start(tmp_path, two):
  np.testing.assert_array_equal(edited(tmp_path, 'add', two[0])[1], rows(1))
  (tmp_path / 'new.safetensors').unlink()
  zero = edited(tmp_path, 'add', two[0], '--weights=0')[1]
  np.testing.assert_allclose(zero, START, rtol=1e-6)


def test_rows_of_unlike_tables_stand_behind_each_other(tmp_path, write, two):
  left, right = rows(5)[:, :2], rows(6)[:2]
  low = write('low', InputPrompt(4, LowRank(2)), {'encoder': {'left': left, 'right': right}})
  found, value = edited(tmp_path, 'concatenate', two[0], low)
  np.testing.assert_allclose(value, np.concatenate([rows(1), left @ right]), rtol=1e-4, atol=1e-4)
  assert found.metadata['length'] == 8
  assert found.metadata['input_length'] == 21


def test_kept_rows_are_in_the_order_given(tmp_path, two):
  found, value = edited(tmp_path, 'keep', two[0], '--rows=2,0,-1')
  np.testing.assert_array_equal(value, rows(1)[[2, 0, 3]])
  assert found.metadata['edited'] == {'operation': 'keep', 'of': [two[0]], 'rows': [2, 0, -1]}


def test_keys_of_prefixes_are_joined_in_every_attention(tmp_path, write):
  method = PrefixTuning(2, Plain())
  params = lambda seed: {
    name: {
      'prompt': np.random.default_rng(seed)
      .normal(size=(dims.L, 2, 2, dims.N * dims.D))
      .astype(np.float32)
    }
    for name, dims in (('encoder', SIZES.stacks['encoder']), ('decoder', SIZES.stacks['decoder']),
                       ('cross', SIZES.stacks['decoder']))
  }  # fmt: skip
  files = [write(f'p{i}', method, params(i)) for i in (0, 1)]
  found, _ = edited(tmp_path, 'concatenate', *files)
  made = materialise(build_method(found.metadata['method_config']), found.params, {}, SIZES)
  for name in ('encoder', 'decoder', 'cross'):
    kv = getattr(made, name).kv[:, :, 0]
    want = np.concatenate([params(i)[name]['prompt'] for i in (0, 1)], axis=2)
    np.testing.assert_array_equal(kv.reshape(want.shape), want)


def test_weights_inside_layers_are_averaged_too(tmp_path, write):
  files = [
    write(f'l{i}', LoRA(rank=1), {'encoder_query_up': np.full((2, 1, 3), i, np.float32)})
    for i in (0, 4)
  ]
  found, _ = edited(tmp_path, 'average', *files)
  np.testing.assert_array_equal(found.params['encoder_query_up'], np.full((2, 1, 3), 2))


def test_other_labels_leave_none(tmp_path, write, two, capsys):
  other = write('c', InputPrompt(4), {'encoder': {'prompt': rows(3)}}, labels=['x', 'y'])
  found, _ = edited(tmp_path, 'average', two[0], other)
  assert found.metadata.get('labels') is None
  assert mentions(capsys.readouterr().err, 'labels')


def test_what_cannot_be_combined_is_named(tmp_path, write, two, capsys):
  plain = lambda name, seed, **more: write(
    name, InputPrompt(4), {'encoder': {'prompt': rows(seed)}}, **more
  )
  elsewhere = plain('elsewhere', 3, fingerprint='g')
  assert mentions(refused(capsys, tmp_path, 'average', two[0], elsewhere), 'fingerprint', 'g')
  words = plain('words', 3, vocabulary='w')
  assert mentions(refused(capsys, tmp_path, 'average', two[0], words), 'vocabulary', 'w')
  longer = write('long', InputPrompt(6), {'encoder': {'prompt': rows(3, 6)}}, length=6)
  assert mentions(refused(capsys, tmp_path, 'average', two[0], longer), '4 rows', '6 rows')
  unknown = plain('unknown', 3)
  assert mentions(refused(capsys, tmp_path, 'add', two[0], unknown), unknown, 'began')
  begun = write(
    'begun', InputPrompt(4), {'encoder': {'prompt': rows(3)}}, {'encoder': {'prompt': rows(8)}}
  )
  assert mentions(refused(capsys, tmp_path, 'add', two[0], begun), begun, two[0], 'warm_start')
  lora = write('lora', LoRA(), {'encoder_query_up': np.zeros((2, 1, 3), np.float32)})
  assert mentions(refused(capsys, tmp_path, 'average', two[0], lora), 'InputPrompt', 'LoRA')
  behind = write('behind', InputPrompt(4, placement='after_eos'), {'encoder': {'prompt': rows(3)}})
  assert mentions(refused(capsys, tmp_path, 'concatenate', two[0], behind), behind, 'placement')


@pytest.mark.parametrize(
  ('one', 'two', 'says'),
  [
    (LoRA(rank=1), LoRA(rank=1, alpha=16.0), ('alpha', '8.0', '16.0')),
    (LatePrompt(4), LatePrompt(4, layer=1), ('layer', 'None', '1')),
    (InputPrompt(4), InputPrompt(4, placement='after_eos'), ('placement', 'after_eos')),
  ],
)
def test_equal_shapes_with_other_settings_are_not_mixed(tmp_path, write, capsys, one, two, says):
  files = [write(name, method, {'x': rows(1)}) for name, method in (('l', one), ('r', two))]
  assert mentions(refused(capsys, tmp_path, 'average', *files), *files, *says)


def test_how_a_prompt_began_is_no_setting(tmp_path, write):
  tables = (Plain(), Plain(SampledVocabulary()))
  files = [
    write(f'i{i}', InputPrompt(4, table), {'encoder': {'prompt': rows(i)}})
    for i, table in enumerate(tables)
  ]
  np.testing.assert_allclose(edited(tmp_path, 'average', *files)[1], (rows(0) + rows(1)) / 2)


def test_prompts_of_tasks_are_of_the_same_tasks_in_one_order(tmp_path, write, capsys):
  make = lambda name, tasks: write(name, MPT(2), {'encoder': {'prompt': rows(1)}}, tasks=tasks)
  same = [make('a', ['x', 'y']), make('b', ['x', 'y'])]
  assert edited(tmp_path, 'average', *same)[0].metadata['tasks'] == ['x', 'y']
  (tmp_path / 'new.safetensors').unlink()
  other = make('c', ['y', 'x'])
  assert mentions(refused(capsys, tmp_path, 'average', same[0], other), 'order', 'task_prompts')


@pytest.mark.parametrize(
  ('command', 'says'),
  [
    (('average', 'A', 'B', '--weights=1,nan'), ('nan', 'finite', '--weights')),
    (('add', 'A', 'B', '--weights=1,inf'), ('inf', 'finite', '--weights')),
    (('average', 'A', 'B', '--weights=1'), ('1', '2', '--weights')),
    (('average', 'A', 'B', '--weights=1,-1'), ('1.0, -1.0', 'add')),
    (('keep', 'A'), ('--rows',)),
    (('keep', 'A', '--rows=4'), ('4', '3', '--rows')),
    (('keep', 'A', 'B', '--rows=0'), ('2',)),
    (('average', 'A', '--rows=0'), ('keep',)),
    (('concatenate', 'A', 'B', '--weights=1,1'), ('average', 'add')),
    (('multiply', 'A', 'B'), ('multiply', 'average')),
  ],
)
def test_mistakes_are_told(tmp_path, two, capsys, command, says):
  files = dict(zip('AB', two, strict=True))
  assert mentions(refused(capsys, tmp_path, *(files.get(x, x) for x in command)), *says)


def test_nothing_is_overwritten(tmp_path, two, capsys):
  assert main(['edit', 'average', *two, two[1]]) == 2
  assert mentions(capsys.readouterr().err, two[1], 'exists')
