"""Bad input gets one clear message and exit code 2, whichever verb meets it."""

import io
import json
import pathlib
import shutil
import subprocess
import sys

import jax
import numpy as np
import pytest
import safetensors.numpy

from prompt_jax.checkpoints.prompt_file import Prompt, save_prompt
from prompt_jax.cli.main import main
from tests.shared import mentions


@pytest.fixture
def mistake(capsys):
  """Runs a command that must fail and returns what it says."""

  def call(*argv: str) -> str:
    assert main(list(argv)) == 2
    err = capsys.readouterr().err
    assert err.startswith('prompt-jax: ')
    assert 'Traceback' not in err
    assert 'configurable' not in err
    return err

  return call


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
  """What has no --output writes into runs/ of the working directory."""
  monkeypatch.chdir(tmp_path)


@pytest.fixture
def train(model, reviews, sizes, tmp_path) -> list[str]:
  return ['train', '--model', model, '--data', reviews, *sizes, '--output', str(tmp_path / 'out')]


def test_no_task(mistake, model):
  err = mistake('train', '--model', model)
  assert '--task' in err
  assert '--data' in err


def test_a_model_that_is_not_there_leaves_no_folder(mistake, reviews, tmp_path):
  err = mistake('train', '--model=t5-small', '--data', reviews, '--output', str(tmp_path / 'out'))
  assert 'google-t5/t5-small' in err
  assert not (tmp_path / 'out').exists()


def test_task_and_data(mistake, reviews):
  assert mentions(mistake('train', '--task=docstrings_iid', '--data', reviews), 'task', 'data')


def test_unknown_task(mistake):
  err = mistake('train', '--task=docstring_iid')
  assert "'docstrings_iid'" in err


def test_missing_data_file(mistake):
  assert 'no_such.tsv' in mistake('train', '--data=no_such.tsv')


LONG = 'x' * 300  # no file system has such a name


@pytest.mark.parametrize(
  'argv',
  [
    ['train', '--data', f'{LONG}.tsv'],
    ['train', '--data', f'{LONG}.npz'],
    ['train', '--gin_file', LONG],
    ['eval', '--data=x.tsv', '--model', LONG],
    ['eval', '--data=x.tsv', '--prompt_file', LONG],
    ['eval', '--data=x.tsv', '--prompt_file', f'{LONG}/prompt.safetensors'],
    ['infer', '--model=embedded', '--input', f'{LONG}.txt'],
    ['import', LONG, 'prompt.safetensors'],
    ['pretrain', '--output=out', '--corpus', LONG],
    ['pretrain', '--output=out', '--corpus', __file__, '--vocabulary', LONG],
  ],
)
def test_a_name_too_long_for_a_file(mistake, argv):
  assert LONG in mistake(*argv)


def test_an_output_folder_of_too_long_a_name(mistake, train, model, reviews):
  assert LONG in mistake(*train, '--output', LONG)
  assert LONG in mistake('eval', '--model', model, '--data', reviews, '--output', LONG)


def test_missing_model(mistake, reviews):
  assert 'no/such/model' in mistake('train', '--data', reviews, '--model=no/such/model')


def test_prompt_longer_than_allowed(mistake, train):
  err = mistake(*train, '--length=1020')
  assert '1020' in err
  assert '1024' in err
  assert mentions(err, '--max_positions', '1036')


def test_pattern_that_matches_nothing(mistake, train):
  assert 'backbone/nothing' in mistake(*train, '--train=backbone/nothing')


@pytest.mark.skipif(jax.default_backend() == 'gpu', reason='this machine has a GPU')
def test_no_gpu_where_one_is_demanded(mistake, train):
  err = mistake(*train, '--device=gpu')
  assert 'gpu' in err
  assert 'cpu' in err


def test_unknown_device(mistake, train):
  assert 'cpu' in mistake(*train, '--device=gpus')


@pytest.fixture
def prompt_file(model, tmp_path) -> str:
  """A prompt of another model of the same width."""
  metadata = {
    'base_model': 'another', 'fingerprint': '0123456789abcdef', 'method': 'InputPrompt',
    'width': 32, 'model': model, 'method_config': None,
  }  # fmt: skip
  path = tmp_path / 'prompt.safetensors'
  save_prompt(path, Prompt({'encoder': {'prompt': np.zeros((2, 32), np.float32)}}, {}, metadata))
  return str(path)


def test_prompt_of_another_model(mistake, prompt_file):
  err = mistake('infer', '--prompt_file', prompt_file, 'text')
  assert '0123456789abcdef' in err
  assert "'another'" in err
  assert "'bytes'" in err


def test_missing_vocabulary(mistake, model, reviews, tmp_path):
  folder = tmp_path / 'model'
  shutil.copytree(model, folder)
  about = json.loads((folder / 'config.json').read_text())
  about['vocabulary'] = {'kind': 'sentencepiece', 'extra_ids': 100}
  (folder / 'config.json').write_text(json.dumps(about))
  assert 'sentencepiece.model' in mistake('train', '--data', reviews, '--model', str(folder))


def test_damaged_weights(mistake, model, reviews, tmp_path):
  folder = tmp_path / 'model'
  shutil.copytree(model, folder)
  (folder / 'model.safetensors').write_bytes(safetensors.numpy.save({'x': np.zeros(3)})[:20])
  assert 'model.safetensors' in mistake('train', '--data', reviews, '--model', str(folder))


