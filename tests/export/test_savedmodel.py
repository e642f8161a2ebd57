"""A SavedModel of a model with prompts: what `infer` answers, by TensorFlow alone."""

import importlib.util
import json
import subprocess
import sys
import types

import numpy as np
import pytest

import prompt_jax as pj
from prompt_jax.data.vocabulary import ByteVocabulary, load_vocabulary
from prompt_jax.errors import UserError
from prompt_jax.export import check, text_in_graph
from prompt_jax.export.prompt import export_prompt
from prompt_jax.loading import BaseModel, load_all
from tests.export import shapes
from tests.export.test_serving_page import blocks
from tests.shared import facts

TEXTS = ('a warm and funny film', 'no', 'Was it a car or a cat I saw?')
CALL = """
import json, sys
sys.modules.update(dict.fromkeys(('jax', 'jaxlib', 'flax', 'prompt_jax')))
import tensorflow as tf, tensorflow_text
call = tf.saved_model.load(sys.argv[1]).signatures
number, *asked = json.load(sys.stdin)
asked = dict(zip(('task', 'text'), map(tf.constant, asked)))
found = call['serving_default'](**asked)
b = len(number)
none, no = tf.zeros([b]), tf.zeros([b], tf.int32)
written = call['write'](
  prompt=tf.constant(number), tokens=call['tokens'](**asked)['tokens'], limit=tf.fill([b], 5),
  temperature=none, top_k=no, top_p=none, seed=no)
try:
  call['serving_default'](task=tf.constant(['absent']), text=tf.constant(['a']))
except tf.errors.InvalidArgumentError as e:
  refused = str(e)
print(json.dumps({
  'signatures': sorted(call), 'text': [x.decode() for x in found['text'].numpy().tolist()],
  'tokens': written['tokens'].numpy().tolist(), 'refused': refused}))
"""


@pytest.fixture(scope='module')
def exported_kinds(every_kind, tmp_path_factory):
  """Two kinds, one of them with labels and without."""
  pytest.importorskip('tensorflow', reason='TensorFlow is not installed')
  pytest.importorskip('tensorflow_text', reason='tensorflow-text is not installed')
  files = {name: every_kind[name] for name in ('input_a', 'input_b', 'prefix_a')}
  place = tmp_path_factory.mktemp('saved') / 'served'
  return export_prompt(list(files.values()), place, 'savedmodel').path, files


