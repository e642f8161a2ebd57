"""A model with prompts as programs of arrays: what `infer` answers, for every method and shape."""

import json
import pathlib
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
import safetensors.numpy

import prompt_jax as pj
from prompt_jax.data.example import encode
from prompt_jax.errors import UserError
from prompt_jax.export import prompt_groups, stablehlo
from prompt_jax.export.asking import padded
from prompt_jax.export.prompt import export_prompt
from prompt_jax.export.prompt_groups import Group
from prompt_jax.inference import score
from prompt_jax.inference.decode import decode, most_probable
from prompt_jax.loading import BaseModel, load_all
from prompt_jax.named_prompts import NamedFile
from prompt_jax.prompts.methods.input.dept import DePT
from tests.export import shapes
from tests.shared import facts

export = pytest.importorskip('jax.export')
pytest.importorskip('flatbuffers')
ROOT = pathlib.Path(__file__).parent.parent.parent
TEXTS = ('a warm and funny film', 'no', 'Was it a car or a cat I saw?')


def manifest(folder):
  return json.loads((folder / 'prompts.json').read_text())


@pytest.fixture(scope='module')
def all_kinds(every_kind, tmp_path_factory):
  """The folder with every way of injecting."""
  place = tmp_path_factory.mktemp('programs') / 'served'
  return export_prompt(list(every_kind.values()), place, 'stablehlo').path


def test_methods_of_one_kind_share_a_program(all_kinds, every_kind):
  about = manifest(all_kinds)
  assert [g['prompts'] for g in about['groups']] == [
    ['input_a', 'input_b'], ['prefix_a', 'prefix_b'], ['deep'], ['lora'], ['unseeing'],
    ['adept'],
  ]  # fmt: skip
  assert about['check']['prompts'] == len(every_kind)
  assert about['check']['difference'] < 1e-4
  assert about['check']['answers'] == 1
  names = {p['name']: about['groups'][p['group']]['prompts'][p['place']] for p in about['prompts']}
  assert names == {name: name for name in every_kind}


