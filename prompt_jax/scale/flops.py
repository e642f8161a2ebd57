"""The minimum FLOPs of a training step through frozen weights."""

import dataclasses
import math
import re

from prompt_jax.checkpoints.leaf import expected_shapes
from prompt_jax.models.t5.config import T5Config


@dataclasses.dataclass(frozen=True)
class Positions:
  """The positions that a step computes, including padding, over all rows and devices.

  Attributes:
    encoder: positions in the encoder, which are also the keys and values of cross-attention.
    decoder: positions in the decoder, which become logits.
    encoder_pairs: pairs of a query and a key in one encoder layer.
    decoder_pairs: the same in one decoder layer, for self- and cross-attention.
  """

  encoder: float
  decoder: float
  encoder_pairs: float
  decoder_pairs: float


def of_rows(rows: int, inputs: int, targets: int, apart: int = 0, times: int = 1) -> Positions:
  """The positions of rows of one shape.

  Args:
    rows: how many.
    inputs: encoder positions of each, including those of prompt rows.
    targets: decoder positions of each.
    apart: prompt rows that do not see the input: in no row, but all rows attend to them.
    times: how often these are computed: once per device and microbatch.
  """
  return Positions(
    encoder=rows * inputs + times * apart,
    decoder=rows * targets,
    encoder_pairs=rows * inputs * (inputs + apart) + times * apart**2,
    decoder_pairs=rows * targets * (targets + inputs + apart),
  )


def train_flops(cfg: T5Config, positions: Positions, weights_train: bool = False) -> float:
  """Forward, and backward to the prompt: 4 per weight and position, 12 per pair and unit of width.

  If weights are trained (`weights_train`), it is 2 more per weight and position.
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
