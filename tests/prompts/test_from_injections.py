"""Fixed injections become the method that injects them; what no method injects becomes none."""

import jax
import numpy as np
import pytest

from prompt_jax.injections import Injection, Injections, LayerEdit
from prompt_jax.prompts import tables
from prompt_jax.prompts.base import first_values, materialise
from prompt_jax.prompts.from_injections import method_of
from prompt_jax.prompts.initializers import Normal
from prompt_jax.prompts.methods.input.input_prompt import InputPrompt
from prompt_jax.prompts.methods.prefix.prefix_tuning import PrefixTuning
from prompt_jax.testing import tiny

SIZES = tiny.config().sizes
TABLE = tables.Plain(Normal())
ROWS = Injection(prefix=np.ones((1, 2, 32), np.float32))


@pytest.mark.parametrize(
  'method',
  [
    InputPrompt(3, TABLE, placement='after_eos', sees_input=False),
    InputPrompt(3, TABLE, seen_by='none'),
    InputPrompt(3, TABLE, decoder=True, decoder_placement='after_bos'),
    InputPrompt(3, TABLE, encoder=False, decoder=True),
    PrefixTuning(3, TABLE),
    PrefixTuning(3, TABLE, encoder=False, cross=False, kv_bias='shifted'),
  ],
)
def test_a_method_made_of_injections_injects_them(method):
  injections, variables = first_values(method, jax.random.key(0), SIZES)
  made, params = method_of(injections)
  assert made == method.clone(table=tables.Plain())
  jax.tree.map(np.testing.assert_array_equal, params, variables['params'])
  jax.tree.map(np.testing.assert_array_equal, materialise(made, params, {}, SIZES), injections)


@pytest.mark.parametrize(
  'injections',
  [
    Injections(),
    Injections(encoder=Injection(delta=np.ones((1, 2, 32)))),
    Injections(encoder=ROWS.replace(hidden=LayerEdit(np.ones(2), lambda theta, x, layout: x))),
    Injections(encoder=ROWS.replace(first_layer=1)),
    Injections(encoder=ROWS, decoder=Injection(kv=np.ones((2, 2, 1, 3, 3, 8)))),
    Injections(encoder=ROWS, decoder=Injection(prefix=np.ones((1, 3, 32)))),
  ],
)
def test_what_no_method_injects_is_none(injections):
  assert method_of(injections) is None
