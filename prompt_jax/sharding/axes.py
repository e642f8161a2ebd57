"""Logical axes of every parameter, by its path, with T5X's names."""

import re

from prompt_jax.errors import UserError

Axes = tuple[str, ...]

_STACK = '(?:encoder|decoder)'
_ATTENTION = f'{_STACK}/layers/(?:attention|self_attention|encoder_decoder_attention)'
# Full path of a backbone's parameter (a pattern) -> its axes. Every leaf must be listed.
TABLE: tuple[tuple[str, Axes], ...] = (
  ('token_embedder/embedding', ('vocab', 'embed')),
  (f'{_ATTENTION}/(?:query|key|value)/kernel', ('layers', 'embed', 'joined_kv')),
  (f'{_ATTENTION}/out/kernel', ('layers', 'joined_kv', 'embed')),
  (f'{_ATTENTION}/(?:query|key|value)/bias', ('layers', 'joined_kv')),
  (f'{_ATTENTION}/out/bias', ('layers', 'embed')),
  (f'{_ATTENTION}/(?:query|key)_norm/scale', ('layers', 'kv')),
  (rf'{_STACK}/layers/mlp/wi(?:_\d)?/kernel', ('layers', 'embed', 'mlp')),
  (f'{_STACK}/layers/mlp/wo/kernel', ('layers', 'mlp', 'embed')),
  (rf'{_STACK}/layers/\w+_layer_norm/scale', ('layers', 'embed')),
  (f'{_STACK}/{_STACK}_norm/scale', ('embed',)),
  (f'{_STACK}/relpos_bias/rel_embedding', ('heads', 'relpos_buckets')),
  (f'{_STACK}/layers/relpos_bias/rel_embedding', ('layers', 'heads', 'relpos_buckets')),
  ('decoder/logits_dense/kernel', ('embed', 'vocab')),
)


def axes_of(paths: list[str]) -> dict[str, Axes]:
  """The logical axes of a backbone's leaves.

  Args:
    paths: full paths such as "encoder/layers/mlp/wo/kernel".

  Raises:
    UserError: the table has no entry for some of them; the message lists all of these.
  """
  found = {path: _lookup(path) for path in paths}
  missing = sorted(path for path, axes in found.items() if axes is None)
  if missing:
    names = '\n  '.join(missing)
    raise UserError(f'No logical axes are known for these parameters:\n  {names}')
  return {path: axes for path, axes in found.items() if axes is not None}


def _lookup(path: str) -> Axes | None:
  return next((axes for pattern, axes in TABLE if re.fullmatch(pattern, path)), None)
