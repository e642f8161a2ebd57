"""Decoder-only models: equal to transformers, and the same whole, cached and with prompts."""

import dataclasses
import functools
import types
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import torch
import transformers
from flax import traverse_util

from prompt_jax.batch import Batch
from prompt_jax.causal_formats import huggingface
from prompt_jax.causal_formats.tokenizer import Frame, order
from prompt_jax.checkpoints.leaf import expected_shapes, of_array
from prompt_jax.errors import UserError
from prompt_jax.injections import Injection, Injections
from prompt_jax.loading import prompted
from prompt_jax.models.causal.config import CausalConfig
from prompt_jax.models.t5.layers import quantise
from prompt_jax.prompts.base import PromptMethod
from prompt_jax.prompts.initializers import SampledVocabulary
from prompt_jax.prompts.methods.input.input_prompt import InputPrompt
from prompt_jax.prompts.tables import Plain
from prompt_jax.runs.setup import fresh_prompt
from prompt_jax.sharding.axes import axes_of
from prompt_jax.testing import tiny
from tests.shared import facts

PAD, EOS, ROWS = 5, 2, 64  # as the reference has them
SIZES = dict(
  vocab_size=ROWS, hidden_size=32, intermediate_size=48, num_hidden_layers=3, head_dim=10,
  num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=128, pad_token_id=PAD,
  bos_token_id=1, eos_token_id=EOS,
)  # fmt: skip
LLAMA3 = dict(
  rope_type='llama3', rope_theta=500.0, factor=8.0, low_freq_factor=1.0, high_freq_factor=4.0,
  original_max_position_embeddings=32,
)  # fmt: skip
# The configuration class, and what differs from its defaults.
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
  'llama': ('LlamaConfig', dict(tie_word_embeddings=True)),
  'llama3-untied-biases': (
    'LlamaConfig',
    dict(tie_word_embeddings=False, attention_bias=True, rope_parameters=LLAMA3),
  ),
  'qwen2-windows': (
    'Qwen2Config',
    dict(use_sliding_window=True, sliding_window=4, max_window_layers=1),
  ),
  'qwen3': ('Qwen3Config', {}),
  'gemma2': ('Gemma2Config', dict(sliding_window=4, query_pre_attn_scalar=5)),
  'gemma3': ('Gemma3TextConfig', dict(sliding_window=4, query_pre_attn_scalar=5)),
}
FRAME = Frame([7, 8], [9, 10], reads_end=True)


@dataclasses.dataclass(frozen=True)
class Reference:
  """A random model of transformers, and ours made from it."""

  theirs: Any
  config: CausalConfig
  variables: dict[str, Any]

  def logits(self, ids: np.ndarray, **more: Any) -> np.ndarray:
    """float32[S, V] of one row of our ids, by transformers, in our order."""
    ours = order(ROWS, PAD, EOS)
    with torch.no_grad():
      found = self.theirs(torch.tensor(ours[ids][None].astype(np.int64)), **more).logits
    return found[0].numpy()[:, ours]


@functools.cache
def reference(family: str) -> Reference:
  name, differs = FAMILIES[family]
  theirs = getattr(transformers, name)(**{**SIZES, **differs})
  torch.manual_seed(0)
  model = transformers.AutoModelForCausalLM.from_config(theirs, attn_implementation='eager').eval()
  with torch.no_grad():
    for parameter in model.parameters():  # norms and biases begin as one number
      parameter.add_(torch.randn_like(parameter) * 0.1)
  state = {key: of_array(value.numpy(), key) for key, value in model.state_dict().items()}
  config = huggingface.architecture(theirs.to_dict(), family, FRAME)
  words: Any = types.SimpleNamespace(pad=PAD, eos=EOS)
  leaves = huggingface.leaves_from_huggingface(state, config, words, family)
  flat = {path: jnp.asarray(leaf.read('float32')) for path, leaf in leaves.items()}
  return Reference(
    model, config, {'params': {'backbone': traverse_util.unflatten_dict(flat, sep='/')}}
  )


