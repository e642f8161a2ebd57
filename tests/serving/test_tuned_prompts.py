"""Prompt files on one model from Python."""

import os

import jax
import pytest

import prompt_jax as pj
from prompt_jax.errors import UserError
from prompt_jax.prompts.methods.input.input_prompt import InputPrompt
from tests.serving.conftest import MANY, YES_NO
from tests.shared import facts


@pytest.fixture(scope='module')
def files(write, tmp_path_factory):
  """Of two prompts; the second is called as a run calls its own."""
  folder = tmp_path_factory.mktemp('prompts')
  os.mkdir(folder / 'second')
  return [
    write(folder / 'first.safetensors', InputPrompt(length=2), 1, YES_NO),
    write(folder / 'second' / 'prompt.safetensors', InputPrompt(length=5), 2, MANY),
  ]


def test_prompts_have_the_names_of_their_files_and_answer_as_alone(files, write, tmp_path):
  prompts = pj.load(files)
  assert isinstance(prompts, pj.TunedPrompts)
  assert prompts.names == ('first', 'second')
  assert 'first' in repr(prompts)
  assert 'second' in prompts._repr_html_()
  assert prompts.metadata('second')['labels'] == list(MANY)
  texts = ['a b', 'some text']
  found = prompts.predict(texts, ['second', 'first'])
  for text, file, answer in zip(texts, files[::-1], found, strict=True):
    (alone,) = pj.load(file).predict([text])
    assert (answer.text, answer.prediction) == (text, alone.prediction)
    assert answer.probability == pytest.approx(alone.probability, abs=1e-5)
  third = write(tmp_path / 'third.safetensors', InputPrompt(length=3), 2, YES_NO)
  assert prompts.add(third) == 'third'
  assert prompts.add(third, 'first') == 'first'
  assert [a.prediction for a in prompts.predict(['a', 'a'], ['third', 'first'])] == (
    2 * [prompts.predict(['a'], 'third')[0].prediction]
  )
  prompts.remove('third')
  assert prompts.names == ('first', 'second')
  with pytest.warns(UserWarning, match='24'):  # the length that it was trained with
    prompts.predict(['x' * 40], 'first')


def test_weights_of_a_model_are_refused(files, tuned):
  """Whether they are added or given at first."""
  prompts = pj.load(files)
  one = tuned(InputPrompt(length=2))
  own = jax.tree.map(lambda x: 2 * x, one.variables)
  with pytest.raises(UserError, match=facts("'mine'", 'weights')):
    prompts.bank.add('mine', one._replace(variables=own))
  assert prompts.names == ('first', 'second')


def test_files_that_are_no_set_of_prompts(files, write, tmp_path):
  same = write(tmp_path / 'first.safetensors', InputPrompt(length=3))
  for given, said in (
    ([], ['prompt']),
    ([files[0], same], ["'first'", files[0], same]),
    ([files[0], files[0]], [files[0], "'first'"]),
    ([str(tmp_path / 'none.safetensors')], ['none.safetensors']),
  ):
    with pytest.raises(UserError, match=facts(*said)):
      pj.load(given)


def test_a_folder_gives_all_its_prompts(files, write, tmp_path):
  for name, seed in (('a', 1), ('b', 2)):
    write(tmp_path / name / 'prompt.safetensors', InputPrompt(length=2), seed, YES_NO)
  prompts = pj.load([str(tmp_path)])
  assert prompts.names == ('a', 'b')
  assert prompts.add(str(tmp_path / 'b')) == 'b'
  with pytest.raises(UserError, match=facts(str(tmp_path), '2 prompts')):
    prompts.add(str(tmp_path))


@pytest.mark.parametrize('texts', [[], 'one text', ['a', 3]])
def test_texts_are_checked_alike(files, texts):
  prompts, alone = pj.load(files), pj.load(files[0])
  for call in (lambda: prompts.predict(texts, 'first'), lambda: alone.predict(texts)):
    with pytest.raises(UserError) as refused:
      call()
    assert refused.value.parameters == ('texts',)
