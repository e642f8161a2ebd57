"""`python -m t5x.train`, `t5x.infer` and `t5x.eval` with our gin files, as a user runs them.

The model is the one in the package, as a checkpoint of T5X; the task is made here.
"""

import json
import os
import pathlib
import signal
import subprocess
import sys
import time

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip('t5x.version', reason='T5X is not importable: see docs/t5x.md')

from flax import serialization, traverse_util

import prompt_jax
from prompt_jax import loading
from prompt_jax.checkpoints.backbone import embedded_folder, load_backbone
from prompt_jax.checkpoints.formats.t5x_checkpoint import open_checkpoint
from prompt_jax.checkpoints.prompt_file import load_prompt
from prompt_jax.cli.main import main
from prompt_jax.configuration import run_files
from prompt_jax.data.vocabulary import FILE_NAME
from prompt_jax.inference.score import score
from prompt_jax.t5x.names import is_ours, to_t5x

BEGIN = 1000  # the backbone's own steps
FROM_STEP_0 = ((r'^.*prompt.*$', None), ('state/step', None))
LENGTHS = {'inputs': 16, 'targets': 8}
TASK = """
import seqio
import tensorflow as tf

VOCABULARY = seqio.SentencePieceVocabulary({vocabulary!r}, extra_ids=100)
WORDS = ['sun', 'moon', 'river', 'stone']
ROWS = [(f'{{a}} {{b}}', 'yes' if a == b else 'no') for a in WORDS for b in WORDS]


def source(split, shuffle_files, seed=None):
  inputs, targets = zip(*ROWS)
  return tf.data.Dataset.from_tensor_slices({{'inputs': list(inputs), 'targets': list(targets)}})


def accuracy(targets, predictions):
  return {{'accuracy': sum(map(str.__eq__, targets, predictions)) / len(targets)}}


feature = seqio.Feature(VOCABULARY, add_eos=True)
seqio.TaskRegistry.add(
  'same_word',
  source=seqio.FunctionDataSource(source, splits=['train', 'validation', 'test']),
  preprocessors=[seqio.preprocessors.tokenize, seqio.preprocessors.append_eos],
  output_features={{'inputs': feature, 'targets': feature}},
  metric_fns=[accuracy],
)
"""


