"""One token at a time through the cache gives the logits of teacher forcing."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference_models import normal, reference, tokens

from prompt_jax.injections import Injection, Injections, LayerEdit

B, U = 3, 6


def shift(theta, x, layout):
  return x + 0.1 * theta[None, None]


def injections(cfg, kv_bias: str, placement: str) -> Injections:
  """Something at every point of the contract that decoding touches."""
  L, H, N, D, _, _ = cfg.sizes.stacks['decoder']
  return Injections(
    encoder=Injection(
      prefix=normal(1, B, 2, H), kv=normal(2, cfg.num_encoder_layers, 2, 1, 3, N, D)
    ),
    decoder=Injection(
      prefix=normal(3, 1, 4, H),
      kv=normal(4, L, 2, B, 3, N, D),
      hidden=LayerEdit(normal(6, L, H), shift),
      placement=placement,
      kv_bias=kv_bias,
    ),
    cross=Injection(kv=normal(5, L, 2, 1, 2, N, D)),
  )


@functools.cache
def both_ways(variant: str):
  """A compiled function of injections: logits by teacher forcing and by the cache."""
  ref = reference(variant)
  model = ref.model()
  inputs = tokens(7, (9, 5, 2), ref.cfg.vocab_size)
  targets = tokens(8, (U,) * B, ref.cfg.vocab_size, eos=False)
  targets[:, 0] = 0

  def run(params, added):
    apply = functools.partial(model.apply, {'params': {'backbone': params}})
    encoded = apply(inputs, injections=added, method='encode')
    forced = apply(encoded, jnp.asarray(targets), method='decode')
    first, cache = apply(encoded, U, method='start_cache')

    def step(cache, token):
      logits, cache = apply(encoded, token, cache, method='decode_step')
      return cache, logits

    _, rest = jax.lax.scan(step, cache, jnp.asarray(targets.T[1:]))
    return forced, jnp.concatenate([first[None], rest]).swapaxes(0, 1)

  return functools.partial(jax.jit(run), ref.params)


@pytest.mark.parametrize(
  ('variant', 'kv_bias', 'placement'),
  [
    ('t5_1_1', 'zero', 'before'),
    ('t5_1_1', 'shifted', 'after_bos'),
    ('t5', 'shifted', 'before'),
    ('mt5', 'zero', 'after_bos'),
    ('umt5', 'zero', 'before'),
    ('umt5', 'shifted', 'after_bos'),
  ],
)
def test_cache_equals_teacher_forcing(variant, kv_bias, placement):
  cfg = reference(variant).cfg
  forced, cached = both_ways(variant)(injections(cfg, kv_bias, placement))
  assert forced.shape == (B, U, cfg.vocab_size)
  np.testing.assert_allclose(cached, forced, atol=1e-5)


@pytest.mark.parametrize('what', ['prefix', 'kv', 'hidden', 'cross', 'encoder'])
def test_every_injection_reaches_the_logits(what):
  """Otherwise the two ways could agree by ignoring it."""
  added = injections(reference('t5_1_1').cfg, 'zero', 'before')
  double = functools.partial(jax.tree.map, lambda x: 2 * x)
  changed = {
    'prefix': lambda: added.replace(decoder=added.decoder.replace(prefix=2 * added.decoder.prefix)),
    'kv': lambda: added.replace(decoder=added.decoder.replace(kv=2 * added.decoder.kv)),
    'hidden': lambda: added.replace(
      decoder=added.decoder.replace(hidden=double(added.decoder.hidden))
    ),
    'cross': lambda: added.replace(cross=double(added.cross)),
    'encoder': lambda: added.replace(encoder=double(added.encoder)),
  }[what]()
  before, after = (both_ways('t5_1_1')(x)[0] for x in (added, changed))
  assert np.abs(before - after).max() > 1e-2
