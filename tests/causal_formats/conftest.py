import pytest

from tests import tiny_llama


@pytest.fixture(scope='session')
def folder(tmp_path_factory):
  """See `tiny_llama.write`."""
  return tiny_llama.write(tmp_path_factory.mktemp('causal') / 'llama')
