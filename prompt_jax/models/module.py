"""The module of an architecture, by the type of its configuration."""

from typing import Any

from prompt_jax.errors import UserError
from prompt_jax.models.causal.causal import CausalLM
from prompt_jax.models.causal.config import CausalConfig
from prompt_jax.models.t5.config import T5Config
from prompt_jax.models.t5.t5 import T5

Config = T5Config | CausalConfig
# Name of an architecture in a model folder -> its configuration.
FAMILIES: dict[str, type[T5Config] | type[CausalConfig]] = {'t5': T5Config, 'causal': CausalConfig}


def module(config: Config) -> Any:
  """The bare model; called with int32[B, T] inputs and int32[B, U] targets, it gives logits."""
  return CausalLM(config) if isinstance(config, CausalConfig) else T5(config)


def only_t5(config: Config, what: str) -> T5Config:
  """The architecture of a T5, for what no other model has.

  Args:
    config: the architecture.
    what: that needs it, such as "A PEFT folder"; begins the message.

  Raises:
    UserError: it is another model.
  """
  if not isinstance(config, T5Config):
    raise UserError(
      f'{what} is of a T5 here, and this is a decoder-only model. See "What works" in '
      'docs/decoder_only.md.',
      parameters=['model'],
    )
  return config


def embed_scale(config: Config) -> float:
  """What the rows of the embedding table are multiplied by before the layers read them."""
  return config.embed_scale if isinstance(config, CausalConfig) else 1.0
