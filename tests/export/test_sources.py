"""Which prompts an export is of, what they are called, and what is refused."""

import dataclasses
import json
import pathlib
import shutil

import numpy as np
import pytest

from prompt_jax.checkpoints.prompt_file import Prompt, save_prompt
from prompt_jax.cli import own_arguments
from prompt_jax.cli.main import main
from prompt_jax.errors import UserError
from prompt_jax.export import ctranslate2_model, prompt
from prompt_jax.export.prompt import export_prompt
from prompt_jax.named_prompts import OF_TASKS, find_prompts
from prompt_jax.prompt_formats.npy import numpy_checkpoint_path
from prompt_jax.prompts.methods.deep.deep_prompt import DeepPrompt
from prompt_jax.prompts.methods.input.adept import ADePT
from prompt_jax.prompts.methods.input.input_prompt import InputPrompt
from prompt_jax.prompts.methods.multitask.task_prompts import TaskPrompts
from prompt_jax.prompts.methods.prefix.prefix_tuning import PrefixTuning
from tests.export import shapes
from tests.shared import facts


def put(path: pathlib.Path, like: str = '', kind: str = 'prompt') -> str:
  """A file of that kind; the same bytes for the same `like`, of its own without."""
  facts = dict.fromkeys(('base_model', 'fingerprint', 'method'), like or str(path))
  save_prompt(path, Prompt({'x': np.zeros(1)}, {}, {**facts, 'width': 1}, kind=kind))
  return str(path)


def names(*sources, **more):
  return [(f.name, f.file) for f in find_prompts([str(s) for s in sources], **more)]


def test_files_have_their_own_names_and_results_those_of_their_folders(tmp_path):
  a, b = put(tmp_path / 'sst 2.safetensors'), put(tmp_path / 'trec' / 'prompt.safetensors')
  assert names(a, b) == [('sst_2', a), ('trec', b)]
  assert names(a, b, names=['x', 'y-1']) == [('x', a), ('y-1', b)]


def test_a_population_has_its_members_once(tmp_path):
  """As the verb leaves it: the best prompt is a copy of a member's."""
  run = tmp_path / 'pop'
  files = [put(run / f'seed_{i}' / 'prompt.safetensors', f'{i}') for i in range(2)]
  put(run / 'prompt.safetensors', '1')
  for other in ('seed_0/last', 'seed_0/initial', 'state/2/prompt', '.hidden/prompt'):
    put(run / f'{other}.safetensors')
  assert names(run) == [('seed_0', files[0]), ('seed_1', files[1])]


def test_a_sweep_has_the_prompts_of_its_runs_and_of_their_seeds(tmp_path):
  alone = put(tmp_path / 'lr_1' / 'prompt.safetensors')
  put(tmp_path / 'lr_3' / 'weights.safetensors', kind='weights')
  seed = put(tmp_path / 'lr_2' / 'seed_0' / 'prompt.safetensors')
  assert names(tmp_path) == [('lr_1', alone), ('lr_2.seed_0', seed)]


def test_prompts_of_tasks_stand_for_the_file_of_all(tmp_path):
  run = tmp_path / 'run'
  put(run / 'prompt.safetensors')
  files = [put(run / OF_TASKS / f'{task}.safetensors') for task in ('cb', 'rte')]
  assert names(run) == [('cb', files[0]), ('rte', files[1])]
  assert names(run / OF_TASKS) == [('cb', files[0]), ('rte', files[1])]


def test_names_are_refused(tmp_path):
  a, b = put(tmp_path / 'a.safetensors'), put(tmp_path / 'x' / 'a.safetensors')
  with pytest.raises(UserError, match=facts(a, b, "'a'")):
    names(a, b)
  with pytest.raises(UserError, match=facts('1', '2')):
    names(a, b, names=['one'])
  with pytest.raises(UserError, match="'a b'"):
    names(a, names=['a b'])
  (tmp_path / 'nothing').mkdir()
  with pytest.raises(UserError, match=str(tmp_path / 'nothing')):
    names(tmp_path / 'nothing')


METHODS = {
  'prefix': PrefixTuning(length=2),
  'deep': DeepPrompt(length=2),
  'sees_input': InputPrompt(length=2, sees_input=False),
}


def tree_of(method, base):
  """First parameters of a method."""
  import jax

  from prompt_jax.checkpoints.backbone import find
  from prompt_jax.prompts.base import first_values

  sizes = find(base).model()[0].sizes
  _, variables = first_values(method, jax.random.key(0), sizes)
  return jax.tree.map(np.asarray, variables['params'])


@pytest.mark.parametrize('to', ['hf', 'ctranslate2'])
@pytest.mark.parametrize('kind', METHODS)
def test_what_is_more_than_rows_is_refused_in_one_line(kind, to, pair, tmp_path, capsys):
  method = METHODS[kind]
  tree = tree_of(method, pair.base)
  file = shapes.prompt(tmp_path / 'p.safetensors', pair.base, 2, method=method, tree=tree)
  assert main(['export', pair.sst2, file, str(tmp_path / 'out'), '--to', to]) == 2
  out, err = capsys.readouterr()
  assert (out, err.count('\n')) == ('', 1)
  for word in (file, type(method).__name__, 'prompt-jax infer', '"input"', f"'{to}'"):
    assert word in err
  assert sorted(p.name for p in tmp_path.iterdir()) == ['p.safetensors']


