"""A row that holds several examples gives each of them what it gets alone."""

import functools

import flax.linen as nn
import jax
import numpy as np
import pytest
from reference_models import batch, normal, reference, tokens

from prompt_jax.injections import Injection, Injections

P = 3
# Two rows of examples, as (input tokens, target tokens); the rest of a row is padding.
ROWS = (((5, 3), (2, 4)), ((4, 2), (3, 1), (1, 2)))
WIDTH, TARGETS = 20, 8


class Added(nn.Module):
  """Prompt rows in the encoder, keys and values in all three attentions."""

  sees_input: bool
  kv_bias: str
  depends_on = frozenset()

  @nn.compact
  def __call__(self, ctx):
    kv = lambda seed, d: normal(seed, d.L, 2, 1, 2, d.N, d.D)
    rows = self.param('rows', nn.initializers.normal(1.0), (P, ctx.stacks['encoder'].H))
    return Injections(
      encoder=Injection(
        prefix=rows[None],
        kv=kv(2, ctx.stacks['encoder']),
        sees_input=self.sees_input,
        kv_bias=self.kv_bias,
      ),
      decoder=Injection(kv=kv(3, ctx.stacks['decoder']), kv_bias=self.kv_bias),
      cross=Injection(kv=kv(4, ctx.stacks['decoder'])),
    )


def examples(vocab_size: int):
  """Inputs and targets by row, and the same examples one a row."""
  pairs = [pair for row in ROWS for pair in row]
  inputs = tokens(0, tuple(t for t, _ in pairs), vocab_size)
  targets = tokens(1, tuple(u for _, u in pairs), vocab_size, eos=False)
  targets[:, 0] = 0
  return pairs, inputs, targets


def pack(prompt_rows: int, vocab_size: int):
  """The batch with `prompt_rows` slots reserved at the head of each example."""
  pairs, inputs, targets = examples(vocab_size)
  names = ('encoder_segment_ids', 'encoder_positions', 'decoder_segment_ids', 'decoder_positions')
  encoder, segments, positions = (np.zeros((len(ROWS), WIDTH), np.int32) for _ in range(3))
  decoder, own_segments, own_positions = (
    np.zeros((len(ROWS), TARGETS), np.int32) for _ in range(3)
  )
  slot = np.full((len(ROWS), WIDTH), -1, np.int32)
  places, e = [], 0
  for r, row in enumerate(ROWS):
    i = j = 0
    for g, (t, u) in enumerate(row, start=1):
      n = prompt_rows + t
      slot[r, i : i + prompt_rows] = np.arange(prompt_rows)
      encoder[r, i + prompt_rows : i + n] = inputs[e, :t]
      segments[r, i : i + n], positions[r, i : i + n] = g, np.arange(n)
      decoder[r, j : j + u] = targets[e, :u]
      own_segments[r, j : j + u], own_positions[r, j : j + u] = g, np.arange(u)
      places.append((r, slice(j, j + u)))
      i, j, e = i + n, j + u, e + 1
  packed = dict(zip(names, (segments, positions, own_segments, own_positions), strict=True))
  if prompt_rows:
    packed['prompt_slot'] = slot
  return batch(encoder, decoder, **packed), batch(inputs, targets), pairs, places


@pytest.mark.parametrize(
  ('variant', 'method'),
  [
    ('t5_1_1', None),
    ('t5_1_1', Added(sees_input=True, kv_bias='zero')),
    ('umt5', Added(sees_input=False, kv_bias='shifted')),
  ],
)
def test_packed_rows_equal_rows_of_their_own(variant, method):
  """Logits, and the gradient of a weighted sum of them with respect to the prompt."""
  ref = reference(variant)
  prompt_rows = P if method else 0
  packed, alone, pairs, places = pack(prompt_rows, ref.cfg.vocab_size)
  model = ref.model(method)
  prompt = {'rows': normal(7, P, ref.cfg.emb_dim)} if method else {}
  weight = normal(8, len(pairs), TARGETS, ref.cfg.vocab_size)

  def run(prompt, example, pick):
    variables = {'params': {'backbone': ref.params, 'prompt': prompt}}
    logits, _ = model.apply(variables, example)
    parts = pick(logits)
    return sum((part * weight[i, : len(part)]).sum() for i, part in enumerate(parts)), parts

  run = jax.jit(jax.grad(run, has_aux=True), static_argnums=2)
  got_gradient, got = run(prompt, packed, lambda y: [y[place] for place in places])
  want_gradient, want = run(prompt, alone, lambda y: [y[i, :u] for i, (_, u) in enumerate(pairs)])
  for a, b in zip(got, want, strict=True):
    np.testing.assert_allclose(a, b, atol=1e-5)
  if method:
    scale = np.abs(want_gradient['rows']).max()
    np.testing.assert_allclose(got_gradient['rows'], want_gradient['rows'], atol=1e-5 * scale)


def test_packed_rows_refuse_a_prompt_without_slots():
  ref = reference('t5_1_1')
  packed, *_ = pack(P, ref.cfg.vocab_size)
  model = ref.model(Added(sees_input=True, kv_bias='zero'))
  variables = {'params': {'backbone': ref.params, 'prompt': {'rows': normal(7, P, 32)}}}
  with pytest.raises(ValueError, match='prompt_slot'):
    jax.eval_shape(functools.partial(model.apply, variables), packed.replace(prompt_slot=None))
