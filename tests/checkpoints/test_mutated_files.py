"""Model folders and prompts with a changed field, a truncated file or a flipped byte.

Each is refused with a `UserError`, or is what it was before, or a warning names the field. A field
of our own files that can have the other value is used as it says. CI runs a few; to run more:

    PROMPT_JAX_MUTATIONS=1000 python -m pytest -q tests/checkpoints/test_mutated_files.py
"""

import copy
import json
import os
import random
import shutil
import warnings

import jax
import numpy as np
import pytest
import safetensors.numpy
from flax import traverse_util

from prompt_jax import loading
from prompt_jax.checkpoints.backbone import embedded_folder, find, load_backbone, save_backbone
from prompt_jax.checkpoints.formats import fields as rules
from prompt_jax.checkpoints.formats import huggingface_fields
from prompt_jax.checkpoints.prompt_file import (
  CHECKSUMS,
  WITHOUT_CHECKSUMS,
  Prompt,
  describe_method,
  save_prompt,
)
from prompt_jax.data.vocabulary import ByteVocabulary, load_vocabulary
from prompt_jax.errors import UserError
from prompt_jax.export import model as convert
from prompt_jax.models.t5.config import T5Config
from prompt_jax.prompt_formats import peft
from prompt_jax.prompts.methods.input.input_prompt import InputPrompt
from prompt_jax.testing.tiny import random_params

NUMBER = int(os.environ.get('PROMPT_JAX_MUTATIONS', 40))
VALUES = [
  None, True, False, 0, 1, -1, 3, 2**40, 7.5, float('nan'), '', 'x', '5', [], [1], ['a'], {},
  {'a': 1}, [None], [[]],
]  # fmt: skip
TEXT = 'the farmer <extra_id_0> sold </s> a basket 🙂'
ROWS = np.random.default_rng(0).normal(size=(3, 8)).astype(np.float32)
# Fields of a prompt's metadata that are told and not used.
TOLD = {'task', 'metric', 'value', 'seed', 'step', 'base_model', 'vocabulary', 'length', 'note'}
FIELDS = {
  'config.json': huggingface_fields.CONFIG,
  'generation_config.json': huggingface_fields.GENERATION,
  'tokenizer_config.json': huggingface_fields.TOKENIZER,
  'adapter_config.json': peft.FIELDS,
}


@pytest.fixture(scope='module')
def folders(tmp_path_factory):
  """A folder of each kind; 'prompt' and 'peft' hold a prompt."""
  place = tmp_path_factory.mktemp('whole')
  (place / 'text').write_text('the farmer sold a red basket to my sister')
  words = load_vocabulary(embedded_folder() / 'sentencepiece.model')
  for name, per_layer, vocabulary in (
    ('native', False, ByteVocabulary()), ('hf', True, words), ('bytes', False, ByteVocabulary()),
  ):  # fmt: skip
    config = T5Config(vocabulary.size, 8, 2, 4, 2, 1, 12, relpos_per_layer=per_layer)
    folder = place / (name if name == 'native' else f'native_{name}')
    save_backbone(
      folder, name='m', config=config, params=random_params(config), vocabulary=vocabulary
    )
    if name != 'native':
      convert.write(place / name, 'hf', convert.listed(find(str(folder)), None), lambda count: None)
      ids = {'pad_token_id': 0, 'eos_token_id': 1, 'decoder_start_token_id': 0}
      (place / name / 'generation_config.json').write_text(json.dumps(ids))
  (place / 'native_hf').rename(place / 'native_words')
  (place / 'prompt').mkdir()
  backbone = load_backbone(str(place / 'native'), 'float32')
  method = InputPrompt(3)
  metadata = {
    'base_model': 'm', 'fingerprint': backbone.fingerprint, 'width': 8, 'length': 3, 'task': 't',
    'method': 'InputPrompt', 'method_config': describe_method(method), 'step': 4,
    'labels': ['a', 'b'],
    'model': str(place / 'native'), 'vocabulary_file': None, 'words': {'0': 'a', '1': 'b'},
  }  # fmt: skip
  save_prompt(place / 'prompt/p.safetensors', Prompt({'encoder': {'prompt': ROWS}}, {}, metadata))
  peft.write_peft(place / 'peft', peft.Rows(ROWS), base_model='m', layers=1, heads=2)
  return place


def seen(kind, folder, whole):
  """All that is read from a folder, in a form that can be compared."""
  if kind == 'peft':
    return peft.read_peft(folder).prompt.values.tobytes()
  if kind == 'prompt':
    backbone = load_backbone(str(whole / 'native'), 'float32')
    ready = loading.attach(backbone, folder / 'p.safetensors')
    told = {k: v for k, v in ready.metadata.items() if k not in TOLD}
    arrays = jax.tree.map(np.asarray, ready.variables['params']['prompt'])
    return json.dumps(told, sort_keys=True), str(ready.model.prompt), repr(arrays)
  backbone = load_backbone(str(folder), 'float32')
  words = backbone.vocabulary
  flat = traverse_util.flatten_dict(backbone.params, sep='/')
  total = {path: float(np.abs(np.asarray(x)).sum()) for path, x in flat.items()}
  return backbone.config, words.encode(TEXT), words.size, words.sentinels, total


