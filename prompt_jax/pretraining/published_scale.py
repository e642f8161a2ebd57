"""Scales embeddings to the size that they have in the published T5 1.1 models."""

from typing import Any

import jax
import jax.numpy as jnp

Tree = dict[str, Any]
# Root mean square of the entries of T5 1.1's trained embeddings (row norm 297 at base size).
EMBEDDING_RMS = 10.7


def at_published_scale(params: Tree) -> Tree:
  """Scales embeddings, and everything that is added to them, to the published size.

  Learning rates and initial prompts then have the same effect as on published models. Every layer
  normalises its input, so the model computes the same function.

  Args:
    params: of `models.t5.t5.T5` with untied logits.
  """
  embedding = params['token_embedder']['embedding']
  factor = EMBEDDING_RMS / float(jnp.sqrt(jnp.mean(jnp.square(embedding))))

  def grown(path: tuple[Any, ...], leaf: Any) -> Any:
    names = [key.key for key in path]
    adds = names[-1] == 'embedding' or names[-2:] in (['out', 'kernel'], ['wo', 'kernel'])
    return leaf * factor if adds else leaf

  return jax.tree_util.tree_map_with_path(grown, params)
