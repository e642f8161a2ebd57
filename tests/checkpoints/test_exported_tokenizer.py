"""What AutoTokenizer makes of an exported folder: the ids that are used here, and where not."""

import functools
import json
import unicodedata

import numpy as np
import pytest
import transformers
from flax import traverse_util

from prompt_jax.checkpoints.backbone import embedded_folder, find
from prompt_jax.checkpoints.formats.tokenizer_json import vocabulary
from prompt_jax.checkpoints.leaf import of_array
from prompt_jax.data.vocabulary import ByteVocabulary, load_vocabulary
from prompt_jax.export import model as convert
from prompt_jax.export.tokenizer import tokenizer_json
from prompt_jax.models.t5.config import T5Config
from prompt_jax.testing.tiny import random_params
from tests.checkpoints.test_tokenizer_json import lines
from tests.shared import shared

KINDS = {'t5': False, 'umt5': True}
COMPOSED = ('Tiếng Việt rất đẹp', '한국어 문장', 'がぎぐげご', 'é à ü ñ', 'Ångström')
ODD = (
  '', '  two  spaces ', 'a\u0085b', 'a\u2028b', '\ttab\u00a0and ﬁ', 'x\u200by', 'emoji 🙂 {x}',
  'great <extra_id_0> b <extra_id_99>',
  *COMPOSED, *(unicodedata.normalize('NFD', text) for text in COMPOSED),
)  # fmt: skip
# Where a special token stands in the text, transformers cuts it out first; SentencePiece finds a
# sentinel only behind a space, and an end of sequence never.
OTHERWISE = ('a </s> b', 'great<extra_id_0>b')


def exported(words, per_layer: bool, folder):
  """The tokenizer of a model with these words that was converted, and the folder."""
  config = T5Config(words.size, 8, 2, 4, 1, 1, 12, relpos_per_layer=per_layer)
  flat = traverse_util.flatten_dict(random_params(config), sep='/')
  leaves = {p: of_array(np.asarray(x), p) for p, x in flat.items()}
  dtypes = {p: x.dtype for p, x in leaves.items()}
  convert.write(folder, 'hf', convert.Model('m', config, leaves, dtypes, words), lambda count: None)
  return transformers.AutoTokenizer.from_pretrained(folder)


@functools.cache
def embedded():
  return load_vocabulary(embedded_folder())


@pytest.mark.parametrize('kind', KINDS)
def test_the_same_ids_and_text(kind, tmp_path):
  """With pieces for bytes, which T5Tokenizer has not."""
  words = embedded()
  theirs = exported(words, KINDS[kind], tmp_path / 'hf')
  assert len(theirs) == words.size
  for line in [*lines()[:-204], *ODD]:
    assert theirs(line).input_ids == [*words.encode(line), 1], line
  text = 'the {x} of 🙂 and more'
  assert theirs.decode(theirs(text).input_ids, skip_special_tokens=True) == text
  assert (theirs.pad_token_id, theirs.eos_token_id, theirs.unk_token_id) == (0, 1, 2)
  assert find(str(tmp_path / 'hf')).vocabulary() == words


@pytest.mark.parametrize('kind', KINDS)
def test_bytes(kind, tmp_path):
  words = ByteVocabulary()
  theirs = exported(words, KINDS[kind], tmp_path / 'hf')
  for line in (text for text in (*lines(), *ODD) if '<extra' not in text):
    assert theirs(line).input_ids == [*words.encode(line), 1], line
    assert theirs.decode(words.encode(line)) == line
  assert find(str(tmp_path / 'hf')).vocabulary() == words


@pytest.mark.parametrize('text', OTHERWISE)
def test_what_is_documented_to_differ(text, tmp_path):
  words = embedded()
  theirs = exported(words, False, tmp_path / 'hf')
  assert theirs(text).input_ids != [*words.encode(text), 1]


def test_a_letter_that_the_table_changes_with_a_mark_that_it_keeps_differs(tmp_path):
  """tokenizers applies the table to a grapheme at a time: a full-width J there loses its mark."""
  words = embedded()
  theirs = exported(words, False, tmp_path / 'hf')
  assert theirs('\uff2a\u033a').input_ids != [*words.encode('\uff2a\u033a'), 1]


def test_t5s_own_vocabulary(tmp_path):
  words = load_vocabulary(shared('vocab', 't5_cc_all_32000.model'))
  theirs = exported(words, True, tmp_path / 'hf')
  for line in [*lines()[:-204], *ODD]:
    assert theirs(line).input_ids == [*words.encode(line), 1], line


def test_the_model_can_be_had_back_from_it(tmp_path, monkeypatch):
  monkeypatch.setenv('XDG_CACHE_HOME', str(tmp_path / 'cache'))
  (tmp_path / 'tokenizer.json').write_text(json.dumps(tokenizer_json(embedded())))
  again = vocabulary(tmp_path / 'tokenizer.json')
  assert again.size == embedded().size
  for line in [*lines(), *ODD, *OTHERWISE]:
    assert again.encode(line) == embedded().encode(line), line
