"""Our parameters as one tree with T5X's names, and back.

T5X keeps a tree for each layer; ours are stacked. A prompt that google-research/prompt-tuning has
too has its name there, `encoder/prompt/prompt/prompt`; every other method's
parameters are below `prompt`, with their own names, and its constants below `prompt_constants`.
"""

import re
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import traverse_util
from flax.linen.partitioning import AxisMetadata

from prompt_jax.errors import UserError
from prompt_jax.prompt_formats.foreign import PARAMETER
from prompt_jax.prompts.base import PromptMethod

Tree = dict[str, Any]
Path = tuple[str, ...]

PROMPT = 'prompt'
CONSTANTS = 'prompt_constants'
# What trains unless the user says otherwise, as a pattern of T5X's names.
PROMPT_ONLY = (r'(.*/)?prompt/.*',)

# T5X's logical axes of each parameter (t5x/examples/t5 names them in its layers).
AXES = {
  r'token_embedder/embedding': ('vocab', 'embed'),
  r'(encoder|decoder)/(layers_\d+/)?relpos_bias/rel_embedding': ('heads', 'relpos_buckets'),
  r'(encoder|decoder)/(layers_\d+/\w+_layer|encoder|decoder)_norm/scale': ('embed',),
  r'(encoder|decoder)/layers_\d+/\w*attention/(query|key|value)/kernel': ('embed', 'joined_kv'),
  r'(encoder|decoder)/layers_\d+/\w*attention/out/kernel': ('joined_kv', 'embed'),
  r'(encoder|decoder)/layers_\d+/mlp/wi(_\d)?/kernel': ('embed', 'mlp'),
  r'(encoder|decoder)/layers_\d+/mlp/wo/kernel': ('mlp', 'embed'),
  r'decoder/logits_dense/kernel': ('embed', 'vocab'),
}


def to_t5x(method: PromptMethod | None, backbone: Tree, prompt: Tree, constants: Tree) -> Tree:
  """One tree with T5X's names.

  Args:
    method: whose parameters `prompt` and `constants` are.
    backbone: the tree of `models.t5.t5.T5`, layers stacked.
    prompt: the method's parameters.
    constants: the method's other state, floats only: T5X differentiates its whole tree.

  Raises:
    UserError: a constant is not a float.
  """
  flat: dict[Path, Any] = {}
  for path, leaf in traverse_util.flatten_dict(backbone).items():
    if 'layers' not in path:
      flat[path] = leaf
      continue
    at = path.index('layers')
    for i in range(leaf.shape[0]):
      flat[(*path[:at], f'layers_{i}', *path[at + 1 :])] = leaf[i]
  rows = None if method is None else method.rows_parameter()
  for path, leaf in traverse_util.flatten_dict(prompt).items():
    flat[PARAMETER if path == rows else (PROMPT, *path)] = leaf
  for path, leaf in traverse_util.flatten_dict(constants).items():
    if not jnp.issubdtype(leaf.dtype, jnp.floating):
      raise UserError(
        f'{type(method).__name__} keeps {"/".join(path)} of {leaf.dtype}; T5X trains on trees of '
        'floating-point numbers only. Train this method outside T5X.'
      )
    flat[(CONSTANTS, *path)] = leaf
  return traverse_util.unflatten_dict(flat)


def from_t5x(method: PromptMethod | None, tree: Mapping[str, Any]) -> tuple[Tree, Tree, Tree]:
  """The inverse of `to_t5x`: (backbone, prompt, constants). Stacking copies the layers."""
  flat: dict[Path, Any] = {}
  layers: dict[Path, dict[int, Any]] = {}
  prompt, constants = {}, {}
  rows = None if method is None else method.rows_parameter()
  for path, leaf in traverse_util.flatten_dict(dict(tree)).items():
    if rows is not None and path == PARAMETER:
      prompt[rows] = leaf
    elif path[0] == PROMPT:
      prompt[path[1:]] = leaf
    elif path[0] == CONSTANTS:
      constants[path[1:]] = leaf
    elif len(path) > 1 and (layer := re.fullmatch(r'layers_(\d+)', path[1])):
      layers.setdefault((path[0], 'layers', *path[2:]), {})[int(layer[1])] = leaf
    else:
      flat[path] = leaf
  for path, parts in layers.items():
    flat[path] = jnp.stack([parts[i] for i in range(len(parts))])
  nested = traverse_util.unflatten_dict
  return nested(flat), nested(prompt), nested(constants)


def is_ours(path: str) -> bool:
  """Whether a name such as "encoder/prompt/prompt/prompt" is the prompt's and not T5X's own."""
  keys = tuple(path.split('/'))
  return keys == PARAMETER or keys[0] in (PROMPT, CONSTANTS)


def logical_axes(tree: Tree) -> Tree:
  """T5X's collection "params_axes" for a tree with T5X's names; prompts are replicated.

  Args:
    tree: arrays or their shapes.

  Raises:
    ValueError: names without axes, each listed.
  """
  axes, unknown = {}, []
  for path, leaf in traverse_util.flatten_dict(tree, sep='/').items():
    if is_ours(path):
      names: tuple[str | None, ...] | None = (None,) * jnp.ndim(leaf)
    else:
      names = next((n for pattern, n in AXES.items() if re.fullmatch(pattern, path)), None)
    if names is None:
      unknown.append(path)
    axes[f'{path}_axes'] = AxisMetadata(jax.sharding.PartitionSpec(*(names or ())))
  if unknown:
    raise ValueError(f'No logical axes for {", ".join(unknown)}')
  return traverse_util.unflatten_dict(axes, sep='/')
