"""What every prompt method must do, checked for every file of gin/prompts on a tiny model.

A new method needs a gin file there and a test of its own equation; these tests come by themselves.
`VARIANTS` adds settings of those files that take another path through the model. Everything a case
compiles is compiled once and shared by the tests below, which is why they are one long file.
"""

import dataclasses
import functools
import pathlib
import warnings
from typing import Any

import gin
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import core

from prompt_jax.batch import Batch
from prompt_jax.checkpoints.prompt_file import (
  Prompt,
  build_method,
  describe_method,
  load_prompt,
  save_prompt,
)
from prompt_jax.data.batches import BatchStream
from prompt_jax.data.example import Example
from prompt_jax.data.packing import Packed, PackedStream
from prompt_jax.errors import UserError
from prompt_jax.injections import Dims, Injection, Injections, Sizes, features_of
from prompt_jax.models.t5.t5 import T5
from prompt_jax.prompted import PromptedT5
from prompt_jax.prompts.base import PromptMethod, materialise
from prompt_jax.prompts.initialise import draw, initialise_prompt
from prompt_jax.runs.packing import slots
from prompt_jax.testing import tiny
from prompt_jax.training.losses import Loss, token_losses
from prompt_jax.training.objective import CrossEntropy, count, merge, split
from prompt_jax.training.optim import Update, gradient
from prompt_jax.training.step import apply_update, create_state, estimate_update, train_step
from tests.both_ways import both_ways
from tests.shared import facts

FOLDER = pathlib.Path(__file__).parent.parent / 'gin' / 'prompts'
FILES = {path.stem: (path.stem, ()) for path in sorted(FOLDER.glob('*.gin'))}
VARIANTS: dict[str, tuple[str, tuple[str, ...]]] = {
  'input-after_bos-own_stream': (
    'input',
    ("PROMPT_PLACEMENT = 'after_bos'", 'PROMPT_SEES_INPUT = False'),
  ),
  'input-before_eos': ('input', ("PROMPT_PLACEMENT = 'before_eos'",)),
  'input-after_eos': ('input', ("PROMPT_PLACEMENT = 'after_eos'",)),
  'input_both-after_bos': ('input_both', ("PROMPT_DECODER_PLACEMENT = 'after_bos'",)),
  'prefix_zero-shifted': ('prefix_zero', ("PROMPT_KV_BIAS = 'shifted'",)),
  'deep-add-before_eos': ('deep', ("PROMPT_MODE = 'add'", "PROMPT_PLACEMENT = 'before_eos'")),
  'attempt-shared': ('attempt', ('PROMPT_SHARED = True',)),
  'task_prompts-shared': ('task_prompts', ('PROMPT_SHARED = 2', "PROMPT_PLACEMENT = 'after_bos'")),
  'mpt-both': ('mpt', ('MPT.decoder = True',)),
  'deep-both-own_stream': ('deep', ('DeepPrompt.decoder = True', 'PROMPT_SEES_INPUT = False')),
}
CASES = FILES | VARIANTS
# Methods that a decoder-only model cannot have.
OF_AN_ENCODER = ('iapt', 'read_only')
# Methods that begin as the frozen model.
UNCHANGED = ('adapter', 'bitfit', 'ia3', 'linear_adapter', 'lora', 'parallel_adapter')
# Methods whose keys and values follow a feature, which rows of several examples cannot have.
KEYS_BY_EXAMPLE = {'control_prefixes': {'task_id'}}
# Sizes for a model of width 32; a file that does not use a macro is not affected.
SMALL = {
  'SOURCES': 2,
  'LENGTH': 4,
  'RANK': 2,
  'HIDDEN': 16,
  'BOTTLENECK': 8,
  'TASKS': 3,
  'SIZE': 8,
  'NOISE': 0.0,
  'LABELS': ('ab', 'c'),
}
CONFIG = tiny.config()
# One row of each task, for methods that ask which it is.
TASK_IDS = jnp.arange(3, dtype=jnp.int32)
FEATURES = {'task_id': TASK_IDS, 'language': TASK_IDS[::-1]}
BATCH = tiny.batch().replace(features=FEATURES)
STEPS = 4

# Compiling is nearly all of the suite's time, and running nearly none.
compiled = functools.partial(
  jax.jit,
  compiler_options={
    'xla_backend_optimization_level': 0,
    'xla_llvm_disable_expensive_passes': True,
  },
)

