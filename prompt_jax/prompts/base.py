"""The protocol of prompt methods, and the evaluation of one that does not read its input."""

from typing import Any, ClassVar, cast

import flax.linen as nn
import jax
import jax.numpy as jnp

from prompt_jax.errors import UserError
from prompt_jax.injections import Context, Dims, Injections

Array = jax.Array
Tree = dict[str, Any]


class PromptMethod(nn.Module):
  """A prompt method: `method(ctx) -> Injections`, reading nothing but `ctx`.

  The collection `params` trains; `constants` holds state that does not. Submodules and parameters
  have explicit names, because those end in saved files.

  Attributes:
    depends_on: what the injections depend on, of "embeds", "task_id", "pooled", "hidden". Empty if
      they are the same for every input: such a prompt can be turned into plain arrays.
  """

  depends_on: ClassVar[frozenset[str]] = frozenset()

  def __call__(self, ctx: Context) -> Injections:
    raise NotImplementedError(f'{type(self).__name__} does not say what it injects')


def own_table(method: nn.Module, table: nn.Module, name: str) -> nn.Module:
  """A copy of `table` with its own parameters, at `name` in the tree of `method`.

  A module called in two places shares its parameters; a method that fills several places needs
  one table for each.
  """
  return table.copy(parent=method, name=name)


def placeholder(encoder: Dims, decoder: Dims) -> Context:
  """A context of one padding token, for methods that only ask for sizes, and for initialising."""
  tokens = jnp.zeros((1, 1), jnp.int32)
  return Context(
    tokens=tokens,
    embeds=jnp.zeros((1, 1, encoder.H), jnp.float32),
    mask=tokens > 0,
    task_id=jnp.zeros((1,), jnp.int32),
    pooled=jnp.zeros((1, encoder.H), jnp.float32),
    encoder=encoder,
    decoder=decoder,
  )


def materialise(
  method: PromptMethod, params: Tree, constants: Tree, *, encoder: Dims, decoder: Dims
) -> Injections:
  """Evaluates a method that does not read its input; the result replaces it at serving.

  Args:
    method: the method.
    params: its trained parameters.
    constants: its other state; {} if it has none.
    encoder: sizes of the encoder.
    decoder: sizes of the decoder.

  Returns:
    Injections of plain arrays whose batch axis is 1.

  Raises:
    UserError: the injections depend on the input, so that no arrays can stand for the method.
  """
  if method.depends_on:
    raise UserError(
      f'{type(method).__name__} reads {", ".join(sorted(method.depends_on))} of each input, so it '
      'is no fixed set of arrays; keep the method itself.'
    )
  variables = {'params': params, 'constants': constants}
  injections = method.apply(variables, placeholder(encoder, decoder))
  return cast(Injections, injections)
