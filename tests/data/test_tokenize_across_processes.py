"""Several processes that tokenise a share each get what one does, examples and order."""

import pathlib
import pickle

import pytest
import tokenize_run

from prompt_jax.errors import UserError
from tests.several import Processes, forkserver, free_port
from tests.shared import mentions

SIZE = 3


@pytest.fixture(scope='module')
def server():
  with forkserver('tokenize_run', pathlib.Path(__file__).parent) as context:
    yield context


def together(server, folder, *texts):
  """Processes that all read the same texts, or each its own."""
  where = f'127.0.0.1:{free_port()}'
  of = lambda i: texts[i % len(texts)]
  arguments = [((where, SIZE, i), folder / str(i), of(i)) for i in range(SIZE)]
  return Processes(server, tokenize_run.tokenize_one_of_several, arguments).finish()


@pytest.mark.parametrize('size', [2, 100])  # fewer than processes, and not as many for each
def test_examples_and_their_order_are_those_of_one_process(server, tmp_path, size):
  texts = [(f'number {n} ' + 'and more ' * (n % 7), f'word {n}') for n in range(size)]
  for code, output in together(server, tmp_path, texts):
    assert code == 0, output
  alone = tokenize_run.load(texts)
  encoded = 0
  for i in range(SIZE):
    found, calls = pickle.loads((tmp_path / str(i)).read_bytes())
    encoded += calls
    assert calls <= 2 * -(-size // SIZE)
    assert len(found) == size
    for a, b in zip(found, alone, strict=True):
      for name in ('inputs', 'targets'):
        assert getattr(a, name).tolist() == getattr(b, name).tolist()
        assert getattr(a, name).dtype == getattr(b, name).dtype
      rest = ('inputs_text', 'targets_text', 'label', 'fields', 'task')
      assert [getattr(a, n) for n in rest] == [getattr(b, n) for n in rest]
  assert encoded == 2 * size  # inputs and targets of each example once


def test_an_error_in_two_shares_is_told_by_all_as_by_one_process(server, tmp_path):
  texts = [('text', '' if n in (45, 80) else 'word') for n in range(100)]
  with pytest.raises(UserError, match=r'^toy, example 46: the target .* has no tokens') as alone:
    tokenize_run.load(texts)
  for code, output in together(server, tmp_path, texts):
    assert code == 2
    assert output.splitlines()[-1] == f'prompt-jax: {alone.value}'
    assert 'lost' not in output


def test_processes_that_have_read_other_texts_say_so(server, tmp_path):
  texts = [('text', 'word')] * 9
  for code, output in together(server, tmp_path, texts, texts, [*texts[:-1], ('next', 'word')]):
    assert code == 2
    assert mentions(output.splitlines()[-1], "'toy'", 'examples')