every_case = pytest.mark.parametrize('name', CASES)
every_file = pytest.mark.parametrize('name', FILES)
# Placement, visibility and bias change nothing in what trains; adding to rows does.
every_training = pytest.mark.parametrize('name', [*FILES, 'deep-add-before_eos'])
# Where rows are reserved, and where none are: other placements and modes differ in neither.
PACKED = [
  *FILES,
  *(name for name in VARIANTS if 'own_stream' in name or 'shared' in name),
  'input-before_eos',
  'input_both-after_bos',
]
# One for each field of an injection that arrays can fill.
MATERIALISED = ('input_both', 'prefix_zero', 'deep')


@dataclasses.dataclass(frozen=True)
class Case:
  """A method on the tiny model, at its first parameters."""

  model: PromptedT5
  params: dict[str, Any]
  constants: dict[str, Any]

  @property
  def variables(self):
    return {'params': self.params, 'constants': self.constants}


@functools.lru_cache(None)
def backbone():
  """The tree of a bare T5."""
  init = compiled(PromptedT5(T5(CONFIG), None).init)
  return init(jax.random.key(0), BATCH)['params']['backbone']


def parse(name: str) -> PromptMethod:
  """The method that %PROMPT of the gin file names."""
  file, bindings = CASES[name]
  gin.clear_config()
  gin.parse_config_file(str(FOLDER / f'{file}.gin'))
  gin.parse_config([f'PROMPT_{macro} = {value}' for macro, value in SMALL.items()])
  gin.parse_config(bindings)
  with gin.config_scope('PROMPT'):
    method = gin.get_configurable('gin.macro')()
  gin.clear_config()
  return method.for_features(dict.fromkeys(features_of(method), 3))


@functools.lru_cache(None)
def case(name: str) -> Case:
  model = PromptedT5(T5(CONFIG), parse(name))
  table = backbone()['token_embedder']['embedding']
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')  # of norms and of a vocabulary this small
    params, constants = initialise_prompt(model, jax.random.key(1), table, tiny.Vocabulary())
  if name in UNCHANGED:  # elsewhere, or nothing of it would be seen
    keys = iter(jax.random.split(jax.random.key(2), 64))
    params = jax.tree.map(lambda x: x + 0.2 * jax.random.normal(next(keys), x.shape), params)
  constants = {'prompt': constants} if constants else {}
  return Case(model, {'backbone': backbone(), 'prompt': params}, constants)


@dataclasses.dataclass(frozen=True)
class Decoded:
  """What inference computes: logits [B, U, V] two ways."""

  forced: np.ndarray
  cached: np.ndarray


@functools.lru_cache(None)
def decoded(name: str) -> Decoded:
  c = case(name)
  run = functools.partial(c.model.apply, c.variables)

  infer = compiled(functools.partial(both_ways, run))
  return Decoded(*map(np.asarray, infer(BATCH)))


@functools.lru_cache(None)
def gradient_of(name: str):
  options = {'objective': objective_of(name), 'estimate': gradient}
  return compiled(functools.partial(estimate_update, **options))


def objective_of(name: str) -> CrossEntropy:
  return CrossEntropy(case(name).model, Loss(z_loss=0.0))


@functools.lru_cache(None)
def trained(name: str):
  """The states before, between and after `STEPS` steps, and the metrics of each."""
  c = case(name)
  update, (trainable, frozen) = Update(optax.adam(3e-3)), split(c.params)
  step = compiled(functools.partial(train_step, objectives=[objective_of(name)], updates=[update]))
  states, metrics = [create_state(trainable, update, seed=0)], []
  for _ in range(STEPS):
    (state,), (m,) = step([states[-1]], frozen, [{}], [c.constants], [BATCH])
    states.append(state)
    metrics.append(m)
  return states, frozen, metrics


def leaves(tree) -> dict[str, np.ndarray]:
  return {jax.tree_util.keystr(k): np.asarray(x) for k, x in jax.tree.leaves_with_path(tree)}


@every_case
def test_the_tree_is_that_of_the_bare_model_and_a_prompt(name):
  c = case(name)
  assert c.params['prompt'], 'nothing to train'
  assert all(x.dtype == np.float32 for x in jax.tree.leaves(c.params['prompt']))
  hash(c.model)  # it is a static argument of jitted functions
  # A call makes no variable that was not there, in any collection.
  call = lambda v: c.model.apply(v, BATCH, mutable=True)[1]
  after = jax.eval_shape(call, c.variables)
  assert jax.tree.structure(after['params']) == jax.tree.structure(c.params)
  assert {k: v for k, v in after.items() if v}.keys() <= {'params', 'constants'}


