"""A prompt method of a user that breaks the contract ends in a line that names its class."""

from collections.abc import Callable
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest

import prompt_jax as pj
from prompt_jax.checkpoints.prompt_file import describe_method
from prompt_jax.cli.main import main
from prompt_jax.errors import UserError
from prompt_jax.injections import Dims, Head, Injection, Injections, Sizes
from prompt_jax.prompts.base import PromptMethod, check_method, first_values, own_table
from prompt_jax.prompts.methods.deep.deep_prompt import DeepPrompt
from prompt_jax.prompts.methods.input.input_prompt import InputPrompt
from prompt_jax.prompts.tables import Plain
from tests.shared import facts

DIMS = Dims(L=2, H=8, N=2, D=4, kv_heads=2, F=16)
SIZES = Sizes(nn.FrozenDict({'encoder': DIMS, 'decoder': DIMS}), 'encoder')


class Gives(PromptMethod):
  """Returns what a function makes."""

  make: Callable[[Any], Any] = lambda self: None

  @nn.compact
  def __call__(self, ctx):
    return self.make(self)


class Flat(nn.Module):
  """A table that ignores the shape that it is asked for."""

  @nn.compact
  def __call__(self, shape):
    return self.param('prompt', nn.initializers.zeros, (3, 3))


class WithoutCompact(PromptMethod):
  """Makes a parameter where Flax allows none."""

  def __call__(self, ctx):
    return Injections(encoder=Injection(prefix=self.param('x', nn.initializers.zeros, (1, 2, 8))))


class Strung(PromptMethod):
  depends_on = 'embeds'

  def __call__(self, ctx):
    return Injections()


class Odd(PromptMethod):
  function: Any = print

  def __call__(self, ctx):
    return Injections()


def prefix(*shape, dtype=jnp.float32):
  return lambda _: Injections(encoder=Injection(prefix=jnp.zeros(shape, dtype)))


def kv(*shape):
  return lambda _: Injections(cross=Injection(kv=jnp.zeros(shape)))


def twice(method):
  nn.Dense(3, name='a')(jnp.ones((1, 8)))
  nn.Dense(3, name='a')(jnp.ones((1, 8)))


def seen(stack, seen_by, **more):
  part = Injection(jnp.zeros((1, 3, 8)), seen_by=seen_by, **more)
  return lambda _: Injections.of({stack: part})


def fails(_):
  raise ValueError('of no use\nat all')


@pytest.mark.parametrize(
  ('method', 'says'),
  [
    (Gives(lambda _: jnp.zeros((3, 8))), ['Gives', 'float32[3, 8]', 'Injections']),
    (Gives(lambda _: None), ['Gives', 'NoneType', 'Injections']),
    (Gives(lambda _: Injections(encoder=jnp.zeros(3))), ['Gives', 'encoder', 'Injection']),
    (Gives(prefix(3, 8)), ['Gives', 'prefix', 'float32[3, 8]', '[1, rows, 8]']),
    (Gives(prefix(1, 3, 9)), ['Gives', 'prefix', 'float32[1, 3, 9]', '[1, rows, 8]']),
    (Gives(prefix(5, 3, 8)), ['Gives', 'prefix', 'float32[5, 3, 8]', '[1, rows, 8]']),
    (Gives(prefix(1, 3, 8, dtype=jnp.int32)), ['Gives', 'int32[1, 3, 8]', 'floats']),
    (Gives(kv(2, 2, 1, 3, 8)), ['Gives', 'kv', 'cross', '[2, 2, 1, rows, 2, 4]']),
    (Gives(lambda _: Injections(aux_loss=jnp.zeros(3))), ['Gives', 'aux_loss', '[3]']),
    (
      Gives(lambda _: Injections(encoder=Injection(jnp.zeros((1, 3, 8)), placement='in'))),
      ['Gives', "'in'", 'after_bos'],
    ),
    (Gives(seen('encoder', 'tokens')), ['Gives', "'tokens'", 'prompt', 'none']),
    (Gives(seen('encoder', 'none', sees_input=False)), ['Gives', "'none'", 'sees_input']),
    (Gives(seen('decoder', 'none')), ['Gives', "'none'", 'decoder', 'encoder']),
    (
      Gives(lambda _: Injections(encoder=Injection(head=Head({}, print)))),
      ['Gives', 'Head', 'encoder', 'decoder'],
    ),
    (Gives(lambda _: Injections(decoder=Injection(head=3))), ['Gives', 'int', 'Head']),
    (Gives(lambda _: Injections(terms=(3,))), ['Gives', 'int', 'Term']),
    (Gives(twice), ['Gives', 'NameInUse', 'test_contract.py']),
    (Gives(fails), ['Gives', 'ValueError: of no use at all', 'test_contract.py']),
    (Gives(lambda m: own_table(m, 7, 'x')((3, 8))), ['Gives', 'table', '7', 'Plain()']),
    (WithoutCompact(), ['WithoutCompact', 'compact']),
    (InputPrompt(length=3, table=Flat()), ['Flat', 'InputPrompt', '[3, 3]', '[3, 8]']),
    (DeepPrompt(length=3, table=Flat()), ['Flat', 'DeepPrompt', '[3, 3]', '[2, 3, 8]']),
    (InputPrompt(length=3, table=Plain), ['InputPrompt', 'table', 'Plain()']),
  ],
)
def test_what_a_method_returns(method, says):
  with pytest.raises(UserError, match=facts(*says)) as e:
    jax.eval_shape(lambda: first_values(method, jax.random.key(0), SIZES))
  assert '\n' not in str(e.value)


