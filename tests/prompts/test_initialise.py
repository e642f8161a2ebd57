"""From a method with initialisers to its first parameters, and the warning about their scale."""

import warnings

import jax
import numpy as np
import pytest

from prompt_jax.errors import UserError
from prompt_jax.models.t5.t5 import T5
from prompt_jax.prompted import PromptedT5
from prompt_jax.prompts import initializers as ini
from prompt_jax.prompts import tables
from prompt_jax.prompts.base import PromptMethod, first_values, materialise, placeholder
from prompt_jax.prompts.initialise import initialise, initialise_prompt
from prompt_jax.prompts.methods.deep.deep_prompt import DeepPrompt
from prompt_jax.prompts.methods.input.input_prompt import InputPrompt
from prompt_jax.prompts.methods.prefix.prefix_tuning import PrefixTuning
from prompt_jax.testing import tiny
from tests.shared import facts

CONFIG = tiny.config()
H = CONFIG.emb_dim
TABLE = np.random.default_rng(0).normal(size=(64, H)).astype(np.float32)
SIZES = CONFIG.sizes
WORDS = ini.SampledVocabulary(40)


def start(method, table=TABLE, vocabulary=None, seed=0):
  vocabulary = vocabulary or tiny.Vocabulary()
  return initialise(method, jax.random.key(seed), table, vocabulary, SIZES)


def no_warning(method, **kwargs):
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    return start(method, **kwargs)


def test_the_table_and_vocabulary_reach_initialisers_inside_tables_inside_tables():
  words = ini.ClassLabels(('ab', 'c'), fallback=WORDS)
  method = InputPrompt(4, tables.Residual(base=tables.Plain(words), bottleneck=3))
  params, constants = no_warning(method)
  assert constants == {}
  rows = params['encoder']['base']['prompt']
  ids = tiny.Vocabulary().encode('abc')
  want = np.stack([TABLE[ids[:2]].mean(0), TABLE[ids[2]]])
  np.testing.assert_allclose(rows[:2], want, rtol=1e-6)
  # The tree has the names that the unbound method reads.
  method.apply({'params': params}, placeholder(method, SIZES))


def test_a_key_gives_one_prompt_and_stacks_differ():
  method = DeepPrompt(3, tables.Plain(WORDS), decoder=True)
  one, same, other = start(method), start(method), start(method, seed=1)
  jax.tree.map(np.testing.assert_array_equal, one, same)
  assert not np.array_equal(one[0]['encoder']['prompt'], other[0]['encoder']['prompt'])
  assert not np.array_equal(one[0]['encoder']['prompt'], one[0]['decoder']['prompt'])


def test_a_model_is_initialised_like_its_method():
  method = InputPrompt(3, tables.Plain(WORDS))
  key = jax.random.key(0)
  got = initialise_prompt(PromptedT5(T5(CONFIG), method), key, TABLE, tiny.Vocabulary())
  jax.tree.map(np.testing.assert_array_equal, got, start(method))
  assert initialise_prompt(PromptedT5(T5(CONFIG), None), key, TABLE, None) == ({}, {})


def test_without_the_table_an_initialiser_that_reads_it_says_so():
  with pytest.raises(UserError, match='initialise_prompt'):
    first_values(InputPrompt(3, tables.Plain(WORDS)), jax.random.key(0), SIZES)
  with pytest.raises(UserError, match=facts('32', '24')):
    start(PrefixTuning(3, tables.Plain(WORDS)))


@pytest.mark.parametrize(
  ('scale', 'warns'), [(0.19, True), (0.21, False), (4.9, False), (5.1, True)]
)
def test_rows_far_from_the_length_of_embeddings_warn_with_both_numbers(scale, warns):
  unit = TABLE / np.linalg.norm(TABLE, axis=-1, keepdims=True)
  method = InputPrompt(3, tables.Plain(ini.FromArray(scale * unit[:3])))
  if not warns:
    no_warning(method, table=unit)
    return
  with pytest.warns(UserWarning, match=facts('encoder', scale, '1')):
    start(method, table=unit)


def test_the_warning_covers_the_decoder_and_leaves_out_padding_rows_and_keys():
  unit = TABLE / np.linalg.norm(TABLE, axis=-1, keepdims=True)
  small = tables.Plain(ini.FromArray(0.1 * unit[:3]))
  with pytest.warns(UserWarning, match='decoder'):
    start(InputPrompt(3, small, encoder=False, decoder=True), table=unit)
  padded = unit.copy()
  padded[tiny.Vocabulary.size :] = 1e6  # rows that only pad the table
  no_warning(InputPrompt(3, tables.Plain(WORDS)), table=padded)
  no_warning(PrefixTuning(3, tables.Plain(ini.Zeros())))  # keys are no embeddings


def test_materialise_refuses_a_method_that_reads_its_input():
  class Reader(PromptMethod):
    depends_on = frozenset({'pooled', 'task_id'})

  with pytest.raises(UserError, match=facts('Reader', 'pooled')):
    materialise(Reader(), {}, {}, SIZES)
  method = InputPrompt(3, tables.LowRank(2, WORDS))
  params, constants = start(method)
  prefix = materialise(method, params, constants, SIZES).encoder.prefix
  np.testing.assert_allclose(
    prefix[0], params['encoder']['left'] @ params['encoder']['right'], rtol=1e-5
  )
