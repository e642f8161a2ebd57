"""The prompt methods of gin/prompts, made of their files."""

import dataclasses
from typing import Any

import gin

from prompt_jax.configuration import gin_files
from prompt_jax.configuration.run_files import folder, names

FOLDER = 'prompts'


@dataclasses.dataclass(frozen=True)
class Named:
  """A method by its name.

  Attributes:
    name: as for `--prompt`.
    about: what its file says in its first sentence: paper, year, what trains.
    method: a `PromptMethod` with the settings of the file.
    learning_rate: of the file.
  """

  name: str
  about: str
  method: Any
  learning_rate: float


def named_methods() -> list[Named]:
  """All of them, in the order of their names."""
  return [_named(name) for name in names(FOLDER)]


def model_config(name: str) -> Any:
  """The `T5Config` of gin/models/NAME.gin, such as "t5/base"."""
  with gin_files.isolated():
    gin_files.read(f'models/{name}.gin', ())
    return _macro('ARCHITECTURE')


def _named(name: str) -> Named:
  file = f'{FOLDER}/{name}.gin'
  with gin_files.isolated():
    gin_files.read(file, ())
    method, rate = _macro('PROMPT'), _macro('PROMPT_LEARNING_RATE')
  return Named(name, _first_sentence((folder() / file).read_text(encoding='utf-8')), method, rate)


def _macro(name: str) -> Any:
  with gin.config_scope(name):
    return gin.get_configurable('gin.macro')()


def _first_sentence(text: str) -> str:
  """Of the comment at the top of a file, to the first line that ends in a full stop."""
  found = []
  for line in text.splitlines():
    found.append(line.removeprefix('#').strip())
    if line.endswith('.'):
      break
  return ' '.join(found).rstrip('.')
