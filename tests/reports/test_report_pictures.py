"""Pictures: which are made of which runs, and that any name can stand in them."""

import json
import struct

import pytest

from prompt_jax.reports import plots
from prompt_jax.reports.answers import Confusion
from prompt_jax.reports.find import find
from prompt_jax.reports.runs import FoundRuns
from prompt_jax.reports.sections import sections
from tests.reports import folders


def size(png: bytes) -> tuple[int, int]:
  assert png.startswith(b'\x89PNG\r\n\x1a\n')
  return struct.unpack('>II', png[16:24])


def runs_in(tmp_path):
  return find([str(tmp_path)])


@pytest.fixture
def two(tmp_path):
  """Two methods that train different amounts of numbers."""
  folders.run(tmp_path / 'a', 50.0)
  folders.run(tmp_path / 'b', 60.0)
  described = {'class': 'a.prompts.deep_prompt.DeepPrompt', 'fields': {}}
  folders.prompt(tmp_path / 'b', method_config=described, method='DeepPrompt')
  systems = {'tuned prompt': {'scores': [{'accuracy': 60.0}], 'trained': 40}}
  folders.results(tmp_path / 'b', [])
  path = tmp_path / 'b' / 'results.json'
  path.write_text(json.dumps({'task': 'colours', 'split': 'test', 'systems': systems}))
  return runs_in(tmp_path)


def test_a_task_has_curves_and_comparisons(two):
  ((section,), unreadable) = sections(two)
  assert unreadable == ()
  titles = [p.title for p in section.pictures]
  assert titles == [
    'Training loss over the steps, colours',
    'Validation accuracy over the steps, colours',
    'accuracy by method, colours, test',
    'accuracy by trainable parameters, colours, test',
  ]
  for picture in section.pictures:
    width, height = size(picture.png)
    assert 500 < width < 1500
    assert 100 < height < 1500
  assert section.pictures[2].alt == (
    'accuracy by method, colours, test: majority class 25.0, the model, untuned 20.0, '
    'deep prompt 60.0, input prompt 50.0'
  )
  assert 'input prompt 8: 50.0' in section.pictures[3].alt
  assert 'a 100 steps, best accuracy 40.0' in section.pictures[0].alt


def test_baselines_are_in_the_validation_curve_alone(tmp_path):
  folders.run(tmp_path / 'a')
  plain = plots.curves(runs_in(tmp_path).runs, 'colours')
  lines = {'majority class': 26.0, 'the model, untuned': 21.0}
  folders.results(tmp_path / 'a', [{'accuracy': 50.0}], on_validation=lines)
  losses, scores = plots.curves(runs_in(tmp_path).runs, 'colours')
  assert losses == plain[0]
  assert scores.alt == f'{plain[1].alt}; majority class 26.0; the model, untuned 21.0'
  assert scores.png != plain[1].png


def test_runs_of_one_size_are_not_compared_by_size(tmp_path):
  folders.run(tmp_path / 'a')
  folders.run(tmp_path / 'b')
  assert plots.by_size(runs_in(tmp_path).runs, 'colours', 'test') == []


def test_models_of_different_sizes_are(tmp_path):
  for name, parameters in (('a', 1000), ('b', 100000)):
    folders.run(tmp_path / name)
    folders.prompt(tmp_path / name, parameters=parameters)
  (picture,) = plots.by_size(runs_in(tmp_path).runs, 'colours', 'test')
  assert picture.title == 'accuracy by model parameters, colours, test'
  assert '100,000: 50.0' in picture.alt


def test_one_value_alone_is_not_compared(tmp_path):
  folders.run(tmp_path / 'a')
  runs = runs_in(tmp_path).runs
  assert plots.by(runs, [], 'colours', 'test', ['method']) is None
  assert plots.by(runs, runs_in(tmp_path).references, 'colours', 'test', ['method']) is not None


def test_a_group_is_compared_as_methods_are(tmp_path):
  folders.run(tmp_path / 'a', 50.0, PROMPT_LENGTH=20)
  folders.run(tmp_path / 'b', 70.0, PROMPT_LENGTH=5)
  ((section,), _) = sections(runs_in(tmp_path), ['PROMPT_LENGTH'])
  by = next(p for p in section.pictures if 'PROMPT_LENGTH' in p.title)
  assert by.alt.endswith('5 70.0, 20 50.0')  # in the order of numbers, below what needs no tuning


def test_no_run_is_dropped_from_the_curves(tmp_path):
  for i in range(12):
    folders.run(tmp_path / f'r{i:02}')
  pictures = plots.curves(runs_in(tmp_path).runs, 'colours')
  losses = [p for p in pictures if p.title.startswith('Training')]
  assert len(losses) == 2
  assert all(f'r{i:02} ' in ''.join(p.alt for p in losses) for i in range(12))


def test_languages_have_a_dot_each(tmp_path):
  folders.run(tmp_path)
  scores = {'mean': 50.0, 's.en/accuracy': 40.0, 's.de/accuracy': 60.0}
  folders.results(tmp_path, [scores], task='s.en:all')
  (picture,) = plots.by_part(runs_in(tmp_path).runs)
  assert picture.alt.endswith('de 60.0, en (trained on) 40.0')  # the best first


def test_a_confusion_says_what_is_taken_for_what(tmp_path):
  folders.run(tmp_path / 'a')
  (run,) = runs_in(tmp_path).runs
  found = Confusion((), ('x', 'y'), ((5, 4, 0), (1, 3, 2)))
  alt = plots.confusion(found, run).alt
  assert alt.endswith('8 of 15 agree; most frequent error: y instead of x (4)')
  assert '(no label) instead of x (9)' in plots.confusion(Confusion((), ('x',), ((0, 9),)), run).alt


@pytest.mark.parametrize(
  'name', ['_hidden', r'$\alpha', 'a$b$c <b>', '数据' * 40], ids=list('abcd')
)
def test_any_name_can_stand_in_a_picture(name, tmp_path, recwarn):
  folders.run(tmp_path / name, TASK=repr(name))
  folders.results(tmp_path / name, [{'accuracy': 1.0}], task=name)
  answer = {'target': name, 'prediction': name, 'scores': {name: -1.0, 'other': -2.0}}
  folders.predictions(tmp_path / name, [answer])
  found = runs_in(tmp_path)
  ((section,), _) = sections(found)
  (answers,) = section.answers
  pictures = [*section.pictures, *answers.pictures]
  assert len(pictures) == 4
  for picture in pictures:
    size(picture.png)
    assert picture.stem.isascii()
    assert '/' not in picture.stem
  assert not recwarn.list


def test_the_same_runs_make_the_same_bytes(two):
  assert sections(two) == sections(two)


def test_a_run_without_anything_yet_has_no_pictures(tmp_path):
  folders.config(tmp_path / 'a')
  ((section,), _) = sections(FoundRuns(runs_in(tmp_path).runs))
  assert section.pictures == section.answers == ()
