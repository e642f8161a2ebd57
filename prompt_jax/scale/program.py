"""The programs that a run compiles, from shapes alone, without allocating arrays.

They are the functions that a run uses: `training.step.jit_train_step`, `inference.score.rank` and
`inference.decode.greedy`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import traverse_util

from prompt_jax.batch import Batch
from prompt_jax.checkpoints.leaf import expected_shapes
from prompt_jax.errors import UserError, unknown
from prompt_jax.inference.decode import greedy
from prompt_jax.inference.score import rank
from prompt_jax.injections import features_of, first_tokens, prefix_length
from prompt_jax.loading import prompted
from prompt_jax.models.t5.config import T5Config
from prompt_jax.models.t5.layers import Int8, scaled_axis
from prompt_jax.prompted import Prompted, variables_of
from prompt_jax.prompts.base import PromptMethod
from prompt_jax.prompts.initialise import draw, without_initializers
from prompt_jax.sharding.placement import Placement
from prompt_jax.training.objective import PROMPT_ONLY, CrossEntropy, split
from prompt_jax.training.optim import Update, adafactor
from prompt_jax.training.step import create_state, jit_train_step

STEPS = ('train', 'eval', 'decode')
WEIGHTS = ('bfloat16', 'float32', 'int8')
Tree = dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Work:
  """One step to plan.

  Attributes:
    config: the architecture, with `dtype` and the memory settings to compute with.
    method: the prompt method; None for the model alone.
    prompts: number of prompts trained in one step ("train").
    at_once: maximum number of them computed at once; None for all.
    weights: how frozen weights are stored: "bfloat16", "float32" or "int8".
    batch: rows per step and prompt.
    inputs: tokens of an input.
    targets: tokens of a target, a label, or a decoded text.
    microbatches: parts of the batch, computed one after the other ("train").
    labels: number of labels that "eval" ranks.
    step: "train", "eval" or "decode".
    patterns: of the trainable parameters, see `objective.split`.
    optimizer: None for Adafactor.
  """

  config: T5Config
  method: PromptMethod | None
  weights: str = 'bfloat16'
  batch: int = 32
  inputs: int = 512
  targets: int = 16
  microbatches: int = 1
  labels: int = 2
  step: str = 'train'
  patterns: tuple[str, ...] = PROMPT_ONLY
  optimizer: optax.GradientTransformation | None = None
  prompts: int = 1
  at_once: int | None = None

  def __post_init__(self):
    if self.step not in STEPS:
      raise unknown('step', self.step, STEPS)
    if self.weights not in WEIGHTS:
      raise unknown('storage of the weights', self.weights, WEIGHTS)
    if self.batch % self.microbatches:
      raise UserError(
        f'A batch of {self.batch} rows does not divide into {self.microbatches} microbatches.'
      )

  @property
  def rows(self) -> int:
    """Rows of a batch that are computed at a time, per prompt."""
    return self.batch // self.microbatches if self.step == 'train' else self.batch


def lowered(work: Work, place: Placement) -> Any:
  """The step, traced for the mesh of `place` and ready to be compiled.

  Raises:
    UserError: the model or the batch does not divide over the mesh; a method that needs words.
  """
  place.check_divides(expected_shapes(work.config), work.rows)
  model = prompted(work.config, work.method)
  params, constants = abstract_variables(work)
  tokens = jax.ShapeDtypeStruct((work.batch, work.inputs), jnp.int32)
  if work.step == 'train':
    return _lowered_train_step(work, place, model, params, constants, tokens)
  if work.step == 'eval':
    labels = jax.ShapeDtypeStruct((work.labels, work.targets), jnp.int32)
    call: Callable[..., Any] = lambda v, t, f, labels: rank(model, v, t, labels, features=f)
    arguments: tuple[Any, ...] = (variables_of(params, constants), tokens, _features(work), labels)
    shardings: tuple[Any, ...] = (
      _of_variables(place, arguments[0]),
      place.row_sharding,
      place.row_sharding,
      place.replicated,
    )
  else:
    call = lambda v, t, f: greedy(model, v, t, work.targets, features=f)
    arguments = (variables_of(params, constants), tokens, _features(work))
    shardings = (_of_variables(place, arguments[0]), place.row_sharding, place.row_sharding)
  return jax.jit(place.with_mesh(call)).lower(*_placed(arguments, shardings))


def _features(work: Work) -> dict[str, Any]:
  """Those that the method reads, of each row."""
  of_rows = jax.ShapeDtypeStruct((work.batch,), jnp.int32)
  return dict.fromkeys(sorted(features_of(work.method)), of_rows)


def _lowered_train_step(
  work: Work, place: Placement, model: Prompted, params: Tree, constants: Tree, tokens: Any
) -> Any:
  if not params.get('prompt') and work.patterns == PROMPT_ONLY:
    raise UserError('A training step needs a prompt method; give one, or plan another step.')
  update = Update(work.optimizer or adafactor(0.3))
  trainable, frozen = split(params, work.patterns)
  state = jax.eval_shape(lambda trainable: create_state(trainable, update, 0), trainable)
  targets: Any = jax.ShapeDtypeStruct((work.batch, work.targets), jnp.int32)
  batch = Batch(tokens, targets, targets, targets.update(dtype=jnp.float32), _features(work))
  collection = {'prompt': constants} if constants else {}
  objective = CrossEntropy(model, dropout=work.config.dropout_rate > 0)
  step = jit_train_step(microbatches=work.microbatches, at_once=work.at_once, placement=place)
  n, whole = work.prompts, place.replicated
  arguments: tuple[Any, ...] = ([state] * n, frozen, [{}] * n, [collection] * n, [batch] * n)
  shardings = (whole, place.shardings(frozen), whole, whole, place.row_sharding)
  static = {'objectives': (objective,) * n, 'updates': (update,) * n}
  return step.lower(*_placed(arguments, shardings), **static)


def all_trains(work: Work) -> bool:
  """Whether all weights of the model are trained, not only the prompt or a part."""
  _, frozen = split(abstract_variables(work)[0], work.patterns)
  return 'backbone' not in frozen


def prompt_rows(work: Work) -> int:
  """Rows that the prompt adds to the encoder's input."""
  model = prompted(work.config, work.method)
  variables = variables_of(*abstract_variables(work))
  tokens = jax.ShapeDtypeStruct((1, work.inputs), jnp.int32)
  call = lambda v, t: model.apply(v, t, first_tokens(work.method, t), method='injections')
  return prefix_length(jax.eval_shape(call, variables, tokens).encoder)


