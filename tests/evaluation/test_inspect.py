"""What `inspect` computes, against its formulas."""

import jax
import numpy as np
import pytest

from prompt_jax.evaluation import inspect
from prompt_jax.prompts.initialise import initialise
from prompt_jax.prompts.methods.deep.deep_prompt import DeepPrompt
from prompt_jax.prompts.methods.deep.late_prompt import LatePrompt
from prompt_jax.prompts.methods.input.input_prompt import InputPrompt
from prompt_jax.prompts.methods.inside.lora import LoRA
from prompt_jax.prompts.methods.multitask.mpt import MPT
from prompt_jax.prompts.methods.prefix.prefix_tuning import PrefixTuning
from prompt_jax.testing import tiny

CFG = tiny.config()
EMBEDDING = np.random.default_rng(0).normal(size=(CFG.vocab_size, CFG.emb_dim)).astype(np.float32)


def blocks_of(method):
  params, constants = initialise(method, jax.random.key(0), EMBEDDING, tiny.Vocabulary(), CFG.sizes)
  return params, inspect.blocks(method, params, constants, CFG.sizes)


def test_an_input_prompt_is_one_block_with_its_own_numbers():
  params, (block,) = blocks_of(InputPrompt(length=5))
  assert (block.name, block.in_vocabulary_space) == ('encoder rows', True)
  np.testing.assert_array_equal(block.rows, params['encoder']['prompt'])


def test_deep_prompts_have_a_block_a_layer():
  params, found = blocks_of(DeepPrompt(length=3))
  layers = [b for b in found if 'layer' in b.name]
  assert len(layers) == CFG.num_encoder_layers
  np.testing.assert_array_equal(layers[1].rows, params['encoder']['prompt'][1])
  assert not layers[1].in_vocabulary_space


def test_late_rows_are_shown_once_and_not_compared_with_tokens():
  params, (block,) = blocks_of(LatePrompt(length=3))
  np.testing.assert_array_equal(block.rows, params['encoder']['prompt'])
  assert not block.in_vocabulary_space


def test_a_method_of_tasks_has_blocks_of_each():
  method = MPT(tasks=2, length=3)
  params, constants = initialise(method, jax.random.key(0), EMBEDDING, tiny.Vocabulary(), CFG.sizes)
  params['rows'] = params['rows'].at[1].set(2.0)
  one, two = (
    inspect.blocks(method, params, constants, CFG.sizes, number)[0].rows for number in (0, 1)
  )
  np.testing.assert_allclose(two, 2 * one, rtol=1e-6)


def test_prefix_tuning_has_keys_and_values_of_every_attention():
  _, found = blocks_of(PrefixTuning(length=4))
  width = CFG.num_heads * CFG.head_dim
  assert len(found) == 2 * (CFG.num_encoder_layers + 2 * CFG.num_decoder_layers)
  assert {b.rows.shape for b in found} == {(4, width)}
  assert {b.name for b in found} >= {'encoder layer 0 keys', 'cross layer 1 values'}


def test_edits_of_layers_have_a_row_a_layer():
  params, found = blocks_of(LoRA(rank=2, points=('value',)))
  assert [b.name for b in found] == [
    f'{stack} value {i}' for stack in ('encoder', 'decoder', 'cross') for i in (0, 1)
  ]
  down = params['encoder_value_down']
  np.testing.assert_array_equal(found[0].rows, down.reshape(len(down), -1))


def test_effective_rank_counts_directions():
  assert inspect.effective_rank(np.eye(6)) == pytest.approx(6)
  assert inspect.effective_rank(np.outer([1, 2, 3], [1.0, 1.0])) == pytest.approx(1, abs=1e-4)
  assert inspect.effective_rank(np.zeros((3, 4))) == 0
  two = np.diag([3.0, 1.0])  # singular values 3/4 and 1/4 of the whole
  p = np.array([0.75, 0.25])
  assert inspect.effective_rank(two) == pytest.approx(np.exp(-(p * np.log(p)).sum()))


def test_nearest_is_by_angle_not_by_length():
  rows = np.array([[0.1, 0.0], [0.0, -9.0]], np.float32)
  embedding = np.array([[5.0, 5.0], [100.0, 1.0], [0.0, -1.0]], np.float32)
  ids, similarity = inspect.nearest(rows, embedding, 2)
  assert ids.tolist() == [[1, 0], [2, 1]]
  np.testing.assert_allclose(similarity[0], [100 / np.hypot(100, 1), np.sqrt(0.5)], rtol=1e-6)


def test_plot_writes_a_png(tmp_path):
  _, found = blocks_of(InputPrompt(length=5))
  inspect.plot(found, 1.0, tmp_path / 'p.png')
  assert (tmp_path / 'p.png').read_bytes().startswith(b'\x89PNG')
