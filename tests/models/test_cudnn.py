"""cuDNN's attention equals plain attention, and becomes cuDNN's calls; there being no GPU, what the
calls compute is computed by JAX's own form of the same function."""

import dataclasses
import functools
import re

import cudnn_in_xla
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from reference_models import Rows, batch, reference, tokens

from prompt_jax.errors import UserError
from prompt_jax.models.attention import cudnn
from prompt_jax.models.attention.attend import attend
from prompt_jax.models.t5.t5 import T5
from prompt_jax.prompted import PromptedT5
from tests.shared import facts


@pytest.fixture
def by_xla(monkeypatch):
  cudnn_in_xla.put_in_place(monkeypatch.setattr)


def arrays(rows, queries, keys, heads=3, dim=8, by_row=False):
  """Padding hides the last keys of a row; with `by_row` any keys, of each query others."""
  rng = np.random.default_rng(0)
  draw = lambda *shape: jnp.asarray(rng.normal(size=shape), jnp.float32)
  q, k, v = (draw(rows, n, heads, dim) for n in (queries, keys, keys))
  bias = draw(rows if by_row else 1, heads, queries, keys)
  if by_row:
    mask = jnp.asarray(rng.random((rows, 1, queries, keys)) < 0.7)
    mask = mask.at[0, :, -1].set(False)  # a query that sees nothing, as padding of a packed row
  else:
    lengths = jnp.asarray(rng.integers(1, keys, rows))
    mask = jnp.arange(keys)[None, None, None] < lengths[:, None, None, None]
  return q, k, v, bias, mask


def both(q, k, v, bias, mask, keep=None, split=0):
  """(output, dq, dk, dv) by cuDNN's attention, and by plain attention."""
  dy = jnp.asarray(np.random.default_rng(1).normal(size=q.shape), q.dtype)
  # Nothing depends on queries that see nothing: they are padding.
  dy = jnp.where(jnp.any(mask, axis=-1)[:, 0, :, None, None], dy, 0)

  def of(function):
    def call(q, k, v):
      groups = [(k[:, split:], v[:, split:])]
      groups = [(k[:1, :split], v[:1, :split]), *groups] if split else groups
      return function(q, groups, mask, bias, keep)

    y, back = jax.vjp(call, q, k, v)
    return y, *back(dy)

  return of(cudnn.attend_cudnn), of(plain)


plain = functools.partial(attend, scores_dtype='float32', chunk=None)


def assert_close(found, wanted, tolerance=1e-5):
  for a, b in zip(found, wanted, strict=True):
    a, b = a.astype(jnp.float32), b.astype(jnp.float32)
    assert float(jnp.abs(a - b).max()) < tolerance * float(jnp.abs(b).max())


@pytest.mark.parametrize('lengths', [(12, 16), (13, 16), (12, 15), (13, 15)])
@pytest.mark.parametrize('by_row', [False, True])  # padding; packed rows
def test_values_and_gradients_are_those_of_plain_attention(by_xla, lengths, by_row):
  found, wanted = both(*arrays(3, *lengths, by_row=by_row))
  assert_close(found, wanted)


def test_packed_rows_that_share_a_bias(by_xla):
  q, k, v, bias, mask = arrays(3, 12, 15, by_row=True)
  found, wanted = both(q, k, v, bias[:1], mask)
  assert_close(found, wanted)


def test_one_mask_of_all_rows(by_xla):
  q, k, v, bias, _ = arrays(3, 12, 15)
  found, wanted = both(q, k, v, bias, jnp.ones((1, 1, 1, 15), bool))
  assert_close(found, wanted)


def test_keys_of_all_rows_and_dropout_are_those_of_plain_attention(by_xla):
  q, k, v, bias, mask = arrays(2, 12, 15)
  keep = (np.random.default_rng(2).random((2, 3, 1, 15)) < 0.8).astype(np.float32) / 0.8
  found, wanted = both(q, k, v, bias, mask | (jnp.arange(15) < 4)[None, None, None], keep, split=4)
  assert_close(found, wanted)


def test_a_row_of_padding_has_finite_gradients(by_xla):
  q, k, v, bias, mask = arrays(2, 12, 15)
  found, _ = both(q, k, v, bias, mask.at[0].set(False))
  assert all(bool(jnp.isfinite(x).all()) for x in found)


@pytest.mark.parametrize('of', ['everything', 'queries', 'keys', 'masks', 'biases'])
def test_several_prompts_at_once_are_each_as_alone(by_xla, of):
  """Whatever of its arguments a mapped axis changes."""
  q, k, v, bias, mask = arrays(3, 12, 15)
  changed = {'queries': 'q', 'keys': 'kv', 'masks': 'm', 'biases': 'b'}.get(of, 'qkvmb')
  axes = tuple(0 if name in changed else None for name in 'qkvbm')
  shifts = [0.1 * jnp.roll(x, 1, axis=-1) if x.dtype != bool else None for x in (q, k, v, bias)]
  given = [x if axis is None else jnp.stack([x, x + shift])
           for x, shift, axis in zip((q, k, v, bias), shifts, axes, strict=False)]  # fmt: skip
  given.append(mask if axes[4] is None else jnp.stack([mask, mask.at[1, ..., 5:].set(False)]))

  def gradients(function):
    def total(q, k, v, bias, mask):
      return jnp.sum(jnp.sin(function(q, [(k, v)], mask, bias, None)))

    return jax.vmap(jax.value_and_grad(total, (0, 1, 2)), in_axes=axes)(*given)

  found, wanted = gradients(cudnn.attend_cudnn), gradients(plain)
  assert_close(jax.tree.leaves(found), jax.tree.leaves(wanted))


