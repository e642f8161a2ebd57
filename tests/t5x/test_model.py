"""A prompted T5 behind T5X's interface computes what it computes by itself."""

import dataclasses
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip('t5x.version', reason='T5X is not importable: see docs/t5x.md')

import flax.core
import seqio
from flax import serialization, traverse_util
from t5x import adafactor, decoding
from t5x.examples.t5 import network

from prompt_jax.errors import UserError
from prompt_jax.inference.decode import greedy
from prompt_jax.inference.score import score
from prompt_jax.prompts.methods.deep.deep_prompt import DeepPrompt
from prompt_jax.prompts.methods.input.adept import ADePT
from prompt_jax.prompts.methods.input.input_prompt import InputPrompt
from prompt_jax.prompts.methods.prefix.prefix_tuning import PrefixTuning
from prompt_jax.prompts.tables import Mlp
from prompt_jax.t5x.model import PromptedModel
from prompt_jax.t5x.names import is_ours
from prompt_jax.testing import tiny

CONFIG = tiny.config()
BATCH = tiny.batch()
FEATURES = {
  name: getattr(BATCH, name)
  for name in ('encoder_input_tokens', 'decoder_input_tokens', 'decoder_target_tokens')
} | {'decoder_loss_weights': BATCH.decoder_loss_weights}
METHODS = {
  'input': InputPrompt(4),
  'both': InputPrompt(4, decoder=True, decoder_placement='after_bos'),
  'prefix': PrefixTuning(4, Mlp(hidden=8)),
  'deep': DeepPrompt(4, decoder=True),
  'adept': ADePT(4, rank=2),
}
every_method = pytest.mark.parametrize('name', METHODS)


def prompted(prompt, **kwargs) -> PromptedModel:
  vocabulary = seqio.PassThroughVocabulary(size=CONFIG.vocab_size, eos_id=1)
  return PromptedModel(
    CONFIG, prompt, vocabulary, vocabulary, adafactor.Adafactor(0.3, factored=False), **kwargs
  )


def initial(model):
  return jax.jit(lambda key: model.get_initial_variables(key, {}, {})['params'])(jax.random.key(1))


def test_the_bare_model_has_the_logits_of_t5xs_own():
  model = prompted(None, trainable=('.*',))
  params = initial(model)
  names = {f.name for f in dataclasses.fields(network.T5Config)}
  known = {k: v for k, v in dataclasses.asdict(CONFIG).items() if k in names}
  transformer = network.Transformer(network.T5Config(**known))
  theirs = jax.jit(functools.partial(transformer.apply, enable_dropout=False))(
    {'params': params},
    FEATURES['encoder_input_tokens'],
    FEATURES['decoder_input_tokens'],
    FEATURES['decoder_target_tokens'],
  )
  ours = jax.jit(model._compute_logits)(params, FEATURES)
  # T5X's decoder masks padded targets; only real ones count.
  real = np.asarray(FEATURES['decoder_target_tokens']) > 0
  np.testing.assert_allclose(ours[real], theirs[real], atol=1e-5, rtol=1e-5)


@every_method
def test_logits_and_scores_are_ours(name):
  model = prompted(METHODS[name])
  params = initial(model)
  variables = model.variables(params)
  logits, _ = jax.jit(model.module.apply)(variables, BATCH)
  np.testing.assert_allclose(jax.jit(model._compute_logits)(params, FEATURES), logits, atol=1e-5)
  ours = jax.jit(functools.partial(score, model.module))(
    variables, BATCH.encoder_input_tokens, BATCH.decoder_target_tokens
  )
  np.testing.assert_allclose(jax.jit(model.score_batch)(params, FEATURES), ours, atol=1e-4)


@every_method
def test_t5xs_greedy_decoding_is_ours(name):
  model = prompted(METHODS[name], decode_fn=decoding.temperature_sample)
  params = initial(model)
  u = BATCH.decoder_input_tokens.shape[1]
  tokens, aux = jax.jit(model.predict_batch_with_aux)(params, FEATURES, jax.random.key(0))
  ours = jax.jit(functools.partial(greedy, model.module, max_len=u))(
    model.variables(params), BATCH.encoder_input_tokens
  )
  np.testing.assert_array_equal(tokens, ours)
  assert aux['scores'].shape == (len(tokens),)


@every_method
def test_beam_search_with_our_cache_is_that_without_one(name):
  """T5X reorders the cache along its beams; recomputing every prefix needs no cache."""
  model = prompted(METHODS[name], num_decodes=3, return_all_decodes=True)
  params = initial(model)
  b, u = BATCH.decoder_input_tokens.shape
  variables = model.variables(params)

  def recompute(state):
    rows = jnp.repeat(BATCH.encoder_input_tokens, 3, axis=0)
    encoded = model.module.apply(variables, rows, method='encode')
    logits = model.module.apply(variables, encoded, state.sequences, method='decode')
    return jax.lax.dynamic_index_in_dim(logits, state.cur_index, 1, keepdims=False), state.cache

  expected, scores = jax.jit(
    lambda: decoding.beam_search(
      jnp.zeros((b, u), jnp.int32), {'none': jnp.zeros((b, 1))}, recompute, 1, num_decodes=3
    )
  )()
  tokens, aux = jax.jit(model.predict_batch_with_aux)(params, FEATURES)
  np.testing.assert_array_equal(tokens, expected)
  np.testing.assert_allclose(aux['scores'], scores, atol=1e-4)


def test_outputs_can_begin_with_given_tokens():
  model = prompted(METHODS['input'])
  params = initial(model)
  # The given tokens are those before the first zero after the start token.
  predict = functools.partial(model.predict_batch_with_aux, prompt_with_targets=True)
  tokens, _ = jax.jit(predict)(params, FEATURES)
  given = np.asarray(FEATURES['decoder_input_tokens'])
  np.testing.assert_array_equal(tokens[:, : given.shape[1] - 1], given[:, 1:])


@every_method
def test_only_the_prompt_gets_gradients_and_optimizer_state(name):
  model = prompted(METHODS[name])
  params = initial(model)
  gradient, metrics = jax.jit(jax.grad(model.loss_fn, has_aux=True))(params, FEATURES, None)
  assert float(metrics['loss'].compute()) > 0
  trained = 0.0
  for path, leaf in traverse_util.flatten_dict(flax.core.unfreeze(gradient), sep='/').items():
    if is_ours(path):
      trained += float(jnp.sum(jnp.abs(leaf)))
    else:
      assert not np.any(leaf), path
  assert trained > 0
  state = model.optimizer_def.init_state(params).param_states
  flat = traverse_util.flatten_dict(serialization.to_state_dict(state), sep='/')
  trains = {
    path
    for path in traverse_util.flatten_dict(flax.core.unfreeze(params), sep='/')
    if is_ours(path)
  }
  assert {path.rpartition('/')[0] for path in flat} == trains


def test_a_pattern_without_a_parameter_is_refused():
  with pytest.raises(UserError, match='promt'):
    initial(prompted(METHODS['input'], trainable=('promt/.*',)))


def test_packed_rows_are_refused():
  model = prompted(METHODS['input'])
  packed = {**FEATURES, 'encoder_segment_ids': jnp.ones_like(FEATURES['encoder_input_tokens'])}
  with pytest.raises(UserError, match='pack = False'):
    model.loss_fn(initial(model), packed, None)
