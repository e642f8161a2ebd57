"""Prompts to PEFT and back: the same logits and the same greedy text on the same T5.

The verbs of the command line convert, PEFT itself trains nothing here but makes, saves, loads and
runs the adapters, on Hugging Face's torch models with random weights.
"""

import copy
import functools
import pathlib
import warnings
from typing import Any

import jax
import numpy as np
import peft
import pytest
import torch
import transformers

from prompt_jax import loading
from prompt_jax.checkpoints.backbone import save_backbone
from prompt_jax.checkpoints.prompt_file import Prompt, describe_method, load_prompt, save_prompt
from prompt_jax.cli.main import main
from prompt_jax.data.vocabulary import ByteVocabulary
from prompt_jax.inference.decode import greedy
from prompt_jax.prompts.base import first_values
from prompt_jax.prompts.methods.input.input_prompt import InputPrompt
from prompt_jax.prompts.methods.prefix.prefix_tuning import PrefixTuning
from prompt_jax.prompts.tables import LowRank, Lstm, Mlp, Plain
from tests.models.reference_models import Reference, batch, reference, tokens

BYTES = ByteVocabulary()
VOCABULARY = 384  # as long as the byte vocabulary
STEPS = 10
ROWS = 5
RELEASE = tuple(int(n) for n in transformers.__version__.split('.')[:2])
GENERATE_DROPS_A_PREFIX = RELEASE >= (5, 24)

warnings.filterwarnings('ignore', module='peft')


def t5(variant: str, layers: int = 2) -> Reference:
  sizes = {'num_layers': 3, 'num_decoder_layers': layers}
  return reference(variant, vocab_size=VOCABULARY, **sizes)


@pytest.fixture
def folder(tmp_path):
  """Makes the model folder of a reference."""

  def make(ref: Reference) -> str:
    path = tmp_path / 'model'
    save_backbone(path, name='tiny', config=ref.cfg, params=ref.params, vocabulary=BYTES)
    return str(path)

  return make


def long(x: np.ndarray) -> torch.Tensor:
  return torch.tensor(x, dtype=torch.long)


def inputs() -> tuple[np.ndarray, np.ndarray]:
  """Encoder tokens with padding, decoder tokens behind a start token."""
  decoder = tokens(6, (7, 7, 7), 259, eos=False)
  decoder[:, 0] = 0
  return tokens(5, (12, 9, 3), 259), decoder


def ours(model: str, prompt_file: pathlib.Path) -> tuple[np.ndarray, list[str]]:
  """Logits, and what greedy decoding writes."""
  ready = loading.load(model, str(prompt_file), 'float32')
  encoder, decoder = inputs()
  logits, _ = jax.jit(ready.model.apply)(ready.variables, batch(encoder, decoder))
  write = jax.jit(functools.partial(greedy, ready.model, max_len=STEPS, eos_id=BYTES.eos_id))
  return np.asarray(logits), [
    BYTES.decode(row) for row in np.asarray(write(ready.variables, encoder))
  ]


def is_prefix(model: Any) -> bool:
  return getattr(model, 'peft_type', None) == peft.PeftType.PREFIX_TUNING


def by_forward(model: Any, given: dict[str, Any]) -> torch.Tensor:
  """Greedy decoding without `generate` and its cache."""
  ids = torch.zeros((len(given['input_ids']), 1), dtype=torch.long)
  for _ in range(STEPS):
    token = model(**given, decoder_input_ids=ids, use_cache=False).logits[:, -1:].argmax(-1)
    ids = torch.cat([ids, token], 1)
  return ids


def theirs(model: Any) -> tuple[np.ndarray, list[str]]:
  encoder, decoder = inputs()
  given = {'input_ids': long(encoder), 'attention_mask': long(encoder > 0)}
  with torch.no_grad():
    logits = model(**given, decoder_input_ids=long(decoder)).logits.numpy()
    if GENERATE_DROPS_A_PREFIX and is_prefix(model):
      written = by_forward(model, given)
    else:
      written = model.generate(**given, do_sample=False, num_beams=1, max_new_tokens=STEPS)
  return logits, [BYTES.decode(row) for row in written.numpy()[:, 1:].tolist()]


def assert_same(got, want, bare: np.ndarray) -> None:
  np.testing.assert_allclose(got[0], want[0], atol=1e-4)
  assert got[1] == want[1]
  assert any(want[1]), 'the case must write text'
  assert np.abs(want[0] - bare).max() > 0.1, 'the prompt must matter'


def bare(ref: Reference) -> np.ndarray:
  return theirs(ref.torch_model)[0]


# -- to PEFT