@every_case
def test_inference_and_padded_training_rows_give_the_same_finite_logits(name):
  c, padded = case(name), tiny.batch(pad=3).replace(features=FEATURES)
  logits, aux = compiled(c.model.apply)(c.variables, padded)
  assert logits.shape == (3, 4, CONFIG.vocab_size)
  assert logits.dtype == np.float32
  assert np.isfinite(logits).all()
  assert np.isfinite(aux)
  np.testing.assert_allclose(logits, decoded(name).forced, atol=2e-5)


@every_case
def test_cached_decoding_is_teacher_forcing(name):
  np.testing.assert_allclose(decoded(name).cached, decoded(name).forced, atol=2e-5)


@every_case
def test_the_prompt_changes_the_logits(name):
  difference = np.abs(decoded(name).forced - bare_logits()).max(axis=(1, 2))
  assert (difference > 1e-3).all(), 'the method does nothing to some example'


@every_training
def test_every_leaf_trains_and_the_loss_falls(name):
  states, frozen, metrics = trained(name)
  before, after = leaves(states[0].trainable), leaves(states[2].trainable)
  still = [path for path in before if np.array_equal(before[path], after[path])]
  assert not still, f'no gradient within two steps: {still}'
  for path in before:
    # The rows themselves: none may be left out, but by a method of which an input takes a part.
    if path.endswith("['prompt']") and name not in ('smop', 'l2p', 'spt'):
      moved = np.abs(after[path] - before[path]).max(-1)
      assert (moved > 0).all(), f'{path} has rows without gradient: {np.argwhere(moved == 0)}'
  losses = [float(m['loss']) for m in metrics]
  assert losses[-1] < losses[0]
  assert np.isfinite(losses).all()
  # The loss of the first step is that of what inference computes: train time is decode time.
  logits = decoded(name).forced.astype(np.float64)
  log_z = np.log(np.exp(logits).sum(-1))
  target = np.take_along_axis(logits, np.asarray(BATCH.decoder_target_tokens)[..., None], -1)
  first = metrics[0]
  np.testing.assert_allclose(first['cross_entropy'], (log_z - target[..., 0]).mean(), rtol=1e-5)
  # Frozen weights are the same bits, and nothing but the prompt has optimizer state.
  tree = merge(states[-1].trainable, frozen)['backbone']
  jax.tree.map(np.testing.assert_array_equal, tree, backbone())
  trainable = count(states[0].trainable)
  assert trainable == count(case(name).params['prompt'])
  assert 2 * trainable <= count(states[-1].opt_state) <= 2 * trainable + 2


@every_training
def test_prompts_trained_at_once_are_those_trained_alone(name):
  """Two steps of three prompts with first values, examples and optimizers of their own."""
  c = case(name)
  trainable, frozen = split(c.params)
  move = lambda k: jax.tree.map(lambda x: x * (1 + 0.1 * k) + 0.01 * k, trainable)
  # Linear in the gradient: Adam makes whole steps of what is 0 but for rounding.
  updates = [Update(optax.sgd(rate, momentum=0.9)) for rate in (0.01, 0.03, 0.1)]
  begun = [create_state(move(k), update, seed=k) for k, update in enumerate(updates)]
  drawn = lambda seed: tiny.batch(seed=seed).replace(features=FEATURES)
  batches = [[drawn(10 * n + k) for k in range(3)] for n in range(2)]
  alone = []
  for k, state in enumerate(begun):
    # Only the optimizer differs, so the gradient's program is compiled once.
    for n in range(2):
      estimated, metrics = gradient_of(name)(state, frozen, c.constants, batches[n][k])
      state = apply_update(state, estimated, updates[k])[0]
    alone.append((state, metrics['loss']))
  at_once = compiled(
    functools.partial(train_step, objectives=[objective_of(name)] * 3, updates=updates)
  )
  states, nothing = begun, [{}] * 3
  for n in range(2):
    states, metrics = at_once(states, frozen, nothing, [c.constants] * 3, batches[n])
  for k, (want, loss) in enumerate(alone):
    close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=2e-5)
    jax.tree.map(close, states[k].trainable, want.trainable)
    np.testing.assert_allclose(metrics[k]['loss'], loss, rtol=1e-5)


