"""Q-Tuning: a queue of the rows of earlier tasks, weighted anew for each task."""

import flax.linen as nn
import jax
import jax.numpy as jnp

from prompt_jax.injections import Context, Injection, Injections
from prompt_jax.prompts.base import check_least, own_table
from prompt_jax.prompts.methods.input.progressive import Progressive


class QTuning(Progressive):
  """X' = [(u v^T) * Q; P_k; X], * elementwise: Q stays, u and v start at ones (Q-Tuning, Guo et al.
  2024, arXiv:2404.14607). Its shared prefix, held near that of the task before, is left out.

  Q are the earlier rows as in `Progressive`, at most `queue` of them: of more, the principal
  components that hold most of them, sigma_i v_i of the singular value decomposition.

  Parameters: a table at `encoder` P_k [P, H]; where there are earlier rows `rows` u [Q, 1] and
  `columns` v [1, H]. Constant: `earlier` Q [min(earlier, queue), H].

  Attributes:
    queue: most rows of Q.
  """

  queue: int = 100

  @nn.compact
  def __call__(self, ctx: Context) -> Injections:
    self._check()
    check_least(self, queue=1)
    width = ctx.input_dims.H
    rows = own_table(self, self.table, ctx.input_stack)((self.length, width))
    if self.earlier:
      first = lambda: self.first_rows(self.make_rng('params'), (self.earlier, width))
      kept = self.variable('constants', 'earlier', lambda: components(first(), self.queue)).value
      u = self.param('rows', nn.initializers.ones, (len(kept), 1))
      v = self.param('columns', nn.initializers.ones, (1, width))
      rows = jnp.concatenate([u * v * kept, rows])
    return Injections.of({ctx.input_stack: Injection(rows[None], placement=self.placement)})


def components(rows: jax.Array, most: int) -> jax.Array:
  """`rows` [Q, H], or `most` rows of the same span as far as so many can have it."""
  if len(rows) <= most:
    return rows
  _, sizes, directions = jnp.linalg.svd(rows, full_matrices=False)
  return (sizes[:, None] * directions)[:most]