def save_random(path: pathlib.Path, method: Any, ref: Reference, model: str) -> pathlib.Path:
  """A prompt file of that method with random parameters."""
  cfg = ref.cfg
  _, made = jax.eval_shape(lambda key: first_values(method, key, cfg.sizes), jax.random.key(0))
  shapes = made['params']
  rng = np.random.default_rng(7)
  params = jax.tree.map(lambda x: rng.normal(size=x.shape).astype(np.float32), shapes)
  ready = loading.load(model, None)
  metadata = {
    'base_model': 'tiny', 'model': model, 'fingerprint': ready.backbone.fingerprint,
    'width': cfg.emb_dim, 'method': type(method).__name__, 'method_config': describe_method(method),
    'length': method.length,
  }  # fmt: skip
  save_prompt(path, Prompt(params, {}, metadata))
  return path


METHODS = {
  'plain': InputPrompt(ROWS, Plain()),
  'low rank': InputPrompt(ROWS, LowRank(rank=3)),
  'P-tuning': InputPrompt(ROWS, Lstm()),
}


def export(tmp_path, method, ref, model) -> tuple[pathlib.Path, pathlib.Path]:
  source = save_random(tmp_path / 'prompt.safetensors', method, ref, model)
  destination = tmp_path / 'peft'
  assert main(['export', str(source), str(destination), '--to=peft']) == 0
  return source, destination


@pytest.mark.parametrize(
  ('variant', 'name'),
  [('t5', 'low rank'), ('umt5', 'plain'), ('t5_1_1', 'P-tuning')],
)
def test_rows_export(variant, name, folder, tmp_path):
  ref = t5(variant)
  model = folder(ref)
  source, destination = export(tmp_path, METHODS[name], ref, model)
  with warnings.catch_warnings():
    warnings.simplefilter('error', UserWarning)  # PEFT warns of missing and unexpected keys
    adapted = peft.PeftModel.from_pretrained(copy.deepcopy(ref.torch_model), str(destination))
  config = adapted.peft_config['default']
  assert config.num_transformer_submodules == 1
  assert config.base_model_name_or_path == 'tiny'
  assert_same(ours(model, source), theirs(adapted), bare(ref))


@pytest.mark.parametrize(('variant', 'layers'), [('t5_1_1', 3), ('umt5', 1)])
def test_prefix_export(variant, layers, folder, tmp_path):
  ref = t5(variant, layers)
  model = folder(ref)
  method = PrefixTuning(
    ROWS, Mlp(hidden=8), encoder=False, cross=False, kv_bias='shifted'
  )  # fmt: skip
  source, destination = export(tmp_path, method, ref, model)
  adapted = peft.PeftModel.from_pretrained(copy.deepcopy(ref.torch_model), str(destination))
  assert_same(ours(model, source), theirs(adapted), bare(ref))


# -- from PEFT

SEQ2SEQ: dict[str, Any] = {'task_type': 'SEQ_2_SEQ_LM', 'num_virtual_tokens': ROWS}
CONFIGS = {
  'doubled rows': peft.PromptTuningConfig(**SEQ2SEQ),
  'single rows': peft.PromptTuningConfig(**SEQ2SEQ, num_transformer_submodules=1),
  'P-tuning': peft.PromptEncoderConfig(**SEQ2SEQ, encoder_hidden_size=16),
  'P-tuning v1': peft.PromptEncoderConfig(
    **SEQ2SEQ, encoder_hidden_size=16, encoder_reparameterization_type='LSTM'
  ),
}


def adapt(ref: Reference, config: Any, path: pathlib.Path) -> Any:
  """A PEFT model with random parameters, saved into a folder."""
  adapted = peft.get_peft_model(copy.deepcopy(ref.torch_model), copy.deepcopy(config)).eval()
  rng = torch.Generator().manual_seed(3)
  for name, p in adapted.named_parameters():
    if 'prompt_encoder' in name:
      p.data = torch.randn(p.shape, generator=rng)
    elif 'lora_' in name or 'ia3_' in name:  # around what leaves the model as it is
      p.data = ('ia3_' in name) + 0.3 * torch.randn(p.shape, generator=rng)
  adapted.save_pretrained(path)
  return adapted


@pytest.mark.parametrize(
  ('variant', 'name'),
  [
    ('t5_1_1', 'doubled rows'),
    ('umt5', 'single rows'),
    ('t5_1_1', 'P-tuning'),
    ('t5_1_1', 'P-tuning v1'),
  ],
)
def test_rows_import(variant, name, folder, tmp_path):
  ref = t5(variant)
  model = folder(ref)
  adapted = adapt(ref, CONFIGS[name], tmp_path / 'peft')
  destination = tmp_path / 'imported.safetensors'
  assert main(['import', str(tmp_path / 'peft'), str(destination), '--model', model]) == 0
  assert load_prompt(destination).params['encoder']['prompt'].shape == (ROWS, ref.cfg.emb_dim)
  assert_same(ours(model, destination), theirs(adapted), bare(ref))