@every_case
def test_materialised_is_the_method_or_is_refused(name):
  c = case(name)
  method = c.model.prompt
  make = functools.partial(
    materialise, method, c.params['prompt'], c.constants.get('prompt', {}), CONFIG.sizes
  )
  if reads := method.depends_on - {'task_id'}:
    with pytest.raises(UserError, match=facts(min(reads))):
      make()
    return
  live = c.model.apply(c.variables, BATCH.encoder_input_tokens, FEATURES, method='injections')
  if 'task_id' in method.depends_on:  # a prompt for each task
    with pytest.raises(UserError, match='task_id'):
      make()
    for row, task in enumerate(TASK_IDS):
      fixed = make(task_id=int(task))
      if live.encoder.prefix is not None:
        np.testing.assert_array_equal(fixed.encoder.prefix, live.encoder.prefix[row : row + 1])
      logits = forced_with(fixed)
      np.testing.assert_allclose(logits[row], decoded(name).forced[row], atol=2e-5)
    return
  fixed = make()
  assert jax.tree.structure(fixed) == jax.tree.structure(live)
  jax.tree.map(np.testing.assert_array_equal, fixed, live)
  if name in MATERIALISED:  # and the bare model, given these arrays, is the prompted one
    logits = forced_with(fixed)
    np.testing.assert_allclose(logits, decoded(name).forced, atol=2e-5)


@every_file
def test_a_decoder_only_model_needs_no_method_changed(name):
  """All that reads the input is placed in its one stack, keys and values by its own heads."""
  dims = Dims(L=3, H=32, N=4, D=8, kv_heads=2, F=64)
  sizes = Sizes(core.FrozenDict(decoder=dims), input_stack='decoder')
  table = jax.ShapeDtypeStruct((64, 32), jnp.float32)
  make = lambda key, table: draw(parse(name), key, table, tiny.Vocabulary(), sizes)
  if name in OF_AN_ENCODER:
    with pytest.raises(UserError, match='encoder'):
      jax.eval_shape(make, jax.random.key(0), table)
    return
  with warnings.catch_warnings():
    warnings.simplefilter('ignore')  # of a vocabulary this small
    injections, params, _ = jax.eval_shape(make, jax.random.key(0), table)
  assert params
  assert (injections.encoder, injections.cross) == (Injection(), Injection())
  added = injections.decoder
  assert added.prefix is not None or added.kv is not None or added.inside
  assert added.prefix is None or added.prefix.shape[::2] == (1, 32)
  kv = added.kv  # of its 4 rows, and of those for attributes
  assert kv is None or (kv.shape[:3], kv.shape[4:]) == ((3, 2, 1), (2, 8))
  assert kv is None or kv.shape[3] == (6 if name in KEYS_BY_EXAMPLE else 4)


@every_file
def test_bfloat16(name):
  c = case(name)
  half = PromptedT5(T5(tiny.config('bfloat16')), c.model.prompt)
  logits, _ = compiled(half.apply)(c.variables, BATCH)
  assert logits.dtype == np.float32
  want = decoded(name).forced
  assert np.isfinite(logits).all()
  assert np.abs(logits - want).mean() < 0.05 * want.std()


@every_case
def test_a_saved_prompt_is_the_same_method_and_the_same_bits(name, tmp_path):
  c = case(name)
  path = tmp_path / 'prompt.safetensors'
  metadata = {'base_model': 'tiny', 'fingerprint': 'f', 'width': CONFIG.emb_dim}
  method = type(c.model.prompt).__name__
  metadata |= {'method': method, 'method_config': describe_method(c.model.prompt)}
  prompt = c.params['prompt']
  save_prompt(path, Prompt(prompt, c.constants.get('prompt', {}), metadata))
  loaded = load_prompt(path)
  assert jax.tree.structure(loaded.params) == jax.tree.structure(prompt)
  jax.tree.map(np.testing.assert_array_equal, loaded.params, prompt)
  assert build_method(loaded.metadata['method_config']) == c.model.prompt


@pytest.mark.parametrize('name', [name for name in CASES if 'own_stream' in name])
def test_prompt_rows_that_do_not_see_the_input_are_run_once_for_all_inputs(name):
  c, tokens = case(name), BATCH.encoder_input_tokens
  injections = c.model.apply(c.variables, tokens, method='injections')
  states = jax.eval_shape(lambda v: c.model.apply(v, tokens, method='encode'), c.variables)
  assert [len(x) for x in states.all_states] == [1, len(tokens)]
  # The same rows, but for each example its own, are run among its tokens.
  rows = jnp.repeat(injections.encoder.prefix, len(tokens), axis=0)
  among = injections.replace(encoder=injections.encoder.replace(prefix=rows))
  np.testing.assert_allclose(forced_with(among), decoded(name).forced, atol=2e-5)


