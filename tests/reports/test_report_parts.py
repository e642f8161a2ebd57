"""The tables of several tasks and languages, and the gap between them."""

import pytest

from prompt_jax.evaluation.suite import summarise
from prompt_jax.reports import parts
from prompt_jax.reports.find import find
from prompt_jax.training.records import mean_std
from tests.reports import folders

LANGUAGES = [
  {'sib.en': {'accuracy': 80.0, 'f1': 1.0}, 'sib.de': {'accuracy': 60.0, 'f1': 2.0},
   'sib.sw': {'accuracy': 40.0, 'f1': 3.0}},
  {'sib.en': {'accuracy': 70.0, 'f1': 1.0}, 'sib.de': {'accuracy': 64.0, 'f1': 2.0},
   'sib.sw': {'accuracy': 30.0, 'f1': 3.0}},
]  # fmt: skip


@pytest.fixture
def runs(tmp_path):
  folders.seeds(tmp_path / 'a', [0.0, 0.0])
  scores = [summarise(each, 'sib.en') for each in LANGUAGES]
  folders.results(tmp_path / 'a', scores, task='sib.en:all')
  folders.run(tmp_path / 'b')
  folders.results(tmp_path / 'b', scores[:1], task='sib.en:all')
  folders.run(tmp_path / 'c')
  return find([str(tmp_path)]).runs


def test_the_gap_of_each_language_is_over_the_seeds(runs):
  found = {part.name: part for part in parts.parts(runs[0])}
  assert list(found) == ['sib.en', 'sib.de', 'sib.sw']
  assert found['sib.de'].metric == 'accuracy'  # the first score of a task counts
  assert found['sib.de'].score == mean_std([60.0, 64.0])
  assert found['sib.de'].gap == mean_std([20.0, 6.0])
  assert found['sib.en'].gap is None


def test_runs_of_the_same_tasks_stand_side_by_side(runs):
  ((a, b),) = parts.group_by_tasks(runs)
  table = parts.score_table([a, b])
  assert table.names == ('language or domain', 'a', 'a: gap', 'b', 'b: gap')
  assert [row['language or domain'] for row in table.rows] == [
    'en (trained on)', 'de', 'sw', 'mean of the others',
  ]  # fmt: skip
  assert table.rows[2]['b: gap'] == mean_std([40.0])
  last = table.rows[3]
  assert last['a'] == mean_std([50.0, 47.0])
  assert last['a: gap'] == mean_std([30.0, 23.0]) == a.metrics['gap']


def test_other_programs_get_one_row_a_run_and_language(runs):
  table = parts.long_table(runs)
  assert len(table.rows) == 6
  assert table.rows[1]['part'] == 'sib.de'
  assert table.rows[1]['gap'] == mean_std([20.0, 6.0])


def test_a_mixture_has_no_gap(tmp_path):
  folders.run(tmp_path)
  scores = summarise({'rte': {'accuracy': 60.0}, 'sst2.x': {'f1': 30.0}})
  folders.results(tmp_path, [scores], task='rte+sst2.x')
  (run,) = find([str(tmp_path)]).runs
  table = parts.score_table([run])
  assert table.names == ('task', run.name)
  assert [list(row.values()) for row in table.rows] == [
    ['rte', mean_std([60.0])], ['sst2.x', mean_std([30.0])],
  ]  # fmt: skip