@pytest.mark.parametrize(
  ('variant', 'layers', 'projection'),
  [('t5_1_1', 2, True), ('umt5', 3, False)],
)
def test_prefix_import(variant, layers, projection, folder, tmp_path):
  """With 2 layers, an even number, PEFT gives both the same keys and values."""
  ref = t5(variant, layers)
  model = folder(ref)
  cfg = ref.cfg
  config = peft.PrefixTuningConfig(
    **SEQ2SEQ, num_layers=layers, num_attention_heads=cfg.num_heads,
    token_dim=cfg.num_heads * cfg.head_dim, prefix_projection=projection, encoder_hidden_size=8,
  )  # fmt: skip
  adapted = adapt(ref, config, tmp_path / 'peft')
  destination = tmp_path / 'imported.safetensors'
  assert main(['import', str(tmp_path / 'peft'), str(destination), '--model', model]) == 0
  assert_same(ours(model, destination), theirs(adapted), bare(ref))
  # And out again: what PEFT reads from the new folder is what it reads from its own.
  again = tmp_path / 'again'
  assert main(['export', str(destination), str(again), '--to=peft']) == 0
  reloaded = peft.PeftModel.from_pretrained(copy.deepcopy(ref.torch_model), str(again))
  assert_same(theirs(reloaded), theirs(adapted), bare(ref))


@pytest.mark.parametrize(('variant', 'copies'), [('t5_1_1', 2), ('umt5', 1)])
def test_multitask_prompts_there_and_back(variant, copies, folder, tmp_path):
  """Each task by itself; with 2 submodules PEFT puts rows before the decoder's input as well."""
  ref = t5(variant)
  model = folder(ref)
  config = peft.MultitaskPromptTuningConfig(
    **SEQ2SEQ, num_tasks=3, num_ranks=2, num_transformer_submodules=copies
  )
  adapted = adapt(ref, config, tmp_path / 'peft')
  destination = tmp_path / 'imported.safetensors'
  assert main(['import', str(tmp_path / 'peft'), str(destination), '--model', model]) == 0
  assert main(['export', str(destination), str(tmp_path / 'again'), '--to=peft']) == 0
  loaded = peft.PeftModel.from_pretrained(copy.deepcopy(ref.torch_model), tmp_path / 'again')
  encoder, decoder = inputs()
  given = {'input_ids': long(encoder), 'attention_mask': long(encoder > 0)}
  all_ours = []
  for task in range(3):
    number = torch.full((len(encoder),), task)

    def theirs(m, number=number):
      # Of such prompts PEFT reads no decoder_input_ids, and makes them of labels.
      labels = long(np.pad(decoder[:, 1:], ((0, 0), (0, 1)), constant_values=1))
      logits = m(**given, labels=labels, task_ids=number).logits
      return logits[:, -decoder.shape[1] :].detach().numpy()

    want, again = map(theirs, (adapted, loaded.eval()))
    got, _ = ours(model, tmp_path / 'task_prompts' / f'task_{task}.safetensors')
    np.testing.assert_allclose(got, want, atol=1e-4)
    np.testing.assert_allclose(again, want, atol=1e-5)
    all_ours.append(got)
  assert np.abs(all_ours[0] - all_ours[1]).max() > 0.1
  assert main(['import', str(tmp_path / 'peft'), str(tmp_path / 'b'), '--model', model]) == 2


@pytest.mark.skipif(not GENERATE_DROPS_A_PREFIX, reason='of transformers 5.24')
def test_generate_drops_a_prefix_as_documented(folder, tmp_path):
  """When this fails PEFT has been mended: take the sentence out of docs/import_export.md."""
  ref = t5('umt5', 1)
  model = folder(ref)
  method = PrefixTuning(ROWS, encoder=False, cross=False, kv_bias='shifted')
  _, destination = export(tmp_path, method, ref, model)
  adapted = peft.PeftModel.from_pretrained(copy.deepcopy(ref.torch_model), str(destination))
  encoder, _ = inputs()
  given = {'input_ids': long(encoder), 'attention_mask': long(encoder > 0), 'do_sample': False}
  write = lambda model: model.generate(**given, num_beams=1, max_new_tokens=STEPS).tolist()
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')
    assert write(adapted) == write(ref.torch_model)
