"""Updates of the trainable leaves, and optimizers as `optax` gradient transformations."""

import dataclasses
import re
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import optax
from flax import traverse_util

from prompt_jax.errors import UserError
from prompt_jax.training.objective import BatchLoss, Metrics, Tree, matching
from prompt_jax.training.schedules import Schedule

# Leaves that hold one parameter a layer along their first axis.
STACKED = r'(.*/)?layers/.*'

# (loss, trainable, the update's state or (), rng) -> (estimate, metrics).
Estimate = Callable[[BatchLoss, Tree, Any, jax.Array], tuple[Any, Metrics]]


def gradient(loss: BatchLoss, trainable: Tree, state: Any, rng: jax.Array) -> tuple[Tree, Metrics]:
  """The exact gradient, by backpropagation; it reads no state of the optimizer."""
  found, metrics = loss.gradient(trainable, rng)
  return found, {**metrics, 'grad_norm': optax.tree.norm(found)}


@dataclasses.dataclass(frozen=True)
class Update:
  """How the trainable leaves change at a step: an estimate from the loss, and what is made of it.

  Attributes:
    tx: makes changes of the leaves from estimates; an optimizer, or any
      `optax.GradientTransformation`.
    estimate: from the loss on a batch to what `tx` takes: the gradient, or what a gradient-free
      method finds by calling the loss. Prompts whose estimates are equal are computed at once.
    reads_state: whether `estimate` is given the state of `tx`. Prompts are then computed at once
      only if those of their optimizers have the same structure.
  """

  tx: optax.GradientTransformation
  estimate: Estimate = gradient
  reads_state: bool = False

  def init(self, trainable: Tree) -> Any:
    """The state before the first step."""
    return self.tx.init(trainable)

  def step(self, estimated: Any, state: Any, trainable: Tree) -> tuple[Tree, Any]:
    """What is to be added to the leaves, and the next state."""
    return self.tx.update(estimated, state, trainable)


def adafactor(
  learning_rate: float | Schedule = 0.3,
  *,
  decay: float = 0.8,
  clip: float | None = 1.0,
  factored: bool = False,
  min_dim_size_to_factor: int = 128,
  scale_by_parameter: bool = False,
  weight_decay: float = 1e-5,
  step_offset: int = 0,
  stacked: str = STACKED,
) -> optax.GradientTransformation:
  """Adafactor (Shazeer and Stern 2018, arXiv 1804.04235), as T5X publishes it for prompt tuning.

  For each parameter p with gradient g, at step t = 1, 2, ...:

      b_t = 1 - (t + step_offset)^-decay                     (section 7.2)
      v_t = b_t v_{t-1} + (1 - b_t) (g^2 + 1e-30)            (not factored)
      R_t, C_t: the same rule on row and column means of g^2 + 1e-30, v_t = R_t C_t / mean(R_t)
                                                             (factored: algorithm 4)
      u   = g / sqrt(v_t)
      y   = u / max(1, RMS(u) / clip)                        (section 6)
      p  <- (1 - weight_decay) p - rate_t s y,  s = 1, or max(1e-3, RMS(p)) if scale_by_parameter
                                                             (section 8)

  The weight decay is not multiplied by the learning rate.

  Args:
    learning_rate: constant, or a function of the step.
    decay: exponent of the second moment's decay.
    clip: largest RMS of an update; None does not clip.
    factored: keep row and column means instead of v for leaves with two axes of at least
      `min_dim_size_to_factor`. T5X decides by size, so its prompts of 128 rows or more are
      factored and shorter ones are not; here it is one answer for every length.
    min_dim_size_to_factor: see above.
    scale_by_parameter: multiply the update by the RMS of the parameter.
    weight_decay: see above; 0 for none.
    step_offset: steps that count as done before the first. T5X restores the step of the backbone
      with its weights, so the published prompt-tuning runs begin at 1,100,000: then 1 - b_t is
      1.5e-5, v starts near 0, and `clip` stays active for tens of thousands of steps. 0 is the
      rule as the paper of Adafactor states it.
    stacked: regular expression for the paths of leaves that hold one parameter per layer along
      their first axis; `clip` and `scale_by_parameter` then take the RMS of each layer, as they
      would if the layers were apart.

  Returns:
    The transformation; its `update` needs the parameters.
  """
  steps = [
    optax.scale_by_factored_rms(
      factored=factored,
      decay_rate=decay,
      # optax subtracts its offset from the step.
      step_offset=-step_offset,
      min_dim_size_to_factor=min_dim_size_to_factor,
    )
  ]
  if clip is not None:
    steps.append(_clip_by_rms(clip, stacked))
  if scale_by_parameter:
    steps.append(_scale_by_parameter_rms(stacked))
  steps.append(optax.scale_by_learning_rate(learning_rate))
  if weight_decay:
    # After the learning rate and its sign: p + (-rate y - weight_decay p).
    steps.append(optax.add_decayed_weights(-weight_decay))
  return optax.chain(*steps)


