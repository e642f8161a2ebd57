"""Weights under Hugging Face's names, to our tree and back. That they compute the same is tested
with the models."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers

from prompt_jax.checkpoints.formats.huggingface import (
  config_from_huggingface,
  from_huggingface,
  to_huggingface,
)
from prompt_jax.checkpoints.tree import unstack_layers
from prompt_jax.errors import UserError
from prompt_jax.models.t5.config import T5Config
from prompt_jax.testing.tiny import random_params
from tests.shared import facts

CONFIGS = {
  't5_1_1': T5Config(40, 8, 3, 4, 3, 2, 12),
  'gated_relu': T5Config(40, 8, 3, 4, 2, 2, 12, mlp_activations=('relu', 'linear')),
  't5': T5Config(40, 8, 3, 4, 2, 3, 12, mlp_activations=('relu',), tied_logits=True),
  'umt5': T5Config(40, 8, 3, 4, 2, 3, 12, relpos_per_layer=True),
}


@pytest.fixture(params=CONFIGS)
def case(request):
  cfg = CONFIGS[request.param]
  params = random_params(cfg)
  return cfg, params, *to_huggingface(cfg, params)


def test_there_and_back(case):
  cfg, params, state, hf = case
  got_cfg, got = from_huggingface(state, hf)
  assert got_cfg == cfg
  jax.tree.map(np.testing.assert_array_equal, got, params)


def test_names_are_those_of_hugging_face(case):
  """Strict loading into the torch model, and its own state dict back."""
  cfg, params, state, hf = case
  name = hf['architectures'][0].removesuffix('ForConditionalGeneration')
  config = getattr(transformers, f'{name}Config')(**hf)
  assert getattr(config, 'scale_decoder_outputs', cfg.tied_logits) == cfg.tied_logits
  model = getattr(transformers, hf['architectures'][0])(config)
  if not cfg.tied_logits:
    model.lm_head.weight = torch.nn.Parameter(torch.empty_like(model.lm_head.weight))
  missing, unexpected = model.load_state_dict(
    {k: torch.from_numpy(v) for k, v in state.items()}, strict=False
  )
  assert not unexpected
  tied = {'lm_head.weight'} if cfg.tied_logits else set()
  assert set(missing) == {'encoder.embed_tokens.weight', 'decoder.embed_tokens.weight'} | tied
  theirs = {k: v.detach().numpy() for k, v in model.state_dict().items()}
  _, got = from_huggingface(theirs, hf)
  jax.tree.map(np.testing.assert_array_equal, got, params)


def test_transposes_and_stacking(case):
  cfg, params, state, _ = case
  per_layer = unstack_layers(params)
  last = cfg.num_decoder_layers - 1
  np.testing.assert_array_equal(
    state[f'decoder.block.{last}.layer.1.EncDecAttention.o.weight'],
    per_layer['decoder'][f'layers_{last}']['encoder_decoder_attention']['out']['kernel'].T,
  )
  np.testing.assert_array_equal(state['shared.weight'], params['token_embedder']['embedding'])


def test_scaling_and_tying_that_do_not_go_together():
  """Newer releases say tied for every model and keep the truth in scale_decoder_outputs."""
  cfg = CONFIGS['t5_1_1']
  params = random_params(cfg)
  state, hf = to_huggingface(cfg, params)
  newer = {**hf, 'tie_word_embeddings': True, 'scale_decoder_outputs': False}
  got_cfg, got = from_huggingface(state, newer)
  assert got_cfg == cfg
  jax.tree.map(np.testing.assert_array_equal, got, params)
  # Without the matrix, unscaled logits from the table.
  _, got = from_huggingface({k: v for k, v in state.items() if k != 'lm_head.weight'}, newer)
  np.testing.assert_array_equal(got['decoder']['logits_dense']['kernel'], state['shared.weight'].T)
  # A matrix of its own and scaled states: the scale goes into the matrix.
  got_cfg, got = from_huggingface(state, {**hf, 'tie_word_embeddings': True})
  assert not got_cfg.tied_logits
  want = params['decoder']['logits_dense']['kernel'] / np.sqrt(cfg.emb_dim)
  np.testing.assert_allclose(got['decoder']['logits_dense']['kernel'], want, rtol=1e-6)
  assert config_from_huggingface({**hf, 'model_type': 'mt5', 'tie_word_embeddings': True}) == cfg


EMBED = ('encoder.embed_tokens.weight', 'decoder.embed_tokens.weight')


def test_copies_and_the_unused_table_of_old_files():
  cfg = CONFIGS['t5']
  state, hf = to_huggingface(cfg, random_params(cfg))
  extra = 'decoder.block.0.layer.1.EncDecAttention.relative_attention_bias.weight'
  table = state['shared.weight']
  copies = dict.fromkeys(('lm_head.weight', *EMBED), table)
  got_cfg, got = from_huggingface({**state, extra: np.zeros((32, 3)), **copies}, hf)
  assert got_cfg == cfg
  np.testing.assert_array_equal(got['token_embedder']['embedding'], table)


@pytest.mark.parametrize('name', [*EMBED, 'lm_head.weight'])
def test_the_table_under_any_of_its_names(name):
  """What transformers keeps of tied tables in a file; MADLAD-400 has the decoder's name."""
  for kind, tied in (('t5', True), ('t5_1_1', False)):
    cfg = CONFIGS[kind]
    params = random_params(cfg)
    state, hf = to_huggingface(cfg, params)
    table = state.pop('shared.weight')
    if not tied and name == 'lm_head.weight':  # here it is another matrix
      with pytest.raises(UserError, match=r'missing shared\.weight'):
        from_huggingface(state, hf)
      continue
    got_cfg, got = from_huggingface({**state, name: table}, hf)
    assert got_cfg == cfg
    jax.tree.map(np.testing.assert_array_equal, got, params)


