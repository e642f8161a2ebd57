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
_PACKAGES = ('jax', 'numpy', 'ctranslate2', 'transformers')


def write(
  folder: pathlib.Path,
  to: str,
  backbone: Backbone,
  prompts: Sequence[Mapping[str, Any]],
  check: Mapping[str, Any] | None,
  quantize: str | None = None,
) -> None:
  """Writes the file, whole or not at all.

  Args:
    folder: of the export.
    to: its format.
    backbone: the model.
    prompts: what is said of each, with its "name".
    check: what the comparison with `infer` found; None where there was none.
    quantize: the kind of numbers, where it is not the model's own.

  Raises:
    UserError: the folder cannot be written.
  """
  words = backbone.vocabulary
  about = {
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
    'prompts': list(prompts),
    'check': check,
    'versions': {'prompt_jax': prompt_jax.__version__, **_installed()},
  }
  on_disk.write_json(folder / NAME, about)


def _installed() -> dict[str, str]:
  found = {}
  for name in _PACKAGES:
    try:
      found[name] = importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
      continue
  return found
