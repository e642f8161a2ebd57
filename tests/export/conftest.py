"""One tiny model with two prompts of unequal length, exported to each format once."""

import types

import pytest

from prompt_jax.export.prompt import export_prompt
from tests.export import shapes

LABELS = ['negative', 'positive']


@pytest.fixture(scope='session')
def pair(tmp_path_factory):
  """A model without tied logits and two prompt files: labels, and text."""
  folder = tmp_path_factory.mktemp('pair')
  base = shapes.model('t5_1_1', folder)
  sst2 = shapes.prompt(folder / 'sst2.safetensors', base, 5, labels=LABELS)
  text = shapes.prompt(folder / 'trec.safetensors', base, 2, seed=1)
  return types.SimpleNamespace(base=base, sst2=sst2, text=text, files=[sst2, text])


@pytest.fixture(scope='session')
def exported(pair, tmp_path_factory):
  """Format -> the folder."""
  place = tmp_path_factory.mktemp('exported')
  for to in ('hf', 'ctranslate2'):
    export_prompt(pair.files, place / to, to)
  return lambda to: place / to
