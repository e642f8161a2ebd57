"""FLOPs that a training step through frozen weights cannot do without."""

import dataclasses
import math
import re

from prompt_jax.checkpoints.check import expected_shapes
from prompt_jax.models.t5.config import T5Config


@dataclasses.dataclass(frozen=True)
class Positions:
  """What a step computes on, padding included, summed over all rows of all devices.

  Attributes:
    encoder: that go through the encoder, and of which cross attention has keys and values.
    decoder: that go through the decoder and become logits.
    encoder_pairs: of a query and a key in one layer of the encoder.
    decoder_pairs: the same in one layer of the decoder, of self and cross attention.
  """

  encoder: float
  decoder: float
  encoder_pairs: float
  decoder_pairs: float


def of_rows(rows: int, inputs: int, targets: int, apart: int = 0, times: int = 1) -> Positions:
  """The positions of rows of one shape.

  Args:
    rows: how many.
    inputs: encoder positions of each, those of prompt rows among them included.
    targets: decoder positions of each.
    apart: prompt rows that do not see the input and stand in no row, but are seen from all.
    times: how often these are computed: once a device and microbatch.
  """
  return Positions(
    encoder=rows * inputs + times * apart,
    decoder=rows * targets,
    encoder_pairs=rows * inputs * (inputs + apart) + times * apart**2,
    decoder_pairs=rows * targets * (targets + inputs + apart),
  )


def train_flops(cfg: T5Config, positions: Positions, weights_train: bool = False) -> float:
  """Forward, and backward to the prompt: 4 a weight and position, 12 a pair and unit of width.

  Where weights train (`weights_train`) it is 2 a weight and position more, and attention has none.
  """
  joined = cfg.num_heads * cfg.head_dim
  products = 0.0
  for path, shape in expected_shapes(cfg).items():
    if not path.endswith('kernel') and not (cfg.tied_logits and path.endswith('embedding')):
      continue
    of_inputs = path.startswith('encoder') or re.search('encoder_decoder.*/(key|value)/', path)
    products += math.prod(shape) * (positions.encoder if of_inputs else positions.decoder)
  pairs = cfg.num_encoder_layers * positions.encoder_pairs
  pairs += cfg.num_decoder_layers * positions.decoder_pairs
  return (6 if weights_train else 4) * products + 12 * pairs * joined
