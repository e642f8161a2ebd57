"""Heads: logits that a method changes."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import core

from prompt_jax.errors import UserError
from prompt_jax.injections import Dims, Sizes
from prompt_jax.models.t5.t5 import T5
from prompt_jax.prompted import PromptedT5
from prompt_jax.prompts.base import first_values
from prompt_jax.prompts.from_injections import method_of
from prompt_jax.prompts.initialise import initialise, with_labels
from prompt_jax.prompts.initializers import FromArray, LabelPieces, Uniform
from prompt_jax.prompts.methods.input.input_prompt import InputPrompt
from prompt_jax.prompts.methods.input.label_rows import LabelRows
from prompt_jax.prompts.tables import Plain
from prompt_jax.serving.stacked import is_plain
from prompt_jax.testing import tiny
from tests.shared import facts

P, ANSWERS = 3, 4
CONFIG = tiny.config()
H = CONFIG.emb_dim
BATCH, WORDS = tiny.batch(), tiny.Vocabulary()
RNG = np.random.default_rng(0)
ROWS, CHANGE = (RNG.normal(size=s).astype(np.float32) for s in ((P, H), (ANSWERS, H)))
IDS = np.asarray([7, 3, 20, 0], np.int32)


@functools.lru_cache(None)
def backbone():
  init = jax.jit(PromptedT5(T5(CONFIG), None).init)
  return jax.tree.map(np.asarray, init(jax.random.key(0), BATCH)['params']['backbone'])


def logits(method, prompt, weights):
  model = PromptedT5(T5(CONFIG), method)
  variables = {'params': {'backbone': weights, 'prompt': prompt}}
  if isinstance(method, LabelRows):
    variables['constants'] = {'prompt': {'head_ids': IDS}}
  return np.asarray(jax.jit(model.apply)(variables, BATCH)[0])


def test_label_rows_are_columns_of_the_output_matrix():
  method, plain = LabelRows(P, ANSWERS), InputPrompt(P)
  prompt = {'encoder': {'prompt': ROWS}}
  start = {**prompt, 'head_rows': np.zeros((ANSWERS, H), np.float32)}
  before = logits(plain, prompt, backbone())
  np.testing.assert_array_equal(logits(method, start, backbone()), before)
  changed = jax.tree.map(np.array, backbone())
  there = IDS > 0  # a row that no token has does nothing
  changed['decoder']['logits_dense']['kernel'][:, IDS[there]] += CHANGE[there].T / np.sqrt(H)
  want = logits(plain, prompt, changed)
  found = logits(method, {**prompt, 'head_rows': CHANGE}, backbone())
  np.testing.assert_allclose(found, want, atol=2e-5)
  moved = np.abs(found - before).max((0, 1)) > 1e-3
  assert set(np.flatnonzero(moved)) == {3, 7, 20}


def test_the_tokens_are_those_of_the_tasks_labels():
  method = with_labels(LabelRows(P, 5, table=Plain(Uniform())), ['ab', 'cab', 'a'])
  make = lambda m: initialise(m, jax.random.key(0), jnp.ones((64, H)), WORDS, CONFIG.sizes)
  found = make(method)[1]['head_ids']
  np.testing.assert_array_equal(found, [*WORDS.encode('abc'), 0, 0])
  assert found.dtype == np.int32
  own = LabelPieces(['xy'])
  assert with_labels(method.clone(tokens=own), ['a']).tokens == own
  for wrong, says in (
    (method.clone(answers=2), facts('3', '2', 'answers')),
    (method.clone(tokens=LabelPieces()), facts('free text')),
    (method.clone(answers=0), facts('LabelRows.answers', '0')),
  ):
    with pytest.raises(UserError, match=says):
      make(wrong)


def test_what_has_no_place_for_a_head_says_so():
  method = LabelRows(P, ANSWERS, FromArray(IDS), Plain(FromArray(ROWS)))
  found = first_values(method, jax.random.key(0), CONFIG.sizes)[0]
  assert method_of(found) is None
  assert not is_plain(found.decoder)
  assert is_plain(found.encoder)


def test_a_decoder_only_model_has_rows_and_head_in_its_one_stack():
  dims = Dims(L=3, H=H, N=4, D=8, kv_heads=2, F=64)
  sizes = Sizes(core.FrozenDict(decoder=dims), input_stack='decoder')
  method = LabelRows(P, ANSWERS, FromArray(IDS), Plain(FromArray(ROWS)))
  found = first_values(method, jax.random.key(0), sizes)[0]
  np.testing.assert_array_equal(found.decoder.prefix[0], ROWS)
  np.testing.assert_array_equal(found.decoder.head.theta['ids'], IDS)
