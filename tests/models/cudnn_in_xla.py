"""What JAX's rules of cuDNN's attention compute, by its own form for any device, in any dtype.

Their arguments are distinguished by the names that JAX gives them.
"""

import inspect

import jax
import jax.numpy as jnp

from prompt_jax.models.attention import cudnn

FORWARD = inspect.signature(cudnn.rules._dot_product_attention_fwd_rule)
BACKWARD = inspect.signature(cudnn.rules._dot_product_attention_bwd_rule)
OPERANDS = list(FORWARD.parameters)[:10]


def put_in_place(setattr_of) -> None:
  """`setattr_of(module, name, value)` replaces each rule; JAX asks no cuDNN for its version."""
  setattr_of(cudnn.rules, '_dot_product_attention_fwd_rule', forward)
  setattr_of(cudnn.rules, '_dot_product_attention_bwd_rule', backward)
  setattr_of(cudnn.rules, 'check_cudnn_version', lambda: 91200)


def forward(*args):
  given = FORWARD.bind(*args).arguments
  assert given['cudnn_version'] == 91200
  operands = [given[name] for name in OPERANDS]
  y = attention(given, *operands[:3])
  return y, (*operands, jnp.zeros((y.shape[0], y.shape[2], y.shape[1])), y)


def backward(*args):
  options = BACKWARD.bind(*args).arguments
  *operands, normaliser, y = options['res']
  given = {**options, **dict(zip(OPERANDS, operands, strict=True))}
  q, k, v = operands[:3]
  assert normaliser.shape == (q.shape[0], q.shape[2], q.shape[1])
  assert y.shape == q.shape
  gradients = jax.vjp(lambda *xs: attention(given, *xs), q, k, v)[1](options['grad_output'])
  return (*gradients, *(None,) * 7)


def attention(given, q, k, v):
  """A bias without a gradient, numbers of keys, no dropout, of even lengths as cuDNN demands."""
  assert q.shape[1] % 2 == k.shape[1] % 2 == 0
  assert given['variadic_args'] == (True, False)
  assert given['mask_type'] == cudnn.rules.MaskType.PADDING
  assert given['layout'] == cudnn.rules.AttentionLayout.BTNH.value
  assert (given['dropout_rate'], given['sliding_window_length']) == (0, None)
  assert given['bias'].dtype == q.dtype
  # JAX's own function mixes dtypes.
  with jax.numpy_dtype_promotion('standard'):
    y = jax.nn.dot_product_attention(
      q,
      k,
      v,
      given['bias'],
      query_seq_lengths=given['q_seqlen'],
      key_value_seq_lengths=given['kv_seqlen'],
      scale=given['scale'],
      implementation='xla',
    )
  # Of no keys a kernel may make anything.
  return jnp.where(given['kv_seqlen'][:, None, None, None] > 0, y, jnp.nan)
