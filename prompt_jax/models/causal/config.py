"""The architecture of a decoder-only model, as data."""

import dataclasses
import math
from typing import Any

from flax import core

from prompt_jax.errors import UserError
from prompt_jax.injections import Dims, Sizes
from prompt_jax.models.t5.config import (
  MOST_LAYERS,
  check_computation,
  check_known,
  check_truth,
  check_whole,
)

ACTIVATIONS = ('silu', 'gelu')
BIASES = ('none', 'inputs', 'all')
_SIZES = (
  'vocab_size', 'emb_dim', 'num_layers', 'num_heads', 'num_kv_heads', 'head_dim', 'mlp_dim',
  'unroll',
)  # fmt: skip


@dataclasses.dataclass(frozen=True)
class CausalConfig:
  """Sizes and variants of LLaMA, Qwen2, Qwen3, Gemma 2 and Gemma 3 (text).

  Token ids are ours: 0 is padding and 1 ends a text, see `causal_formats.tokenizer`.

  Attributes:
    vocab_size: V, rows of the embedding table.
    emb_dim: H, model width.
    num_layers: L.
    num_heads: N, heads of the queries.
    num_kv_heads: K, heads of keys and values; query head h reads head h // (N / K).
    head_dim: D, width of one head; N * D need not equal H.
    mlp_dim: F, width of the feed-forward layer.
    activation: of the gate: "silu", or "gelu" in its tanh form (Gemma).
    norm_eps: added to the mean square in the norms.
    norm_offset: added to the scales of the norms: 1 in Gemma.
    post_norms: whether attention and mlp are normed again behind (Gemma).
    qk_norm: whether each head's query and key are normed before they are rotated (Qwen3, Gemma 3).
    biases: of attention: "none", of its "inputs" (query, key, value: Qwen2), or "all" four.
    embed_scale: what embeddings are multiplied by: sqrt(H) in Gemma.
    query_scale: what attention logits are multiplied by; None for 1/sqrt(D).
    rope_theta: the base of the rotary position embedding (RoPE) of each layer.
    rope_factors: (factor, low_freq_factor, high_freq_factor, original length) of LLaMA 3's scaled
      frequencies; None where they are not scaled.
    windows: how many positions, itself included, a query of each layer sees; 0 for all.
    attention_softcap: c of c tanh(logits / c) in attention (Gemma 2); None for none.
    logit_softcap: the same of the output logits.
    tied_logits: whether the output layer is the embedding table.
    before: token ids in front of every input, such as the begin of a text or of a chat.
    between: token ids between input and target; the last one predicts the first target token.
    reads_end: whether the input's own end-of-sequence token is read (a chat), or left out.
    dropout_rate: 0; these models have no dropout.
    dtype: compute dtype, "float32" or "bfloat16".
    unroll: see `models.t5.config.T5Config`.
    query_chunk: see `models.t5.config.T5Config`.
    scores_dtype: see `models.t5.config.T5Config`.
    attention: "plain"; the kernels need a bias of relative positions, which these models lack.
    remat: see `models.t5.config.T5Config`.
  """

  vocab_size: int
  emb_dim: int
  num_layers: int
  num_heads: int
  num_kv_heads: int
  head_dim: int
  mlp_dim: int
  rope_theta: tuple[float, ...]
  between: tuple[int, ...]
  before: tuple[int, ...] = ()
  reads_end: bool = False
  activation: str = 'silu'
  norm_eps: float = 1e-6
  norm_offset: float = 0.0
  post_norms: bool = False
  qk_norm: bool = False
  biases: str = 'none'
  embed_scale: float = 1.0
  query_scale: float | None = None
  rope_factors: tuple[float, float, float, float] | None = None
  windows: tuple[int, ...] = ()
  attention_softcap: float | None = None
  logit_softcap: float | None = None
  tied_logits: bool = True
  dropout_rate: float = 0.0
  dtype: str = 'float32'
  unroll: int = 1
  query_chunk: int | None = None
  scores_dtype: str = 'float32'
  attention: str = 'plain'
  remat: str = 'cheap'

  def __post_init__(self):
    for name in ('rope_theta', 'between', 'before', 'rope_factors', 'windows'):
      value = getattr(self, name)  # gin and JSON give lists; the config must hash
      if isinstance(value, list | tuple):
        object.__setattr__(self, name, tuple(value))
      elif value is not None or name != 'rope_factors':
        raise UserError(f'{name} is {value!r}; expected a list.')
    if not self.windows:
      object.__setattr__(self, 'windows', (0,) * self.num_layers)
    self._check_sizes()
    self._check_numbers()
    self._check_choices()
    if self.num_heads % self.num_kv_heads:
      raise UserError(
        f'num_heads is {self.num_heads} and num_kv_heads {self.num_kv_heads}; the former must be a '
        'multiple of the latter.'
      )
    for name in ('rope_theta', 'windows'):
      if len(getattr(self, name)) != self.num_layers:
        raise UserError(
          f'{name} has {len(getattr(self, name))} numbers; expected one of each of '
          f'{self.num_layers} layers.'
        )
    for name in ('before', 'between'):
      _check_ids(name, getattr(self, name), self.vocab_size)
    if not self.between:
      raise UserError('between is empty; a token before the target predicts its first token.')

  def _check_sizes(self) -> None:
    check_whole(self, _SIZES)
    if self.num_layers > MOST_LAYERS:
      raise UserError(f'A stack has more than {MOST_LAYERS} layers; no model has.')
    if self.head_dim % 2:
      raise UserError(f'head_dim is {self.head_dim}; halves of a head are rotated: give 2, 4, ...')
    if self.rope_factors is not None and len(self.rope_factors) != 4:
      raise UserError(f'rope_factors is {self.rope_factors}; expected four numbers, or None.')

  def _check_numbers(self) -> None:
    positive = {'norm_eps': self.norm_eps, 'embed_scale': self.embed_scale}
    for name in ('query_scale', 'attention_softcap', 'logit_softcap'):
      positive |= {} if getattr(self, name) is None else {name: getattr(self, name)}
    for name in ('rope_theta', 'rope_factors'):
      positive |= {f'a number of {name}': x for x in getattr(self, name) or () if not _positive(x)}
    for name, value in positive.items():
      if not _positive(value):
        raise UserError(f'{name} is {value!r}; expected a number above 0.')
    if self.norm_offset not in (0, 1):
      raise UserError(f'norm_offset is {self.norm_offset!r}; expected 0 or 1.')
    if any(type(w) is not int or w < 0 for w in self.windows):
      raise UserError(f'windows is {self.windows!r}; expected whole numbers of at least 0.')
    if self.rope_factors is not None and self.rope_factors[1] >= self.rope_factors[2]:
      raise UserError(f'rope_factors is {self.rope_factors!r}; the second must be below the third.')
    check_truth(self, ('post_norms', 'qk_norm', 'tied_logits', 'reads_end'))

  def _check_choices(self) -> None:
    check_computation(self)
    check_known(self, activation=ACTIVATIONS, biases=BIASES)
    if self.dropout_rate:
      raise UserError(
        f'The dropout rate is {self.dropout_rate}, and a decoder-only model of this package has no '
        'dropout: give 0.',
        parameters=['dropout'],
      )
    if self.attention != 'plain':
      raise UserError(
        f'The {self.attention} attention adds a bias of relative positions, which a decoder-only '
        'model has not: give the attention "plain".',
        parameters=['attention'],
      )

  @property
  def sizes(self) -> Sizes:
    """What prompt methods ask of the model."""
    own = Dims(
      self.num_layers, self.emb_dim, self.num_heads, self.head_dim, self.num_kv_heads, self.mlp_dim
    )
    return Sizes(core.FrozenDict(decoder=own), input_stack='decoder')


def _positive(value: Any) -> bool:
  return type(value) in (int, float) and 0 < value < math.inf


def _check_ids(name: str, ids: tuple[int, ...], rows: int) -> None:
  for i in ids:
    if isinstance(i, bool) or not isinstance(i, int) or not 0 < i < rows:
      raise UserError(f'{name} has the token id {i!r}; expected 1 to {rows - 1}.')
