"""`import` and `export` from the command line; what PEFT makes of it is tested with checkpoints."""

import dataclasses
import json
import pathlib
import subprocess
import sys

import jax
import numpy as np
import pytest
import safetensors.numpy

from prompt_jax.checkpoints.backbone import find, save_backbone
from prompt_jax.checkpoints.prompt_file import describe_method, load_prompt, save_prompt
from prompt_jax.cli import own_arguments
from prompt_jax.cli.main import main
from prompt_jax.data.vocabulary import ByteVocabulary
from prompt_jax.injections import PLACEMENTS
from prompt_jax.models.t5.config import T5Config
from prompt_jax.prompts.base import first_values
from prompt_jax.prompts.methods.input.input_prompt import InputPrompt
from prompt_jax.prompts.methods.inside.ia3 import IA3
from prompt_jax.prompts.methods.instance.smop import SMoP
from prompt_jax.prompts.methods.multitask.mpt import MPT
from prompt_jax.testing.tiny import random_params
from tests.shared import mentions, shared

ROWS = np.random.default_rng(0).normal(size=(3, 32)).astype(np.float32)


@pytest.fixture
def npy(tmp_path) -> str:
  path = tmp_path / 'rows.npy'
  np.save(path, ROWS)
  return str(path)


@pytest.fixture
def mistake(capsys):
  """Runs a command that must fail, and returns the one line it says."""

  def call(*argv: str) -> str:
    capsys.readouterr()
    assert main(list(argv)) == 2
    out, err = capsys.readouterr()
    assert out == ''
    assert err.startswith('prompt-jax: ')
    assert err.count('\n') == 1
    return err

  return call


@pytest.fixture
def imported(npy, model, tmp_path) -> str:
  path = str(tmp_path / 'prompt.safetensors')
  assert main(['import', npy, path, '--model', model]) == 0
  return path


def another_model(folder: pathlib.Path, width: int, seed: int = 1, mlp: int = 16) -> str:
  """A random byte-level model of that width."""
  cfg = T5Config(384, width, 2, 8, 1, 1, mlp)
  params = random_params(cfg, seed)
  save_backbone(folder, name=folder.name, config=cfg, params=params, vocabulary=ByteVocabulary())
  return str(folder)


def test_an_imported_prompt_knows_its_model_and_works(npy, model, tmp_path, capsys):
  path = str(tmp_path / 'new' / 'prompt.safetensors')
  command = ['import', npy, path, '--model', model, '--labels=good, bad', '--placement=before_eos']
  assert main(command) == 0
  assert mentions(capsys.readouterr().out, '--prompt_file', path, '--model', model)
  prompt = load_prompt(path)
  assert prompt.params['encoder']['prompt'].tobytes() == ROWS.tobytes()
  assert prompt.metadata['labels'] == ['good', 'bad']
  assert prompt.metadata['method_config']['fields']['placement'] == 'before_eos'
  assert prompt.metadata['imported'] == {'form': 'npy', 'path': npy, 'base_model': None}
  assert main(['infer', '--prompt_file', path, 'a text']) == 0
  assert capsys.readouterr().out.split('\t')[0] in ('good', 'bad')


@pytest.mark.parametrize('form', ['npy', 'numpy_checkpoints', 'peft', 't5x'])
def test_out_and_in_again_bit_for_bit(form, imported, model, tmp_path):
  place, again = str(tmp_path / 'foreign'), str(tmp_path / 'again.safetensors')
  assert main(['export', imported, place, f'--to={form}']) == 0
  assert main(['import', place, again, '--model', model]) == 0
  assert load_prompt(again).params['encoder']['prompt'].tobytes() == ROWS.tobytes()


def test_a_t5x_checkpoint_is_named_after_the_step(imported, tmp_path, capsys):
  assert main(['export', imported, str(tmp_path / 'run'), '--to=t5x']) == 0
  folder = tmp_path / 'run' / 'checkpoint_0'
  assert str(folder) in capsys.readouterr().out
  assert (folder / 'checkpoint').is_file()
  assert (folder / 'target.encoder.prompt.prompt.prompt' / '0.0').is_file()
  assert (folder / 'target.encoder.layers_0.mlp.wo.kernel' / '0.0').is_file()


def test_a_checkpoint_with_a_prompt_is_no_model(imported, model, tmp_path, mistake):
  run, new = str(tmp_path / 'run'), str(tmp_path / 'new')
  assert main(['export', imported, run, '--to=t5x']) == 0
  for command in (['convert', run, new], ['infer', '--model', run, 'a text']):
    assert f'prompt-jax import {run}/checkpoint_0' in mistake(*command, '--vocabulary=bytes')
  assert 'BACKBONE' in mistake('import', run, new, '--model', run, '--vocabulary=bytes')
  assert not pathlib.Path(new).exists()


