"""What is cut of a text, the length that follows the data, and the field that may be cut."""

import pytest

from prompt_jax.data.example import Lengths, TextExample, encode, tokenize
from prompt_jax.data.local_file import local_task
from prompt_jax.data.splits import LONGEST, STEP, cut, default_length
from prompt_jax.data.vocabulary import ByteVocabulary
from tests.shared import mentions

BYTES = ByteVocabulary()


def made(*texts, lengths, target='yes', vocabulary=BYTES):
  rows = [TextExample(text, target, 0) for text in texts]
  return tokenize(rows, vocabulary, lengths, 't')


def test_what_is_cut_is_counted():
  lengths = Lengths(11, 6)
  # A token a byte, and the end: 20 letters are 21 tokens, of which 11 stay.
  examples = made('a' * 20, 'b' * 43, 'c' * 10, 'd', lengths=lengths)
  inputs, targets = cut(examples, BYTES, lengths)
  assert (inputs.cut, inputs.of, inputs.share, inputs.longest) == (2, 4, 0.5, 44)
  assert inputs.lost == pytest.approx(((21 - 11) / 21 + (44 - 11) / 44) / 2)
  assert (targets.cut, targets.share) == (0, 0.0)
  assert mentions(str(inputs), '50 %', '2', '4', '11', '61 %', '44')


def test_targets_are_cut_too():
  lengths = Lengths(32, 6)
  _, targets = cut(made('a', target='x' * 9, lengths=lengths), BYTES, lengths)
  assert (targets.side, targets.cut, targets.longest) == ('targets', 1, 10)


def test_of_many_cut_examples_a_sample_is_looked_at(monkeypatch):
  monkeypatch.setattr('prompt_jax.data.splits.LOOKED_AT', 5)
  lengths = Lengths(4, 6)
  inputs, _ = cut(made(*(['abcdef'] * 30), 'a', lengths=lengths), BYTES, lengths)
  assert (inputs.cut, inputs.of) == (30, 31)


@pytest.mark.parametrize(
  ('longest', 'length'), [(1, STEP), (STEP - 1, STEP), (STEP, 2 * STEP), (9999, LONGEST)]
)
def test_the_default_length_follows_the_longest_input_of_all_splits(longest, length):
  limits = Lengths(LONGEST, 6)
  train, test = made('a', lengths=limits), made('b' * longest, lengths=limits)
  assert default_length([train, test]) == default_length([test, train]) == length
  assert default_length([train]) == STEP


def test_a_tail_stays():
  decoded = lambda text, n, tail: BYTES.decode(encode(text, BYTES, n, tail).tolist())
  text, tail = 'passage: ' + 'x' * 30 + ' question: why', ' question: why'
  for n in (29, 40, 52):
    found = encode(text, BYTES, n, tail)
    assert len(found) == n
    assert found[-1] == BYTES.eos_id
    assert decoded(text, n, tail) == text[: n - 1 - len(tail)] + tail
  assert decoded(text, 100, tail) == text
  # One that would leave too little of the rest is cut like anything else.
  assert decoded(text, 20, tail) == text[:19]
  assert decoded(text, 30, '') == text[:29]


def test_of_several_columns_the_longest_is_cut():
  rows = [
    {'premise': 'p' * 60, 'hypothesis': 'short', 'label': 'a'},
    {'premise': 'tiny', 'hypothesis': 'h' * 60, 'label': 'b'},
  ]
  task = local_task(rows, validation=rows, text=['premise', 'hypothesis'], label='label')
  first, second = task.load('train', BYTES, Lengths(48, 8))
  assert BYTES.decode(first.inputs.tolist()).endswith(' hypothesis: short')
  assert BYTES.decode(second.inputs.tolist()).startswith('premise: tiny hypothesis: hhh')
  assert len(first.inputs) == len(second.inputs) == 48
