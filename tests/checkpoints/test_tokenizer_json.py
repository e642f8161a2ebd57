"""A tokenizer.json gives back the SentencePiece model that it was made from."""

import json
import pathlib
import random
import unicodedata

import pytest
import sentencepiece
import transformers

from prompt_jax.checkpoints.formats.tokenizer_json import vocabulary
from prompt_jax.data.vocabulary import load_vocabulary
from prompt_jax.errors import UserError
from tests.shared import facts, shared

RANGES = ((32, 127), (0xA0, 0x600), (0x3000, 0x3100), (0xFF00, 0xFF60))


def lines() -> list[str]:
  """Text that has been written, and text that tries every rule of normalisation."""
  licence = pathlib.Path(__file__).parent.parent.parent / 'LICENSE'
  real = licence.read_text('utf-8').split('\n')
  rng = random.Random(0)
  made = [''.join(chr(rng.randrange(*rng.choice(RANGES))) for _ in range(30)) for _ in range(200)]
  return [*real, *made, '  two  spaces ', '', 'a <extra_id_3> b', '\ttab\u00a0and ﬁ']


@pytest.fixture(scope='module')
def folder(tmp_path_factory):
  """A SentencePiece model, and the tokenizer.json that transformers makes from it."""
  folder = tmp_path_factory.mktemp('words')
  text = '\n'.join(lines()[:-204]) * 3
  (folder / 'text').write_text(text, 'utf-8')
  sentencepiece.SentencePieceTrainer.train(
    input=str(folder / 'text'), model_prefix=str(folder / 'spiece'), vocab_size=300,
    pad_id=0, eos_id=1, unk_id=2, bos_id=-1, minloglevel=2, num_threads=1,
  )  # fmt: skip
  (folder / 'config.json').write_text('{"model_type": "t5"}')
  (folder / 'tokenizer_config.json').write_text('{"tokenizer_class": "T5Tokenizer"}')
  transformers.AutoTokenizer.from_pretrained(folder).save_pretrained(folder / 'fast')
  return folder


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))


def test_the_same_ids_and_text(folder, tmp_path):
  want, got = load_vocabulary(folder / 'spiece.model'), vocabulary(folder / 'fast/tokenizer.json')
  assert got.size == want.size == 400
  assert got.extra_ids == 100
  for line in lines():
    assert got.encode(line) == want.encode(line), line
    assert got.decode(want.encode(line)) == want.decode(want.encode(line))
  assert [got.pieces(i) for i in range(400)] == [want.pieces(i) for i in range(400)]
  assert list((tmp_path / 'cache/prompt_jax/vocabularies').iterdir())


def test_the_same_ids_as_hugging_face(folder):
  theirs = transformers.AutoTokenizer.from_pretrained(folder / 'fast')
  got = vocabulary(folder / 'fast/tokenizer.json')
  for line in lines()[:-204]:
    assert got.encode(line) == theirs(line, add_special_tokens=False).input_ids, line


@pytest.mark.parametrize(
  ('path', 'value', 'words'),
  [
    (('model', 'type'), 'BPE', facts('BPE', 'Unigram')),
    (('model', 'vocab'), 3, 'damaged'),
    (('normalizer',), {'type': 'Lowercase'}, "'Lowercase'"),
    (('normalizer', 'precompiled_charsmap'), '?', 'table'),
    (('pre_tokenizer',), {'type': 'ByteLevel'}, r"\['ByteLevel'\]"),
    (('pre_tokenizer',), None, r'\[\]'),
  ],
)
def test_another_tokenizer_is_refused_with_a_remedy(folder, path, value, words, tmp_path):
  about = json.loads((folder / 'fast/tokenizer.json').read_text('utf-8'))
  at = about
  for key in path[:-1]:
    at = at[key]
  at[path[-1]] = value
  (tmp_path / 'tokenizer.json').write_text(json.dumps(about))
  with pytest.raises(UserError, match=words) as e:
    vocabulary(tmp_path / 'tokenizer.json')
  assert e.value.parameters == ('vocabulary',)


@pytest.mark.parametrize('text', ['a\u0085b', 'a </s> b', 'great<extra_id_0>b'])
def test_where_transformers_is_documented_to_differ(folder, text):
  """docs/convert.md says in what; the model that is had back cuts text as the one it came from."""
  theirs = transformers.AutoTokenizer.from_pretrained(folder / 'fast')
  got = vocabulary(folder / 'fast/tokenizer.json')
  assert got.encode(text) == load_vocabulary(folder / 'spiece.model').encode(text)
  assert theirs(text, add_special_tokens=False).input_ids != got.encode(text)


def test_decomposed_text_differs_too(tmp_path):
  path = shared('vocab', 't5_cc_all_32000.model')
  (tmp_path / 'spiece.model').write_bytes(path.read_bytes())
  theirs, got = transformers.T5Tokenizer.from_pretrained(tmp_path), load_vocabulary(path)
  texts = ('é à ü ñ', 'Ångström', 'Tiếng Việt')
  ids = lambda text: theirs(text, add_special_tokens=False).input_ids
  assert all(ids(text) == got.encode(text) for text in texts)
  assert [ids(t := unicodedata.normalize('NFD', text)) == got.encode(t) for text in texts] == [
    True, True, False
  ]  # fmt: skip
