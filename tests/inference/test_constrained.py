"""Constrained decoding against a walk over all labels in NumPy, with teacher-forced logits."""

import functools

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from prompt_jax.inference import constrained, score

END = 1
# Of one token and of several; 5 begins 5 9, which begins 5 9 8; shared beginnings and endings.
LABELS = np.array(
  [[5, 1, 0, 0], [5, 9, 1, 0], [5, 9, 8, 1], [9, 1, 0, 0], [6, 7, 3, 1], [6, 7, 1, 0]], np.int32
)


@functools.partial(jax.jit, static_argnums=0)
def _forward(model, variables, inputs, targets):
  encoded = model.apply(variables, inputs, method='encode')
  return model.apply(variables, encoded, targets, method='decode')


def _by_enumeration(model, variables, inputs, labels):
  """Each row by itself: of the labels that agree with what is written, the best next token."""
  chosen, log_probs, allowed = [], [], []
  for row in np.asarray(inputs):
    written: list[int] = []
    total = among = 0.0
    while not written or written[-1] != END:
      alive = [lab for lab in labels.tolist() if lab[: len(written)] == written]
      options = sorted({lab[len(written)] for lab in alive})
      given_tokens = np.zeros((1, labels.shape[1]), np.int32)
      given_tokens[0, 1 : len(written) + 1] = written
      logits = np.asarray(_forward(model, variables, row[None], given_tokens), np.float64)
      logits = logits[0, len(written)]
      best = max(options, key=lambda token: logits[token])
      total += logits[best] - np.log(np.exp(logits).sum())
      among += logits[best] - np.log(np.exp(logits[options]).sum())
      written.append(best)
    padded = written + [0] * (labels.shape[1] - len(written))
    chosen.append(labels.tolist().index(padded))
    log_probs.append(total)
    allowed.append(among)
  return chosen, log_probs, allowed


def _run(model, variables, inputs, labels):
  call = functools.partial(constrained.choose_label, model, label_tokens=labels)
  return jax.jit(call)(variables, inputs)


def test_it_is_the_walk_over_all_labels(tiny, inputs):
  model, variables = tiny
  got = _run(model, variables, inputs, LABELS)
  chosen, log_probs, allowed = _by_enumeration(model, variables, inputs, LABELS)
  assert got.labels.tolist() == chosen
  np.testing.assert_allclose(got.log_probs, log_probs, atol=1e-4)
  np.testing.assert_allclose(got.allowed, allowed, atol=1e-4)


def test_where_one_label_begins_another_the_model_decides_by_the_end(prompted, inputs):
  """The three labels that begin with 5, with an end that is made likely and unlikely."""
  model, variables = prompted
  labels = LABELS[:3]
  answers = {}
  for push in (-40.0, 0.0, 40.0):
    changed = jax.tree.map(lambda x: x, variables)
    kernel = changed['params']['backbone']['decoder']['logits_dense']['kernel']
    # The end's logit against that of 9, whatever the state: a multiple of the same feature.
    ends = kernel.at[:, END].set(kernel[:, 9] + push * (kernel[:, 9] - kernel[:, 8]))
    changed['params']['backbone']['decoder']['logits_dense']['kernel'] = ends
    got = _run(model, changed, inputs, labels)
    assert got.labels.tolist() == _by_enumeration(model, changed, inputs, labels)[0]
    answers[push] = set(got.labels.tolist())
  assert set.union(*answers.values()) == {0, 1, 2}


def test_labels_of_one_token_and_their_end_are_ranked(prompted, inputs):
  """With an end that is certain after any of them, greedy decoding and ranking are the same."""
  model, variables = prompted
  labels = np.array([[5, 1], [9, 1], [6, 1], [30, 1], [12, 1]], np.int32)
  got = _run(model, variables, inputs, labels)
  first = _forward(model, variables, inputs, np.zeros((len(inputs), 4), np.int32))[:, 0]
  assert got.labels.tolist() == np.asarray(first)[:, labels[:, 0]].argmax(-1).tolist()
  ranked = jax.jit(functools.partial(score.rank, model))(variables, inputs, labels)
  np.testing.assert_allclose(got.log_probs, ranked[np.arange(len(inputs)), got.labels], atol=1e-4)


SEQUENCES = st.lists(
  st.lists(st.integers(2, 5), max_size=3).map(lambda ids: (*ids, END)),
  min_size=1,
  max_size=12,
  unique=True,
)


@given(SEQUENCES)
def test_the_paths_of_a_trie_are_its_labels(sequences):
  rows = np.zeros((len(sequences), 4), np.int32)
  for row, ids in zip(rows, sequences, strict=True):
    row[: len(ids)] = ids
  tree = constrained.trie(rows)

  def paths(node):
    if tree.label[node] >= 0:
      assert not tree.tokens[node].any()
      yield (), int(tree.label[node])
    for token, child in zip(tree.tokens[node].tolist(), tree.children[node].tolist(), strict=True):
      if token:
        yield from (((token, *rest), label) for rest, label in paths(child))

  assert sorted(paths(0)) == sorted((ids, i) for i, ids in enumerate(sequences))


class Table:
  """Stands for a model: the logits of a position and the token before it are read off a table."""

  def apply(self, variables, *args, method, features=None):
    if method == 'encode':
      return args[0]
    if method == 'start_cache':
      return variables[args[0], 0, 0], 1
    encoded, token, position = args
    return variables[encoded, position, token], position + 1


@settings(deadline=None, max_examples=5)
@given(SEQUENCES, st.integers(0, 2**32 - 1))
def test_whatever_the_logits_the_answer_is_the_walk_over_the_labels(sequences, seed):
  rows = np.zeros((len(sequences), 4), np.int32)
  for row, ids in zip(rows, sequences, strict=True):
    row[: len(ids)] = ids
  table = np.random.default_rng(seed).normal(0, 3, (5, 4, 8, 8)).astype(np.float32)
  table[..., 7] = 50  # the most probable token is of no label
  got = constrained.choose_label(Table(), jax.numpy.asarray(table), np.arange(5), rows)
  for example, (label, allowed) in enumerate(zip(got.labels, got.allowed, strict=True)):
    written, among = [], 0.0
    while not written or written[-1] != END:
      alive = [ids for ids in sequences if list(ids[: len(written)]) == written]
      options = sorted({ids[len(written)] for ids in alive})
      logits = table[example, len(written), written[-1] if written else 0].astype(np.float64)
      written.append(max(options, key=lambda token: logits[token]))
      among += logits[written[-1]] - np.log(np.exp(logits[options]).sum())
    assert tuple(written) == sequences[label]
    assert allowed == pytest.approx(among, abs=1e-4)