class T5X:
  """T5X's scripts in a folder with a backbone and a task."""

  def __init__(self, folder: pathlib.Path):
    self.folder, self.backbone = folder, folder / f'backbone/checkpoint_{BEGIN}'
    model = load_backbone('embedded', 'float32')
    target = jax.tree.map(np.asarray, to_t5x(None, model.params, {}, {}))
    unused = {name: np.zeros(1, np.float32) for name in ('m', 'v', 'v_row', 'v_col')}
    state = {'step': np.int32(BEGIN), 'param_states': jax.tree.map(lambda _: unused, target)}
    self.backbone.mkdir(parents=True)
    (self.backbone / 'checkpoint').write_bytes(
      serialization.msgpack_serialize(
        {'version': 3, 'optimizer': {'target': target, 'state': state}}
      )
    )
    self.target = traverse_util.flatten_dict(target, sep='/')
    vocabulary = str(embedded_folder() / FILE_NAME)
    (folder / 'same_word_task.py').write_text(TASK.format(vocabulary=vocabulary))
    cfg = model.config
    sizes = ('vocab_size', 'emb_dim', 'num_heads', 'head_dim', 'mlp_dim')
    sizes += ('num_encoder_layers', 'num_decoder_layers', 'unroll')
    (folder / 'embedded.gin').write_text(
      'from __gin__ import dynamic_registration\nfrom prompt_jax.models.t5 import config\n'
      'ARCHITECTURE = @config.T5Config()\n'
      + ''.join(f'config.T5Config.{name} = {getattr(cfg, name)}\n' for name in sizes)
    )
    self.common = {
      'MIXTURE_OR_TASK_NAME': 'same_word',
      'MIXTURE_OR_TASK_MODULE': 'same_word_task',
      'TASK_FEATURE_LENGTHS': LENGTHS,
      'VOCABULARY_FILE': vocabulary,
      'seqio.SentencePieceVocabulary.extra_ids': 100,
      'ACTIVATION_DTYPE': 'float32',
      'PROMPT_LENGTH': 4,
    }

  def start(self, script: str, files: list[str], **macros) -> subprocess.Popen:
    given = {**self.common, **macros}
    command = [sys.executable, '-m', f't5x.{script}', f'--gin_search_paths={run_files.folder()}']
    # Whole paths: gin takes a folder `prompts` or `models` on Python's path for a package.
    paths = [self.folder / 'embedded.gin', *(run_files.folder() / name for name in files)]
    command += [f'--gin_file={path}' for path in paths]
    command += [f'--gin.{name}={value!r}' for name, value in given.items()]
    package = pathlib.Path(prompt_jax.__file__).parent.parent
    given_path = filter(None, os.environ.get('PYTHONPATH', '').split(os.pathsep))
    path = os.pathsep.join([str(self.folder), str(package), *given_path])
    with (self.folder / 'log').open('a') as log:
      return subprocess.Popen(
        command,
        cwd=self.folder,
        env={**os.environ, 'PYTHONPATH': path},
        stdout=log,
        stderr=subprocess.STDOUT,
        start_new_session=True,
      )

  def run(self, *args, **macros) -> None:
    code = self.start(*args, **macros).wait(timeout=1500)
    assert code == 0, (self.folder / 'log').read_text()[-3000:]

  def training(self, out: pathlib.Path, method: str, steps: int, **macros):
    """The arguments of a short run; rate and batch make the loss fall within it."""
    return (
      ('train', [f'prompts/{method}.gin', 't5x/train.gin']),
      {
        'MODEL_DIR': str(out),
        'INITIAL_CHECKPOINT_PATH': str(self.backbone),
        'TRAIN_STEPS': BEGIN + steps,
        'SAVE_PERIOD': 5,
        'BATCH_SIZE': 16,
        'DROPOUT_RATE': 0.0,
        'train.train_eval_dataset_cfg': None,
        'train.infer_eval_dataset_cfg': None,
        **macros,
      },
    )

  def train(self, *args, **macros) -> None:
    args, given = self.training(*args, **macros)
    self.run(*args, **given)

  def scores(self, out: pathlib.Path, files: list[str], **macros) -> dict[str, float]:
    """{input: log-probability of its target} by `t5x.infer`."""
    macros = {'infer.mode': 'score', 'INFER_OUTPUT_DIR': str(out), **macros}
    self.run('infer', [*files], **macros)
    (found,) = out.glob('*-of-00001')
    lines = [json.loads(line) for line in found.read_text().splitlines()]
    return {line['inputs']['inputs_pretokenized']: line['score'] for line in lines}


@pytest.fixture(scope='module')
def t5x_scripts(tmp_path_factory) -> T5X:
  return T5X(tmp_path_factory.mktemp('t5x'))


@pytest.fixture(scope='module')
def trained(t5x_scripts) -> pathlib.Path:
  out = t5x_scripts.folder / 'run'
  t5x_scripts.train(out, 'input', 10, LABELS=['yes', 'no'])
  return out


def our_scores(prompt_file: pathlib.Path) -> dict[str, float]:
  """The same scores by our own functions, from the prompt file alone."""
  ready = loading.load('embedded', str(prompt_file), 'float32')
  vocabulary = ready.backbone.vocabulary
  words = ['sun', 'moon', 'river', 'stone']
  rows = {f'{a} {b}': 'yes' if a == b else 'no' for a in words for b in words}

  def ids(texts, length):
    found = [[*vocabulary.encode(text), 1] for text in texts]
    return jnp.asarray([row + [0] * (length - len(row)) for row in found], jnp.int32)

  found = jax.jit(lambda v, x, y: score(ready.model, v, x, y))(
    ready.variables, ids(rows, LENGTHS['inputs']), ids(rows.values(), LENGTHS['targets'])
  )
  return dict(zip(rows, map(float, found), strict=True))


