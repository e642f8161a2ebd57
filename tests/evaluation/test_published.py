"""Averages of benchmarks against published rows of their papers."""

import pytest

from prompt_jax.evaluation import suite

# Lester et al. 2021, section 6: SuperGLUE's dev sets by T5 XXL, the mean of five prompts and their
# vote, which the paper averages to 90.5 and 91.3.
PROMPTS = {
  'boolq': (91.1,), 'cb': (99.0, 99.3), 'copa': (98.8,), 'multirc': (88.7, 65.7),
  'record': (93.4, 92.7), 'rte': (92.6,), 'wic': (76.2,), 'wsc': (95.8,),
}  # fmt: skip
VOTE = {
  'boolq': (91.7,), 'cb': (100.0, 100.0), 'copa': (100.0,), 'multirc': (89.4, 67.1),
  'record': (93.9, 93.2), 'rte': (93.5,), 'wic': (77.4,), 'wsc': (96.2,),
}  # fmt: skip


def scores(prefix, found):
  return {f'{prefix}{t}': dict(zip(('a', 'b'), v, strict=False)) for t, v in found.items()}


@pytest.mark.parametrize('prefix', ['super_glue_', 'taskless_super_glue_'])
@pytest.mark.parametrize(('row', 'average'), [(PROMPTS, 90.5), (VOTE, 91.3)])
def test_superglue_is_the_average_that_the_paper_prints(prefix, row, average):
  found = suite.averages(scores(prefix, row))
  assert found == {'super_glue': pytest.approx(average, abs=0.05)}
  diagnostics = scores(prefix, {'axb': (0.0,), 'axg': (1.0,)})
  assert suite.averages({**scores(prefix, row), **diagnostics}) == found
  missing = {k: v for k, v in scores(prefix, row).items() if not k.endswith('wsc')}
  assert suite.averages(missing) == {}


# A baseline of GLUE's leaderboard, BiLSTM with ELMo and attention, whose score there is 70.0.
ELMO = {
  'cola': (33.6,), 'sst2': (90.4,), 'mrpc': (84.4, 78.0), 'stsb': (74.2, 72.3), 'qqp': (63.1, 84.3),
  'mnli': (74.1,), 'mnli_mismatched': (74.5,), 'qnli': (79.8,), 'rte': (58.9,), 'wnli': (65.1,),
}  # fmt: skip


def test_glue_averages_metrics_within_a_task_and_both_halves_of_mnli():
  row = scores('glue_', ELMO)
  tasks = [33.6, 90.4, 81.2, 73.25, 73.7, 74.3, 79.8, 58.9, 65.1]
  assert suite.averages(row) == {'glue': pytest.approx(sum(tasks) / 9)}
  assert suite.averages(row)['glue'] == pytest.approx(70.0, abs=0.05)
  one_half = {k: v for k, v in row.items() if k != 'glue_mnli_mismatched'}
  assert suite.averages(one_half)['glue'] == pytest.approx((sum(tasks) - 0.2) / 9)
  without = {k: v for k, v in row.items() if k != 'glue_wnli'}
  want = pytest.approx((sum(tasks) - 65.1) / 8)
  assert suite.averages({**without, 'glue_ax': {'a': 0.0}}) == {'glue_without_wnli': want}


def test_a_table_of_all_tasks_shows_the_average():
  row = scores('super_glue_', PROMPTS)
  found = suite.summarise(row)
  assert list(found)[:2] == ['mean', 'super_glue']
  assert found['super_glue'] == pytest.approx(90.5, abs=0.05)
  assert suite.published_averages(list(row)) == ['super_glue']
  assert list(suite.summarise({'super_glue_cb': {'a': 1.0}})) == ['mean', 'super_glue_cb/a']
