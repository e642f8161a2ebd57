"""LoRA and (IA)^3 of PEFT: imported the same logits and text, and back again."""

import copy
import json
import pathlib
import warnings
from typing import Any

import numpy as np
import peft
import pytest
import safetensors.numpy
import safetensors.torch

from prompt_jax.cli.main import main
from prompt_jax.errors import UserError
from prompt_jax.prompt_formats.foreign import Trained
from prompt_jax.prompt_formats.peft import read_peft
from prompt_jax.prompt_formats.peft_layers import write_layers
from prompt_jax.prompts.methods.inside.bitfit import BitFit
from prompt_jax.prompts.methods.inside.ia3 import IA3
from tests.checkpoints.test_peft_parity import adapt, assert_same, bare, folder, ours, t5, theirs
from tests.shared import facts, mentions

__all__ = ['folder']  # a fixture
SEQ2SEQ: dict[str, Any] = {'task_type': 'SEQ_2_SEQ_LM'}
CONFIGS = {
  'LoRA': peft.LoraConfig(**SEQ2SEQ),
  'all of attention': peft.LoraConfig(
    **SEQ2SEQ, r=3, lora_alpha=5, use_rslora=True, target_modules=['q', 'k', 'v', 'o'],
    lora_dropout=0.1,
  ),
  'without cross': peft.LoraConfig(**SEQ2SEQ, target_modules=r'.*SelfAttention\.(q|v)'),
  'IA3': peft.IA3Config(**SEQ2SEQ),
  'outputs': peft.IA3Config(**SEQ2SEQ, target_modules=['q', 'wo'], feedforward_modules=[]),
}  # fmt: skip


def reloaded(ref, path: pathlib.Path) -> Any:
  with warnings.catch_warnings():
    warnings.simplefilter('error', UserWarning)  # PEFT warns of missing and unexpected keys
    return peft.PeftModel.from_pretrained(copy.deepcopy(ref.torch_model), str(path)).eval()


@pytest.mark.parametrize(
  ('variant', 'name'),
  [
    ('t5', 'LoRA'),
    ('t5_1_1', 'all of attention'),
    ('umt5', 'without cross'),
    ('t5_1_1', 'IA3'),
    ('t5_1_1', 'outputs'),
  ],
)
def test_imported_and_exported_they_answer_the_same(variant, name, folder, tmp_path):
  ref = t5(variant)
  model = folder(ref)
  adapted = adapt(ref, CONFIGS[name], tmp_path / 'peft')
  file, again = tmp_path / 'imported.safetensors', tmp_path / 'again'
  assert main(['import', str(tmp_path / 'peft'), str(file), '--model', model]) == 0
  expected = theirs(adapted)
  assert_same(ours(model, file), expected, bare(ref))
  assert main(['export', str(file), str(again), '--to=peft']) == 0
  assert_same(theirs(reloaded(ref, again)), expected, bare(ref))


@pytest.mark.parametrize(
  ('config', 'says'),
  [
    (peft.LoraConfig(**SEQ2SEQ, target_modules=['wi_0']), ('DenseReluDense.wi_0', 'wo')),
    (peft.LoraConfig(**SEQ2SEQ, target_modules=['wo']), ('DenseReluDense.wo', 'q, k, v')),
    (peft.LoraConfig(**SEQ2SEQ, layers_to_transform=[1]), ('[1]', 'layers_to_transform')),
    (peft.LoraConfig(**SEQ2SEQ, target_modules=r'encoder.*\.q'), ('decoder', 'nothing', 'query')),
    (peft.LoraConfig(**SEQ2SEQ, use_dora=True), ('use_dora', 'True')),
    (peft.LoraConfig(**SEQ2SEQ, rank_pattern={'q': 4}), ('rank_pattern', 'q')),
    (peft.IA3Config(**SEQ2SEQ, target_modules=['wi_0'], feedforward_modules=['wi_0']), ('wi_0',)),
    (
      peft.IA3Config(**SEQ2SEQ, target_modules=['q'], feedforward_modules=['q']),
      ('SelfAttention.q',),
    ),
  ],
  ids=lambda x: None if isinstance(x, tuple) else '',
)
def test_what_there_is_no_place_for_is_named(config, says, tmp_path):
  adapt(t5('t5_1_1'), config, tmp_path / 'peft')
  with pytest.raises(UserError, match=facts(*says)):
    read_peft(tmp_path / 'peft')


def test_an_adapter_of_another_model_is_refused(folder, tmp_path, capsys):
  adapt(t5('t5_1_1'), CONFIGS['LoRA'], tmp_path / 'peft')
  model = folder(t5('t5_1_1', layers=1))
  command = ['import', str(tmp_path / 'peft'), str(tmp_path / 'p.safetensors'), '--model', model]
  assert main(command) == 2
  assert mentions(capsys.readouterr().err, '[2, ', '[1, ')


