"""An input-independent prefix, run once a batch, is what it is among the tokens.

An injection whose rows have a batch axis is never run as a stream of its own, so the same rows
repeated for every example are the other side of each comparison.
"""

import dataclasses
import functools

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_jax.errors import UserError
from prompt_jax.inference import decode, score
from prompt_jax.injections import PLACEMENTS, Injection, Injections, LayerEdit, is_input_independent
from prompt_jax.models.t5.t5 import T5
from prompt_jax.prompted import PromptedT5
from prompt_jax.prompts.methods.deep.deep_prompt import add_rows, replace_rows
from prompt_jax.prompts.methods.input.input_prompt import InputPrompt
from prompt_jax.testing import tiny
from tests.shared import facts

P, E, TARGETS = 3, 2, 4
CONFIG = tiny.config()
BATCH = tiny.batch(rows=3, inputs=8, targets=TARGETS)  # 8, 6 and 4 tokens
# Compiling is nearly all of the time, and running nearly none.
compiled = functools.partial(
  jax.jit,
  compiler_options={
    'xla_backend_optimization_level': 0,
    'xla_llvm_disable_expensive_passes': True,
  },
)


def normal(seed, *shape):
  return jnp.asarray(np.random.default_rng(seed).normal(size=shape), jnp.float32)


def bare(per_layer=False):
  """The tiny model with one table of relative positions or one a layer, and its parameters."""
  cfg = dataclasses.replace(CONFIG, relpos_per_layer=per_layer)
  params = jax.tree.map(lambda x: 0.3 * x, tiny.random_params(cfg))
  return PromptedT5(T5(cfg)), {'params': {'backbone': params}}


def encoder_injection(theta, repeat, placement, edit=None, kv_bias='zero'):
  """Rows, keys and values and an edit of each layer, from the arrays of `theta`."""
  rows = theta['rows'][None]
  return Injection(
    prefix=jnp.repeat(rows, len(BATCH.encoder_input_tokens), axis=0) if repeat else rows,
    kv=theta.get('kv'),
    hidden=LayerEdit(theta['hidden'], edit) if edit else None,
    placement=placement,
    sees_input=False,
    kv_bias=kv_bias,
  )


def theta_of(kv):
  cfg = CONFIG
  theta = {
    'rows': normal(5, P, cfg.emb_dim),
    'hidden': normal(6, cfg.num_encoder_layers, P, cfg.emb_dim),
  }
  if kv is not None:
    heads = (E, cfg.num_heads, cfg.head_dim)
    theta['kv'] = normal(7, cfg.num_encoder_layers, 2, 1, *heads)
    theta['cross'] = normal(8, cfg.num_decoder_layers, 2, 1, *heads)
  return theta


@functools.partial(compiled, static_argnums=(2, 3, 4, 5, 6))
def run(theta, variables, model, repeat, placement, edit, kv_bias):
  """Teacher-forced logits, the gradient of a weighted sum of them, cached logits, all states."""
  apply = functools.partial(model.apply, variables)
  x, y = BATCH.encoder_input_tokens, BATCH.decoder_input_tokens

  def encoded_with(theta):
    added = Injections(
      encoder=encoder_injection(theta, repeat, placement, edit, kv_bias),
      cross=Injection(kv=theta.get('cross')),
    )
    return apply(x, injections=added, method='encode')

  def weighted(theta):
    logits = apply(encoded_with(theta), y, method='decode')
    return jnp.sum(logits * normal(9, *logits.shape)), logits

  gradient, logits = jax.grad(weighted, has_aux=True)(theta)
  encoded = encoded_with(theta)
  first, cache = apply(encoded, TARGETS, method='start_cache')
  step = lambda cache, token: apply(encoded, token, cache, method='decode_step')[::-1]
  later = jax.lax.scan(step, cache, y.T[1:])[1]
  cached = jnp.concatenate([first[None], later]).swapaxes(0, 1)
  return logits, gradient, cached, encoded.all_states


CASES = [
  (False, 'before', None, None),
  (False, 'after_bos', add_rows, 'shifted'),
  (True, 'before_eos', None, 'zero'),
  (False, 'after_eos', replace_rows, 'zero'),
  (True, 'before', replace_rows, 'shifted'),
]


