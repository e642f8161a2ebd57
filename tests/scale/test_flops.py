"""FLOPs by hand for a small model, and what packing and shared prompts leave out."""

import pytest

from prompt_jax.models.t5.config import T5Config
from prompt_jax.scale.flops import Positions, of_rows, train_flops

# V 100, H 8, 2 heads of 3, 4 and 5 layers, F 16.
CONFIG = T5Config(100, 8, 2, 3, 4, 5, 16)


def test_weights_times_positions_and_pairs_of_attention():
  """Attention has 4 matrices of 8 x 6, the gated MLP 3 of 8 x 16, the logits one of 8 x 100."""
  found = train_flops(CONFIG, Positions(encoder=7, decoder=3, encoder_pairs=11, decoder_pairs=13))
  encoder = 4 * (4 * 48 + 3 * 128) + 5 * 2 * 48  # and the keys and values of cross attention
  decoder = 5 * (4 * 48 + 2 * 48 + 3 * 128) + 800
  assert found == 4 * (7 * encoder + 3 * decoder) + 12 * 6 * (4 * 11 + 5 * 13)


def test_positions_of_rows():
  assert of_rows(2, 10, 3) == Positions(20, 6, 200, 2 * 3 * 13)
  # A prompt of 4 rows apart, computed once for all, or once on each of 2 devices.
  assert of_rows(2, 10, 3, apart=4) == Positions(24, 6, 2 * 10 * 14 + 16, 2 * 3 * 17)
  assert of_rows(2, 10, 3, apart=4, times=2) == Positions(28, 6, 2 * 10 * 14 + 32, 2 * 3 * 17)


@pytest.mark.parametrize('examples', [1, 32])
def test_a_prompt_apart_costs_what_it_costs_among_one_row(examples):
  """But for what it does not look at, the input; with more rows it costs that once."""
  among, apart = of_rows(examples, 14, 3), of_rows(examples, 10, 3, apart=4)
  assert among.encoder - apart.encoder == 4 * (examples - 1)
  assert among.encoder_pairs - apart.encoder_pairs == examples * 4 * 14 - 4 * 4
  assert among.decoder_pairs == apart.decoder_pairs