def test_where_rows_go_is_told_when_the_file_cannot_say_it(npy, model, tmp_path, capsys):
  path = str(tmp_path / 'p.safetensors')
  assert main(['import', npy, path, '--model', model, '--placement=after_bos']) == 0
  assert main(['export', path, str(tmp_path / 'p.npy'), '--to=npy']) == 0
  assert 'prefix_prompt_after_bos' in capsys.readouterr().out


@pytest.mark.parametrize('name', ['sst2', 'mrpc', 'rte'])
def test_released_prompts(name, tmp_path, capsys, mistake, model):
  source = str(shared('golden', 'released_prompts', f'{name}.npy'))
  base = another_model(tmp_path / 'base', 768)
  other = another_model(tmp_path / 'other', 768, seed=2)
  path = str(tmp_path / f'{name}.safetensors')
  assert main(['import', source, path, '--model', base]) == 0
  assert main(['inspect', path]) == 0
  out = capsys.readouterr().out
  assert 'effective rank' in out
  assert '768' in out
  # A model of another width, at import; another model of the same width, when it is used.
  err = mistake('import', source, str(tmp_path / 'no.safetensors'), '--model', model)
  assert mentions(err, f"{name}.npy'", '768', "'bytes'", '32')
  assert not (tmp_path / 'no.safetensors').exists()
  err = mistake('infer', '--prompt_file', path, '--model', other, 'text')
  assert mentions(err, "'base'", 'fingerprint')
  assert "'other'" in err


def test_import_refuses(mistake, npy, model, imported, tmp_path):
  new = str(tmp_path / 'new.safetensors')
  assert mentions(mistake('import', npy, imported, '--model', model), imported, 'exists')
  assert "'gone.npy'" in mistake('import', 'gone.npy', new)
  assert mentions(mistake('import', str(tmp_path), new), str(tmp_path), 'import')
  assert mentions(mistake('import', imported, new), imported, 'import')
  broken = tmp_path / 'broken.npy'
  broken.write_bytes(pathlib.Path(npy).read_bytes()[:-1])
  assert 'broken.npy' in mistake('import', str(broken), new, '--model', model)
  peft = tmp_path / 'peft'
  assert main(['export', imported, str(peft), '--to=peft']) == 0
  (peft / 'adapter_config.json').write_text('{"peft_type": "LOHA"}')
  assert "'LOHA'" in mistake('import', str(peft), new, '--model', model)
  assert not pathlib.Path(new).exists()


def test_a_placement_is_not_for_peft(mistake, imported, model, tmp_path):
  peft = str(tmp_path / 'peft')
  assert main(['export', imported, peft, '--to=peft']) == 0
  new = str(tmp_path / 'new.safetensors')
  assert '--placement' in mistake('import', peft, new, '--model', model, '--placement=before')


def test_keys_and_values_of_another_decoder(mistake, model, tmp_path):
  config = {
    'peft_type': 'PREFIX_TUNING', 'task_type': 'SEQ_2_SEQ_LM', 'num_virtual_tokens': 2,
    'num_transformer_submodules': 2, 'num_layers': 3, 'num_attention_heads': 2, 'token_dim': 16,
  }  # fmt: skip
  (tmp_path / 'adapter_config.json').write_text(json.dumps(config))
  tensors = {'prompt_embeddings': np.ones((2, 3 * 2 * 16), np.float32)}
  safetensors.numpy.save_file(tensors, tmp_path / 'adapter_model.safetensors')
  err = mistake('import', str(tmp_path), str(tmp_path / 'new'), '--model', model)
  assert mentions(err, '3', '2', '8')
  assert mentions(err, '1', '2', '8')


@pytest.mark.parametrize(
  ('method', 'to', 'says'),
  [
    (MPT(tasks=2, length=3), 'npy', ('MPT', 'task_prompts')),
    (SMoP(), 'npy', ('SMoP', 'embeds', 'mask', 'stablehlo')),
    (IA3(), 'npy', ('IA3', 'peft', 'stablehlo')),
  ],
)
def test_what_a_format_cannot_hold_is_sent_to_one_that_can(
  mistake, imported, model, tmp_path, method, to, says
):
  prompt = load_prompt(imported)
  sizes = find(model).model()[0].sizes
  _, variables = first_values(method, jax.random.key(0), sizes)
  prompt.metadata['method_config'] = describe_method(method)
  params = jax.tree.map(np.asarray, variables['params'])
  file = str(tmp_path / 'other.safetensors')
  save_prompt(file, dataclasses.replace(prompt, params=params))
  assert mentions(mistake('export', file, str(tmp_path / 'new'), f'--to={to}'), file, *says)


