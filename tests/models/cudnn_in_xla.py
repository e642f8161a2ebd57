"""What cuDNN's two calls compute, computed by JAX's own form of the same function, in any dtype."""

import jax
import jax.numpy as jnp


def attention(q, k, v, bias, lengths):
  return jax.nn.dot_product_attention(
    q, k, v, bias, key_value_seq_lengths=lengths, scale=1.0, implementation='xla'
  )


def forward(q, k, v, bias, lengths):
  assert q.shape[1] % 2 == k.shape[1] % 2 == 0  # as cuDNN demands
  return attention(q, k, v, bias, lengths), jnp.zeros((q.shape[0], q.shape[2], q.shape[1]))


def backward(q, k, v, bias, lengths, normaliser, y, dy):
  assert normaliser.shape == (q.shape[0], q.shape[2], q.shape[1])
  assert y.shape == q.shape
  return jax.vjp(lambda q, k, v: attention(q, k, v, bias, lengths), q, k, v)[1](dy)