def adamw(
  learning_rate: float | Schedule = 0.3,
  *,
  b1: float = 0.9,
  b2: float = 0.999,
  eps: float = 1e-8,
  weight_decay: float = 1e-5,
  max_grad_norm: float | None = None,
) -> optax.GradientTransformation:
  """AdamW (Loshchilov and Hutter 2019, arXiv 1711.05101).

  Args:
    learning_rate: constant, or a function of the step.
    b1: decay of the first moment.
    b2: decay of the second moment.
    eps: added to the root of the second moment.
    weight_decay: multiplied by the learning rate, as in most implementations.
    max_grad_norm: gradients are scaled down to this global norm; None does not.
  """
  adam = optax.adamw(learning_rate, b1=b1, b2=b2, eps=eps, weight_decay=weight_decay)
  if max_grad_norm is None:
    return adam
  return optax.chain(optax.clip_by_global_norm(max_grad_norm), adam)


def by_path(groups: Mapping[str, optax.GradientTransformation]) -> optax.GradientTransformation:
  """One optimizer for each group of leaves, so groups may have their own learning rate.

  Args:
    groups: regular expression -> transformation; a leaf belongs to the first expression that
      matches its whole path, such as "prompt/table/up/kernel".

  Raises:
    UserError: at `init`, if an expression matches nothing or a leaf belongs to no group.
  """

  def labels(params):
    flat = traverse_util.flatten_dict(params, sep='/')
    found = matching(flat, list(groups))
    left = sorted(flat.keys() - found.keys())
    if left:
      raise UserError(
        f'No optimizer group takes {", ".join(left)}. Groups: {", ".join(map(repr, groups))}. '
        "Add '.*' as the last group to take the rest."
      )
    return traverse_util.unflatten_dict(found, sep='/')

  return optax.partition(dict(groups), labels)


def _clip_by_rms(threshold: float, stacked: str) -> optax.GradientTransformation:
  def clip(path, u):
    return u / jnp.maximum(1.0, _rms(path, u, stacked) / threshold)

  return optax.stateless(lambda updates, _: jax.tree_util.tree_map_with_path(clip, updates))


def _scale_by_parameter_rms(stacked: str, least: float = 1e-3) -> optax.GradientTransformation:
  def scale(path, u, p):
    return u * jnp.maximum(least, _rms(path, p, stacked))

  return optax.stateless(
    lambda updates, params: jax.tree_util.tree_map_with_path(scale, updates, params)
  )


def _rms(path, x: jax.Array, stacked: str) -> jax.Array:
  """Root mean square of a leaf, or of each layer of a stacked one; broadcasts against `x`."""
  name = '/'.join(str(key.key) for key in path if isinstance(key, jax.tree_util.DictKey))
  axes = tuple(range(1, x.ndim)) if re.fullmatch(stacked, name) else None
  return jnp.sqrt(jnp.mean(jnp.square(x), axis=axes, keepdims=True))
