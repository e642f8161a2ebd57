"""The configuration of a training run."""

import dataclasses

from prompt_jax.configuration import config
from prompt_jax.configuration.config import Configured, Request
from prompt_jax.errors import UserError
from prompt_jax.runs.train import train

ALL, PROMPT = 'all', 'prompt'  # short for patterns of TRAINABLE
OF_A_PROMPT = {'PROMPT': 'prompt', 'PROMPT_INIT': 'init', 'PROMPT_LENGTH': 'length'}


def load(request: Request) -> Configured:
  """The arguments of `train`; settings that name files and patterns in short are written out.

  Raises:
    UserError: see `config.load`; or a setting of a prompt where the model trains without one.
  """
  return config.load('train', train, whole(request))


def whole(request: Request) -> Request:
  """The request with TRAINABLE as patterns, "all" as the file of gin/runs that stands for it."""
  settings = dict(request.settings)
  trainable = settings.get('TRAINABLE')
  if trainable is None:
    return request
  patterns = [trainable] if isinstance(trainable, str) else list(trainable)
  if patterns != [ALL]:
    settings['TRAINABLE'] = ['prompt/.*' if p == PROMPT else p for p in patterns]
    return dataclasses.replace(request, settings=settings)
  del settings['TRAINABLE']
  for name, parameter in OF_A_PROMPT.items():
    if name in settings:
      raise UserError(
        f'{parameter} is a setting of a prompt, and "all" tunes the model without one. Leave out '
        'one of the two.',
        parameters=[parameter, 'train'],
      )
  includes = [('runs', 'model_tuning'), *request.includes]
  return dataclasses.replace(request, settings=settings, includes=includes)
