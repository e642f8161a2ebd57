"""A held-out part of one file: stratified, and the same whatever the order of the rows."""

import hashlib
from collections.abc import Hashable, Mapping, Sequence


def held_out(
  groups: Sequence[Hashable],
  classes: Sequence[Hashable],
  fractions: Mapping[str, float],
  seed: int,
  rest: str = 'train',
) -> list[str]:
  """The split of every row.

  Rows of one group (the same text, the same file) fall on the same side, so that nothing is
  learned by heart and then asked. Groups are drawn class by class in the order of a hash, so each
  class keeps its share: a split gets the rounded fraction of the groups of a class, and at least
  one while another stays for `rest`.

  Args:
    groups: what may not be torn apart, one a row.
    classes: the label of each row (all None without labels); a group counts for the class of its
      first row.
    fractions: split name -> share of the groups, in the order in which they are drawn.
    seed: another seed, another draw.
    rest: the split of what is not drawn.

  Returns:
    A split name for each row.
  """
  members: dict[Hashable, dict[Hashable, None]] = {}
  seen: set[Hashable] = set()
  for group, label in zip(groups, classes, strict=True):
    if group not in seen:
      seen.add(group)
      members.setdefault(label, {})[group] = None
  where: dict[Hashable, str] = {}
  for in_class in members.values():
    order = sorted(in_class, key=lambda group: _hash(group, seed))
    start = 0
    for split, fraction in fractions.items():
      count = max(1, round(fraction * len(order))) if fraction > 0 else 0
      count = min(count, len(order) - 1 - start)
      for group in order[start : start + max(count, 0)]:
        where[group] = split
      start += max(count, 0)
  return [where.get(group, rest) for group in groups]


def _hash(group: Hashable, seed: int) -> bytes:
  return hashlib.sha256(f'{seed}\0{group}'.encode()).digest()
