"""Loss terms: what they see, what they cost, and that batches may be cut and packed."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from prompt_jax.errors import UserError
from prompt_jax.injections import Injection, Injections, Seen, Term
from prompt_jax.models.t5.t5 import T5
from prompt_jax.prompted import PromptedT5
from prompt_jax.prompts.base import PromptMethod, placeholder
from prompt_jax.prompts.initializers import FromArray, FromFiles
from prompt_jax.prompts.methods.input.input_prompt import InputPrompt
from prompt_jax.prompts.methods.multitask.mpt import MPT, Distillation
from prompt_jax.prompts.tables import Plain
from prompt_jax.testing import tiny
from prompt_jax.training.losses import Loss
from prompt_jax.training.objective import BatchLoss, CrossEntropy
from tests.shared import facts

P, TASKS = 3, 2
CONFIG = tiny.config()
H = CONFIG.emb_dim
RNG = np.random.default_rng(0)
ROWS, TEACHERS = (RNG.normal(size=s).astype(np.float32) for s in ((P, H), (TASKS, P, H)))
TASK_ID = np.asarray([1, 0, 1, 0], np.int32)
# Targets of unlike lengths, so that microbatches have unlike weights.
WEIGHTS = (np.arange(4)[None] < np.asarray([[4], [1], [3], [2]])).astype(np.float32)
BATCH = tiny.batch(rows=4).replace(
  features={'task_id': jnp.asarray(TASK_ID)}, decoder_loss_weights=jnp.asarray(WEIGHTS)
)


@functools.lru_cache(None)
def backbone():
  return tiny.random_params(CONFIG)


def student(distil=0.9, teachers=TEACHERS):
  return MPT(TASKS, P, table=Plain(FromArray(ROWS)), distil=distil, teachers=FromArray(teachers))


def model_and_variables(method):
  made = method.init(jax.random.key(0), placeholder(method, CONFIG.sizes))
  params = {'backbone': backbone(), 'prompt': made.get('params', {})}
  return PromptedT5(T5(CONFIG), method), {
    'params': params,
    'constants': {'prompt': made.get('constants', {})},
  }


def loss_and_gradient(method, microbatches=1, batch=BATCH):
  """Of the prompt alone."""
  model, variables = model_and_variables(method)
  loss = BatchLoss(
    CrossEntropy(model, Loss(z_loss=0.0)),
    {'backbone': variables['params']['backbone']},
    variables['constants'],
    batch,
    microbatches,
  )
  return jax.jit(loss.gradient)({'prompt': variables['params']['prompt']}, jax.random.key(0))


class Watching(PromptMethod):
  """Rows, and a loss of them that the test gives."""

  fn: object = None

  def __call__(self, ctx):
    prefix = jnp.asarray(ROWS[None])
    other = Injections(encoder=Injection(prefix=jnp.asarray(TEACHERS[:1])))
    terms = (Term(self.fn, {'second': other}),) if self.fn else ()
    return Injections(encoder=Injection(prefix=prefix), terms=terms)


def test_a_term_sees_its_own_pass_and_the_others():
  def logits(rows):
    model, variables = model_and_variables(InputPrompt(P, Plain(FromArray(rows))))
    return jax.jit(model.apply)(variables, BATCH)[0]

  for of, rows in (('own', ROWS), ('second', TEACHERS[0])):
    kept = lambda seen, others, of=of: {'own': seen, **others}[of].logits[..., 5]
    model, variables = model_and_variables(Watching(kept))
    first, loss = jax.jit(functools.partial(model.apply, train=True))(variables, BATCH)
    np.testing.assert_allclose(loss, logits(rows)[..., 5], atol=2e-5)
    np.testing.assert_allclose(first, logits(ROWS), atol=2e-5)


def test_distillation_is_a_divergence_and_a_squared_difference():
  draw = lambda *shape: RNG.normal(size=shape).astype(np.float32)
  seen, teacher = (Seen(draw(2, 3, 5), draw(2, 3, 4)) for _ in range(2))
  p, q = (np.exp(x.logits) / np.exp(x.logits).sum(-1, keepdims=True) for x in (teacher, seen))
  want = 0.5 * ((p * np.log(p / q)).sum(-1) + np.square(seen.states - teacher.states).mean(-1))
  found = Distillation(0.5)(seen, {'teacher': teacher})
  np.testing.assert_allclose(found, want, rtol=1e-4)


def test_a_teacher_that_is_the_student_teaches_nothing():
  same = np.stack([ROWS] * TASKS)
  gradient, metrics = loss_and_gradient(student(teachers=same))
  plain, _ = loss_and_gradient(student(distil=0.0))
  np.testing.assert_allclose(metrics['aux_loss'], 0, atol=1e-6)
  jax.tree.map(functools.partial(np.testing.assert_allclose, atol=1e-5), gradient, plain)
  gradient, metrics = loss_and_gradient(student())
  assert metrics['aux_loss'] > 0.1
  apart = jax.tree.map(lambda a, b: np.abs(a - b).max(), gradient, plain)
  assert all(x > 1e-3 for x in jax.tree.leaves(apart))


def test_microbatches_add_up_to_the_batch():
  gradient, metrics = loss_and_gradient(student())
  parts, of_parts = loss_and_gradient(student(), microbatches=4)
  close = functools.partial(np.testing.assert_allclose, rtol=1e-4, atol=1e-5)
  jax.tree.map(close, parts, gradient)
  for name in ('loss', 'aux_loss', 'cross_entropy'):
    close(of_parts[name], metrics[name])


def test_packed_rows_are_rows_of_their_own():
  """Two examples in a row, with the places that the rows of both reserve."""
  t, u = BATCH.encoder_input_tokens.shape[1], BATCH.decoder_input_tokens.shape[1]
  two = lambda x: np.asarray(x).reshape(2, -1)
  reserved = lambda x, value: np.concatenate([np.full((4, P), value), np.asarray(x)], 1)
  inputs = np.asarray(BATCH.encoder_input_tokens)
  slot = reserved(np.full((4, t), -1), 0)
  slot[:, :P] = np.arange(P)
  segments = np.repeat([[1], [2], [1], [2]], P + t, 1) * (reserved(inputs, 1) > 0)
  packed = BATCH.replace(
    encoder_input_tokens=two(reserved(inputs, 0)),
    encoder_segment_ids=two(segments),
    encoder_positions=two(np.tile(np.arange(P + t), (4, 1))),
    prompt_slot=two(slot),
    decoder_input_tokens=two(BATCH.decoder_input_tokens),
    decoder_target_tokens=two(BATCH.decoder_target_tokens),
    decoder_loss_weights=two(BATCH.decoder_loss_weights),
    decoder_segment_ids=two(np.repeat([[1], [2], [1], [2]], u, 1)),
    decoder_positions=two(np.tile(np.arange(u), (4, 1))),
    features={'task_id': two(TASK_ID)},
  )
  packed = jax.tree.map(jnp.asarray, packed)
  gradient, metrics = loss_and_gradient(student())
  of_packed, again = loss_and_gradient(student(), batch=packed)
  close = lambda a, b: np.testing.assert_allclose(a, b, atol=5e-4 * np.abs(b).max())
  jax.tree.map(close, of_packed, gradient)
  close(again['aux_loss'], metrics['aux_loss'])


def test_a_teacher_costs_two_stacks_forward_in_training_and_nothing_elsewhere():
  def stacks(method, train):
    model, variables = model_and_variables(method)

    def loss(prompt):
      params = {**variables['params'], 'prompt': prompt}
      logits, aux = model.apply({**variables, 'params': params}, BATCH, train=train)
      return jnp.sum(logits) + jnp.sum(aux)

    return str(jax.make_jaxpr(jax.grad(loss))(variables['params']['prompt'])).count('scan[')

  plain = stacks(student(distil=0.0), True)
  assert plain == 4  # each stack, forward and backward
  assert stacks(student(), True) == plain + 2
  assert stacks(student(), False) == plain


def test_terms_that_are_none_are_refused(tmp_path):
  run = lambda fn: jax.eval_shape(*_call(Watching(fn)))
  with pytest.raises(UserError, match=facts('Watching', '[4, 4, 64]', '[4, 4]')):
    run(lambda seen, others: seen.logits)

  class Wrong(PromptMethod):
    def __call__(self, ctx):
      return Injections(terms=(3,))

  with pytest.raises(UserError, match=facts('Wrong', 'int', 'Term')):
    jax.eval_shape(*_call(Wrong()))
  np.save(tmp_path / 'rows.npy', ROWS)
  one = FromFiles([str(tmp_path / 'rows.npy')])
  with pytest.raises(UserError, match=facts('FromFiles.paths', '1', '2')):
    model_and_variables(student().clone(teachers=one))
  np.testing.assert_array_equal(one(None, (1, P, H)), [ROWS])
  with pytest.raises(UserError, match=facts('MPT', 'distil', 'decoder')):
    model_and_variables(student().clone(decoder=True))


def _call(method):
  model = PromptedT5(T5(CONFIG), method)
  variables = {'params': {'backbone': backbone()}}
  return functools.partial(model.apply, train=True), variables, BATCH