def mutate_json(rng, about):
  """Changes one field, at any depth; returns the name of the outermost that changed."""
  name = rng.choice(sorted(about)) if about else 'a'
  how = rng.choice(['value', 'value', 'missing', 'extra', 'renamed', 'deep', 'deep'])
  if how == 'extra':
    name = 'my_own_field'
    about[name] = rng.choice(VALUES)
  elif how == 'missing':
    about.pop(name, None)
  elif how == 'renamed':
    about[f'{name}_'] = about.pop(name, 1)
  elif how == 'deep' and isinstance(about.get(name), dict) and about[name]:
    mutate_json(rng, about[name])
  elif how == 'deep' and isinstance(about.get(name), list) and about[name]:
    at = rng.randrange(len(about[name]))
    about[name][at] = rng.choice(VALUES)
  else:
    about[name] = rng.choice(VALUES)
  return name


def mutate_header(rng, path):
  """Flips a bit of a safetensors file's header: the values have no checksums in other software."""
  data = bytearray(path.read_bytes())
  size = int.from_bytes(data[:8], 'little')
  data[rng.randrange(8 + size)] ^= 1 << rng.randrange(8)
  path.write_bytes(data)


def mutate(rng, folder):
  """Changes one file; returns its name and that of the field, if it is one."""
  path = rng.choice(sorted(p for p in folder.iterdir() if p.name != 'README.md'))
  how = rng.choice(['field', 'field', 'field', 'cut', 'flip', 'gone', 'empty', 'other'])
  if how == 'gone':
    path.unlink()
  elif how == 'empty':
    path.write_bytes(b'')
  elif how == 'other':
    path.write_text(rng.choice(['[]', '{}', 'null', '3', '{"a": ', 'text', '\x00\xff']))
  elif how == 'cut':
    data = path.read_bytes()
    path.write_bytes(data[: rng.randrange(len(data))])
  elif path.suffix == '.json' and path.name != 'tokenizer.json':
    about = json.loads(path.read_text('utf-8'))
    name = mutate_json(rng, about)
    path.write_text(json.dumps(about))
    return path.name, name
  elif path.name == 'p.safetensors' and how == 'field':
    with safetensors.safe_open(path, framework='numpy') as file:
      about = json.loads(file.metadata()['prompt_jax'])
    # As version 0.1 wrote it; with checksums every change is refused.
    about = {name: value for name, value in about.items() if name not in CHECKSUMS}
    about['version'] = WITHOUT_CHECKSUMS
    name = mutate_json(rng, about)
    arrays = safetensors.numpy.load_file(path)
    path.write_bytes(safetensors.numpy.save(arrays, {'prompt_jax': json.dumps(about)}))
    return path.name, name
  elif path.suffix == '.safetensors':
    mutate_header(rng, path)
  return path.name, None


def without_effect(file, name) -> bool:
  """Whether a table says that the field changes nothing here."""
  rule = FIELDS.get(file, {}).get(name)
  return isinstance(rule, str) and rule != rules.READ


KINDS = ('native', 'native_words', 'hf', 'bytes', 'prompt', 'peft')


@pytest.fixture(scope='module')
def before(folders):
  return {kind: seen(kind, folders / kind, folders) for kind in KINDS}


@pytest.mark.parametrize('kind', KINDS)
def test_it_is_refused_or_the_same(kind, folders, before, tmp_path):
  outcomes = {'refused': 0, 'the same': 0, 'named': 0}
  for seed in range(-(-NUMBER // len(KINDS))):
    rng = random.Random(f'{kind} {seed}')
    folder = tmp_path / 'm'
    shutil.rmtree(folder, ignore_errors=True)
    shutil.copytree(folders / kind, folder)
    file, name = mutate(rng, folder)
    what = f'{kind}, seed {seed}: {file} {name}'
    try:
      with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter('always')
        found = seen(kind, folder, folders)
    except UserError:
      outcomes['refused'] += 1
      continue
    except BaseException as e:
      raise AssertionError(f'{what}: {e!r}') from e
    if found == before[kind]:
      outcomes['the same'] += 1
    else:
      assert name is not None, what
      texts = ' '.join(str(w.message) for w in said)
      used = kind == 'prompt' or (name == 'architecture' and found[1:] == before[kind][1:])
      assert name in texts or without_effect(file, name) or used, what
      outcomes['named'] += 1
  print(kind, outcomes)
  assert outcomes['refused'] > 0


def test_a_copy_is_not_changed_by_comparing(folders, before):
  """The comparison itself sees a change."""
  other = copy.deepcopy(before['native'])
  assert other == before['native']
  other[4]['encoder/encoder_norm/scale'] += 1e-3
  assert other != before['native']
