"""The architecture of a T5-family model, as data."""

import dataclasses
from collections.abc import Collection, Iterable
from typing import Any

from flax import core

from prompt_jax.errors import UserError
from prompt_jax.injections import Dims, Sizes

DTYPES = ('float32', 'bfloat16')
ATTENTION = ('plain', 'fused', 'cudnn')
MOST_LAYERS = 1000
_SIZES = (
  'vocab_size', 'emb_dim', 'num_heads', 'head_dim', 'num_encoder_layers', 'num_decoder_layers',
  'mlp_dim', 'relpos_buckets', 'relpos_max_distance', 'unroll',
)  # fmt: skip


def check_whole(config: Any, names: Iterable[str]) -> None:
  """Refuses fields that are no whole number of at least 1."""
  for name in names:
    value = getattr(config, name)
    if isinstance(value, bool) or not isinstance(value, int) or value < 1:
      raise UserError(f'{name} is {value!r}; expected a whole number of at least 1.')


def check_truth(config: Any, names: Iterable[str]) -> None:
  """Refuses fields that are neither True nor False."""
  for name in names:
    if not isinstance(getattr(config, name), bool):
      raise UserError(f'{name} is {getattr(config, name)!r}; expected True or False.')


def check_known(config: Any, **known: Collection[str]) -> None:
  """Refuses fields that are none of their known values."""
  for name, values in known.items():
    if getattr(config, name) not in values:
      raise UserError(f'{name} is {getattr(config, name)!r}; expected {" or ".join(values)}.')


def check_computation(config: Any) -> None:
  """Refuses what no model computes with; `attention` is looked at by each."""
  # float16 overflows in T5.
  check_known(config, dtype=DTYPES, scores_dtype=DTYPES, remat=('cheap', 'all'))
  if config.query_chunk is not None and config.query_chunk < 1:
    raise UserError(f'query_chunk is {config.query_chunk}; expected 1 or more, or None.')


@dataclasses.dataclass(frozen=True)
class T5Config:
  """Sizes and variants of a T5-family encoder-decoder.

  Attributes:
    vocab_size: rows of the embedding table, padding included (T5: 32128).
    emb_dim: H, model width.
    num_heads: N, attention heads.
    head_dim: D, width of one head; N * D need not equal H.
    num_encoder_layers: L of the encoder.
    num_decoder_layers: L of the decoder.
    mlp_dim: F, width of the feed-forward layer.
    mlp_activations: ("gelu", "linear") for T5 1.1, mT5, ByT5, umT5; ("relu",) for T5 1.0.
    tied_logits: logits from the embedding table, divided by sqrt(H) (T5 1.0).
    relpos_buckets: buckets of the relative-position bias.
    relpos_max_distance: distance at which the last bucket begins.
    relpos_per_layer: one bias table a layer (umT5) instead of one a stack.
    dropout_rate: dropout when not deterministic.
    dtype: compute dtype, "float32" or "bfloat16"; float16 overflows in T5.
    unroll: layers of the scan unrolled at a time; 1 compiles fastest.
    query_chunk: queries that attend at a time, which bounds the memory of long inputs; None for
      all. See `models.attention.attend`.
    scores_dtype: of attention logits and weights; "bfloat16" (T5X's) halves their traffic.
    attention: of the encoder's rows to each other: "plain", or a kernel whose scores stay on the
      chip: "fused" of a TPU, see `models.attention.fused`; "cudnn" of an NVIDIA GPU, see
      `models.attention.cudnn`.
    remat: what a layer computes again in its backward pass: "cheap", all but `layers.KEPT`, or
      "all", which keeps its input only and costs 40 % more FLOPs.
  """

  vocab_size: int
  emb_dim: int
  num_heads: int
  head_dim: int
  num_encoder_layers: int
  num_decoder_layers: int
  mlp_dim: int
  mlp_activations: tuple[str, ...] = ('gelu', 'linear')
  tied_logits: bool = False
  relpos_buckets: int = 32
  relpos_max_distance: int = 128
  relpos_per_layer: bool = False
  dropout_rate: float = 0.0
  dtype: str = 'float32'
  unroll: int = 1
  query_chunk: int | None = None
  scores_dtype: str = 'float32'
  attention: str = 'plain'
  remat: str = 'cheap'

  def __post_init__(self):
    self._check_sizes()
    check_computation(self)
    self._check_attention()
    # gin and JSON give lists; the config must hash to be static under jit.
    object.__setattr__(self, 'mlp_activations', tuple(self.mlp_activations))

  def _check_sizes(self) -> None:
    check_whole(self, _SIZES)
    if max(self.num_encoder_layers, self.num_decoder_layers) > MOST_LAYERS:
      raise UserError(f'A stack has more than {MOST_LAYERS} layers; no model has.')
    check_truth(self, ('tied_logits', 'relpos_per_layer'))
    known = ('gelu', 'relu', 'linear')
    names = self.mlp_activations
    if not isinstance(names, list | tuple) or not names or not all(n in known for n in names):
      raise UserError(f'mlp_activations is {names!r}; expected some of {", ".join(known)}.')

  def _check_attention(self) -> None:
    if self.attention not in ATTENTION:
      raise UserError(f'attention is {self.attention!r}; expected {", ".join(ATTENTION)}.')
    if self.attention == 'plain':
      return
    if self.query_chunk is not None:
      raise UserError(
        f'The {self.attention} attention has no logits to cut: leave query_chunk out.',
        parameters=['query_chunk', 'attention'],
      )
    if self.attention == 'cudnn' and self.dtype != 'bfloat16':
      raise UserError(
        f'The cudnn attention computes in bfloat16, and the model in {self.dtype}: '
        'give the dtype bfloat16, or the attention "plain".',
        parameters=['dtype', 'attention'],
      )
    if self.attention == 'cudnn' and (self.head_dim % 8 or self.head_dim > 128):
      raise UserError(
        f'The cudnn attention takes heads of 8, 16, 24, ... to 128 wide, and these are '
        f'{self.head_dim}: give the attention "plain".',
        parameters=['attention'],
      )

  @property
  def sizes(self) -> Sizes:
    """What prompt methods ask of the model."""
    heads = (self.emb_dim, self.num_heads, self.head_dim, self.num_heads, self.mlp_dim)
    encoder, decoder = (
      Dims(layers, *heads) for layers in (self.num_encoder_layers, self.num_decoder_layers)
    )
    return Sizes(core.FrozenDict(encoder=encoder, decoder=decoder), input_stack='encoder')


def with_dropout(config: Any, rate: float) -> Any:
  """The same model, dropping out at `rate` when it is not deterministic.

  Raises:
    UserError: the rate is no probability below 1.
  """
  if not 0 <= rate < 1:
    raise UserError(f'The dropout rate is {rate!r}; expected 0 or more and less than 1.')
  return dataclasses.replace(config, dropout_rate=float(rate))