@pytest.mark.parametrize('verb', ['eval', 'infer', 'inspect'])
def test_missing_prompt_file(mistake, verb):
  argv = ['inspect', 'gone.safetensors'] if verb == 'inspect' else [
    verb, '--prompt_file=gone.safetensors', *(['text'] if verb == 'infer' else ['--data=x.tsv'])
  ]  # fmt: skip
  assert 'gone.safetensors' in mistake(*argv)


def test_no_texts(mistake, monkeypatch):
  monkeypatch.setattr(sys, 'stdin', io.TextIOWrapper(io.BytesIO(b'\n\n')))
  assert 'text' in mistake('infer', '--model=embedded')


def test_texts_that_are_not_utf_8(mistake, monkeypatch):
  monkeypatch.setattr(sys, 'stdin', io.TextIOWrapper(io.BytesIO(b'text\ncaf\xe9\n')))
  assert mentions(mistake('infer', '--model=embedded'), ':2', 'UTF-8', '0xe9')


def test_a_dtype_that_overflows(mistake, train):
  assert mentions(mistake(*train, '--gin.DTYPE="float16"'), 'float32', 'bfloat16')


def test_an_unknown_normalization(mistake, train):
  assert "'tokens'" in mistake(*train, '--gin.Loss.normalization="token"')


def test_two_ways_to_cut_the_vocabulary(mistake, model):
  more = ['--decoding=nucleus', '--gin.Decoding.topk=5']
  assert mentions(
    mistake('infer', '--model', model, *more, 'text'), '--top_k', '5', '--top_p', '0.9'
  )


def test_unknown_split(mistake, model):
  err = mistake('eval', '--model', model, '--task=docstrings_iid', '--split=tset')
  assert "'test'" in err


def test_pretrain_needs_text_and_a_folder(mistake):
  assert '--corpus' in mistake('pretrain')


def test_an_unwritable_output_folder(mistake, model, reviews, sizes, tmp_path):
  (tmp_path / 'file').write_text('')
  out = str(tmp_path / 'file' / 'out')
  err = mistake('train', '--model', model, '--data', reviews, *sizes, '--output', out)
  assert out in err


def test_the_command_itself_prints_no_traceback():
  done = subprocess.run(
    [sys.executable, '-m', 'prompt_jax', 'train', '--gin_file=no_such.gin'],
    capture_output=True, text=True, check=False, cwd=pathlib.Path(__file__).parent,
  )  # fmt: skip
  assert done.returncode == 2
  assert done.stdout == ''
  assert done.stderr.startswith('prompt-jax: ')
  assert "'no_such.gin'" in done.stderr
  assert 'Traceback' not in done.stderr


def test_eval_does_not_replace_a_training_run(mistake, train, tmp_path, reviews):
  out = tmp_path / 'out'
  assert main([*train, '--steps=1', '--length=2']) == 0
  before = (out / 'results.json').read_bytes()
  prompt = str(out / 'prompt.safetensors')
  err = mistake('eval', '--prompt_file', prompt, '--data', reviews, '--output', str(out))
  assert 'run' in err
  assert str(out / 'eval') in err
  assert (out / 'results.json').read_bytes() == before


@pytest.mark.parametrize(
  ('more', 'says'),
  [
    (['--gin.METRIC="acuracy"'], ["'acuracy'", "'accuracy'"]),
    (['--seeds', '0,1,0'], ['seed', '0, 1, 0']),
    (['--folder', 'somewhere'], ['--folder']),
    (['--gin.SEED=4294967296'], ['4294967296']),
    (['--gin.SEEDS=[0, 4294967296]'], ['4294967296']),
    (['--gin.ATTENTION="fused"'], ['TPU', 'cpu', '--attention']),
    (['--gin.ATTENTION="cudnn"'], ['NVIDIA GPU', 'cpu', '--attention']),
    (['--gin.ATTENTION="flash"'], ['flash', 'plain', 'fused', 'cudnn']),
    (['--gin.DROPOUT=1.5'], ['1.5', '1']),
    (['--gin_file=models/t5_1_1/small.gin'], ['models/t5_1_1/small.gin', 'ARCHITECTURE']),
    (['--gin_file=decoding/nucleus.gin'], ['decoding/nucleus.gin', 'TOP_P']),
  ],
)
def test_what_has_no_effect_or_no_sense(mistake, train, more, says):
  err = mistake(*train, *more)
  for words in says:
    assert words in err


@pytest.mark.parametrize(
  ('flags', 'says'),
  [
    (['--task=docstrings_iid', '--text', 'a'], ['--task', '--text']),
    (['--data=recorded.npz', '--test', 'b.tsv'], ['recorded.npz', '--test']),
  ],
)
def test_flags_of_another_source(mistake, flags, says):
  assert mentions(mistake('train', *flags), *says)


@pytest.mark.parametrize('binding', ['tables.LowRank.rank = 3', 'tables.LowRank:\n  rank = 3'])
def test_a_binding_of_a_file_that_nothing_reads(mistake, train, tmp_path, binding):
  head = 'from __gin__ import dynamic_registration\nfrom prompt_jax.prompts import tables\n'
  (tmp_path / 'mine.gin').write_text(head + binding + '\n')
  err = mistake(*train, '--gin_file', str(tmp_path / 'mine.gin'))
  assert 'tables.LowRank' in err
  assert mentions(err, 'mine.gin', 'effect')


@pytest.mark.parametrize('flag', ['--length=4', '--prompt=deep', '--init=zeros'])
def test_a_prompts_flag_beside_model_tuning(mistake, train, flag):
  assert flag.split('=')[0] in mistake(*train, '--train', 'all', flag)
