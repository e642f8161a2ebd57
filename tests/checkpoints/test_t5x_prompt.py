"""A prompt out of a whole checkpoint of T5X, in every form; what is said where there is none."""

import shutil

import numpy as np
import pytest
import tensorstore
from flax import serialization, traverse_util

from prompt_jax.checkpoints.tree import unstack_layers
from prompt_jax.errors import UserError
from prompt_jax.prompt_formats.t5x_prompt import read_t5x
from prompt_jax.testing.tiny import random_params
from tests.checkpoints.t5x_forms import FORMS, STEP, one_file
from tests.checkpoints.test_huggingface import CONFIGS
from tests.shared import facts

ROWS = np.random.default_rng(1).normal(size=(5, 8)).astype(np.float32)
NAME = 'encoder/prompt/prompt/prompt'


def tree(**prompts) -> dict:
  """A model's parameters with others between them, by path."""
  flat = traverse_util.flatten_dict(unstack_layers(random_params(CONFIGS['t5_1_1'])), sep='/')
  return traverse_util.unflatten_dict({**flat, **prompts}, sep='/')


@pytest.mark.parametrize('form', FORMS)
def test_the_rows_come_out_bit_for_bit(form, tmp_path):
  folder = tmp_path / f'checkpoint_{STEP}'
  FORMS[form](folder, tree(**{NAME: ROWS}))
  for place in (folder, tmp_path):
    found = read_t5x(str(place))
    assert found.prompt.values.tobytes() == ROWS.tobytes()
    assert found.prompt.placement == 'before'
    assert found.step == STEP
    assert found.form == f'T5X, {form}'
    assert found.path == f'{folder}: {NAME}'


@pytest.mark.parametrize('form', ['msgpack and zarr', 'Orbax with a msgpack file'])
def test_the_model_beside_it_is_not_even_opened(form, tmp_path):
  folder = tmp_path / 'checkpoint_7'
  FORMS[form](folder, tree(**{NAME: ROWS}))
  arrays = [p for p in folder.rglob('target.*') if 'prompt' not in p.name]
  assert len(arrays) > 20
  for path in arrays:
    shutil.rmtree(path)
  np.testing.assert_array_equal(read_t5x(str(folder)).prompt.values, ROWS)


def test_of_an_orbax_database_only_the_prompt_is_opened(tmp_path, monkeypatch):
  FORMS['Orbax'](tmp_path / 'checkpoint_7', tree(**{NAME: ROWS}))
  opened = []
  right = tensorstore.open

  def spy(spec, **kwargs):
    opened.append(spec['kvstore']['path'])
    return right(spec, **kwargs)

  monkeypatch.setattr(tensorstore, 'open', spy)
  read_t5x(str(tmp_path))
  assert sorted(opened) == ['state.step/', f'target.{NAME.replace("/", ".")}/']


@pytest.mark.parametrize('form', FORMS)
def test_a_model_without_a_prompt(form, tmp_path):
  FORMS[form](tmp_path / 'checkpoint_7', tree())
  with pytest.raises(UserError, match='prompt') as e:
    read_t5x(str(tmp_path))
  assert 'decoder/decoder_norm/scale [8]' in str(e.value)
  assert NAME in str(e.value)
  assert '\n' not in str(e.value)


@pytest.mark.parametrize(
  ('prompts', 'words'),
  [
    # The trainer inside T5X has another method's parameters here, and no place for its settings.
    ({'prompt/encoder/prompt': (2, 3, 4)}, r'prompts/checkpoint_7\.safetensors'),
    # Rows of the encoder are not the whole of a prompt that has some of the decoder.
    ({NAME: (5, 8), 'prompt/decoder/prompt': (5, 8)}, facts('prompt/decoder/prompt', '[5, 8]')),
    ({'encoder/layers_0/prompt/prompt/prompt': (5, 8)}, 'every layer'),
    ({'encoder/prompt/prompt/shared_prompt': (5, 8)}, 'tasks'),
  ],
)
def test_other_prompts_are_named(prompts, words, tmp_path):
  arrays = {path: np.ones(shape, np.float32) for path, shape in prompts.items()}
  one_file(tmp_path / 'checkpoint_7', tree(**arrays))
  with pytest.raises(UserError, match=words) as e:
    read_t5x(str(tmp_path / 'checkpoint_7'))
  for path, shape in prompts.items():
    assert f'{path} {list(shape)}' in str(e.value)
  assert 'token_embedder' not in str(e.value)


def test_damage(tmp_path):
  folder = tmp_path / 'checkpoint_7'
  FORMS['msgpack and zarr'](folder, tree(**{NAME: np.full((5, 8), np.nan, np.float32)}))
  with pytest.raises(UserError, match=facts('prompt/prompt', 'NaN')):
    read_t5x(str(folder))
  (folder / 'target.encoder.prompt.prompt.prompt/0.0').unlink()
  with pytest.raises(UserError, match=facts('1 of 1', 'chunks')):
    read_t5x(str(folder))
  one_file(tmp_path / 'wide/checkpoint_7', tree(**{NAME: np.ones((2, 3, 4), np.float32)}))
  with pytest.raises(UserError, match=facts('[2, 3, 4]', '[any, any]')):
    read_t5x(str(tmp_path / 'wide'))
  (tmp_path / 'checkpoint').write_bytes(serialization.msgpack_serialize({'model': {}}))
  with pytest.raises(UserError, match=r"\['model'\]"):
    read_t5x(str(tmp_path / 'checkpoint'))
