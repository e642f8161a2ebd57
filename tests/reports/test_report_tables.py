"""Tables: their columns, order and groups, and the same as text, CSV and Markdown."""

import io
import re

import pytest
from rich.console import Console

from prompt_jax.errors import UserError
from prompt_jax.reports import columns, text
from prompt_jax.reports.columns import ReportTable
from prompt_jax.reports.find import find
from prompt_jax.training.records import mean_std
from tests.reports import folders
from tests.shared import facts


@pytest.fixture
def runs(tmp_path):
  folders.run(tmp_path / 'b', accuracy=60.0)
  folders.run(tmp_path / 'a', accuracy=70.25, PROMPT_LENGTH=5, WARMUP_STEPS=3)
  folders.seeds(tmp_path / 'c', [40.0, 60.0])
  folders.config(tmp_path / 'd')
  return columns.sorted_by(find([str(tmp_path)]).runs, None)


CSV = """\
folder,verb,task,split,model,method,rows,trained,parameters,learning_rate,steps,seeds,accuracy,\
accuracy std,f1_macro,f1_macro std,validation,validation std,seconds,status,note
a,train,colours,test,tiny,input prompt,2,8,1000,0.3,100,0,70.25,,35.125,,40.0,,54.0,finished,
b,train,colours,test,tiny,input prompt,2,8,1000,0.3,100,0,60.0,,30.0,,40.0,,54.0,finished,
c,train,colours,test,tiny,input prompt,2,8,1000,0.3,100,"0, 1",50.0,14.142135623730951,,,40.5,\
0.7071067811865476,104.0,finished,
d,train,colours,,tiny,input prompt,2,,,0.3,0 of 100,0,,,,,,,,unfinished,
"""

MARKDOWN = """\
| folder | split | trained | parameters | steps | seeds | accuracy | f1_macro | validation | \
seconds | status |
| --- | --- | ---: | ---: | --- | --- | ---: | ---: | ---: | ---: | --- |
| a | test | 8 | 1,000 | 100 | 0 | 70.2 | 35.1 | 40.0 | 54 | finished |
| b | test | 8 | 1,000 | 100 | 0 | 60.0 | 30.0 | 40.0 | 54 | finished |
| c | test | 8 | 1,000 | 100 | 0, 1 | 50.0 ± 14.1 | - | 40.5 ± 0.7 | 104 | finished |
| d | - | - | - | 0 of 100 | 0 | - | - | - | - | unfinished |
"""


def test_the_whole_table(runs):
  table = columns.table(runs, columns.usual(runs))
  assert text.to_csv(table) == CSV
  shared, rest = columns.parted(table)
  assert text.to_markdown(rest) == MARKDOWN
  assert text.sentence(list(shared.items())) == (
    'Same in all rows: verb train, task colours, model tiny, method input prompt, rows 2, '
    'learning rate 0.3.'
  )


def test_a_single_run_keeps_its_columns(runs):
  shared, rest = columns.parted(columns.table(runs[:1], columns.usual(runs)))
  assert shared == {}
  assert {'task', 'method', 'accuracy'} <= set(rest.names)
  assert 'note' not in rest.names  # which it does not have


def test_settings_are_columns_too(runs):
  table = columns.table(runs, ['folder', 'PROMPT_LENGTH', 'WARMUP_STEPS', 'LEARNING_RATE'])
  assert [list(row.values()) for row in table.rows] == [
    ['a', 5, 3, 0.3], ['b', 2, None, 0.3], ['c', 2, None, 0.3], ['d', 2, None, 0.3],
  ]  # fmt: skip


def test_an_unknown_column_is_refused_with_the_nearest(runs):
  columns.check_names(['folder', 'accuracy', 'WARMUP_STEPS', 'settings.Settings.mode'], runs)
  with pytest.raises(UserError, match=facts("'acuracy'", "'accuracy'")):
    columns.check_names(['acuracy'], runs)


@pytest.mark.parametrize(
  ('name', 'order'),
  [
    (None, 'abcd'), ('folder', 'abcd'), ('-folder', 'dcba'), ('accuracy', 'cbad'),
    ('-accuracy', 'abcd'), ('WARMUP_STEPS', 'abcd'), ('-PROMPT_LENGTH', 'abcd'),
    ('seconds', 'abcd'), ('-seconds', 'cabd'),
  ],
)  # fmt: skip
def test_order(runs, name, order):
  assert ''.join(run.name for run in columns.sorted_by(runs, name)) == order