def test_methods_that_keep_the_contract_pass():
  for method in (Gives(prefix(1, 3, 8)), Gives(kv(2, 2, 1, 3, 2, 4)), InputPrompt(length=3)):
    first_values(method, jax.random.key(0), SIZES)
    check_method(method)


@pytest.mark.parametrize(
  ('method', 'says'),
  [
    (InputPrompt, ['InputPrompt', 'class', 'InputPrompt()']),
    (nn.Dense(3), ['Dense', 'PromptMethod']),
    (7, ['7', 'PromptMethod']),
    (Strung(), ['Strung', "'embeds'", 'frozenset']),
  ],
)
def test_what_is_no_method(method, says):
  with pytest.raises(UserError, match=facts(*says)):
    check_method(method)


def test_what_a_prompt_file_cannot_name():
  with pytest.raises(UserError, match=facts('print', 'prompt file', 'dataclass')):
    describe_method(Odd())


@pytest.fixture
def small(tmp_path):
  rows = ''.join(f'it was {w} {i}\t{w}\n' for i in range(20) for w in ('good', 'bad'))
  (tmp_path / 'x.tsv').write_text('text\tlabel\n' + rows)
  return {
    'data': str(tmp_path / 'x.tsv'), 'steps': 1, 'batch_size': 2, 'quiet': True,
    'input_length': 16, 'output': str(tmp_path / 'out'),
  }  # fmt: skip


def test_a_run_refuses_them_before_it_trains(small):
  class Local(InputPrompt):
    """Which no other process finds again."""

  for method, says in (
    (InputPrompt, 'InputPrompt()'),
    (Odd(), 'prompt file'),
    (Local(length=3), 'Local'),
    (Gives(describe_method), 'prompt file'),
    (InputPrompt(length=3, table=Flat()), 'Flat'),
  ):
    with pytest.raises(UserError, match=facts(says)):
      pj.train(prompt=method, **small)


def test_a_method_of_a_search_path_is_found_by_its_name(small, tmp_path, monkeypatch, capsys):
  """And a table of it that breaks the contract is told."""
  (tmp_path / 'gin' / 'prompts').mkdir(parents=True)
  (tmp_path / 'gin' / 'prompts' / 'mine.gin').write_text(
    'from __gin__ import dynamic_registration\n'
    'import flat_table\n'
    'from prompt_jax.prompts.methods.input import input_prompt\n'
    'PROMPT_LENGTH = 3\nPROMPT_LEARNING_RATE = 0.3\n'
    'PROMPT = @input_prompt.InputPrompt()\n'
    'input_prompt.InputPrompt.length = %PROMPT_LENGTH\n'
    'input_prompt.InputPrompt.table = @flat_table.FlatTable()\n'
  )
  (tmp_path / 'flat_table.py').write_text(
    'import flax.linen as nn\nimport jax.numpy as jnp\n\n\n'
    'class FlatTable(nn.Module):\n  def __call__(self, shape):\n    return jnp.zeros((3, 3))\n'
  )
  monkeypatch.syspath_prepend(str(tmp_path))
  flags = [f'--{name}={value}' for name, value in small.items() if name != 'quiet']
  search = f'--gin_search_paths={tmp_path / "gin"}'
  assert main(['train', *flags, '--prompt=mine', search]) == 2
  said = capsys.readouterr()
  assert 'FlatTable' in said.err
  assert '[3, 3]' in said.err
  assert 'Traceback' not in said.err + said.out
  assert 'ERROR' not in said.err
  assert main(['train', *flags, '--prompt=mime', search]) == 2
  assert "'mine'" in capsys.readouterr().err
