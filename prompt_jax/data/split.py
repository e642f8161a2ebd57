"""A held-out part of one file: stratified, and the same whatever the order of the rows."""

import collections
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
  class keeps its share: a split gets groups of a class up to its fraction of the rows, passing over
  those that are too large, and at least one group while another stays for `rest`.

  Args:
    groups: what may not be torn apart, one a row.
    classes: the label of each row (all None without labels); a group counts for the class of its
      first row.
    fractions: split name -> share of the rows of each class, in the order of drawing.
    seed: another seed, another draw.
    rest: the split of what is not drawn.

  Returns:
    A split name for each row.
  """
  class_of: dict[Hashable, Hashable] = {}
  for group, label in zip(groups, classes, strict=True):
    class_of.setdefault(group, label)
  size = collections.Counter(groups)
  in_class = collections.defaultdict(list)
  for group in sorted(class_of, key=lambda group: _hash(group, seed)):
    in_class[class_of[group]].append(group)
  where: dict[Hashable, str] = {}
  for waiting in in_class.values():
    total = sum(size[group] for group in waiting)
    wanted = [split for split, fraction in fractions.items() if fraction > 0]
    for number, split in enumerate(wanted):
      later = len(wanted) - number  # the other splits, and the rest
      drawn = _draw(waiting, size, round(fractions[split] * total), later)
      where |= dict.fromkeys(drawn, split)
      waiting = [group for group in waiting if group not in where]
  return [where.get(group, rest) for group in groups]


def _draw(
  waiting: Sequence[Hashable], size: Mapping[Hashable, int], rows: int, later: int
) -> list[Hashable]:
  """Groups in their order that fit into `rows`, but for `later` that are left to others; the
  smallest if none does; never all."""
  drawn: list[Hashable] = []
  for group in waiting:
    if size[group] <= rows and len(drawn) < len(waiting) - later:
      drawn.append(group)
      rows -= size[group]
  if not drawn and len(waiting) > 1:
    drawn.append(min(waiting, key=lambda group: size[group]))
  return drawn


def _hash(group: Hashable, seed: int) -> bytes:
  return hashlib.sha256(f'{seed}\0{group}'.encode()).digest()
