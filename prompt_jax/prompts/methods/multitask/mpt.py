"""Multitask prompt tuning: one prompt for all tasks, and a low-rank factor for each."""

import dataclasses
from collections.abc import Mapping
from typing import ClassVar, Self

import flax.linen as nn
import jax
import jax.numpy as jnp

from prompt_jax.errors import UserError
from prompt_jax.injections import (
  PLACEMENTS,
  TASK,
  Context,
  Injection,
  Injections,
  Placement,
  Seen,
  Term,
)
from prompt_jax.prompts.base import Array, PromptMethod, check_choices, check_least, own_table
from prompt_jax.prompts.initializers import FromFiles, Initializer
from prompt_jax.prompts.tables import Plain


class MPT(PromptMethod):
  """P_k = P * (U_k V_k) for task k, elementwise (MPT, ICLR 2023, arXiv:2303.02861, equation 1).

  With rank 1, as published, U_k V_k = u_k v_k^T. Both start at ones (of rank r: 1/r in U), so that
  every task begins with P itself. The paper trains P at 0.3 and the factors at 0.4.

  Parameters: a table at `encoder`, P [P, H], and at `decoder` where it is on; `rows` U
  [tasks, P, rank], of both stacks [tasks, 2 P, rank]; `columns` V [tasks, rank, H]. Constant, where
  it distils: `teachers` [tasks, P, H].

  Attributes:
    tasks: a run on a mixture sets it to the number of its tasks.
    length: P.
    rank: r, of the factors.
    table: how the shared rows are parametrised.
    placement: where the rows go in the encoder's input.
    decoder: whether as many rows go before the decoder's start token, as PEFT has it by default.
    distil: weight of what is learned from a teacher, the frozen model with a finished prompt of the
      task, see `Distillation`; the paper's is 0.9. 0 for none.
    teachers: the rows of these prompts.
  """

  depends_on: ClassVar[frozenset[str]] = frozenset({TASK})

  tasks: int = 1
  length: int = 100
  rank: int = 1
  table: nn.Module = dataclasses.field(default_factory=Plain)
  placement: Placement = 'before'
  decoder: bool = False
  distil: float = 0.0
  teachers: Initializer = dataclasses.field(default_factory=FromFiles)

  @nn.compact
  def __call__(self, ctx: Context) -> Injections:
    check_least(self, tasks=1, length=1, rank=1, distil=0)
    check_choices(self, placement=PLACEMENTS)
    asked = ctx.features[TASK]
    width = ctx.input_dims.H
    shared = own_table(self, self.table, ctx.input_stack)((self.length, width))
    start = nn.initializers.constant(1 / self.rank)
    both = self.decoder and ctx.input_stack != 'decoder'
    if both:
      more = own_table(self, self.table, 'decoder')((self.length, width))
      shared = jnp.concatenate([shared, more])
    u = self.param('rows', start, (self.tasks, len(shared), self.rank))
    v = self.param('columns', nn.initializers.ones, (self.tasks, self.rank, width))
    # [B, P, H]; [B, G, P, H] of packed rows.
    rows = jnp.einsum('ph,...pr,...rh->...ph', shared, u[asked], v[asked])
    own = Injection(prefix=rows[..., : self.length, :], placement=self.placement)
    parts = {ctx.input_stack: own}
    if both:
      parts['decoder'] = Injection(prefix=rows[..., self.length :, :])
    found = Injections.of(parts)
    if not self.distil:
      return found
    if both:
      raise UserError('MPT distils rows of the encoder only; set decoder or distil to False.')
    made = lambda: self.teachers(self.make_rng('params'), (self.tasks, self.length, width))
    taught = self.variable('constants', 'teachers', made).value[asked]
    teacher = Injections.of({ctx.input_stack: dataclasses.replace(own, prefix=taught)})
    terms = (Term(Distillation(self.distil), {'teacher': teacher}),) if ctx.train else ()
    return dataclasses.replace(found, terms=terms)

  def for_features(self, counts: Mapping[str, int]) -> Self:
    return self.clone(tasks=counts[TASK])


@dataclasses.dataclass(frozen=True)
class Distillation:
  """`Term.fn`: weight (KL(teacher || student) of the next token + the mean squared difference of
  the decoder's last states), section 3.2 of the paper.
  """

  weight: float

  def __call__(self, seen: Seen, others: Mapping[str, Seen]) -> Array:
    teacher = others['teacher']
    wanted, got = (jax.nn.log_softmax(one.logits) for one in (teacher, seen))
    divergence = jnp.sum(jnp.exp(wanted) * (wanted - got), axis=-1)
    apart = (teacher.states - seen.states).astype(jnp.float32)
    return self.weight * (divergence + jnp.mean(jnp.square(apart), axis=-1))
