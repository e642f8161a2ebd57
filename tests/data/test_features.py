"""Features of an example: their values, their numbers, and their way into batches."""

import json

import numpy as np
import pytest

from prompt_jax.checkpoints.prompt_file import Prompt, differing_setting
from prompt_jax.data.batches import BatchStream
from prompt_jax.data.example import Example, Lengths
from prompt_jax.data.local_file import local_task
from prompt_jax.data.packing import PackedStream
from prompt_jax.data.recorded import record, replay
from prompt_jax.errors import UserError
from prompt_jax.evaluation.predictions import answers_digest
from prompt_jax.features import COLUMNS, ids_of, in_file, numbered, value_of
from prompt_jax.prompts.methods.input.input_prompt import InputPrompt
from prompt_jax.prompts.methods.prefix.control_prefixes import ControlPrefixes
from prompt_jax.testing import tiny
from tests.shared import facts, mentions


def example(task='one', length=4, **fields):
  ids = np.r_[np.full(length - 1, 5), 1].astype(np.int32)
  return Example(ids, ids[-2:], f'text {length}', 'b', None, fields, task)


def test_values_are_numbered_in_alphabetical_order_and_tasks_as_given():
  examples = [example('two', style=' b '), example('one', style='a'), example('one', style='b')]
  numbers = numbered(('style', 'task_id'), ['two', 'one'], examples)
  assert numbers == {'style': {'a': 0, 'b': 1}, 'task_id': {'two': 0, 'one': 1}}
  ids = ids_of(examples, numbers)
  assert {name: of.tolist() for name, of in ids.items()} == {
    'style': [1, 0, 1],
    'task_id': [0, 1, 1],
  }
  assert all(of.dtype == np.int32 for of in ids.values())


@pytest.mark.parametrize(
  ('value', 'written'), [(3, '3'), (True, 'true'), (2.5, '2.5'), (' x ', 'x'), (['a'], '["a"]')]
)
def test_a_value_is_text(value, written):
  assert value_of(example(style=value), 'style') == written
  assert value_of(example(**{COLUMNS: {'style': value}}), 'style') == written


@pytest.mark.parametrize('value', [None, '', '  ', float('nan')])
def test_a_missing_value_is_refused_with_the_columns_there_are(value):
  for lacking in (example(style=value, other=1), example(other=1)):
    with pytest.raises(UserError, match=facts('style', 'other', 'column')):
      numbered(['style'], ['one'], [lacking])


def test_a_value_that_was_not_trained_on_is_refused():
  with pytest.raises(UserError, match=facts('style', 'formel', 'formal', 'text 4')):
    ids_of([example(style='formel')], {'style': {'formal': 0}})


def test_a_file_says_what_a_prompt_was_tuned_on():
  method, metadata = ControlPrefixes(attributes=('style',)), {'features': {'style': ['a', 'b']}}
  assert in_file(method, metadata, None) == {'style': {'a': 0, 'b': 1}}
  assert in_file(InputPrompt(), metadata, None) == {} == in_file(None, {}, None)
  with pytest.raises(UserError, match=facts('ControlPrefixes', 'task_prompts')):
    in_file(ControlPrefixes(), {'tasks': ['one']}, None)


def test_prompts_of_other_values_differ():
  of = lambda values: Prompt({}, {}, {'features': {'style': values}})
  assert mentions(differing_setting(of(['a', 'b']), of(['b', 'c'])), 'style', "['b', 'c']")
  assert differing_setting(of(['a']), of(['a'])) == ''
  assert differing_setting(of(['a']), Prompt({}, {}, {})) == ''  # of an earlier version


def test_batches_have_the_features_of_their_rows():
  examples = [example(length=3 + i, user=str(i % 2), style='ab'[i // 3]) for i in range(5)]
  numbers = numbered(['user', 'style'], ['one'], examples)
  stream = BatchStream(examples, 2, features=numbers)
  for number in range(stream.batches_per_epoch):
    rows, batch = stream.rows(number).examples, stream.batch(number)
    assert set(batch.features) == {'user', 'style'}
    for name, of in batch.features.items():
      want = [numbers[name][value_of(examples[i], name)] for i in rows]
      np.testing.assert_array_equal(of, np.resize([*want, 0], 2))
  assert stream.upcoming_shapes(9)[0].features['user'].shape == (2,)
  # A resumed run must have had the same values.
  examples[0] = example(length=3, user='1', style='a')
  assert BatchStream(examples, 2, features=numbers).identity() != stream.identity()


def test_packed_rows_have_the_features_of_each_example():
  examples = [example(length=4, user=str(i % 3)) for i in range(7)]
  numbers = numbered(['user'], ['one'], examples)
  stream = PackedStream(examples, 7, row_length=16, features=numbers)
  packed, batch = stream.packed(0), stream.batch(0)
  seen = dict.fromkeys(range(packed.rows), 0)
  for i, row in zip(packed.examples, packed.row, strict=True):
    assert batch.features['user'][row, seen[row]] == i % 3
    seen[row] += 1
  assert max(seen.values()) > 1


def test_columns_of_a_file_go_along_also_into_a_recording(tmp_path):
  rows = [{'text': f't{i}', 'label': 'ab'[i % 2], 'style': i % 3} for i in range(12)]
  file = tmp_path / 'rows.jsonl'
  file.write_text('\n'.join(map(json.dumps, rows)))
  task = local_task(str(file), validation=str(file))
  words, lengths = tiny.Vocabulary(), Lengths(8, 4)
  found = task.load('train', words, lengths)
  assert [value_of(e, 'style') for e in found] == [str(i % 3) for i in range(12)]
  record(tmp_path / 'kept.npz', task, ['train'], words, lengths)
  again = replay(tmp_path / 'kept.npz').load('train', words, lengths)
  assert [value_of(e, 'style') for e in again] == [str(i % 3) for i in range(12)]
  # They are no answers: what a prompt was judged on is the same without them.
  bare = [{name: row[name] for name in ('text', 'label')} for row in rows]
  others = local_task(bare, validation=bare).load('train', words, lengths)
  assert answers_digest(found) == answers_digest(others)
  assert all(COLUMNS not in e.fields for e in others)
