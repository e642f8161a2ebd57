"""The file prompts.json of an export: what a program must know to ask its prompts."""

import importlib.metadata
import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import prompt_jax
from prompt_jax.checkpoints import on_disk
from prompt_jax.checkpoints.backbone import Backbone

NAME = 'prompts.json'
VERSION = 1
_PACKAGES = ('jax', 'numpy', 'ctranslate2', 'transformers', 'tensorflow')


def facts(
  to: str,
  backbone: Backbone,
  prompts: Sequence[Mapping[str, Any]],
  quantize: str | None = None,
  groups: Sequence[Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
  """What the file says.

  Args:
    to: the format.
    backbone: the model.
    prompts: what is said of each, with its "name".
    quantize: the kind of numbers, where it is not the model's own.
    groups: what is said of each group of programs, where there are any.
  """
  words = backbone.vocabulary
  return {
    'version': VERSION,
    'to': to,
    'base_model': backbone.name,
    'fingerprint': backbone.fingerprint,
    'vocabulary': {
      'rows': backbone.config.vocab_size,
      'size': words.size,
      'sha256': words.sha256,
      'pad_id': words.pad_id,
      'eos_id': words.eos_id,
      'unk_id': words.unk_id,
    },
    'quantize': quantize,
    **({} if groups is None else {'groups': list(groups)}),
    'prompts': list(prompts),
    'check': None,
    'versions': {'prompt_jax': prompt_jax.__version__, **_installed()},
  }


def write(folder: pathlib.Path, about: Mapping[str, Any]) -> None:
  """Writes what `facts` gives, with the "check" that was made, whole or not at all.

  Raises:
    UserError: the folder cannot be written.
  """
  on_disk.write_json(folder / NAME, about)


def _installed() -> dict[str, str]:
  found = {}
  for name in _PACKAGES:
    try:
      found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      continue
  return found
