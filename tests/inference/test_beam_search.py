"""Beam search against Hugging Face's, against every sequence there is, and its own rules."""

import functools
import itertools

import jax
import numpy as np
import pytest
import torch
import transformers

from prompt_jax.checkpoints.formats.huggingface import from_huggingface
from prompt_jax.errors import UserError
from prompt_jax.inference import decode, score
from prompt_jax.inference.beam_search import beam_search, gnmt_penalty
from prompt_jax.models.t5.t5 import T5
from prompt_jax.prompted import PromptedT5
from tests.inference.conftest import VOCAB

MAX_LEN = 7
EOS = 33  # which some of the sequences below have, at different places


@pytest.fixture(scope='module')
def pair():
  """A random T5 of Hugging Face, the same as ours, and inputs."""
  torch.manual_seed(0)
  config = transformers.T5Config(
    vocab_size=VOCAB, d_model=16, d_kv=8, num_heads=2, num_layers=2, num_decoder_layers=2, d_ff=24,
    feed_forward_proj='gated-gelu', tie_word_embeddings=False, decoder_start_token_id=0,
    pad_token_id=0, eos_token_id=EOS,
  )  # fmt: skip
  theirs = transformers.T5ForConditionalGeneration(config).eval()
  with torch.no_grad():  # larger, so that the distributions are not flat
    for name, parameter in theirs.named_parameters():
      parameter.mul_(1.0 if 'norm' in name else 3.0)
  state = {k: v.detach().numpy() for k, v in theirs.state_dict().items()}
  # Of another end than T5's a folder is refused; here it is one that is often chosen.
  cfg, params = from_huggingface(state, config.to_dict() | {'eos_token_id': 1})
  tokens = np.random.default_rng(1).integers(2, VOCAB, (5, 6))
  tokens[0, 4:] = tokens[3, 2:] = 0
  return theirs, PromptedT5(T5(cfg)), {'params': {'backbone': params}}, tokens


def run(model, variables, inputs, beams, max_len=MAX_LEN, **options):
  call = functools.partial(beam_search, model, max_len=max_len, beams=beams, **options)
  return jax.jit(call)(variables, inputs)


@pytest.mark.parametrize(('beams', 'penalty'), [(2, 1.0), (4, 0.0), (4, 2.0)])
def test_the_same_as_hugging_face(pair, beams, penalty):
  theirs, model, variables, tokens = pair
  want = theirs.generate(
    input_ids=torch.from_numpy(tokens), attention_mask=torch.from_numpy(tokens > 0).long(),
    num_beams=beams, length_penalty=penalty, early_stopping='never', max_new_tokens=MAX_LEN,
    do_sample=False, return_dict_in_generate=True, output_scores=True, eos_token_id=EOS,
  )  # fmt: skip
  got = run(
    model, variables, tokens.astype(np.int32), beams,
    divisor=lambda length: length**penalty, eos_id=EOS,
  )  # fmt: skip
  sequences = want.sequences.numpy()[:, 1:]  # without the start token
  padded = np.zeros((len(tokens), MAX_LEN), np.int32)
  padded[:, : sequences.shape[1]] = sequences
  padded[(np.cumsum(padded == EOS, 1) - (padded == EOS)) > 0] = 0  # theirs are filled with EOS
  np.testing.assert_array_equal(got.tokens, padded)
  lengths = (padded > 0).sum(1)
  np.testing.assert_allclose(
    got.log_probs / lengths**penalty, want.sequences_scores.numpy(), rtol=2e-4
  )
  if (beams, penalty) == (2, 1.0):
    assert 0 < (padded == EOS).any(1).sum() < len(tokens), 'some rows end and others do not'


def test_a_beam_of_everything_is_an_exhaustive_search(pair):
  _, model, variables, tokens = pair
  row = tokens[:1].astype(np.int32)
  every = [*itertools.product(range(VOCAB), repeat=2)]
  sequences = [(EOS, 0)] + [s for s in every if s[0] != EOS]
  table = np.array(sequences, np.int32)
  encoded = jax.jit(functools.partial(model.apply, method='encode'))(variables, row)
  logits = jax.jit(lambda given: model.apply(variables, encoded, given[None], method='decode'))
  given = np.concatenate([np.zeros((VOCAB, 1)), np.arange(VOCAB)[:, None]], 1).astype(np.int32)
  log_probs = np.stack([np.asarray(jax.nn.log_softmax(logits(g)))[0] for g in given])
  totals = [log_probs[0, 0, a] + (0.0 if a == EOS else log_probs[a, 1, b]) for a, b in table]
  lengths = np.where(table[:, 0] == EOS, 1, 2)
  best = int(np.argmax(totals / np.asarray(gnmt_penalty(0.6)(lengths))))
  got = run(model, variables, row, VOCAB, max_len=2, eos_id=EOS)
  assert tuple(np.asarray(got.tokens)[0]) == sequences[best]
  np.testing.assert_allclose(got.log_probs[0], totals[best], rtol=1e-4)


def test_prompts_are_carried_along_and_log_probs_are_the_models_own(prompted, inputs):
  model, variables = prompted
  got = run(model, variables, inputs, 3, eos_id=7)
  # The score of targets leaves out token 0, which may be written in the middle.
  written = lambda found: (np.asarray(found.tokens) > 0).sum(1)
  full = lambda found: (np.asarray(found.tokens) == 7).any(1) | (written(found) == MAX_LEN)
  whole = full(got)
  assert whole.sum() > 2
  want = jax.jit(functools.partial(score.score, model))(variables, inputs, got.tokens)
  np.testing.assert_allclose(got.log_probs[whole], want[whole], atol=1e-4)
  greedy = jax.jit(
    functools.partial(decode.decode, model, max_len=MAX_LEN, choose=decode.most_probable, eos_id=7)
  )(variables, inputs)
  divided = lambda found: found.log_probs / gnmt_penalty(0.6)(written(found))
  both = whole & full(greedy)
  assert (divided(got) >= divided(greedy) - 1e-4)[both].all()
  assert (divided(got) > divided(greedy) + 1e-2)[both].any(), 'the case must have a row that gains'


def test_the_search_stops_when_nothing_better_can_come(pair):
  _, model, variables, tokens = pair
  search = functools.partial(run, model, variables, divisor=lambda n: n**0.0, eos_id=EOS)
  found = np.asarray(search(tokens.astype(np.int32), 2, max_len=MAX_LEN).tokens)
  ending = tokens[(found == EOS).any(1)][:1].astype(np.int32)
  short, long = search(ending, 2, max_len=30), search(ending, 2, max_len=40)
  assert int(short.steps) == int(long.steps) < 30
  np.testing.assert_array_equal(long.tokens[:, :30], short.tokens)


def test_what_is_refused(prompted, inputs):
  with pytest.raises(UserError, match='beams is 0'):
    beam_search(*prompted, inputs, MAX_LEN, 0)
  with pytest.raises(UserError, match='length_penalty is -1'):
    gnmt_penalty(-1.0)
