"""Scores of given targets against log-softmax sums in NumPy over teacher-forced logits."""

import functools

import jax
import numpy as np
import pytest

from prompt_jax.inference import score

LABELS = np.array(
  [[5, 1, 0, 0], [6, 7, 1, 0], [5, 9, 8, 1], [9, 1, 0, 0], [6, 7, 3, 1], [2, 1, 0, 0]], np.int32
)


@functools.partial(jax.jit, static_argnums=0)
def _forward(model, variables, inputs, targets):
  encoded = model.apply(variables, inputs, method='encode')
  return model.apply(variables, encoded, targets, method='decode')


def _forced(model, variables, inputs, targets):
  """float64[B] by hand: teacher-forced logits, log-softmax, sum over real tokens."""

  shifted = np.pad(targets, ((0, 0), (1, 0)))[:, :-1]
  logits = np.asarray(_forward(model, variables, inputs, shifted), np.float64)
  logp = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
  chosen = np.take_along_axis(logp, targets[..., None], -1)[..., 0]
  return (chosen * (targets != 0)).sum(-1)


def _all_labels(model, variables, inputs):
  b = len(inputs)
  columns = [_forced(model, variables, inputs, np.tile(row, (b, 1))) for row in LABELS]
  return np.stack(columns, 1)


@pytest.mark.parametrize(('count', 'at_once'), [(6, 1), (5, 4), (6, 6)])
def test_rank_equals_teacher_forced_log_softmax_sums(tiny, inputs, count, at_once):
  """One label at a time, a last chunk that is not full, and all of them at once."""
  model, variables = tiny
  got = jax.jit(functools.partial(score.rank, model, labels_at_once=at_once))(
    variables, inputs, LABELS[:count]
  )
  np.testing.assert_allclose(got, _all_labels(model, variables, inputs)[:, :count], atol=1e-4)


def test_normalised_rank_divides_by_the_tokens_of_the_label(prompted, inputs):
  model, variables = prompted
  got = jax.jit(functools.partial(score.rank, model, normalize='tokens'))(variables, inputs, LABELS)
  want = _all_labels(model, variables, inputs) / [2, 3, 4, 2, 4, 2]
  np.testing.assert_allclose(got, want, atol=1e-4)


def test_a_label_that_is_only_the_end_scores_its_one_token(prompted, inputs):
  model, variables = prompted
  labels = np.array([[1], [4]], np.int32)
  got = jax.jit(functools.partial(score.rank, model))(variables, inputs, labels)
  want = np.stack(
    [_forced(model, variables, inputs, np.full((len(inputs), 1), t, np.int32)) for t in (1, 4)], 1
  )
  np.testing.assert_allclose(got, want, atol=1e-4)


@pytest.mark.parametrize('normalize', ['none', 'tokens'])
def test_score_of_each_rows_own_target(tiny, inputs, normalize):
  model, variables = tiny
  got = jax.jit(functools.partial(score.score, model, normalize=normalize))(
    variables, inputs, LABELS
  )
  want = _forced(model, variables, inputs, LABELS)
  if normalize == 'tokens':
    want = want / (LABELS != 0).sum(1)
  np.testing.assert_allclose(got, want, atol=1e-4)


def test_the_encoder_runs_once_and_its_keys_are_not_copied_per_label(prompted, inputs):
  """More labels at once cost decoder steps, not encoder passes or copies of its keys."""
  model, variables = prompted

  def analysed(count):
    labels = np.resize(LABELS[:, :2], (count, 2))
    rank = functools.partial(score.rank, model, labels_at_once=count)
    text = str(jax.make_jaxpr(rank)(variables, inputs, labels))
    layers, b, heads, width = 2, len(inputs), 2, 8
    positions = inputs.shape[1] + 3  # prompt rows; injected cross keys are a group of their own
    copied = f'[{count},{layers},{b},{positions},{heads},{width}]'
    swapped = f'[{layers},{count},{b},{positions},{heads},{width}]'
    return f'[{layers},{b},{positions},{heads},{width}]' in text, copied in text, swapped in text

  assert analysed(5) == (True, False, False)
