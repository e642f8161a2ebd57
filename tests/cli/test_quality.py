"""A run tells the truth about its quality and its cost."""

import io
import json

import pytest
from rich.console import Console

import prompt_jax as pj
from prompt_jax import api
from prompt_jax.checkpoints.prompt_file import load_prompt
from prompt_jax.data import local_file
from prompt_jax.data.example import Lengths
from prompt_jax.data.vocabulary import ByteVocabulary
from prompt_jax.runs import untuned
from tests.shared import mentions

SMALL = {'batch_size': 8, 'input_length': 16, 'target_length': 6, 'length': 2, 'steps': 2}


def said(monkeypatch, **settings) -> str:
  """What a run prints."""
  out = io.StringIO()
  monkeypatch.setattr(api, 'Console', lambda: Console(file=out, width=200))
  pj.train(**{**SMALL, **settings})
  return out.getvalue()


@pytest.fixture(scope='module')
def cache(tmp_path_factory):
  return str(tmp_path_factory.mktemp('cache'))


@pytest.fixture
def settings(model, reviews, cache, tmp_path):
  return {
    'model': model, 'data': reviews, 'output': str(tmp_path / 'out'), 'compilation_cache': cache,
  }  # fmt: skip


def test_a_run_says_that_it_is_no_better(monkeypatch, settings, tmp_path):
  text = said(monkeypatch, learning_rate=1e-6, **settings)
  assert mentions(text, 'no better than the majority class', 'accuracy', '95 % interval', 'To try')
  results = json.loads((tmp_path / 'out/results.json').read_text())
  by_name = {verdict['baseline']: verdict for verdict in results['verdicts']}
  assert set(by_name) == {'the majority class', 'the untuned model'}
  assert not by_name['the majority class']['better']
  low, high = results['intervals']['tuned prompt']['accuracy']
  assert low <= results['systems']['tuned prompt']['scores'][0]['accuracy'] <= high


def test_the_untuned_model_is_asked_once(monkeypatch, settings):
  def again(*_):
    raise AssertionError('the untuned model was evaluated again')

  first = pj.train(quiet=True, **SMALL, **settings)
  monkeypatch.setattr(untuned, 'progress_bar', again)  # of what is asked
  found = pj.train(quiet=True, **SMALL, **{**settings, 'output': settings['output'] + '2'})
  assert found.scores['the model, untuned'] == first.scores['the model, untuned']
  rows = [(f'it is {i}', 'ab'[i % 2]) for i in range(30)]
  with pytest.raises(AssertionError, match='again'):  # of other text
    pj.train(quiet=True, **SMALL, **{**settings, 'output': settings['output'] + '3', 'data': rows})


def test_a_run_says_what_it_cuts_and_its_default_length_follows_the_data(
  monkeypatch, model, reviews, tmp_path
):
  usual = {'model': model, 'data': reviews, 'compilation_cache': 'off'}
  cut = said(monkeypatch, **{**usual, 'input_length': 9, 'output': str(tmp_path / 'cut')})
  assert mentions(cut, 'Cut (train)', '100 %', '48 of 48', '9 tokens', 'input_length')
  free = {**usual, 'input_length': None, 'output': str(tmp_path / 'free')}
  assert 'Cut' not in said(monkeypatch, **free)
  length = lambda: load_prompt(tmp_path / 'free/prompt.safetensors').metadata['input_length']
  assert length() == 64
  said(monkeypatch, **free)  # the same when resumed
  assert length() == 64


def test_a_sample_judges_while_it_trains_and_all_examples_in_the_end(
  monkeypatch, settings, tmp_path
):
  more = {'validation_examples': 3, 'eval_every': 1}
  text = said(monkeypatch, **more, **settings)
  assert mentions(text, '3 of 6', 'on all 6 validation examples')
  about = load_prompt(tmp_path / 'out/prompt.safetensors').metadata
  assert about['validation_examples'] == 6
  before = (tmp_path / 'out/prompt.safetensors').read_bytes()
  again = pj.train(quiet=True, **SMALL, **more, **settings)
  assert (tmp_path / 'out/prompt.safetensors').read_bytes() == before
  assert (again.runs[0].validation, again.runs[0].best_step) == (about['value'], about['step'])


def test_so_it_is_in_a_population(settings, tmp_path):
  found = pj.population(
    quiet=True, seeds=[0, 1], **SMALL, validation_examples=3, eval_every=1, **settings
  )
  for run in found.runs:
    about = load_prompt(run.file).metadata
    assert about['validation_examples'] == 6
    assert about['value'] == run.validation


def test_the_held_out_rows_of_a_large_file_are_bounded(monkeypatch):
  monkeypatch.setattr(local_file, 'MOST_HELD_OUT', 5)
  task = local_file.local_task([(f'row {i}', 'ab'[i % 2]) for i in range(400)])
  sizes = {s: len(task.load(s, ByteVocabulary(), Lengths(20, 8))) for s in task.splits}
  assert sizes['validation'] in (4, 5, 6)
  assert sizes['test'] in (4, 5, 6)
  assert sum(sizes.values()) == 400