def assert_scores_equal(theirs: dict[str, float], ours: dict[str, float]) -> None:
  assert theirs.keys() == ours.keys()
  np.testing.assert_allclose([theirs[k] for k in ours], list(ours.values()), rtol=1e-5, atol=1e-5)


def test_the_loss_falls_and_only_the_prompt_moves(t5x_scripts, trained):
  first, last = (trained / f'prompts/checkpoint_{BEGIN + n}.safetensors' for n in (0, 10))
  assert sum(our_scores(last).values()) > sum(our_scores(first).values())
  saved = open_checkpoint(str(trained / f'checkpoint_{BEGIN + 10}')).target
  assert {name for name in saved if not is_ours(name)} == t5x_scripts.target.keys()
  for name, value in t5x_scripts.target.items():
    assert saved[name].read().tobytes() == value.tobytes(), name
  rows = load_prompt(last).params['encoder']['prompt']
  np.testing.assert_array_equal(saved['encoder/prompt/prompt/prompt'].read(), rows)


def test_prompt_files_say_what_they_are(trained):
  first, last = (
    load_prompt(trained / f'prompts/checkpoint_{BEGIN + n}.safetensors') for n in (0, 10)
  )
  backbone = load_backbone('embedded', 'float32')
  expected = {
    'fingerprint': backbone.fingerprint,
    'vocabulary': backbone.vocabulary.sha256,
    'width': backbone.config.emb_dim,
    'method': 'InputPrompt',
    'length': 4,
    'labels': ['yes', 'no'],
    'task': 'same_word',
    'step': BEGIN + 10,
  }
  assert {name: last.metadata[name] for name in expected} == expected
  np.testing.assert_array_equal(
    last.initial['encoder']['prompt'], first.params['encoder']['prompt']
  )
  # The initialiser saw the checkpoint's table: the first row is that of the first label.
  table = backbone.params['token_embedder']['embedding']
  label = table[np.asarray(backbone.vocabulary.encode('yes'))].mean(axis=0)
  np.testing.assert_allclose(first.params['encoder']['prompt'][0], label, rtol=1e-5)


def test_a_killed_run_goes_on_to_the_same_bytes(t5x_scripts, trained):
  out = t5x_scripts.folder / 'killed'
  args, macros = t5x_scripts.training(out, 'input', 10, LABELS=['yes', 'no'])
  process = t5x_scripts.start(*args, **macros)
  while not (out / f'checkpoint_{BEGIN + 5}').is_dir():
    assert process.poll() is None, (t5x_scripts.folder / 'log').read_text()[-3000:]
    time.sleep(0.05)
  os.killpg(process.pid, signal.SIGKILL)
  process.wait()
  name = f'prompts/checkpoint_{BEGIN + 10}.safetensors'
  assert not (out / f'checkpoint_{BEGIN + 10}').is_dir()
  t5x_scripts.run(*args, **macros)
  assert (out / name).read_bytes() == (trained / name).read_bytes()