@pytest.mark.parametrize(('per_layer', 'placement', 'edit', 'kv_bias'), CASES)
def test_a_prefix_of_its_own_stream_is_one_among_the_tokens(per_layer, placement, edit, kv_bias):
  """Logits by teacher forcing and with a cache, and the gradient of everything that is added."""
  theta, (model, variables) = theta_of(kv_bias), bare(per_layer)
  args = (placement, edit, kv_bias or 'zero')
  own_stream, among = (run(theta, variables, model, repeat, *args) for repeat in (False, True))
  b, t = BATCH.encoder_input_tokens.shape
  assert [x.shape[:2] for x in own_stream[3]] == [(1, P), (b, t)]
  assert [x.shape[:2] for x in among[3]] == [(b, P + t)]
  scale = np.abs(among[0]).max()
  np.testing.assert_allclose(own_stream[0], among[0], atol=1e-5 * scale)
  np.testing.assert_allclose(own_stream[2], among[0], atol=1e-5 * scale)
  for name, want in among[1].items():
    scale = np.abs(want).max()
    # Rows that are replaced before the first layer, and edits that nobody makes, change nothing.
    idle = (edit is replace_rows and name == 'rows') or (edit is None and name == 'hidden')
    assert (scale > 0) == (not idle)
    np.testing.assert_allclose(own_stream[1][name], want, atol=1e-5 * scale, err_msg=name)


class Repeated(nn.Module):
  """A method's encoder rows, once for each example."""

  method: nn.Module
  depends_on = frozenset({'tokens'})

  def __call__(self, ctx):
    added = self.method(ctx)
    rows = jnp.repeat(added.encoder.prefix, len(ctx.tokens), axis=0)
    return added.replace(encoder=added.encoder.replace(prefix=rows))


def test_decoding_and_ranking_with_a_prefix_of_its_own_stream():
  rows = normal(5, P, CONFIG.emb_dim)
  labels = jnp.asarray([[5, 1, 0], [9, 4, 1]])

  @functools.partial(compiled, static_argnums=1)
  def infer(variables, model):
    tokens = BATCH.encoder_input_tokens
    ranked = score.rank(model, variables, tokens, labels)
    return ranked, decode.greedy(model, variables, tokens, 6)

  found = []
  method = InputPrompt(P, placement='before_eos', sees_input=False)
  tree = {'encoder': {'prompt': rows}}
  for prompt, params in ((method, tree), (Repeated(method), {'method': tree})):
    bare_model, variables = bare()
    model = PromptedT5(bare_model.backbone, prompt)
    found.append(infer({'params': {**variables['params'], 'prompt': params}}, model))
  np.testing.assert_allclose(found[0][0], found[1][0], atol=1e-5 * np.abs(found[1][0]).max())
  np.testing.assert_array_equal(found[0][1], found[1][1])


@pytest.mark.parametrize('kv_bias', ['zero', 'shifted'])
@pytest.mark.parametrize('placement', PLACEMENTS)
def test_a_prefix_is_input_independent_only_if_all_that_it_sees_is_the_same(placement, kv_bias):
  """Keys at -P..-1 are at another distance from rows behind a longer input."""
  theta = theta_of(kv_bias)
  injection = encoder_injection(theta, False, placement, None, kv_bias)
  assert is_input_independent(injection) == (
    kv_bias == 'zero' or placement in ('before', 'after_bos')
  )
  assert not is_input_independent(injection.replace(sees_input=True))
  assert not is_input_independent(injection.replace(kv=jnp.repeat(injection.kv, 3, axis=2)))
  assert not is_input_independent(injection.replace(prefix=None))


@pytest.mark.parametrize(
  ('field', 'value'),
  [('sees_input', False), ('placement', 'before_eos'), ('placement', 'after_eos')],
)
def test_a_decoder_refuses_a_prefix_that_needs_the_end_of_what_it_writes(field, value):
  """In teacher forcing and in cached decoding, which would otherwise disagree."""
  rows = Injection(prefix=normal(5, 1, P, CONFIG.emb_dim)).replace(**{field: value})
  model, variables = bare()
  apply = functools.partial(model.apply, variables)
  x, y = BATCH.encoder_input_tokens, BATCH.decoder_input_tokens
  encoded = jax.eval_shape(lambda: apply(x, injections=Injections(decoder=rows), method='encode'))
  for method, last in (('decode', y), ('start_cache', TARGETS)):
    with pytest.raises(UserError, match=facts(field, str(value))):
      jax.eval_shape(lambda e, m=method, last=last: apply(e, last, method=m), encoded)
