"""Prompt methods compute in the dtypes that their code names."""

import jax
import pytest


@pytest.fixture(autouse=True)
def strict_dtypes():
  """No two dtypes are mixed, unless the code says so; elsewhere optax's Adam needs to."""
  with jax.numpy_dtype_promotion('strict'):
    yield