def test_two_kinds_in_a_batch_answer_without_jax(exported_kinds):
  folder, files = exported_kinds
  about = json.loads((folder / 'prompts.json').read_text())
  assert about['check']['prompts'] == 3
  assert about['check']['answers'] == 1
  assert about['check']['difference'] < 1e-4
  asked = [(i, name, text) for text in TEXTS for i, name in enumerate(files)]
  number, task, text = (list(x) for x in zip(*asked, strict=True))
  done = subprocess.run(
    [sys.executable, '-c', CALL, str(folder)],
    input=json.dumps([number, task, text]),
    capture_output=True, text=True, check=False, timeout=600,
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
  found = json.loads(done.stdout.splitlines()[-1])
  assert found['signatures'] == ['score', 'serving_default', 'tokens', 'write']
  assert 'input_a' in found['refused']
  for name, file in files.items():
    tuned = pj.load(file)
    own = [i for i, (_, n, _) in enumerate(asked) if n == name]
    assert [found['text'][i] for i in own] == [a.prediction for a in tuned.predict(list(TEXTS))]
    words = tuned.ready.backbone.vocabulary
    written = [words.decode(found['tokens'][i]) for i in own]
    assert written == tuned.generate(list(TEXTS), max_new_tokens=5)


def test_the_python_of_the_page(exported_kinds, tmp_path):
  folder, files = exported_kinds
  code = blocks('SavedModel')[-1].replace("'sst2', 'trec'", "'prefix_a', 'input_b'")
  (tmp_path / 'served').symlink_to(folder)
  done = subprocess.run(
    [sys.executable, '-c', code], capture_output=True, text=True, check=False, timeout=600,
    cwd=tmp_path,
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
  (label,) = pj.load(files['prefix_a']).predict([TEXTS[0]])
  (written,) = pj.load(files['input_b']).generate(['How many people live in Tokyo?'])
  assert f"[b'{label.prediction}' {written.encode()!r}]" in done.stdout


@pytest.mark.parametrize('shape', ['t5_1_0', 'mt5', 'byt5'])
def test_every_shape_answers_like_infer(shape, tmp_path):
  pytest.importorskip('tensorflow', reason='TensorFlow is not installed')
  base = shapes.model(shape, tmp_path)
  file = shapes.prompt(tmp_path / 'a.safetensors', base, 4)
  folder = export_prompt(file, tmp_path / 'out', 'savedmodel').path
  about = json.loads((folder / 'prompts.json').read_text())
  assert about['check']['answers'] == 1
  assert about['check']['difference'] < 1e-4


@pytest.mark.parametrize('kind', ['pieces', 'bytes'])
def test_text_is_cut_and_joined_as_here(kind):
  pytest.importorskip('tensorflow', reason='TensorFlow is not installed')
  import tensorflow as tf

  words = ByteVocabulary() if kind == 'bytes' else load_vocabulary('prompt_jax/embedded')
  if text_in_graph.lacks(words):
    pytest.skip('tensorflow-text is not installed')
  cutter = text_in_graph.cutter(words)
  texts = [*check.SAMPLES, '', ' a  b ', '</s> <extra_id_0>', 'Grüße, 東京 😀', 'x' * 50, 'e\u0301']
  most = [7 + i for i in range(len(texts))]
  found = cutter.encode(tf.constant(texts), tf.constant(most)).to_list()
  assert found == [words.encode(t)[:n] for t, n in zip(texts, most, strict=True)]
  rows = np.random.default_rng(0).integers(0, words.size + 30, (40, 9)).astype(np.int32)
  rows[0, 0] = words.eos_id
  rows[1:9, 3] = words.eos_id
  joined = [text.decode() for text in cutter.decode(tf.constant(rows)).numpy()]
  assert joined == [words.decode(row) for row in rows.tolist()]
  assert joined[0] == ''


def test_an_engine_that_answers_other_words_is_refused(pair):
  (tuned,) = load_all(BaseModel(pair.base, None, 'float32'), [pair.sst2], None)
  prompt = types.SimpleNamespace(
    name='sst2', labels=['negative', 'positive'], words=tuned.backbone.vocabulary
  )
  asked = check.Answered(prompt, 'a film', [5, 1], np.zeros(2), 2, np.array([-1.0, -2.0]))
  engine = types.SimpleNamespace(name='it', answers=lambda prompts, texts: ['positive'])
  with pytest.raises(UserError, match=facts('positive', 'negative', 'a film')):
    check._check_words([asked], engine)
  engine.answers = lambda prompts, texts: ['negative']
  check._check_words([asked], engine)


def test_what_it_needs_is_named(pair, tmp_path, monkeypatch):
  real = importlib.util.find_spec
  absent = lambda name: None if name == 'tensorflow' else real(name)
  monkeypatch.setattr(importlib.util, 'find_spec', absent)
  with pytest.raises(UserError, match=facts('TensorFlow', '[savedmodel]')):
    export_prompt(pair.files, tmp_path / 'out', 'savedmodel')
  assert not list(tmp_path.iterdir())


def test_without_tensorflow_text_pieces_cannot_be_cut(monkeypatch):
  monkeypatch.setattr(importlib.util, 'find_spec', lambda name: None)
  assert text_in_graph.cutter(load_vocabulary('prompt_jax/embedded')) is None
  assert not text_in_graph.lacks(ByteVocabulary())