def batch(pad: int = 0) -> Batch:
  """Two inputs of unlike length, each with its end, and targets; `pad` more columns of padding."""
  rng = np.random.default_rng(0)
  tokens, targets = rng.integers(3, ROWS, (2, 9)), rng.integers(3, ROWS, (2, 5))
  tokens[0, 6:], tokens[0, 6], tokens[1, 8] = 0, 1, 1
  return Batch(
    jnp.pad(jnp.asarray(tokens, jnp.int32), ((0, 0), (0, pad))),
    jnp.pad(jnp.asarray(targets[:, :-1], jnp.int32), ((0, 0), (1, 0))),
    jnp.asarray(targets, jnp.int32),
    jnp.ones((2, 5), jnp.float32),
  )


def row(b: int, whole: Batch) -> tuple[np.ndarray, int]:
  """What transformers reads of a row, and how much of it predicts no target."""
  tokens = np.asarray(whole.encoder_input_tokens[b])
  before = [*FRAME.before, *tokens[tokens > 0], *FRAME.between]
  targets = np.asarray(whole.decoder_target_tokens[b])
  return np.array([*before, *targets[:-1]]), len(before) - 1


def near(a, b, tolerance=1e-5):
  a, b = np.asarray(a), np.asarray(b)
  assert a.shape == b.shape
  assert np.max(np.abs(a - b)) <= tolerance * np.max(np.abs(b))


@pytest.mark.parametrize('family', FAMILIES)
def test_logits_are_those_of_transformers(family):
  known, whole = reference(family), batch(pad=3)
  found, _ = jax.jit(prompted(known.config).apply)(known.variables, whole)
  for b in range(2):
    ids, skip = row(b, whole)
    near(found[b], known.logits(ids)[skip:])


def test_an_end_that_is_not_read_changes_nothing():
  known, whole = reference('llama'), batch()
  apply = jax.jit(prompted(dataclasses.replace(known.config, reads_end=False)).apply)
  tokens = whole.encoder_input_tokens
  without = whole.replace(encoder_input_tokens=jnp.where(tokens == 1, 0, tokens))
  near(apply(known.variables, whole)[0], apply(known.variables, without)[0])


def injected(known: Reference, part: Injection, whole: Batch) -> np.ndarray:
  model = prompted(known.config)

  def call(part):
    found = Injections(decoder=part)
    read = model.apply(
      known.variables, whole.encoder_input_tokens, injections=found, method='encode'
    )
    return model.apply(known.variables, read, whole.decoder_input_tokens, method='decode')

  return np.asarray(jax.jit(call)(part))


@pytest.mark.parametrize(
  ('placement', 'at'),
  [('before', 0), ('after_bos', 1), ('before_eos', -3), ('after_eos', -2)],
)
def test_rows_are_embeddings_at_their_place(placement, at):
  """As PEFT's prompt tuning puts them, by `inputs_embeds`."""
  known, whole = reference('gemma3'), batch()
  rows = np.random.default_rng(1).normal(size=(3, 32)).astype(np.float32)
  found = injected(known, Injection(prefix=jnp.asarray(rows)[None], placement=placement), whole)
  ours = order(ROWS, PAD, EOS)
  for b in range(2):
    ids, skip = row(b, whole)
    here = at if at >= 0 else skip + 1 + at  # "between" has two tokens
    with torch.no_grad():
      embeds = known.theirs.get_input_embeddings()(torch.tensor(ours[ids].astype(np.int64)))
      embeds = torch.cat([embeds[:here], torch.tensor(rows), embeds[here:]])
      logits = known.theirs(inputs_embeds=embeds[None]).logits[0].numpy()[:, ours]
    near(found[b], logits[skip + 3 :])