def test_export_refuses(mistake, imported, model, tmp_path):
  place = str(tmp_path / 'new')
  assert '--base_model' in mistake('export', imported, place, '--to=npy', '--base_model=t5')
  assert '--to' in mistake('export', imported, place)
  assert "'tf'" in mistake('export', imported, place, '--to=tf')
  assert mentions(mistake('export', imported, imported, '--to=npy'), imported, 'exists')
  assert mentions(mistake('export', imported, str(tmp_path), '--to=peft'), str(tmp_path), 'exists')
  assert 'x' * 300 in mistake('export', imported, 'x' * 300, '--to=npy')
  prompt = load_prompt(imported)
  method = InputPrompt(length=3, decoder=True)
  prompt.metadata['method_config'] = describe_method(method)
  prompt.params['decoder'] = prompt.params['encoder']
  both = str(tmp_path / 'both.safetensors')
  save_prompt(both, prompt)
  assert 'decoder' in mistake('export', both, place, '--to=peft')
  assert not pathlib.Path(place).exists()


@pytest.mark.parametrize('change', ['shape', 'missing', 'nan', 'method'])
def test_a_prompt_file_with_wrong_numbers(change, mistake, imported):
  prompt = load_prompt(imported)
  if change == 'shape':
    prompt.params['encoder']['prompt'] = ROWS[:, :-1]
  elif change == 'missing':
    prompt.params['encoder'] = {'other': ROWS}
  elif change == 'nan':
    prompt.params['encoder']['prompt'] = np.full_like(ROWS, np.nan)
  else:
    prompt.metadata['method_config'] = None
  save_prompt(imported, prompt)
  err = mistake('infer', '--prompt_file', imported, 'text')
  assert imported in err
  assert 'rain it' in err


def test_foreign_files_where_a_prompt_file_is_expected(mistake, npy, imported, tmp_path):
  peft = tmp_path / 'peft'
  assert main(['export', imported, str(peft), '--to=peft']) == 0
  for path in (npy, str(peft), str(peft / 'adapter_model.safetensors')):
    assert 'prompt-jax import' in mistake('inspect', path)


def test_the_placements_of_the_command_line_are_those_of_the_contract():
  assert own_arguments.PLACEMENTS == PLACEMENTS


def test_import_and_export_need_neither_torch_nor_peft(npy, model, tmp_path):
  code = (
    'import sys; from prompt_jax.cli.main import main\n'
    'npy, model, folder = sys.argv[1:]\n'
    'assert main(["import", npy, folder + "/p", "--model", model]) == 0\n'
    'assert main(["export", folder + "/p", folder + "/peft", "--to=peft"]) == 0\n'
    'assert main(["import", folder + "/peft", folder + "/q", "--model", model]) == 0\n'
    'print(sorted({"torch", "peft", "transformers", "tensorflow"} & set(sys.modules)))'
  )
  done = subprocess.run(
    [sys.executable, '-c', code, npy, model, str(tmp_path)],
    capture_output=True, text=True, check=True,
  )  # fmt: skip
  assert done.stdout.splitlines()[-1] == '[]'


def test_a_t5x_checkpoint_of_another_model_is_refused(imported, model, tmp_path, mistake):
  """Of the same sizes, so that only the weights tell."""
  run, new = str(tmp_path / 'run'), str(tmp_path / 'new.safetensors')
  assert main(['export', imported, run, '--to=t5x']) == 0
  other = another_model(tmp_path / 'other', 32, seed=7, mlp=48)
  theirs = load_prompt(imported).metadata['fingerprint']
  assert mentions(mistake('import', run, new, '--model', other), theirs, "'other'", '--model')
  assert not pathlib.Path(new).exists()
  assert main(['import', run, new, '--model', model]) == 0


def test_peft_is_told_a_base_model_that_it_can_open(imported, model, tmp_path, capsys):
  said = lambda folder: json.loads((folder / 'adapter_config.json').read_text())
  base = lambda folder: said(folder)['base_model_name_or_path']
  assert main(['export', imported, str(tmp_path / 'a'), '--to=peft']) == 0
  assert base(tmp_path / 'a') == 'bytes'
  command = f'prompt-jax convert {model} base/ --to hf'
  assert command in capsys.readouterr().out
  assert command in (tmp_path / 'a/README.md').read_text()
  # A folder of Hugging Face, and a name that the user gives, are taken as they are.
  hf = tmp_path / 'hf'
  assert main(['convert', model, str(hf), '--to=hf']) == 0
  capsys.readouterr()
  for folder, given, name in (
    ('b', f'--model={hf}', str(hf)),
    ('c', '--base_model=google/t5', 'google/t5'),
  ):
    assert main(['export', imported, str(tmp_path / folder), '--to=peft', given]) == 0
    assert base(tmp_path / folder) == name
    assert 'convert' not in capsys.readouterr().out
    assert not (tmp_path / folder / 'README.md').exists()