def test_prefixes_of_the_decoder_are_sent_to_peft(pair, tmp_path):
  method = PrefixTuning(length=2, encoder=False, cross=False, kv_bias='shifted')
  tree = tree_of(method, pair.base)
  file = shapes.prompt(tmp_path / 'p.safetensors', pair.base, 2, method=method, tree=tree)
  with pytest.raises(UserError, match=facts('PrefixTuning', "'peft'")):
    export_prompt(file, tmp_path / 'out', 'hf')


@pytest.mark.parametrize('method', [ADePT(length=2), TaskPrompts(tasks=2, length=2)])
def test_what_depends_on_the_input_or_the_task_is_refused(method, pair, tmp_path):
  file = shapes.prompt(tmp_path / 'p.safetensors', pair.base, 2, method=method)
  wanted = OF_TASKS if isinstance(method, TaskPrompts) else 'embeds'
  with pytest.raises(UserError, match=facts(file, type(method).__name__, wanted)):
    export_prompt(file, tmp_path / 'out', 'ctranslate2')


def test_names_that_are_tokens_are_refused(pair, tmp_path):
  with pytest.raises(UserError, match=facts('<extra_id_0>', pair.sst2)):
    export_prompt(pair.sst2, tmp_path / 'out', 'hf', names=['extra_id_0'])


@pytest.mark.parametrize('to', prompt.FORMATS)
def test_nothing_that_exists_is_overwritten(to, pair, tmp_path):
  place = tmp_path / 'out'
  mine = place / 'checkpoint_0' / 'mine', numpy_checkpoint_path(place, 0)
  for path in mine:
    path.parent.mkdir(parents=True)
    path.write_text('mine')
  for files in (pair.sst2, pair.files):
    with pytest.raises(UserError, match='exists'):
      export_prompt(files, place, to)
  assert [path.read_text() for path in mine] == ['mine', 'mine']
  assert sorted(p.name for p in tmp_path.iterdir()) == ['out']


@pytest.mark.parametrize('to', ['npy', 'numpy_checkpoints', 't5x', 'peft'])
def test_several_prompts_in_the_forms_without_a_model(to, pair, tmp_path, capsys):
  folder = tmp_path / 'prompts'
  folder.mkdir()
  for file in pair.files:
    shutil.copy(file, folder)
  place = tmp_path / 'out'
  assert main(['export', str(folder), str(place), '--to', to]) == 0
  assert 'sst2, trec' in capsys.readouterr().out
  about = json.loads((place / 'prompts.json').read_text())
  assert [p['name'] for p in about['prompts']] == ['sst2', 'trec']
  assert about['prompts'][0]['labels'] == ['negative', 'positive']
  for each, file in zip(about['prompts'], pair.files, strict=True):
    again = tmp_path / f'{each["name"]}.safetensors'
    where = str(place / each['path'])
    assert main(['import', where, str(again), '--model', pair.base]) == 0
    assert rows_of(again) == rows_of(file)


@pytest.mark.parametrize('to', ['npy', 'numpy_checkpoints', 'peft'])
def test_what_is_not_read_back_as_it_was_written_is_removed(to, pair, tmp_path, monkeypatch):
  name = 'write_peft' if to == 'peft' else 'write_npy'
  write = getattr(prompt, name)
  worse = lambda rows: dataclasses.replace(rows, values=-rows.values)
  monkeypatch.setattr(prompt, name, lambda place, rows, **more: write(place, worse(rows), **more))
  with pytest.raises(UserError, match=str(tmp_path / 'out')):
    export_prompt(pair.sst2, tmp_path / 'out', to)
  assert not [path for path in tmp_path.rglob('*') if path.is_file()]


def rows_of(file):
  import safetensors.numpy

  return safetensors.numpy.load_file(file)['params/encoder/prompt'].tobytes()


def test_options_that_do_not_go_with_a_format(pair, tmp_path):
  place = tmp_path / 'out'
  for to, option, value in (
    ('hf', 'quantize', 'int8'), ('npy', 'samples', ['a']), ('hf', 'base_model', 'x'),
    ('hf', 'samples', [' ']), ('ctranslate2', 'quantize', 'int3'), ('hf', 'least_agreement', 2.0),
  ):  # fmt: skip
    with pytest.raises(UserError) as raised:
      export_prompt(pair.sst2, place, to, **{option: value})
    assert option in raised.value.parameters
  with pytest.raises(UserError, match="'onnx'"):
    export_prompt(pair.sst2, place, 'onnx')
  assert not place.exists()


def test_the_command_line_has_the_formats_and_numbers_that_there_are():
  assert prompt.FORMATS == own_arguments.FORMATS
  assert ctranslate2_model.QUANTIZE == own_arguments.QUANTIZE