def losses(variant, prompt, attention):
  """A model's loss and its gradient of the prompt, in bfloat16."""
  ref = reference(variant)
  cfg = dataclasses.replace(ref.cfg, attention=attention, dtype='bfloat16')
  example = batch(tokens(0, (11, 4), cfg.vocab_size), tokens(1, (3, 3), cfg.vocab_size))
  params = jax.tree.map(lambda x: x.astype(jnp.bfloat16), ref.params)

  def loss(rows):
    variables = {'params': {'backbone': params, 'prompt': {'rows': rows}}}
    return jnp.mean(jnp.square(PromptedT5(T5(cfg), prompt).apply(variables, example)[0]))

  rows = 0.1 * jax.random.normal(jax.random.key(0), (prompt.length, cfg.emb_dim))
  return loss, rows


@pytest.mark.parametrize('variant', ['t5_1_1', 'umt5'])  # a table a stack, a table a layer
def test_a_model_has_nearly_the_loss_and_the_gradient_of_plain_attention(by_xla, variant):
  with jax.numpy_dtype_promotion('standard'):  # JAX's own attention mixes dtypes
    found, wanted = (
      jax.jit(jax.value_and_grad(loss))(rows)
      for loss, rows in (losses(variant, Rows(5), kind) for kind in ('cudnn', 'plain'))
    )
  np.testing.assert_allclose(found[0], wanted[0], rtol=0.02)
  assert_close(found[1:], wanted[1:], 0.05)


def lowered(function, *given):
  """The program for NVIDIA GPUs."""
  return jax.jit(function).trace(*given).lower(lowering_platforms=('cuda',)).as_text()


def calls(function, *given):
  """{name: types of what it returns} of the calls of cuDNN."""
  found = re.findall(r'@__cudnn\$(\w+)\(.*-> \((.*)\)', lowered(function, *given))
  return {name: re.findall(r'tensor<(\w+)>', types) for name, types in found}


@pytest.fixture
def some_cudnn(monkeypatch):
  """JAX asks the installed cuDNN for its version, and there is none."""
  monkeypatch.setattr(cudnn.rules, 'check_cudnn_version', lambda: 91200)


def test_on_a_gpu_it_is_two_calls_without_a_gradient_of_the_bias(some_cudnn):
  q, k, v, bias, mask = arrays(2, 13, 15)
  q, k, v = (x.astype(jnp.bfloat16) for x in (q, k, v))

  def total(q, k, v):
    return jnp.sum(cudnn.attend_cudnn(q, [(k, v)], mask, bias, None).astype(jnp.float32))

  assert calls(jax.value_and_grad(total, (0, 1, 2)), q, k, v) == {
    'fmhaScaleBiasSoftmax': ['2x3x14x8xbf16', '2x3x14xf32', '0xui8'],
    'fmhaScaleBiasSoftmaxBackward': ['2x3x14x8xbf16', '2x3x16x8xbf16', '2x3x16x8xbf16', '0xui8'],
  }


@pytest.mark.parametrize('rows', [1, 2])  # an input-independent prefix, a batch
def test_several_prompts_are_one_call_that_shares_the_bias(some_cudnn, rows):
  q, k, v, bias, mask = arrays(rows, 13, 15)
  prompts = [jnp.stack([x, x, x]).astype(jnp.bfloat16) for x in (q, k, v)]
  call = jax.vmap(lambda q, k, v: cudnn.attend_cudnn(q, [(k, v)], mask, bias, None))
  (text,) = (line for line in lowered(call, *prompts).splitlines() if '@__cudnn' in line)
  (operands,) = re.findall(r': \((.*)\) ->', text)
  many, keys = f'{3 * rows}x14x3x8xbf16', f'{3 * rows}x16x3x8xbf16'
  lengths = f'{3 * rows}xi32'
  wanted = [many, keys, keys, '1x3x14x16xbf16', lengths, lengths]
  assert re.findall(r'tensor<(\w+)>', operands) == wanted


def test_a_model_on_a_gpu_calls_cudnn_in_its_encoder(some_cudnn):
  loss, rows = losses('t5_1_1', Rows(5), 'cudnn')
  found = calls(jax.value_and_grad(loss), rows)
  assert found.keys() == {'fmhaScaleBiasSoftmax', 'fmhaScaleBiasSoftmaxBackward'}
  plain, _ = losses('t5_1_1', Rows(5), 'plain')
  assert calls(jax.value_and_grad(plain), rows) == {}


def test_training_the_table_of_the_bias_is_refused(by_xla):
  q, k, v, bias, mask = arrays(2, 12, 15)
  with pytest.raises(UserError, match=facts('cudnn', 'relative position bias')):
    jax.grad(lambda bias: cudnn.attend_cudnn(q, [(k, v)], mask, bias, None).sum())(bias)


@pytest.mark.parametrize(
  ('changes', 'says'),
  [
    ({'dtype': 'float32'}, facts('bfloat16', 'float32')),
    ({'head_dim': 12}, facts('12')),
    ({'head_dim': 136}, '136'),
    ({'query_chunk': 8}, 'query_chunk'),
  ],
)
def test_models_that_it_does_not_take_are_refused(changes, says):
  cfg = dataclasses.replace(reference('t5_1_1').cfg, dtype='bfloat16')
  with pytest.raises(UserError, match=says):
    dataclasses.replace(cfg, attention='cudnn', **changes)