@pytest.mark.parametrize('bias', ['shifted', 'zero'])
def test_injected_keys_are_not_rotated(bias):
  """ "shifted": the text begins at position P, as PEFT's prefix tuning has it."""
  known, whole = reference('llama'), batch()
  kv = np.random.default_rng(1).normal(size=(3, 2, 1, 4, 2, 10)).astype(np.float32)
  found = injected(known, Injection(kv=jnp.asarray(kv), kv_bias=bias), whole)
  cache = lambda: transformers.DynamicCache(
    [tuple(torch.tensor(x).transpose(1, 2) for x in layer) for layer in kv]
  )
  for b in range(2):
    ids, skip = row(b, whole)
    first = 4 if bias == 'shifted' else 0
    positions = torch.arange(first, first + len(ids))[None]
    near(found[b], known.logits(ids, past_key_values=cache(), position_ids=positions)[skip:])


def test_rows_of_unlike_number_equal_shorter_prompts():
  known, whole = reference('gemma2'), batch()
  rows = jnp.asarray(np.random.default_rng(1).normal(size=(2, 3, 32)), jnp.float32)
  part = Injection(prefix=rows, placement='after_eos', lengths=jnp.array([3, 1], jnp.int32))
  found = injected(known, part, whole)
  for b, count in enumerate((3, 1)):
    alone = Injection(prefix=rows[b : b + 1, :count], placement='after_eos')
    near(found[b], injected(known, alone, whole)[b])


@pytest.mark.parametrize('bias', ['shifted', 'zero'])
def test_keys_of_unlike_number_equal_shorter_prefixes(bias):
  """What an example lacks of room for keys changes nothing, where it stands neither."""
  known, whole = reference('llama'), batch()
  kv = jnp.asarray(np.random.default_rng(1).normal(size=(3, 2, 2, 4, 2, 10)), jnp.float32)
  part = Injection(kv=kv, kv_bias=bias, kv_lengths=jnp.array([4, 1], jnp.int32))
  found = injected(known, part, whole)
  for b, count in enumerate((4, 1)):
    alone = Injection(kv=kv[:, :, b : b + 1, 4 - count :], kv_bias=bias)
    near(found[b], injected(known, alone, whole)[b])


def test_keys_from_a_layer_on_are_unseen_below():
  known, whole = reference('llama'), batch()
  kv = jnp.asarray(np.random.default_rng(1).normal(size=(3, 2, 1, 4, 2, 10)), jnp.float32)
  found = injected(known, Injection(kv=kv, first_layer=2), whole)
  other = kv.at[:2].set(0.5)  # keys that nobody sees
  near(injected(known, Injection(kv=other, first_layer=2), whole), found)
  assert np.max(np.abs(injected(known, Injection(kv=kv), whole) - found)) > 1e-3


def test_a_stack_that_is_not_there_is_refused():
  class OfAnEncoder(PromptMethod):
    def __call__(self, ctx):
      return Injections(encoder=Injection(prefix=jnp.zeros((1, 2, ctx.input_dims.H))))

  model = prompted(reference('llama').config, OfAnEncoder())
  with pytest.raises(UserError, match=facts('encoder', 'decoder', 'input_stack')):
    jax.eval_shape(model.init, jax.random.key(0), batch())


@pytest.mark.parametrize('family', FAMILIES)
def test_every_parameter_has_axes_on_a_mesh(family):
  paths = list(expected_shapes(reference(family).config))
  assert axes_of(paths).keys() == set(paths)


def test_a_tied_model_with_another_output_table_is_refused():
  known = reference('llama')
  state = {key: of_array(value.numpy(), key) for key, value in known.theirs.state_dict().items()}
  state['lm_head.weight'] = of_array(
    state['model.embed_tokens.weight'].read() + 1, 'lm_head.weight'
  )
  words: Any = types.SimpleNamespace(pad=PAD, eos=EOS)
  leaves = huggingface.leaves_from_huggingface(state, known.config, words, 'a folder')
  with pytest.raises(UserError, match=facts('lm_head.weight')):
    leaves['token_embedder/embedding'].read()


