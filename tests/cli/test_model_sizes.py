"""Every gin/models file is a published architecture: the parameter totals say so."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from gin import config as gin_config

from prompt_jax.batch import Batch
from prompt_jax.configuration import run_files
from prompt_jax.models.t5.config import T5Config
from prompt_jax.models.t5.t5 import T5
from prompt_jax.prompted import PromptedT5

# Totals of Lester et al. 2021 (table 4 less the prompt) for T5 1.1 and of T5X's network for mT5.
# T5 1.0, ByT5 and umT5: counted by hand from the published sizes (`by_hand` below).
PUBLISHED = {
  't5_1_1/small': 76_961_152,
  't5_1_1/base': 247_577_856,
  't5_1_1/large': 783_150_080,
  't5_1_1/xl': 2_849_757_184,
  't5_1_1/xxl': 11_135_332_352,
  'mt5/small': 300_176_768,
  'mt5/base': 582_401_280,
  'mt5/large': 1_229_581_312,
  'mt5/xl': 3_742_619_648,
  'mt5/xxl': 12_921_057_280,
  # Hugging Face's counts of the released checkpoints.
  't5/small': 60_506_624,
  't5/base': 222_903_552,
  't5/large': 737_668_096,
}


def architecture(name: str) -> T5Config:
  gin_config.clear_config()
  gin_config.parse_config_file(str(run_files.folder() / 'models' / f'{name}.gin'))
  return gin_config.query_parameter('ARCHITECTURE/gin.macro.value').scoped_configurable_fn()


def total(cfg: T5Config) -> int:
  tokens = jnp.zeros((1, 2), jnp.int32)
  batch = Batch(tokens, tokens, tokens, jnp.ones((1, 2)))
  shapes = jax.eval_shape(PromptedT5(T5(cfg)).init, jax.random.key(0), batch)
  return sum(int(np.prod(x.shape)) for x in jax.tree.leaves(shapes['params']))


def by_hand(cfg: T5Config) -> int:
  h, nd, f = cfg.emb_dim, cfg.num_heads * cfg.head_dim, cfg.mlp_dim
  le, ld = cfg.num_encoder_layers, cfg.num_decoder_layers
  attention, mlp = 4 * h * nd, (len(cfg.mlp_activations) + 1) * h * f
  tables = (le + ld if cfg.relpos_per_layer else 2) * 32 * cfg.num_heads
  embeddings = cfg.vocab_size * h * (1 if cfg.tied_logits else 2)
  layers = le * (attention + mlp + 2 * h) + ld * (2 * attention + mlp + 3 * h)
  return embeddings + layers + tables + 2 * h


@pytest.mark.parametrize('name', run_files.names('models'))
def test_totals(name):
  cfg = architecture(name)
  assert total(cfg) == PUBLISHED.get(name, by_hand(cfg))


def test_every_published_total_has_a_file():
  assert set(run_files.names('models')) > set(PUBLISHED)