@functools.lru_cache(None)
def some_examples() -> tuple[Example, ...]:
  """Of unlike lengths, so that rows hold different numbers of them."""
  rng = np.random.default_rng(3)
  ids = lambda n: np.append(rng.integers(3, 40, n - 1), 1).astype(np.int32)
  sizes = ((9, 2), (3, 4), (7, 1), (2, 3), (5, 2), (4, 1), (6, 2))
  made = [Example(ids(t), ids(u), '', '', None, {}, '') for t, u in sizes]
  # Neighbours in a row are of different tasks, for methods that ask.
  of = lambda i: {'task': f'task {i % 3}', 'fields': {'language': f'task {i % 3}'}}
  return tuple(dataclasses.replace(e, **of(i)) for i, e in enumerate(made))


def owners(packed: Packed, batch: Batch) -> np.ndarray:
  """int32[B, U] the number of the example that each position of the decoder belongs to."""
  found = np.full(batch.decoder_segment_ids.shape, -1)
  count = [0] * packed.rows
  for example, row in zip(packed.examples, packed.row, strict=True):
    count[row] += 1
    found[row][batch.decoder_segment_ids[row] == count[row]] = example
  return found


def losses_and_gradient(c: Case, batch: Batch, owner: np.ndarray):
  """The loss, that of each example, and the gradient with respect to a disturbed prompt."""
  rng = np.random.default_rng(4)
  disturbed = lambda x: x + rng.normal(0, 0.2, x.shape).astype(np.float32)
  prompt = jax.tree.map(disturbed, c.params['prompt'])

  @compiled
  def run(prompt, batch):
    def loss(prompt):
      variables = {'params': {**c.params, 'prompt': prompt}, 'constants': c.constants}
      logits, _ = c.model.apply(variables, batch)
      weights = batch.decoder_loss_weights
      each = weights * token_losses(logits, batch.decoder_target_tokens, 1e-4)[0]
      own = jnp.asarray([jnp.sum(each * (owner == i)) for i in range(len(some_examples()))])
      return jnp.sum(each) / jnp.sum(weights), own

    return jax.value_and_grad(loss, has_aux=True)(prompt)

  (loss, own), gradient = run(prompt, batch)
  return {'loss': loss, 'of examples': own, **leaves(gradient)}


@pytest.mark.parametrize('name', PACKED)
def test_packed_rows_are_rows_of_their_own_or_are_refused(name):
  c, examples = case(name), some_examples()
  asked = features_of(c.model.prompt)
  refused = (c.model.prompt.depends_on - asked) or (asked & KEYS_BY_EXAMPLE.get(name, set()))
  if refused:
    with pytest.raises(UserError, match=facts(min(refused))):
      slots(c.model, c.variables)
    return
  tasks = {name: {f'task {k}': (k + 1) % 3 for k in range(3)} for name in asked}
  encoder, decoder = slots(c.model, c.variables)
  stream = PackedStream(
    examples, len(examples), row_length=24, encoder=encoder, decoder=decoder, features=tasks
  )
  packed, batch = stream.packed(0), stream.batch(0)
  assert 1 < packed.rows < len(examples)
  got = losses_and_gradient(c, batch, owners(packed, batch))
  alone = BatchStream(examples, len(examples), buckets=1, features=tasks)
  owner = np.repeat(alone.rows(0).examples[:, None], alone.shapes.targets[0], axis=1)
  want = losses_and_gradient(c, alone.batch(0), owner)
  assert (want['of examples'] > 0).all()
  for path, x in want.items():
    np.testing.assert_allclose(got[path], x, atol=1e-5 * np.abs(x).max(), err_msg=path)


def forced_with(injections: Injections) -> np.ndarray:
  """Logits of the bare T5 with these injections."""
  model = PromptedT5(T5(CONFIG), None)

  @compiled
  def run(params, injections):
    variables = {'params': {'backbone': params}}
    tokens = BATCH.encoder_input_tokens
    encoded = model.apply(variables, tokens, injections=injections, method='encode')
    return model.apply(variables, encoded, BATCH.decoder_input_tokens, method='decode')

  return np.asarray(run(backbone(), injections))


@functools.lru_cache(None)
def bare_logits() -> np.ndarray:
  model = PromptedT5(T5(CONFIG), None)
  return np.asarray(compiled(model.apply)({'params': {'backbone': backbone()}}, BATCH)[0])


def test_empty_injections_are_the_bare_model():
  np.testing.assert_array_equal(forced_with(Injections()), bare_logits())


def test_the_suite_sees_every_prompt_file():
  assert len(FILES) >= 10
  assert {file for file, _ in VARIANTS.values()} <= FILES.keys()