def test_a_prompt_begins_with_words_as_the_layers_read_them():
  """Gemma multiplies its table by the root of its width."""
  known = reference('gemma3')
  method = InputPrompt(length=4, table=Plain(SampledVocabulary()))
  of_run: Any = types.SimpleNamespace(
    backbone=types.SimpleNamespace(
      params=known.variables['params']['backbone'],
      vocabulary=tiny.Vocabulary(),
      config=known.config,
    ),
    model=prompted(known.config, method),
    placement=None,
  )
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')  # of a vocabulary this small
    rows = fresh_prompt(of_run, 0, None)[0]['decoder']['prompt']
  table = known.variables['params']['backbone']['token_embedder']['embedding'] * 32**0.5
  far = np.abs(np.asarray(rows)[:, None] - np.asarray(table)[None]).max(-1)
  assert np.all(far.min(1) < 1e-5)


def test_rows_that_do_not_see_the_input_are_the_same_for_every_input():
  known = reference('llama')
  rows = jnp.asarray(np.random.default_rng(1).normal(size=(1, 3, 32)), jnp.float32)
  part = Injection(prefix=rows, placement='after_eos', sees_input=False)
  model = prompted(known.config)
  read = model.apply(
    known.variables,
    batch().encoder_input_tokens,
    injections=Injections(decoder=part),
    method='encode',
  )
  slot = np.asarray(jnp.broadcast_to(read.input.layout.slot, read.input.layout.mask.shape))
  values = np.asarray(read.input.keys_values[1])  # keys stand at other positions
  first, second = (values[:, b, slot[b] >= 0] for b in range(2))
  near(first, second)


def test_int8_is_near_float32():
  known, whole = reference('qwen3'), batch()
  flat = traverse_util.flatten_dict(known.variables['params']['backbone'], sep='/')
  small = {path: quantise(path, np.asarray(leaf)) for path, leaf in flat.items()}
  variables = {'params': {'backbone': traverse_util.unflatten_dict(small, sep='/')}}
  apply = jax.jit(prompted(known.config).apply)
  near(apply(variables, whole)[0], apply(known.variables, whole)[0], 0.05)


@pytest.mark.parametrize(
  ('change', 'says'),
  [
    (dict(num_kv_heads=3), ['4', '3']),
    (dict(head_dim=7), ['7']),
    (dict(rope_theta=(1e4,)), ['1', '3']),
    (dict(between=()), ['between']),
    (dict(before=(64,)), ['64', '63']),
    (dict(dropout_rate=0.1), ['0.1']),
    (dict(attention='fused'), ['fused', 'plain']),
    (dict(biases='some'), ['some', 'inputs']),
    (dict(norm_eps=None), ['norm_eps']),
    (dict(rope_theta=(0.0,) * 3), ['rope_theta']),
    (dict(windows=(-1, 0, 0)), ['-1']),
    (dict(reads_end='no'), ['reads_end', 'no']),
  ],
)
def test_what_no_model_has_is_refused(change, says):
  with pytest.raises(UserError, match=facts(*says)):
    dataclasses.replace(reference('llama').config, **change)


@pytest.mark.parametrize(
  ('change', 'says'),
  [
    (dict(model_type='mamba'), 'mamba'),
    (dict(hidden_act='relu'), 'relu'),
    (dict(mlp_bias=True), 'mlp_bias'),
    (dict(rope_parameters=dict(rope_type='yarn', rope_theta=1.0)), 'yarn'),
    (dict(hidden_size=None), 'hidden_size'),
    (dict(use_bidirectional_attention=True), 'use_bidirectional_attention'),
    (dict(layer_types=['chunked_attention'] * 3), 'chunked_attention'),
    (dict(layer_types=['sliding_attention'] * 3, sliding_window=None), 'sliding_window'),
    (dict(model_type='gemma2'), 'final_logit_softcapping'),
    (dict(quantization_config={'bits': 4}), 'quantization_config'),
  ],
)
def test_a_setting_that_is_not_computed_is_refused_by_name(change, says):
  about = reference('llama').theirs.config.to_dict()
  with pytest.raises(UserError, match=facts(says)):
    huggingface.architecture({**about, **change}, 'config.json', FRAME)
