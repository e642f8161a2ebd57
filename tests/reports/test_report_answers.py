"""Confusions and mistakes from predictions."""

import math

import pytest

from prompt_jax.reports import answers
from prompt_jax.reports.answers import OTHER, Answer
from prompt_jax.reports.find import find
from tests.reports import folders


def row(target, prediction, **scores):
  return {'target': target, 'prediction': prediction, 'correct': target == prediction,
          'scores': scores}  # fmt: skip


@pytest.fixture
def run(tmp_path):
  folders.run(tmp_path)
  (found,) = find([str(tmp_path)]).runs
  return found


def read(tmp_path, rows):
  folders.predictions(tmp_path, rows)
  unreadable = []
  found = answers.read(tmp_path / 'predictions.jsonl', unreadable)
  assert unreadable == []
  return found


def test_confidence_is_the_probability_among_the_labels(tmp_path):
  rows = [row('red', 'green', red=math.log(0.1), green=math.log(0.3)),
          row('a b', 'a c', log_prob=-2.0), row('red', 'red'),
          {**row('red', 'red', red=-1.0, green=-2.0), 'confidence': 0.7},
          row('red', 'red', red=math.nan, green=-1.0),
          row('red', 'red', red=-1e4, green=-2e4)]  # fmt: skip
  found = [a.confidence for a in read(tmp_path, rows)]
  assert found[0] == pytest.approx(0.75)
  assert found[1] == pytest.approx(math.exp(-2))
  assert found[2] is None
  assert found[3] == 0.7
  assert found[4] is None
  assert found[5] == 1.0


def test_confusion_counts_right_answers_and_predictions(tmp_path, run):
  scores = {'red': -1.0, 'green': -2.0}
  rows = [row('red', 'red', **scores)] * 3 + [row('green', 'red', **scores)] * 2
  rows.append({**row('red', 'green', **scores), 'correct': None})  # the right answer is not known
  (found,) = answers.confusions(run, read(tmp_path, rows))
  assert found.labels == ('red', 'green')
  assert found.counts == ((3, 0), (2, 0))


def test_text_that_is_no_label_has_a_column_of_its_own(tmp_path, run):
  rows = [row('red', 'red ', log_prob=-1.0), row('green', 'blue', log_prob=-1.0)]
  (found,) = answers.confusions(run, read(tmp_path, rows))
  assert found.counts == ((1, 0, 0), (0, 0, 1))
  assert OTHER not in found.labels


def test_tasks_of_the_same_labels_share_a_matrix(tmp_path, run):
  two, three = {'a': -1.0, 'b': -2.0}, {'x': -1.0, 'y': -2.0, 'z': -3.0}
  rows = [{**row('a', 'a', **two), 'task': 's.de'}, {**row('b', 'a', **two), 'task': 's.en'},
          {**row('x', 'x', **three), 'task': 't'}]  # fmt: skip
  first, second = answers.confusions(run, read(tmp_path, rows))
  assert (first.tasks, second.tasks) == (('s.de', 's.en'), ('t',))
  assert first.counts == ((1, 0), (1, 0))
  assert second.labels == ('x', 'y', 'z')


@pytest.mark.parametrize(('labels', 'matrices'), [(20, 1), (21, 0)])
def test_a_matrix_has_at_most_twenty_labels(tmp_path, run, labels, matrices):
  scores = {f'l{i}': -float(i) for i in range(labels)}
  assert len(answers.confusions(run, read(tmp_path, [row('l0', 'l0', **scores)]))) == matrices


def test_the_surest_mistakes_come_first_and_once():
  def answer(text, confidence, correct=False, task=None):
    return Answer(text, 't', 'p', correct, confidence, (), task)

  given = [answer('a', 0.5), answer('b', 0.9), answer('c', 1.0, True), answer('a', 0.7),
           answer('d', None), answer('e', 0.99, None), answer('a', 0.6, task='x')]  # fmt: skip
  found = answers.worst(given, 3)
  assert [(a.input, a.confidence) for a in found] == [('b', 0.9), ('a', 0.7), ('a', 0.6)]
  assert answers.worst(given, 1)[0].input == 'b'


def test_lines_that_are_no_predictions_are_counted(tmp_path):
  folders.predictions(tmp_path, [{}, {}])
  path = tmp_path / 'predictions.jsonl'
  path.write_text(path.read_text() + '{"input": 1}\n[]\n{"inp')
  unreadable = []
  assert len(answers.read(path, unreadable)) == 2
  assert '3 of 5 lines' in unreadable[0].why
  path.write_bytes(b'\xff')
  assert answers.read(path, unreadable) == []
  assert len(unreadable) == 2
