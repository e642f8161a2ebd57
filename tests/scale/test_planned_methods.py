"""A plan of every method: its programs are traced from shapes, as those of a run are."""

import jax
import pytest

from prompt_jax.scale import here
from prompt_jax.scale.program import STEPS, Work, lowered
from prompt_jax.testing import tiny
from tests.test_conformance import FILES, parse


@pytest.mark.parametrize('name', FILES)
def test_every_method_is_planned(name):
  place = here.placement(None, 'data', None, jax.devices())
  for step in STEPS:
    work = Work(
      tiny.config(), parse(name), 'float32', batch=8, inputs=8, targets=4, step=step,
      microbatches=2 if step == 'train' else 1,
    )  # fmt: skip
    assert 'stablehlo' in lowered(work, place).as_text()