def abstract_variables(work: Work) -> tuple[Tree, Tree]:
  """Shapes of (parameters, the method's constants)."""
  backbone = {
    path: _stored(path, shape, work.weights, work.config.dtype)
    for path, shape in expected_shapes(work.config).items()
  }
  params: Tree = {'backbone': traverse_util.unflatten_dict(backbone, sep='/')}
  if work.method is None:
    return params, {}
  cfg = work.config
  table = jax.ShapeDtypeStruct((cfg.vocab_size, cfg.emb_dim), jnp.float32)
  # Of first values only the shape is looked at, which does not depend on where they come from.
  method = without_initializers(work.method)
  make = lambda key, t: draw(method, key, t, None, cfg.sizes)
  _, prompt, constants = jax.eval_shape(make, jax.random.key(0), table)
  return {**params, 'prompt': prompt}, constants


def _stored(path: str, shape: tuple[int, ...], weights: str, dtype: str) -> Any:
  axis = scaled_axis(path)
  if weights != 'int8':
    return jax.ShapeDtypeStruct(shape, jnp.dtype(weights))
  if axis is None:
    return jax.ShapeDtypeStruct(shape, jnp.dtype(dtype))
  scales = list(shape)
  scales[axis] = 1
  return Int8(
    jax.ShapeDtypeStruct(shape, jnp.int8),  # type: ignore[arg-type]
    jax.ShapeDtypeStruct(tuple(scales), jnp.float32),  # type: ignore[arg-type]
  )


def _of_variables(place: Placement, variables: Tree) -> Tree:
  return {'params': place.shardings(variables['params']), 'constants': place.replicated}


def _placed(arguments: tuple[Any, ...], shardings: tuple[Any, ...]) -> tuple[Any, ...]:
  """The same shapes, with their shardings; one sharding may stand for a whole subtree."""
  is_one = lambda x: isinstance(x, jax.sharding.Sharding)
  place = lambda sharding, tree: jax.tree.map(lambda x: x.update(sharding=sharding), tree)
  return jax.tree.map(place, shardings, arguments, is_leaf=is_one)
