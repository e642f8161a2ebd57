"""Greedy decoding restricted to the labels by a trie of their tokens.

The trie of the labels as target sequences, here of "no", "not" and "yes" with a token a letter:

    root --n--> 1 --o--> 2 --end--> label 0
      \\                   \\--t--> 3 --end--> label 1
       \\--y--> 4 --e--> 5 --s--> 6 --end--> label 2

At each position the most probable of the tokens that leave a row's node is taken. Every label ends
with the end of the sequence, so the model can decide between a label and one that begins with it.
De Cao et al. 2021 decode so with beams (GENRE, section 3.2); here the beam size is 1.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from prompt_jax.batch import Features
from prompt_jax.inference.decode import Variables
from prompt_jax.prompted import Prompted

Array = jax.Array


class Trie(NamedTuple):
  """The labels as a tree whose arcs are tokens; node 0 is the root.

  With a leading axis B, one for each row of a batch, filled up with nodes and arcs of 0.

  Attributes:
    tokens: int32[nodes, arcs] the token of each arc that leaves a node; 0 where there is none.
    children: int32[nodes, arcs] the node where it leads.
    label: int32[nodes] the label that ends at a node, else -1.
  """

  tokens: np.ndarray
  children: np.ndarray
  label: np.ndarray


class Chosen(NamedTuple):
  """The labels chosen.

  Attributes:
    labels: int32[B] indices of labels.
    log_probs: float32[B] of the label's tokens under the model itself, in nats.
    allowed: float32[B] the same, normalised over the allowed tokens, in nats; over all labels their
      exponentials sum to 1.
  """

  labels: Array
  log_probs: Array
  allowed: Array


def trie(label_tokens: np.ndarray) -> Trie:
  """The trie of some labels.

  Args:
    label_tokens: int32[C, U] ids of the labels, all different, each with the end of the sequence
      and 0 after it.
  """
  arcs: list[dict[int, int]] = [{}]
  ends = {}
  for label, row in enumerate(np.asarray(label_tokens).tolist()):
    node = 0
    for token in filter(None, row):
      if token not in arcs[node]:
        arcs[node][token] = len(arcs)
        arcs.append({})
      node = arcs[node][token]
    ends[node] = label
  shape = len(arcs), max(map(len, arcs))
  tokens, children = np.zeros(shape, np.int32), np.zeros(shape, np.int32)
  for node, leaving in enumerate(arcs):
    tokens[node, : len(leaving)] = list(leaving)
    children[node, : len(leaving)] = list(leaving.values())
  ending = np.array([ends.get(node, -1) for node in range(len(arcs))], np.int32)
  return Trie(tokens, children, ending)


def choose_label(
  model: Prompted,
  variables: Variables,
  encoder_input_tokens: Array,
  label_tokens: np.ndarray,
  features: Features | None = None,
) -> Chosen:
  """The label that greedy decoding restricted to the labels generates.

  It needs one decoder pass per token of the longest label that is still possible, however many
  labels there are; ranking (`score.rank`) needs one per token of each label. The results may
  differ: a first token may win by the probability of many labels together, and greedy decoding does
  not backtrack.

  Args:
    model: the model and its prompt.
    variables: its 'params' and, for methods that have them, 'constants'.
    encoder_input_tokens: int32[B, T].
    label_tokens: int32[C, U] as in `trie`; a constant when the function is traced.
    features: int32[B] by name, for methods that read features of an example.
  """
  tree = Trie(*(x[None] for x in trie(label_tokens)))
  return follow(model, variables, encoder_input_tokens, tree, label_tokens.shape[1], features)


def follow(
  model: Prompted,
  variables: Variables,
  encoder_input_tokens: Array,
  tree: Trie,
  length: int,
  features: Features | None = None,
) -> Chosen:
  """`choose_label` along a trie for each row.

  Args:
    model: see `choose_label`.
    variables: see `choose_label`.
    encoder_input_tokens: int32[B, T].
    tree: with a leading axis of B, or of 1 for the same labels in every row.
    length: most tokens of a label.
    features: see `choose_label`.
  """
  tree = jax.tree.map(jnp.asarray, tree)
  rows = jnp.arange(tree.label.shape[0], dtype=jnp.int32)
  leaf = tree.label >= 0
  encoded = model.apply(variables, encoder_input_tokens, features=features, method='encode')
  logits, cache = model.apply(variables, encoded, length, method='start_cache')

  def advance(state: _State, logits: Array) -> _State:
    """Moves each row one token along the trie; rows that have ended stay where they are."""
    arcs = tree.tokens[rows, state.node]  # [B, arcs]
    found = jnp.take_along_axis(logits, arcs, axis=-1)
    open_to = jnp.where(arcs > 0, found, -jnp.inf)
    arc = jnp.argmax(open_to, axis=-1)[:, None]
    of_arc = lambda values: jnp.take_along_axis(values, arc, axis=-1)[:, 0]
    ended = leaf[rows, state.node]
    gain = lambda scores: jnp.where(ended, 0.0, of_arc(found) - jax.nn.logsumexp(scores, axis=-1))
    return state._replace(
      node=jnp.where(ended, state.node, of_arc(tree.children[rows, state.node])),
      token=jnp.where(ended, 0, of_arc(arcs)),
      log_probs=state.log_probs + gain(logits),
      allowed=state.allowed + gain(open_to),
    )

  def step(state: _State) -> _State:
    logits, cache = model.apply(variables, encoded, state.token, state.cache, method='decode_step')
    return advance(state._replace(cache=cache), logits)

  node = jnp.zeros(encoder_input_tokens.shape[0], jnp.int32)
  zero = node.astype(jnp.float32)
  state = advance(_State(node, node, zero, zero, cache), logits)
  state = jax.lax.while_loop(lambda s: ~jnp.all(leaf[rows, s.node]), step, state)
  return Chosen(tree.label[rows, state.node], state.log_probs, state.allowed)


class _State(NamedTuple):
  """The loop's state: the trie node of each row, and the last token and scores that led there."""

  node: Array
  token: Array
  log_probs: Array
  allowed: Array
  cache: Any