def test_the_interval_is_beside_the_score_that_it_is_of(tmp_path):
  folders.run(tmp_path / 'a')
  bounds = {'tuned prompt': {'accuracy': [40.0, 60.0], 'f1_macro': [1.0, 2.0]}}
  scores = [{'accuracy': 50.0, 'f1_macro': 25.0}]
  folders.results(tmp_path / 'a', scores, intervals=bounds)
  found = find([str(tmp_path)]).runs
  names = columns.usual(found)
  at = names.index('interval')
  assert names[at - 1 : at + 2] == ['accuracy', 'interval', 'f1_macro']
  assert columns.value(found[0], 'interval') == '40.0 to 60.0'


def test_groups_pool_the_seeds_of_their_runs(runs):
  table = columns.grouped_table(runs, columns.usual(runs), ['PROMPT_LENGTH'])
  two, five = sorted((r for r in table.rows if r['split']), key=lambda r: r['PROMPT_LENGTH'])
  assert (two['runs'], five['runs']) == (2, 1)
  assert two['accuracy'] == mean_std([60.0, 40.0, 60.0])
  assert two['f1_macro'] == mean_std([30.0])
  assert two['validation'] == mean_std([40.0, 40.0, 41.0])
  assert two['seeds'] == '2 values'
  assert two['method'] == 'input prompt'
  assert table.names[:4] == ('PROMPT_LENGTH', 'task', 'split', 'runs')
  assert 'folder' not in table.names


def test_groups_by_two_columns_keep_both_apart(runs):
  table = columns.grouped_table(runs, ['accuracy'], ['PROMPT_LENGTH', 'seeds'])
  found = [(row['PROMPT_LENGTH'], row['seeds'], row['runs']) for row in table.rows]
  assert found == [(5, '0', 1), (2, '0', 1), (2, '0, 1', 1), (2, '0', 1)]  # the last has no split
  shared, rest = columns.parted(columns.grouped_table(runs, ['task'], ['method', 'rows']))
  assert rest.names == ('method', 'rows', 'runs')  # however equal, what groups stays
  assert shared == {'task': 'colours'}


def test_groups_keep_tasks_apart_and_can_be_ordered(tmp_path):
  for task, accuracy in (('x', 10.0), ('y', 30.0), ('z', 20.0)):
    folders.run(tmp_path / task)
    folders.results(tmp_path / task, [{'accuracy': accuracy}], task=task)
  runs = find([str(tmp_path)]).runs
  table = columns.grouped_table(runs, ['task', 'accuracy'], ['method'])
  assert [row['task'] for row in table.rows] == ['x', 'y', 'z']
  table = columns.with_sorted_rows(table, '-accuracy')
  assert [row['task'] for row in table.rows] == ['y', 'z', 'x']
  assert columns.with_sorted_rows(table, 'seconds') is table


@pytest.mark.parametrize(
  ('name', 'value', 'shown'),
  [
    ('accuracy', mean_std([50.0]), '50.0'),
    ('accuracy', mean_std([40.0, 60.0]), '50.0 ± 14.1'),
    ('held_out_loss', mean_std([2.3456]), '2.346'),
    ('trained', 1234567, '1,234,567'),
    ('learning_rate', 0.001, '0.001'),
    ('seconds', 1234.5, '1,234'),
    ('seconds', 1.26, '1.3'),
    ('note', None, '-'),
    ('folder', 'a\x1b[31m\nb', 'a\\x1b[31m\\nb'),
  ],
)
def test_values_as_people_read_them(name, value, shown):
  assert text.shown(name, value) == shown


def test_markdown_takes_text_as_it_is():
  table = ReportTable(('folder',), ({'folder': '<b>|x|[l](u) `c` _i_ a_b *s*'},))
  line = text.to_markdown(table).splitlines()[2]
  assert line == r'| \<b\>\|x\|\[l\](u) \`c\` \_i\_ a_b \*s\* |'


def printed(runs, width, terminal, may_leave=()):
  out = io.StringIO()
  console = Console(file=out, width=width, force_terminal=terminal, no_color=True)
  left = text.print_table(
    columns.table(runs, columns.usual(runs)), '[red] runs', console, may_leave
  )
  return out.getvalue(), left


def test_where_there_is_no_terminal_the_table_is_whole(runs):
  out, left = printed(runs, 40, False, ('seconds',))
  assert left == []
  row = next(line for line in out.splitlines() if '│ c ' in line)
  assert '50.0 ± 14.1' in row
  assert 'finished' in row
  assert '[red] runs' in out


def test_a_narrow_terminal_is_spared_columns_which_are_told(runs):
  spared = [n for n in columns.usual(runs) if n not in ('folder', 'accuracy')]
  out, left = printed(runs, 60, True, spared)
  assert left == spared[: len(left)]
  assert 0 < len(left) < len(spared)
  lines = re.sub(r'\x1b\[[\d;]*m', '', out).splitlines()
  assert max(map(len, lines)) <= 60
  assert 'seconds' in out or 'seconds' in left
  assert '50.0 ± 14.1' in out
