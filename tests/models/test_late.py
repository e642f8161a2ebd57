"""Rows and keys that tokens see from a layer on."""

import dataclasses
import functools

import jax
import numpy as np
import pytest

from prompt_jax.errors import UserError
from prompt_jax.injections import Injection, Injections
from prompt_jax.models.t5.t5 import T5
from prompt_jax.prompted import PromptedT5
from prompt_jax.prompts.base import first_values
from prompt_jax.prompts.initializers import FromArray
from prompt_jax.prompts.methods.deep.deep_prompt import DeepPrompt
from prompt_jax.prompts.methods.deep.late_prompt import LatePrompt
from prompt_jax.prompts.methods.input.input_prompt import InputPrompt
from prompt_jax.prompts.tables import Plain
from prompt_jax.testing import tiny
from tests.shared import facts

CONFIG = dataclasses.replace(tiny.config(), num_encoder_layers=4)
L, H, N, D, _, _ = CONFIG.sizes.stacks['encoder']
BATCH = tiny.batch()
P = 3
RNG = np.random.default_rng(0)
ROWS = RNG.normal(size=(P, H)).astype(np.float32)


@functools.lru_cache(None)
def backbone():
  init = jax.jit(PromptedT5(T5(CONFIG), None).init)
  return init(jax.random.key(0), BATCH)['params']['backbone']


def states(injections, layers=slice(None)):
  """Of the tokens, behind some layers of the encoder, without the norm's scale of rows."""
  tree = dict(backbone())
  own = jax.tree.map(lambda x: x[layers], tree['encoder']['layers'])
  count = jax.tree.leaves(own)[0].shape[0]
  tree['encoder'] = {**tree['encoder'], 'layers': own}
  model = PromptedT5(T5(dataclasses.replace(CONFIG, num_encoder_layers=count)), None)
  encode = lambda m: m.encode(BATCH.encoder_input_tokens, injections=injections).states
  return np.asarray(model.apply({'params': {'backbone': tree}}, method=encode))


def injected(method):
  return first_values(method, jax.random.key(0), CONFIG.sizes)[0]


def late(layer, **more):
  return injected(LatePrompt(P, layer, Plain(FromArray(ROWS)), **more))


def test_from_the_first_layer_it_is_an_input_prompt():
  plain = injected(InputPrompt(P, Plain(FromArray(ROWS))))
  np.testing.assert_allclose(states(late(0)), states(plain), atol=1e-5)


def test_the_rows_below_are_of_no_effect():
  """Other rows enter the first layers: those that replace them are what is seen."""
  found = late(2)
  other = dataclasses.replace(found.encoder, prefix=found.encoder.prefix * 5 + 1)
  np.testing.assert_allclose(
    states(Injections(encoder=other))[:, P:], states(found)[:, P:], atol=1e-5
  )
  assert np.abs(states(found)[:, P:] - states(Injections())).max() > 1e-2


def test_below_the_layer_the_input_is_alone():
  """Tokens of a model that ends below layer m have the bare states; one layer on they have not."""
  found = late(2)

  def of_first(n):
    theta = jax.tree.map(lambda x: x[:n], found.encoder.hidden.theta)
    edit = dataclasses.replace(found.encoder.hidden, theta=theta)
    cut = dataclasses.replace(found.encoder, hidden=edit)
    there = np.asarray(BATCH.encoder_input_tokens > 0)
    own, bare = (states(x, slice(0, n)) for x in (Injections(encoder=cut), Injections()))
    return np.abs(own[:, P:] - bare)[there].max()

  assert of_first(2) < 1e-5
  assert of_first(3) > 1e-2


def test_deep_rows_from_a_layer_are_late_ones_that_go_on():
  """Rows of every layer that are replaced in each differ from late ones only above the first."""
  deep = injected(DeepPrompt(P, Plain(FromArray(np.stack([ROWS] * L)))))
  one = dataclasses.replace(deep.encoder, first_layer=L - 1)
  np.testing.assert_allclose(
    states(Injections(encoder=one))[:, P:], states(late(L - 1))[:, P:], atol=1e-5
  )


def test_keys_from_a_layer_on_are_unseen_below():
  kv = RNG.normal(size=(L, 2, 1, P, N, D)).astype(np.float32)
  found = Injections(encoder=Injection(kv=kv, first_layer=2))
  other = np.concatenate([kv[:2] * 7 + 1, kv[2:]])
  again = Injections(encoder=Injection(kv=other, first_layer=2))
  np.testing.assert_allclose(states(found), states(again), atol=1e-5)
  assert np.abs(states(found) - states(Injections())).max() > 1e-2
  np.testing.assert_allclose(
    states(Injections(encoder=Injection(kv=kv[:2], first_layer=2)), slice(0, 2)),
    states(Injections(), slice(0, 2)),
    atol=1e-5,
  )


@pytest.mark.parametrize(
  ('layer', 'says'), [(4, facts('LatePrompt.layer', '4', '3')), (-1, facts('-1'))]
)
def test_a_layer_that_is_not_there_is_named(layer, says):
  with pytest.raises(UserError, match=says):
    late(layer)
