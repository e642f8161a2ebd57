"""Plain text to train on: span corruption and prefix LM put together give the text again."""

import gzip
import json

import numpy as np
import pytest

from prompt_jax.data.example import Lengths
from prompt_jax.data.vocabulary import ByteVocabulary, load_vocabulary
from prompt_jax.errors import UserError
from prompt_jax.tasks import find
from tests.shared import facts, shared

BYTES = ByteVocabulary()
TEXTS = ['The first document, which is rather long. ' * 5, 'Zweiter Text. ' * 20]
STREAM = [i for text in TEXTS for i in [*BYTES.encode(text.strip()), 1]]


@pytest.fixture
def folder(tmp_path):
  (tmp_path / 'c4').mkdir()
  rows = ''.join(json.dumps({'text': t.strip(), 'url': 'u'}) + '\n' for t in TEXTS)
  name = 'c4-train.00000-of-01024.json.gz'
  (tmp_path / 'c4' / name).write_bytes(gzip.compress(rows.encode()))
  (tmp_path / 'c4' / 'train.de.txt').write_text('\n\n'.join(TEXTS))
  return str(tmp_path)


def test_spans_and_what_is_left_are_the_text(folder):
  examples = find.find('c4_span_corruption', folder).load('train', BYTES, Lengths(64, 40))
  restored = []
  for example in examples:
    assert len(example.inputs) <= 64
    assert len(example.targets) <= 40
    spans, sentinel = {}, None
    for token in example.targets[:-1].tolist():
      if token in BYTES.sentinels:  # ByT5 was trained with its last bytes
        sentinel = token
        spans[sentinel] = []
      else:
        spans[sentinel].append(token)
    for token in example.inputs[:-1].tolist():
      restored += spans.get(token, [token])
  assert restored == STREAM[: len(restored)]
  assert len(restored) > len(STREAM) - 80


def test_a_prefix_and_its_continuation_are_the_text(folder):
  for name in ('c4_prefix_lm', 'c4_prefix_lm.de'):
    examples = find.find(name, folder).load('train', BYTES, Lengths(30, 31))
    joined = [i for e in examples for i in [*e.inputs[:-1].tolist(), *e.targets[:-1].tolist()]]
    # Where a cut is early its continuation is longer than the targets may be.
    assert all(len(e.inputs) <= 30 and len(e.targets) <= 31 for e in examples)
    assert set(joined) <= set(STREAM)
    assert examples[0].inputs[:-1].tolist() == STREAM[: len(examples[0].inputs) - 1]


def test_it_is_the_same_each_time(folder):
  one, two = (
    find.find('c4_span_corruption', folder).load('train', BYTES, Lengths(64, 40)) for _ in range(2)
  )
  for a, b in zip(one, two, strict=True):
    np.testing.assert_array_equal(a.inputs, b.inputs)
    np.testing.assert_array_equal(a.targets, b.targets)


def test_faults(folder, tmp_path):
  with pytest.raises(UserError, match=facts('target_length', '14')):
    find.find('c4_span_corruption', folder).load('train', BYTES, Lengths(64, 10))
  with pytest.raises(UserError, match='chunk'):
    find.find('c4_prefix_lm', folder).load('train', BYTES, Lengths(4000, 400))
  with pytest.raises(UserError, match=facts('train.fr.txt', 'curl -L')):
    find.find('c4_prefix_lm.fr', folder)
  with pytest.raises(UserError, match=facts('folder', 'c4/')):
    find.find('c4_prefix_lm')
  (tmp_path / 'c4' / 'train.it.jsonl').write_text('{"text": "a"}\n{"txt": "b"}\n')
  with pytest.raises(UserError, match=facts('train.it.jsonl:2', 'text')):
    find.find('c4_prefix_lm.it', folder).load('train', BYTES, Lengths(8, 8))


def test_a_vocabulary_with_its_own_sentinels_makes_the_same_chunks(tmp_path):
  case = shared('cases', 'span_corruption_mt5')
  found = [
    find.find('c4_span_corruption', str(case)).load(
      'train', load_vocabulary(case / f'{name}.model'), Lengths(64, 32)
    )
    for name in ('sentinels_inside', 'plain')
  ]
  for one, other in zip(*found, strict=True):
    assert (len(one.inputs), len(one.targets)) == (64, 14)
    assert one.inputs.tolist() == other.inputs.tolist()
    assert one.targets.tolist() == other.targets.tolist()
  assert len(found[0]) == 87
