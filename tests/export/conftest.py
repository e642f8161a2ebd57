"""One tiny model with two prompts of unequal length, exported to each format once."""

import functools
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
  """Format -> the folder, written when it is first asked for."""
  place = tmp_path_factory.mktemp('exported')

  @functools.cache
  def folder(to):
    return export_prompt(pair.files, place / to, to).path

  return folder


@pytest.fixture(scope='session')
def every_kind(pair, tmp_path_factory):
  """Prompt files by name: every way of injecting, some with labels."""
  folder = tmp_path_factory.mktemp('kinds')
  return {
    name: shapes.prompt(
      folder / f'{name}.safetensors', pair.base, 0, method=method,
      tree=shapes.moved(method, pair.base, seed),
      **({'labels': [*LABELS, 'neutral'][: 2 + seed % 2]} if name != 'input_b' else {}),
    )
    for seed, (name, method) in enumerate(shapes.kinds().items())
  }  # fmt: skip
