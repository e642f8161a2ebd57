"""A model folder and a labelled file, small enough to train on in a test."""

import jax
import jax.numpy as jnp
import pytest

from prompt_jax.batch import Batch
from prompt_jax.checkpoints.backbone import save_backbone
from prompt_jax.data.vocabulary import ByteVocabulary
from prompt_jax.models.t5.config import T5Config
from prompt_jax.models.t5.t5 import T5
from prompt_jax.prompted import PromptedT5

GOOD, BAD = ('good', 'great', 'fine'), ('bad', 'awful', 'poor')


@pytest.fixture(scope='session')
def model(tmp_path_factory) -> str:
  """A folder with a random byte-level model."""
  cfg = T5Config(384, 32, 2, 8, 1, 1, 48)
  tokens = jnp.ones((1, 2), jnp.int32)
  batch = Batch(tokens, tokens, tokens, jnp.ones((1, 2)))
  params = PromptedT5(T5(cfg)).init(jax.random.key(0), batch)['params']['backbone']
  folder = tmp_path_factory.mktemp('model') / 'bytes'
  save_backbone(folder, name='bytes', config=cfg, params=params, vocabulary=ByteVocabulary())
  return str(folder)


@pytest.fixture(scope='session')
def reviews(tmp_path_factory) -> str:
  """60 rows, half of them good and half bad."""
  rows = [f'it was {(GOOD, BAD)[i % 2][i % 3]} no {i}\t{("good", "bad")[i % 2]}' for i in range(60)]
  path = tmp_path_factory.mktemp('data') / 'reviews.tsv'
  path.write_text('text\tlabel\n' + '\n'.join(rows) + '\n', encoding='utf-8')
  return str(path)


@pytest.fixture(scope='session')
def sizes() -> list[str]:
  """Flags that keep a training run small."""
  # One width for all rows, so that each step compiles once.
  return ['--batch_size=8', '--input_length=16', '--target_length=6']


@pytest.fixture
def sweep(model, reviews, tmp_path):
  """Writes a sweep's file, and gives its name; FIXED keeps every run small."""

  def write(lists, without=(), **fixed):
    fixed = {
      'DATA': reviews, 'BATCH_SIZE': 8, 'INPUT_LENGTH': 16, 'TARGET_LENGTH': 6, 'STEPS': 2,
      'EVAL_EVERY': 0, **fixed,
    }  # fmt: skip
    fixed = {name: value for name, value in fixed.items() if name not in without}
    path = tmp_path / 'sweep.gin'
    head = f"MODELS = ['{model}']\nOUTPUT = '{tmp_path}/out'\nPLAN = False\n"
    path.write_text(f'{head}FIXED = {fixed!r}\n{lists}\n')
    return str(path)

  return write
