"""What a layer keeps between its forward and backward passes."""

import dataclasses
import math

import jax
import jax.numpy as jnp
import pytest
from reference_models import Rows, batch, reference, tokens

from prompt_jax.models.t5.t5 import T5
from prompt_jax.prompted import PromptedT5

B, T, P = 2, 11, 5
S = T + P


def scans(jaxpr):
  """Every scan of a jaxpr, in order of appearance."""
  for eqn in jaxpr.eqns:
    if eqn.primitive.name == 'scan':
      yield eqn
    for value in eqn.params.values():
      if hasattr(value, 'jaxpr'):
        yield from scans(value.jaxpr)


@pytest.mark.parametrize('dtype', ['float32', 'bfloat16'])
def test_encoder_layers_keep_what_the_backward_pass_of_frozen_weights_needs(dtype):
  """q, k, v, both residuals and the two inputs of the gate; in float32 the attention weights."""
  ref = reference('t5_1_1')
  cfg = dataclasses.replace(ref.cfg, dtype=dtype)
  model = PromptedT5(T5(cfg), Rows(P))
  example = batch(tokens(0, (T, 4), 96), tokens(1, (3, 3), 96, eos=False))

  def loss(rows):
    variables = {'params': {'backbone': ref.params, 'prompt': {'rows': rows}}}
    return jnp.sum(model.apply(variables, example)[0])

  forward = next(scans(jax.make_jaxpr(jax.grad(loss))(jnp.ones((P, cfg.emb_dim))).jaxpr))
  kept = [v.aval for v in forward.outvars[forward.params['num_carry'] :]]
  size = sum(math.prod(x.shape) for x in kept if x.ndim > 2)
  h, joined, f = cfg.emb_dim, cfg.num_heads * cfg.head_dim, cfg.mlp_dim
  weights = cfg.num_heads * S * S if dtype == 'float32' else 0
  want = S * (2 * h + 3 * joined + 2 * f) + weights
  assert size == cfg.num_encoder_layers * B * want
