"""Successive halving: at some steps the worse half of a population stops."""

from collections.abc import Mapping, Sequence

from prompt_jax.errors import UserError


def check_rungs(rungs: Sequence[int], steps: int, eval_every: int) -> None:
  """Refuses rungs at which nothing is evaluated.

  Raises:
    UserError: a rung is no step with an evaluation before the last step, or stands twice.
  """
  if len(set(rungs)) < len(rungs):
    raise UserError(f'The rungs {", ".join(map(str, rungs))} repeat; each is one step.')
  for rung in rungs:
    if not 0 < rung < steps or eval_every < 1 or rung % eval_every:
      raise UserError(
        f'The rung {rung} is no step with an evaluation before the last one: rungs are multiples '
        f'of EVAL_EVERY ({eval_every}) below STEPS ({steps}).'
      )


def worse_half(best: Mapping[int, float | None], mode: str) -> list[int]:
  """The members that stop (Jamieson and Talwalkar 2016, arXiv:1502.07943, algorithm 1).

  Of n members ceil(n / 2) stay. The batch is not filled up again: those left go on with the rows
  that they had, so that each remains what a run of its own would be, and a step costs less.

  Args:
    best: member -> the best value of its validation metric so far, which is what its prompt file
      holds; None where there is none yet.
    mode: "max" or "min", which values are good.

  Returns:
    Numbers of members; of equal ones the first stays.
  """
  sign = {'max': -1.0, 'min': 1.0}[mode]
  order = sorted(best, key=lambda k: (best[k] is None, sign * (best[k] or 0.0), k))
  return sorted(order[(len(order) + 1) // 2 :])
