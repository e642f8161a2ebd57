"""What is known of a prompt method before it is trained."""

import dataclasses

import jax

from prompt_jax.errors import UserError
from prompt_jax.injections import TASK, Injection, Injections, Sizes, features_of
from prompt_jax.prompt_formats.foreign import check_plain
from prompt_jax.prompts.base import PromptMethod, first_values
from prompt_jax.prompts.initialise import without_initializers
from prompt_jax.prompts.methods.inside.ia3 import IA3
from prompt_jax.prompts.methods.inside.lora import LoRA

# Of an injection, and how a list calls them.
_FIELDS = {
  'prefix': 'rows',
  'kv': 'keys',
  'delta': 'embeddings',
  'hidden': 'states',
  'head': 'logits',
}
_STACKS = ('encoder', 'decoder', 'cross')


@dataclasses.dataclass(frozen=True)
class MethodFacts:
  """Of a method on a model of given sizes.

  Attributes:
    parameters: numbers that train.
    adds: what it injects and where, such as "encoder rows".
    reads: what it reads of each input, of `injections.READS`.
    packs: whether several examples may share a row.
    exports: formats of `prompt-jax export` that have it.
  """

  parameters: int
  adds: tuple[str, ...]
  reads: tuple[str, ...]
  packs: bool
  exports: tuple[str, ...]


def method_facts(method: PromptMethod, sizes: Sizes) -> MethodFacts:
  """Found by tracing the method; nothing is computed.

  Args:
    method: of any initialisers.
    sizes: of the model.
  """
  plain = without_initializers(method)
  injections, variables = jax.eval_shape(
    lambda key: first_values(plain, key, sizes), jax.random.key(0)
  )
  reads = tuple(sorted(method.depends_on))
  features = features_of(method)
  by_example = bool(features) and any(
    p.kv is not None for p in (injections.encoder, injections.decoder, injections.cross)
  )
  own = tuple(name for name in reads if name not in features)
  return MethodFacts(
    parameters=sum(x.size for x in jax.tree.leaves(variables.get('params', {}))),
    adds=_adds(injections),
    reads=reads,
    packs=not own and not by_example,
    exports=() if features - {TASK} else _exports(injections, method, own),
  )


def _adds(injections: Injections) -> tuple[str, ...]:
  parts = {name: getattr(injections, name) for name in _STACKS}
  return tuple(f'{stack} {what}' for stack, part in parts.items() for what in _of_stack(part))


def _of_stack(part: Injection) -> list[str]:
  found = [what for field, what in _FIELDS.items() if getattr(part, field) is not None]
  if part.seen_by != 'all':
    found = [what.replace('rows', 'read-only rows') for what in found]
  return found + (['layers'] if part.inside else [])


def _exports(
  injections: Injections, method: PromptMethod, reads: tuple[str, ...]
) -> tuple[str, ...]:
  """The formats whose own check of shapes the method passes."""
  programs = ('stablehlo', 'savedmodel')
  if reads:
    return programs
  if isinstance(method, LoRA | IA3):
    return ('peft', *programs)
  try:
    check_plain(injections, type(method).__name__)
  except UserError:
    return programs
  if injections.encoder.prefix is None:
    return ('peft', *programs)
  return ('npy', 'numpy_checkpoints', 't5x', 'peft', 'hf', 'ctranslate2', *programs)
