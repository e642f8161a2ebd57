"""Initializes attention so that it attends to similar tokens and copies them.

Trained attention has this form: the product of the query and key kernels is close to a multiple of
the identity, and so is that of the value and output kernels (Trockman and Kolter 2023, "Mimetic
Initialization of Self-Attention Layers", section 3). Random kernels need thousands of steps to
learn it, which a short pretraining run saves. It needs embeddings in which similar tokens are near
each other, see `pretraining.cooccurrence`.
"""

from typing import Any

import numpy as np

Tree = dict[str, Any]


def mimetic(params: Tree, seed: int, *, sharpness: float = 4.0) -> Tree:
  """Replaces the kernels of every attention layer by matching orthogonal ones.

  Per layer, with K and V random orthogonal: key K, query `sharpness` / D * K, value V, out V^T.
  The attention logit of two normalised states is then about `sharpness` times their cosine (a head
  sees its D of the N*D directions), and the layer copies states unchanged.

  Args:
    params: of `models.t5.t5.T5` with N*D = H and scanned layers.
    seed: of the rotations.
    sharpness: logit of a state with itself.

  Returns:
    The same tree with float32[L, H, H] kernels of attention replaced.
  """
  rng = np.random.default_rng(seed)

  def rotations(layers: int, width: int) -> np.ndarray:
    made = [np.linalg.qr(rng.normal(size=(width, width)))[0] for _ in range(layers)]
    return np.stack(made).astype(np.float32)

  def walk(tree: Tree, head_dim: int) -> Tree:
    if 'query' not in tree:
      return {k: walk(v, head_dim) if isinstance(v, dict) else v for k, v in tree.items()}
    layers, width, _ = tree['query']['kernel'].shape
    k, v = rotations(layers, width), rotations(layers, width)
    made = {'key': k, 'query': k * sharpness / head_dim, 'value': v, 'out': v.swapaxes(1, 2)}
    return {**tree, **{name: {'kernel': kernel} for name, kernel in made.items()}}

  heads, _ = params['decoder']['relpos_bias']['rel_embedding'].shape
  width = params['token_embedder']['embedding'].shape[1]
  return walk(params, width // heads)