def test_infer_takes_a_prompt_file_and_refuses_one_of_another_model(t5x_scripts, trained, tmp_path):
  file = trained / f'prompts/checkpoint_{BEGIN + 10}.safetensors'
  files = ['prompts/input.gin', 't5x/infer.gin', 't5x/prompt_file.gin']
  macros = {'PROMPT_FILE': str(file), 'utils.RestoreCheckpointConfig.dtype': 'float32'}
  backbone = str(t5x_scripts.backbone)
  theirs = t5x_scripts.scores(tmp_path / 'out', files, CHECKPOINT_PATH=backbone, **macros)
  assert_scores_equal(theirs, our_scores(file))
  # Another model, of the same sizes, whose weights differ.
  other = tmp_path / 'other/checkpoint_1'
  other.mkdir(parents=True)
  tree = serialization.msgpack_restore((t5x_scripts.backbone / 'checkpoint').read_bytes())
  norm = tree['optimizer']['target']['encoder']['encoder_norm']
  norm['scale'] = 2 * norm['scale']
  (other / 'checkpoint').write_bytes(serialization.msgpack_serialize(tree))
  with pytest.raises(AssertionError, match='trained'):
    t5x_scripts.scores(tmp_path / 'out2', files, CHECKPOINT_PATH=str(other), **macros)


def test_t5xs_scripts_take_an_exported_checkpoint(t5x_scripts, trained, tmp_path):
  """The prompt merged into the model by `prompt-jax export`, and taken out by `import`."""
  file, name = trained / f'prompts/checkpoint_{BEGIN + 10}.safetensors', f'checkpoint_{BEGIN + 10}'
  assert main(['export', str(file), str(tmp_path / 'merged'), '--to=t5x', '--model=embedded']) == 0
  merged = tmp_path / 'merged' / name
  theirs = t5x_scripts.scores(
    tmp_path / 'out',
    ['prompts/input.gin', 't5x/infer.gin'],
    CHECKPOINT_PATH=str(merged),
    **{'utils.RestoreCheckpointConfig.dtype': 'float32'},
  )
  assert_scores_equal(theirs, our_scores(file))
  # From what T5X itself saved as well, which is of Orbax.
  want = load_prompt(file)
  for i, checkpoint in enumerate((merged, trained / name)):
    path = str(tmp_path / f'{i}.safetensors')
    assert main(['import', str(checkpoint), path, '--model=embedded']) == 0
    got = load_prompt(path)
    np.testing.assert_array_equal(got.params['encoder']['prompt'], want.params['encoder']['prompt'])
    for about in ('fingerprint', 'step', 'length', 'method'):
      assert got.metadata[about] == want.metadata[about]


def test_eval_measures_a_run(t5x_scripts, trained, tmp_path):
  t5x_scripts.run(
    'eval',
    ['prompts/input.gin', 't5x/eval.gin'],
    CHECKPOINT_PATH=str(trained / f'checkpoint_{BEGIN + 10}'),
    EVAL_OUTPUT_DIR=str(tmp_path),
  )
  (line,) = (tmp_path / 'inference_eval/same_word-metrics.jsonl').read_text().splitlines()
  assert 0 <= json.loads(line)['accuracy'] <= 1


@pytest.mark.parametrize(
  ('method', 'macros', 'begin'),
  [
    ('prefix', {'PROMPT_HIDDEN': 16, 'LEARNING_RATE': 0.01}, BEGIN),
    ('deep', {'utils.RestoreCheckpointConfig.assignment_map': FROM_STEP_0, 'TRAIN_STEPS': 5}, 0),
  ],
)
def test_other_methods_train_and_infer(t5x_scripts, tmp_path, method, macros, begin):
  t5x_scripts.train(tmp_path / 'run', method, 5, **macros)
  first, last = (tmp_path / f'run/prompts/checkpoint_{begin + n}.safetensors' for n in (0, 5))
  ours = our_scores(last)
  assert sum(ours.values()) > sum(our_scores(first).values())
  hidden = {k: v for k, v in macros.items() if k == 'PROMPT_HIDDEN'}
  theirs = t5x_scripts.scores(
    tmp_path / 'out',
    [f'prompts/{method}.gin', 't5x/infer.gin'],
    CHECKPOINT_PATH=str(tmp_path / f'run/checkpoint_{begin + 5}'),
    **{'utils.RestoreCheckpointConfig.dtype': 'float32'},
    **hidden,
  )
  assert_scores_equal(theirs, ours)