@pytest.mark.parametrize('present', [('shared.weight', *EMBED), EMBED])
def test_two_tables_that_differ_are_refused_by_name(present):
  cfg = CONFIGS['t5_1_1']
  state, hf = to_huggingface(cfg, random_params(cfg))
  table = state.pop('shared.weight')
  tables = {name: table.copy() for name in present}
  tables[present[-1]][7, 3] += 1
  with pytest.raises(UserError, match=facts(present[0], present[-1])):
    from_huggingface({**state, **tables}, hf)
  tables[present[-1]] = table[1:]
  with pytest.raises(UserError, match=facts(present[0], present[-1])):
    from_huggingface({**state, **tables}, hf)


@pytest.mark.parametrize('dtype', ['float16', 'bfloat16'])
def test_a_scaled_matrix_is_not_rounded_to_the_dtype_it_was_stored_in(dtype):
  cfg = dataclasses.replace(CONFIGS['t5_1_1'], emb_dim=24)
  state, hf = to_huggingface(cfg, random_params(cfg))
  state = {name: x.astype(jnp.dtype(dtype)) for name, x in state.items()}
  _, got = from_huggingface(state, {**hf, 'tie_word_embeddings': True})
  kernel = got['decoder']['logits_dense']['kernel']
  assert kernel.dtype == np.float32
  want = state['lm_head.weight'].astype(np.float64).T / np.sqrt(24)
  np.testing.assert_allclose(kernel, want, rtol=1e-6)


def test_faults_are_listed():
  cfg = CONFIGS['t5_1_1']
  state, hf = to_huggingface(cfg, random_params(cfg))
  lacking = {
    k: v for k, v in state.items() if k != 'encoder.block.1.layer.0.SelfAttention.q.weight'
  }
  with pytest.raises(UserError, match=r'encoder\.block\.1\.layer\.0\.SelfAttention\.q\.weight'):
    from_huggingface(lacking, hf)
  with pytest.raises(UserError, match=r'classifier\.bias'):
    from_huggingface({**state, 'classifier.bias': np.zeros(2)}, hf)
  with pytest.raises(UserError, match=r'shared\.weight'):
    from_huggingface({k: v for k, v in state.items() if k != 'shared.weight'}, hf)
  with pytest.raises(UserError, match=r'lm_head\.weight'):
    from_huggingface({k: v for k, v in state.items() if k != 'lm_head.weight'}, hf)
  with pytest.raises(UserError, match=facts('shared.weight', '[40, 8]', '[41, 8]')):
    from_huggingface(state, {**hf, 'vocab_size': 41})
  with pytest.raises(UserError, match=facts('logits_dense/kernel', '[8, 39]', '[8, 40]')):
    from_huggingface({**state, 'lm_head.weight': state['lm_head.weight'][1:]}, hf)
  with pytest.raises(UserError, match="'bert'"):
    from_huggingface(state, {**hf, 'model_type': 'bert'})
  with pytest.raises(UserError, match=facts('feed_forward_proj', "'gated-silu'")):
    from_huggingface(state, {**hf, 'feed_forward_proj': 'gated-silu'})
  with pytest.raises(UserError, match=facts('layer_norm_epsilon', '0.1')):
    from_huggingface(state, {**hf, 'layer_norm_epsilon': 0.1})
  with pytest.raises(UserError, match=facts('d_kv', 'd_ff')):
    config_from_huggingface({k: v for k, v in hf.items() if k not in ('d_kv', 'd_ff')})
