"""Every variant computes what Hugging Face's torch model does, prompt and gradient included."""

import copy
import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
from reference_models import VARIANTS, Rows, batch, normal, reference, tokens

LENGTHS = (200, 150, 7)  # beyond the distance 128 at which the last bucket begins
TARGETS = 150
STEPS = 12
PROMPT = 5


@functools.cache
def ours(variant: str):
  """States, logits and greedy tokens of the bare model; one compilation for all."""
  ref = reference(variant)
  model = ref.model()

  @jax.jit
  def run(params, inputs, targets):
    variables = {'params': {'backbone': params}}
    apply = functools.partial(model.apply, variables)
    encoded = apply(inputs, method='encode')
    logits = apply(encoded, targets, method='decode')
    first, cache = apply(encoded, STEPS, method='start_cache')

    def step(carry, _):
      token, cache = carry
      scores, cache = apply(encoded, token, cache, method='decode_step')
      return (jnp.argmax(scores, -1), cache), token

    _, greedy = jax.lax.scan(step, (jnp.argmax(first, -1), cache), length=STEPS)
    return encoded.states, logits, greedy.T

  inputs = tokens(0, LENGTHS, ref.cfg.vocab_size)
  targets = tokens(1, (TARGETS,) * 3, ref.cfg.vocab_size, eos=False)
  targets[:, 0] = 0
  return inputs, targets, jax.device_get(run(ref.params, inputs, targets))


@pytest.fixture(params=VARIANTS)
def variant(request) -> str:
  return request.param


def long(x: np.ndarray) -> torch.Tensor:
  return torch.tensor(x, dtype=torch.long)


def test_encoder_states_and_logits(variant):
  inputs, targets, (states, logits, _) = ours(variant)
  # In float64: in float32 it is as far from the exact values as we are.
  hf = copy.deepcopy(reference(variant).torch_model).double()
  with torch.no_grad():
    out = hf(
      input_ids=long(inputs),
      attention_mask=long(inputs > 0),
      decoder_input_ids=long(targets),
    )
  real = inputs > 0
  want = out.encoder_last_hidden_state.numpy()
  np.testing.assert_allclose(states[real], want[real], atol=1e-5)
  assert np.std(want[real]) > 0.1
  np.testing.assert_allclose(logits, out.logits.numpy(), atol=2e-5)


def test_greedy_tokens(variant):
  inputs, _, (_, _, greedy) = ours(variant)
  hf = reference(variant).torch_model
  out = hf.generate(
    input_ids=long(inputs),
    attention_mask=long(inputs > 0),
    do_sample=False,
    num_beams=1,
    max_new_tokens=STEPS,
    eos_token_id=None,
  )
  np.testing.assert_array_equal(greedy, out.numpy()[:, 1:])


@pytest.fixture
def prompted(variant):
  """Logits, loss and gradient of a prompt; `inputs_embeds` on the other side."""
  ref = reference(variant)
  model = ref.model(Rows(PROMPT))
  inputs = tokens(2, (20, 13, 4), ref.cfg.vocab_size)
  targets = tokens(3, (7, 7, 7), ref.cfg.vocab_size, eos=False)
  rows = normal(4, PROMPT, ref.cfg.emb_dim)

  def loss(rows, params, example):
    variables = {'params': {'backbone': params, 'prompt': {'rows': rows}}}
    logits, _ = model.apply(variables, example)
    log_probs = jax.nn.log_softmax(logits)
    picked = jnp.take_along_axis(log_probs, jnp.asarray(targets)[..., None], -1)
    return -jnp.mean(picked), logits

  shifted = np.pad(targets, ((0, 0), (1, 0)))[:, :-1]
  example = batch(inputs, shifted)
  (value, logits), gradient = jax.jit(jax.value_and_grad(loss, has_aux=True))(
    rows, ref.params, example
  )
  return ref, inputs, targets, rows, (value, logits, gradient)


def test_prompt_as_inputs_embeds_and_its_gradient(prompted):
  ref, inputs, targets, rows, (value, logits, gradient) = prompted
  hf = ref.torch_model
  prompt = torch.tensor(np.asarray(rows), requires_grad=True)
  front = prompt[None].expand(len(inputs), -1, -1)
  embeds = torch.cat([front, hf.get_input_embeddings()(long(inputs))], 1)
  mask = torch.cat([torch.ones(len(inputs), PROMPT, dtype=torch.long), long(inputs > 0)], 1)
  out = hf(inputs_embeds=embeds, attention_mask=mask, labels=long(targets))
  out.loss.backward()
  np.testing.assert_allclose(logits, out.logits.detach().numpy(), atol=1e-5)
  np.testing.assert_allclose(value, out.loss.item(), atol=1e-5)
  want = prompt.grad.numpy()
  assert np.abs(want).max() > 1e-3
  np.testing.assert_allclose(gradient, want, atol=1e-6)