def answers(folder, asked, cwd) -> list[str]:
  """Of the example, in a process that has nothing of this package and of what it needs."""
  (cwd / 'serve.py').write_text((ROOT / 'examples' / 'serve_stablehlo.py').read_text())
  absent = ('prompt_jax', 'flax', 'safetensors', 'optax', 'orbax', 'tensorflow', 'torch')
  code = (
    'import runpy, sys\n'
    f'sys.modules.update(dict.fromkeys({absent}))\n'
    'runpy.run_path(sys.argv[0], run_name="__main__")'
  )
  code = f'import sys; sys.argv = sys.argv[1:]\n{code}'
  done = subprocess.run(
    [sys.executable, '-c', code, str(cwd / 'serve.py'), str(folder)],
    input=''.join(f'{name}\t{text}\n' for name, text in asked),
    capture_output=True, text=True, check=False, timeout=600, cwd=cwd,
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
  return done.stdout.split('\n')[:-1]


def test_the_example_answers_mixed_batches_without_this_package(all_kinds, every_kind, tmp_path):
  asked = [(name, text) for text in TEXTS for name in every_kind]
  found = answers(all_kinds, asked, tmp_path)
  for name, file in every_kind.items():
    expected = [answer.prediction for answer in pj.load(file).predict(list(TEXTS))]
    own = [answer for (n, _), answer in zip(asked, found, strict=True) if n == name]
    assert [' '.join(x.split()) for x in own] == [' '.join(x.split()) for x in expected]


def opened(folder, group=0):
  own = folder / f'group_{group}'
  arrays = lambda path: safetensors.numpy.load_file(path)
  call = lambda name: export.deserialize(bytearray((own / f'{name}.stablehlo').read_bytes())).call
  return call, arrays(folder / 'weights.safetensors'), arrays(own / 'prompts.safetensors')


def test_other_prompts_of_other_lengths_need_no_new_program(pair, exported, tmp_path):
  """Three longer prompts as arrays, in the programs of two shorter ones."""
  files = [
    shapes.prompt(tmp_path / f'{n}.safetensors', pair.base, n, seed=n, labels=['yes', 'no'])
    for n in (9, 7, 1)
  ]
  ready = load_all(BaseModel(pair.base, None, 'float32'), files, None)
  (group,) = prompt_groups.grouped([NamedFile(f'p{i}', f) for i, f in enumerate(files)], ready)
  call, weights, _ = opened(exported('stablehlo'))
  words = ready[0].backbone.vocabulary
  ids = [encode(text, words, 64) for text in TEXTS]
  tokens = padded(ids, 24)
  targets = np.array([padded([[*words.encode(x), 1] for x in ('yes', 'no')])] * 3)
  places = [2, 0, 1]
  found = call('score')(weights, group.arrays, np.array(places, np.int32), tokens, targets)
  for row, target, place, text in zip(found, targets, places, ids, strict=True):
    tuned = ready[place]
    expected = score.rank(tuned.model, tuned.variables, text[None], target)[0]
    assert np.allclose(np.where(target > 0, row, 0).sum(-1), expected, atol=1e-5)


def test_the_programs_are_for_three_platforms_and_hold_no_weights(exported, pair):
  folder = exported('stablehlo')
  for name in ('write', 'score'):
    data = (folder / 'group_0' / f'{name}.stablehlo').read_bytes()
    program = export.deserialize(bytearray(data))
    assert set(program.platforms) == {'cpu', 'cuda', 'tpu'}
    assert len(data) < 300_000
  stored = safetensors.numpy.load_file(folder / 'weights.safetensors')
  own = prompt_groups.weights_of(pj.load(pair.sst2).ready.backbone.params)
  assert {k: x.tobytes() for k, x in stored.items()} == {
    k: np.asarray(x).tobytes() for k, x in own.items()
  }


def test_sampling_draws_by_the_row_s_seed(exported, pair):
  call, weights, prompts = opened(exported('stablehlo'))
  n = 6
  row = [*pj.load(pair.sst2).ready.backbone.vocabulary.encode(TEXTS[0]), 1]
  tokens = np.array([row] * n, np.int32)
  each = lambda value, dtype: np.full(n, value, dtype)
  temperature = np.array([1, 1, 1, 1, 0, 1], np.float32)
  seed = np.array([1, 2, 1, 3, 4, 5], np.int32)
  top_k = np.array([0, 0, 0, 0, 0, 1], np.int32)
  written, log_probs = call('write')(
    weights, prompts, each(0, np.int32), tokens, each(3, np.int32), temperature, top_k,
    each(0, np.float32), seed,
  )  # fmt: skip
  rows = [tuple(x) for x in np.asarray(written).tolist()]
  assert rows[0] == rows[2]
  assert len({rows[0], rows[1], rows[3]}) == 3
  tuned = pj.load(pair.sst2).ready
  done = decode(tuned.model, tuned.variables, tokens[:1], 3, most_probable)
  greedy = tuple(done.tokens[0].tolist())
  assert rows[4][:3] == rows[5][:3] == greedy
  assert not any(rows[4][3:])  # its limit
  assert abs(float(log_probs[4]) - float(done.log_probs[0])) < 1e-4


@pytest.mark.parametrize('shape', ['t5_1_0', 'mt5', 'byt5', 'umt5'])
def test_every_shape_answers_like_infer(shape, tmp_path):
  base = shapes.model(shape, tmp_path)
  a = shapes.prompt(tmp_path / 'a.safetensors', base, 4, labels=['yes', 'no'])
  b = shapes.prompt(tmp_path / 'b.safetensors', base, 4, seed=1)
  about = manifest(export_prompt([a, b], tmp_path / 'out', 'stablehlo').path)
  assert about['check']['answers'] == 1
  assert about['check']['difference'] < 1e-4
  assert (tmp_path / 'out' / 'sentencepiece.model').exists() == (shape != 'byt5')


def test_an_empty_answer(tmp_path):
  base = shapes.model('t5_1_1', tmp_path, shapes.ending)
  files = [shapes.prompt(tmp_path / f'{i}.safetensors', base, 3, seed=i) for i in range(8)]
  empty = [f for f in files if pj.load(f).generate([TEXTS[0]]) == ['']]
  assert empty
  folder = export_prompt(empty[:1], tmp_path / 'out', 'stablehlo').path
  name = manifest(folder)['prompts'][0]['name']
  assert answers(folder, [(name, TEXTS[0])], tmp_path) == ['']


def test_an_export_that_answers_otherwise_is_refused_and_removed(pair, tmp_path, monkeypatch):
  def worse(members, stack=prompt_groups._stack):
    group = stack(members)
    rows = group.arrays['encoder/prefix']
    return Group(**{**vars(group), 'arrays': {**group.arrays, 'encoder/prefix': rows[::-1]}})

  monkeypatch.setattr(prompt_groups, '_stack', worse)
  with pytest.raises(UserError, match=r'sst2|trec'):
    export_prompt(pair.files, tmp_path / 'out', 'stablehlo')
  assert not list(tmp_path.iterdir())


def test_a_program_that_samples_otherwise_is_refused(pair, tmp_path, monkeypatch):
  monkeypatch.setattr(
    prompt_groups.decode,
    'choose_by_row',
    lambda how: lambda logits, _: jax.numpy.argmin(logits, -1),
  )
  with pytest.raises(UserError, match='sampled'):
    export_prompt(pair.files, tmp_path / 'out', 'stablehlo')
  assert not list(tmp_path.iterdir())


def test_a_method_with_numbers_for_each_position_is_exported(pair, tmp_path):
  method = DePT(length=2, rank=2, input_length=64)
  file = shapes.prompt(
    tmp_path / 'dept.safetensors', pair.base, 0, method=method,
    tree=shapes.moved(method, pair.base),
  )  # fmt: skip
  about = manifest(export_prompt(file, tmp_path / 'out', 'stablehlo').path)
  assert about['check']['difference'] < 1e-4
  assert about['check']['answers'] == 1


def test_a_method_that_asks_for_the_length_of_a_text_is_refused(pair, tmp_path):
  method = shapes.LongTexts(length=2)
  file = shapes.prompt(
    tmp_path / 'asks.safetensors', pair.base, 0, method=method,
    tree=shapes.moved(method, pair.base),
  )  # fmt: skip
  with pytest.raises(UserError, match=facts('LongTexts', 'asks')):
    export_prompt(file, tmp_path / 'out', 'stablehlo')
  assert not list(tmp_path.glob('*out*'))


def test_what_jax_export_needs_is_named(pair, tmp_path, monkeypatch):
  monkeypatch.setattr(stablehlo.importlib.util, 'find_spec', lambda name: None)
  with pytest.raises(UserError, match=facts('flatbuffers', '[stablehlo]')):
    export_prompt(pair.files, tmp_path / 'out', 'stablehlo')


@pytest.mark.parametrize('to', ['hf', 'ctranslate2', 'npy'])
@pytest.mark.parametrize('kind', ['prefix_a', 'deep', 'lora', 'unseeing', 'adept'])
def test_a_format_that_cannot_hold_a_method_names_one_that_can(kind, to, every_kind, tmp_path):
  if (kind, to) == ('adept', 'npy'):
    pytest.skip('a method that reads its input has no rows to be written alone')
  with pytest.raises(UserError, match='stablehlo') as caught:
    export_prompt(every_kind[kind], tmp_path / 'out', to)
  assert '\n' not in str(caught.value)
  assert not (tmp_path / 'out').exists()


def test_an_existing_folder_is_kept(pair, tmp_path):
  shutil.copy(pair.sst2, tmp_path / 'mine')
  with pytest.raises(UserError, match='mine'):
    export_prompt(pair.files, tmp_path / 'mine', 'stablehlo')
  assert (tmp_path / 'mine').is_file()