@pytest.mark.parametrize('how', ['pissa', 'pissa_niter_4', 'olora'])
def test_numbers_beside_a_changed_model_are_refused(how, tmp_path):
  # PEFT subtracts the first numbers from the model, and does so again when it reads the folder.
  config = peft.LoraConfig(**SEQ2SEQ, r=2, init_lora_weights=how)
  adapt(t5('t5_1_1'), config, tmp_path / 'peft')
  with pytest.raises(UserError, match=facts('init_lora_weights', how)):
    read_peft(tmp_path / 'peft')


def test_bfloat16_is_read(tmp_path):
  adapt(t5('t5_1_1'), CONFIGS['LoRA'], tmp_path)
  path = tmp_path / 'adapter_model.safetensors'
  found = read_peft(tmp_path).prompt.params
  tensors = {k: v.bfloat16() for k, v in safetensors.torch.load_file(path).items()}
  safetensors.torch.save_file(tensors, path)
  for name, value in read_peft(tmp_path).prompt.params.items():
    np.testing.assert_allclose(value, found[name], rtol=2**-8)


@pytest.mark.parametrize(
  ('change', 'says'),
  [
    ({'lora_alpha': 'x'}, ('lora_alpha', 'x')),
    ({'lora_alpha': None}, ('lora_alpha', 'None')),
    ({'use_rslora': 'yes'}, ('use_rslora', 'yes')),
    ({'r': 0}, ('r 0',)),
  ],
)
def test_wrong_fields_are_named(change, says, tmp_path):
  adapt(t5('t5_1_1'), CONFIGS['LoRA'], tmp_path)
  config = json.loads((tmp_path / 'adapter_config.json').read_text())
  (tmp_path / 'adapter_config.json').write_text(json.dumps({**config, **change}))
  with pytest.raises(UserError, match=facts(*says)):
    read_peft(tmp_path)


@pytest.mark.parametrize(
  ('change', 'says'),
  [
    (lambda x: x.reshape(-1), ('shape', 'two axes')),
    (lambda x: x.astype(np.int32), ('I32',)),
    (lambda x: x * np.float32(np.nan), ('NaN', 'lora_A')),
  ],
)
def test_numbers_that_are_no_matrices_are_named(change, says, tmp_path):
  adapt(t5('t5_1_1'), CONFIGS['LoRA'], tmp_path)
  path = tmp_path / 'adapter_model.safetensors'
  safetensors.numpy.save_file(
    {k: change(v) for k, v in safetensors.numpy.load_file(path).items()}, path
  )
  with pytest.raises(UserError, match=facts(*says)):
    read_peft(tmp_path)


def test_half_of_an_adapter_is_refused(folder, tmp_path, capsys):
  adapt(t5('t5_1_1'), CONFIGS['LoRA'], tmp_path / 'peft')
  path = tmp_path / 'peft' / 'adapter_model.safetensors'
  tensors = safetensors.numpy.load_file(path)
  safetensors.numpy.save_file({k: v for k, v in tensors.items() if 'lora_A' in k}, path)
  command = ['import', str(tmp_path / 'peft'), str(tmp_path / 'p.safetensors')]
  assert main([*command, '--model', folder(t5('t5_1_1'))]) == 2
  assert mentions(capsys.readouterr().err, 'encoder_query_up')


def test_damaged_files_are_named(tmp_path):
  adapt(t5('t5_1_1'), CONFIGS['LoRA'], tmp_path)
  weights = tmp_path / 'adapter_model.safetensors'
  weights.write_bytes(weights.read_bytes()[:-1])
  with pytest.raises(UserError, match=facts('adapter_model.safetensors')):
    read_peft(tmp_path)
  config = json.loads((tmp_path / 'adapter_config.json').read_text())
  (tmp_path / 'adapter_config.json').write_text(json.dumps({**config, 'r': None}))
  safetensors.numpy.save_file({}, weights)
  with pytest.raises(UserError, match=facts('nothing')):
    read_peft(tmp_path)


@pytest.mark.parametrize(
  ('method', 'says'),
  [
    (BitFit(), ('BitFit', 'stablehlo')),
    (IA3(points=('heads',)), ('heads', 'stablehlo')),
    (IA3(points=('mlp', 'mlp_hidden')), ('mlp_hidden',)),
  ],
)
def test_what_peft_cannot_say_is_refused(method, says, tmp_path):
  empty: dict[str, np.ndarray] = {}
  with pytest.raises(UserError, match=facts(*says)):
    write_layers(tmp_path / 'peft', Trained(method, empty), None)
