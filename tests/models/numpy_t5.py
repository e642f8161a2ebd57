"""A T5 1.1 restated in NumPy, one example at a time, with loops where loops are clearer."""

import math

import numpy as np

Stack = dict


def norm(x: np.ndarray, scale: np.ndarray) -> np.ndarray:
  return x / np.sqrt(np.mean(x**2, -1, keepdims=True) + 1e-6) * scale


def softmax(x: np.ndarray) -> np.ndarray:
  e = np.exp(x - x.max(-1, keepdims=True))
  return e / e.sum(-1, keepdims=True)


def bucket(relative: int, bidirectional: bool, buckets: int = 32, furthest: int = 128) -> int:
  """Key position minus query position -> bucket, in double precision."""
  first = 0
  if bidirectional:
    buckets //= 2
    first = buckets if relative > 0 else 0
    distance = abs(relative)
  else:
    distance = max(-relative, 0)
  exact = buckets // 2
  if distance < exact:
    return first + distance
  ratio = math.log(distance / exact) / math.log(furthest / exact)
  return first + min(exact + int(ratio * (buckets - exact) + 1e-6), buckets - 1)


def bias(table: np.ndarray, query, key, bidirectional: bool) -> np.ndarray:
  """table [N, buckets], positions -> [N, Q, K]; a key position None has no bias."""
  out = np.zeros((len(table), len(query), len(key)))
  for i, q in enumerate(query):
    for j, k in enumerate(key):
      if k is not None:
        out[:, i, j] = table[:, bucket(k - q, bidirectional)]
  return out


def attention(p: Stack, x, source, kv, mask, added) -> np.ndarray:
  """x [Q, H], source [K, H], kv [2, P, N, D], mask [Q, P + K], added [N, Q, P + K]."""
  heads, width = kv.shape[2:]
  split = lambda y: y.reshape(len(y), heads, width)
  q = split(x @ p['query']['kernel'])
  k = np.concatenate([kv[0], split(source @ p['key']['kernel'])])
  v = np.concatenate([kv[1], split(source @ p['value']['kernel'])])
  out = np.zeros_like(q)
  for n in range(heads):
    logits = np.where(mask, q[:, n] @ k[:, n].T + added[n], -np.inf)
    out[:, n] = softmax(logits) @ v[:, n]
  return out.reshape(len(x), -1) @ p['out']['kernel']


def mlp(p: Stack, x: np.ndarray) -> np.ndarray:
  h = x @ p['wi_0']['kernel']
  gelu = 0.5 * h * (1 + np.tanh(math.sqrt(2 / math.pi) * (h + 0.044715 * h**3)))
  return (gelu * (x @ p['wi_1']['kernel'])) @ p['wo']['kernel']


def layer(tree, i: int):
  return {
    k: layer(v, i) if isinstance(v, dict) else np.asarray(v, np.float64)[i] for k, v in tree.items()
  }


def front(extra: int, convention: str) -> list:
  return [None] * extra if convention == 'zero' else list(range(-extra, 0))


def encode(stack: Stack, x, kv, convention='zero', visible=None) -> np.ndarray:
  """x [S, H], kv [L, 2, P, N, D], visible bool[S, S] -> states [S, H]."""
  x, kv = np.asarray(x, np.float64), np.asarray(kv, np.float64)
  s, extra = len(x), kv.shape[2]
  visible = np.ones((s, s), bool) if visible is None else visible
  mask = np.concatenate([np.ones((s, extra), bool), visible], 1)
  key = [*front(extra, convention), *range(s)]
  added = bias(np.asarray(stack['relpos_bias']['rel_embedding']), range(s), key, True)
  for i in range(len(kv)):
    p = layer(stack['layers'], i)
    y = norm(x, p['pre_attention_layer_norm']['scale'])
    x = x + attention(p['attention'], y, y, kv[i], mask, added)
    x = x + mlp(p['mlp'], norm(x, p['pre_mlp_layer_norm']['scale']))
  return norm(x, np.asarray(stack['encoder_norm']['scale']))


def decode(stack: Stack, x, states, kv, cross, convention='zero') -> np.ndarray:
  """x [U, H], states [S, H], kv and cross [L, 2, P, N, D] -> logits [U, V]."""
  x, kv, cross = (np.asarray(a, np.float64) for a in (x, kv, cross))
  u, extra = len(x), kv.shape[2]
  mask = np.concatenate([np.ones((u, extra), bool), np.tril(np.ones((u, u), bool))], 1)
  key = [*front(extra, convention), *range(u)]
  added = bias(np.asarray(stack['relpos_bias']['rel_embedding']), range(u), key, False)
  everything = np.ones((u, cross.shape[2] + len(states)), bool)
  nothing = np.zeros((kv.shape[3], *everything.shape))
  for i in range(len(kv)):
    p = layer(stack['layers'], i)
    y = norm(x, p['pre_self_attention_layer_norm']['scale'])
    x = x + attention(p['self_attention'], y, y, kv[i], mask, added)
    y = norm(x, p['pre_cross_attention_layer_norm']['scale'])
    x = x + attention(p['encoder_decoder_attention'], y, states, cross[i], everything, nothing)
    x = x + mlp(p['mlp'], norm(x, p['pre_mlp_layer_norm']['scale']))
  x = norm(x, np.asarray(stack['decoder_norm']['scale']))
  return x @ np.asarray(stack['logits_dense']['kernel'])
