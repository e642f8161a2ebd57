"""T5X's names and axes of our parameters; one test compares them with T5X's own T5."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import traverse_util

from prompt_jax.errors import UserError
from prompt_jax.models.t5.t5 import T5
from prompt_jax.prompts.base import PromptMethod
from prompt_jax.prompts.methods.deep.deep_prompt import DeepPrompt
from prompt_jax.prompts.methods.input.adept import ADePT
from prompt_jax.prompts.methods.input.input_prompt import InputPrompt
from prompt_jax.prompts.tables import Mlp
from prompt_jax.t5x.names import from_t5x, is_ours, logical_axes, to_t5x
from prompt_jax.testing import tiny
from tests.shared import facts

ONE = jnp.ones((1, 1), jnp.int32)
NEW = tiny.config()
OLD = dataclasses.replace(NEW, mlp_activations=('relu',), tied_logits=True)


def t5x_config(network, cfg):
  names = {f.name for f in dataclasses.fields(network.T5Config)}
  known = {k: v for k, v in dataclasses.asdict(cfg).items() if k in names}
  return network.T5Config(**known, logits_via_embedding=cfg.tied_logits)


@pytest.mark.parametrize('cfg', [NEW, OLD], ids=['t5_1_1', 't5'])
def test_names_shapes_and_axes_are_those_of_t5x(cfg):
  pytest.importorskip('t5x.version', reason='T5X is not importable: see docs/t5x.md')
  from t5x.examples.t5 import network

  key = jax.random.key(0)
  ours = jax.eval_shape(lambda: to_t5x(None, T5(cfg).init(key, ONE, ONE)['params'], {}, {}))
  transformer = network.Transformer(t5x_config(network, cfg))
  theirs = jax.eval_shape(lambda: transformer.init(key, ONE, ONE, ONE))
  shapes = lambda tree: {k: v.shape for k, v in traverse_util.flatten_dict(tree, sep='/').items()}
  assert shapes(ours) == shapes(theirs['params'])
  axes = lambda tree: {
    k: tuple(v.names) for k, v in traverse_util.flatten_dict(tree, sep='/').items()
  }
  assert axes(logical_axes(ours)) == axes(theirs['params_axes'])


@pytest.mark.parametrize(
  ('method', 'prompt', 'expected'),
  [
    (InputPrompt(3), {'encoder': {'prompt': (3, 4)}}, {'encoder/prompt/prompt/prompt'}),
    (
      InputPrompt(3, decoder=True),
      {'encoder': {'prompt': (3, 4)}, 'decoder': {'prompt': (3, 4)}},
      {'encoder/prompt/prompt/prompt', 'prompt/decoder/prompt'},
    ),
    # The same name, but not the rows themselves.
    (InputPrompt(3, Mlp()), {'encoder': {'prompt': (3, 4)}}, {'prompt/encoder/prompt'}),
    (DeepPrompt(3), {'encoder': {'prompt': (2, 3, 4)}}, {'prompt/encoder/prompt'}),
    (ADePT(3), {'encoder': {'prompt': (3, 4)}}, {'prompt/encoder/prompt'}),
  ],
)
def test_a_prompt_has_the_references_name_where_it_is_the_references_prompt(
  method, prompt, expected
):
  fill = lambda shape: np.random.default_rng(0).normal(size=shape).astype(np.float32)
  prompt = jax.tree.map(fill, prompt, is_leaf=lambda x: isinstance(x, tuple))
  backbone = jax.jit(T5(NEW).init)(jax.random.key(0), ONE, ONE)['params']
  constants = {'mask': np.ones(3, np.float32)}
  tree = to_t5x(method, backbone, prompt, constants)
  flat = traverse_util.flatten_dict(tree, sep='/')
  assert {name for name in flat if is_ours(name)} == {*expected, 'prompt_constants/mask'}
  back = from_t5x(method, tree)
  jax.tree.map(np.testing.assert_array_equal, back, (backbone, prompt, constants))
  axes = traverse_util.flatten_dict(logical_axes(tree), sep='/')
  assert all(set(axes[f'{name}_axes'].names) <= {None} for name in expected)


def test_constants_that_t5x_cannot_hold_are_refused():
  class Counting(PromptMethod):
    pass

  with pytest.raises(UserError, match=facts('Counting', 'seen', 'int32')):
    to_t5x(Counting(), {}, {}, {'seen': jnp.zeros(2, jnp.int32)})


def test_a_parameter_without_axes_is_named():
  with pytest.raises(ValueError, match='encoder/adapter/kernel'):
    logical_axes({'encoder': {'adapter': {'kernel': ONE}}})
