"""Where methods inside the layers go: the points of each stack."""

from collections.abc import Callable, Sequence
from typing import Any

from prompt_jax.errors import UserError
from prompt_jax.injections import POINTS, Context, Dims, Injection, Injections, Inside, InsideEdit

OF_CROSS = POINTS[:5]  # cross attention has no mlp


def in_stacks(
  ctx: Context,
  edits: Callable[[str, Dims, Sequence[str]], Inside],
  points: Sequence[str],
  cross: bool,
) -> Injections:
  """Edits of every stack of a model, and of its cross attention.

  Args:
    ctx: of the model.
    edits: from the name of a stack, its sizes and its points to its edits.
    points: where the method edits.
    cross: whether cross attention is edited too.
  """
  parts = {
    name: Injection(inside=edits(name, dims, points)) for name, dims in sorted(ctx.stacks.items())
  }
  if cross and len(parts) > 1:
    own = [point for point in points if point in OF_CROSS]
    parts['cross'] = Injection(inside=edits('cross', ctx.stacks['decoder'], own))
  return Injections.of(parts)


def vectors(
  method: Any, stack: str, dims: Dims, points: Sequence[str], start: Any, fn: Any
) -> Inside:
  """An edit at each point whose theta is a parameter [L, numbers there], such as `encoder_value`.

  Args:
    method: that has the parameters.
    stack: whose edits.
    dims: sizes of the stack.
    points: where.
    start: a Flax initialiser.
    fn: see `InsideEdit`.
  """
  shape = lambda point: (dims.L, widths(point, dims)[0])
  return tuple(
    InsideEdit(method.param(f'{stack}_{point}', start, shape(point)), point, fn) for point in points
  )


def check_points(method: Any, known: Sequence[str] = POINTS) -> None:
  """Refuses points that a method does not know.

  Raises:
    UserError: names them.
  """
  points = method.points
  if isinstance(points, str) or not points or any(point not in known for point in points):
    raise UserError(
      f'{type(method).__name__}.points is {points!r}; expected a list of some of '
      f'{", ".join(known)}.'
    )


def widths(point: str, dims: Dims) -> tuple[int, int]:
  """Numbers of a position at a point, and of what they are computed from."""
  heads = dims.N * dims.D
  made = {'query': heads, 'heads': heads, 'mlp_hidden': dims.F}
  made |= dict.fromkeys(('key', 'value'), dims.kv_heads * dims.D)
  return made.get(point, dims.H), heads if point == 'attention' else dims.H
