"""What computes, and what is said of an accelerator that cannot; machines and JAX are made up."""

import importlib.util
import logging
import os
import pathlib
import subprocess
import sys
import types
import warnings

import jax
import numpy as np
import pytest

from prompt_jax.checkpoints.backbone import load_backbone
from prompt_jax.checkpoints.prompt_file import Prompt, save_prompt
from prompt_jax.errors import UserError
from prompt_jax.models.attention import attend
from prompt_jax.runtime import devices, libtpu
from prompt_jax.runtime.devices import default_device
from prompt_jax.stacking import parts_for_caches, prompts_at_once
from tests.shared import facts, mentions

LOGGER = logging.getLogger('jax._src.xla_bridge')
MISSING = (
  'An NVIDIA GPU may be present on this machine, but a CUDA-enabled jaxlib is not installed.'
)


@pytest.fixture(autouse=True)
def machine(monkeypatch, tmp_path):
  """A machine whose driver's files are `tmp_path / 'nvidia'`, and JAX as if just imported."""
  monkeypatch.delenv('JAX_PLATFORMS', raising=False)
  monkeypatch.setattr(devices, 'NVIDIA', (str(tmp_path / 'nvidia'),))
  config = types.SimpleNamespace(jax_default_device=None, updates=[])
  config.update = lambda name, value: config.updates.append((name, value))
  monkeypatch.setattr(devices.jax, 'config', config)
  return config


@pytest.fixture
def gpu(tmp_path) -> pathlib.Path:
  path = tmp_path / 'nvidia'
  path.touch()
  return path


def starts(monkeypatch, says=lambda: None):
  """JAX finds a CPU alone, after `says`, which may log and, the first time, raise."""
  cpu = types.SimpleNamespace(platform='cpu', device_kind='cpu')
  turns = iter([says])

  def found():
    next(turns, lambda: None)()
    return [cpu]

  def local_devices(backend='cpu'):
    if backend != 'cpu':
      raise RuntimeError(f'Unknown backend {backend}')
    return [cpu]

  monkeypatch.setattr(devices.jax, 'devices', found)
  monkeypatch.setattr(devices.jax, 'local_devices', local_devices)


def plugin_without_driver():
  try:
    raise RuntimeError('Unable to load cuPTI. Is it installed?\nand so on')
  except RuntimeError:
    LOGGER.exception('Jax plugin configuration error: Exception when calling %s.initialize()', 'x')
  LOGGER.warning(MISSING)


def no_visible_device():
  raise RuntimeError(
    "Unable to initialize backend 'cuda': no device. (you may need to uninstall the failing plugin)"
  )


def test_a_machine_without_a_gpu_says_nothing(monkeypatch, caplog):
  for says in (lambda: None, plugin_without_driver, no_visible_device):
    starts(monkeypatch, says)
    with warnings.catch_warnings():
      warnings.simplefilter('error')
      assert devices.choose_device('auto').platform == 'cpu'
  assert caplog.records == []


@pytest.mark.parametrize(
  ('says', 'words'),
  [
    (lambda: LOGGER.warning(MISSING), "'.[cuda]'"),
    (plugin_without_driver, 'Unable to load cuPTI. Is it installed?'),
    (no_visible_device, "Unable to initialize backend 'cuda': no device"),
  ],
)
def test_a_gpu_that_jax_cannot_use_is_told_in_one_line(monkeypatch, caplog, gpu, says, words):
  starts(monkeypatch, says)
  with pytest.warns(UserWarning, match=facts('NVIDIA GPU', words)) as told:
    assert devices.choose_device('auto').platform == 'cpu'
  assert len(told) == 1
  assert '\n' not in str(told[0].message)
  assert caplog.records == []


def test_a_plugin_that_ends_jax_leaves_the_cpu(monkeypatch, machine):
  starts(monkeypatch, no_visible_device)
  devices.choose_device('auto')
  assert machine.updates == [('jax_platforms', 'cpu')]


def test_a_tpu_without_its_library_is_told(monkeypatch):
  starts(monkeypatch, lambda: LOGGER.warning('A Google TPU may be present on this machine, but'))
  with pytest.warns(UserWarning, match=facts('TPU', "'.[tpu]'")):
    devices.choose_device('auto')


def test_who_says_cpu_hears_nothing(monkeypatch, gpu):
  starts(monkeypatch, plugin_without_driver)
  with warnings.catch_warnings():
    warnings.simplefilter('error')
    devices.choose_device('cpu')
    monkeypatch.setenv('JAX_PLATFORMS', 'cpu')
    devices.choose_device('auto')


def test_other_warnings_of_jax_are_seen(monkeypatch, caplog):
  starts(monkeypatch, lambda: LOGGER.warning('Platform x is experimental'))
  devices.choose_device('auto')
  assert [record.getMessage() for record in caplog.records] == ['Platform x is experimental']


def test_a_gpu_that_was_demanded_and_does_not_start(monkeypatch, gpu):
  starts(monkeypatch, no_visible_device)
  with pytest.raises(UserError, match=facts('gpu', 'no device')):
    devices.choose_device('gpu')
  starts(monkeypatch)
  with pytest.raises(UserError, match=facts('pip', '[cuda]')):
    devices.choose_device('gpu')


def test_a_plugin_that_was_demanded_by_the_environment(monkeypatch):
  monkeypatch.setenv('JAX_PLATFORMS', 'cuda')
  starts(monkeypatch, no_visible_device)
  with pytest.raises(UserError, match=facts("'cuda'", 'Unable to initialize')):
    devices.choose_device('auto')


def test_dtypes_and_parts_follow_the_chosen_device(monkeypatch):
  """A machine with a GPU that computes on its CPU."""
  monkeypatch.undo()
  monkeypatch.setattr(jax, 'default_backend', lambda: 'gpu')
  with jax.default_device(jax.local_devices(backend='cpu')[0]):
    assert default_device().platform == 'cpu'
    assert parts_for_caches(32, 64) == 4
    assert prompts_at_once(100, 32, 64) == 1


def fake(kind, version='', **more):
  client = types.SimpleNamespace(platform_version=version)
  return types.SimpleNamespace(platform=kind, client=client, device_kind='Tesla T4', **more)


@pytest.mark.parametrize(
  ('attention', 'found', 'says'),
  [
    ('fused', fake('gpu', 'cuda 13000', compute_capability='9.0'), facts('TPU', 'gpu')),
    ('cudnn', fake('cpu'), facts('NVIDIA GPU', 'cpu')),
    ('cudnn', fake('tpu', 'libtpu'), facts('NVIDIA GPU', 'tpu')),
    ('cudnn', fake('gpu', 'rocm 70000', compute_capability='gfx942'), 'NVIDIA GPU'),
    ('cudnn', fake('gpu', 'cuda 13000', compute_capability='7.5'), facts('Tesla T4', '7.5')),
  ],
)
def test_kernels_of_other_devices_are_refused(attention, found, says):
  with pytest.raises(UserError, match=says):
    attend.check_device(attention, found)


def test_kernels_of_this_device_are_taken():
  attend.check_device('cudnn', fake('gpu', 'cuda 13000', compute_capability='12.0'))
  attend.check_device('fused', fake('tpu'))
  attend.check_device('plain', fake('cpu'))


@pytest.mark.skipif(importlib.util.find_spec('libtpu') is None, reason='libtpu is not installed')
@pytest.mark.skipif(bool(libtpu.tpu_chips()), reason='this machine may have a TPU')
def test_the_library_of_tpus_is_silent_where_there_is_none():
  hidden = ('JAX_PLATFORMS', *libtpu.WITHOUT_TPU)
  done = subprocess.run(
    [
      sys.executable,
      '-c',
      "from prompt_jax.runtime import devices; print(devices.choose_device('auto').platform)",
    ],
    env={name: value for name, value in os.environ.items() if name not in hidden},
    capture_output=True,
    text=True,
    timeout=120,
  )
  assert done.stderr == ''
  assert done.returncode == 0


def hidden_tpu(**more):
  """The environment without what a test session sets for JAX."""
  hidden = ('JAX_PLATFORMS', *libtpu.WITHOUT_TPU)
  return {**{name: value for name, value in os.environ.items() if name not in hidden}, **more}


VERBS = """
import sys
from prompt_jax.cli.main import main
model, data, out = sys.argv[1:]
for argv in (
  ['train', '--model', model, '--data', data, '--output', out],
  ['population', '--model', model, '--data', data, '--output', out],
  ['eval', '--model', model, '--data', data],
  ['infer', '--model', model, 'text'],
  ['pretrain', '--corpus', data, '--output', out],
  ['inspect', '--model', model, 'there.safetensors'],
  ['import', '--model', model, 'there.npy', 'x.safetensors'],
  ['export', '--to=npy', '--model', model, 'there.safetensors', 'x.npy'],
  ['convert', model, 'x', '--to=hf'],
  ['plan', '--model', 'embedded', '--topology=here'],
):
  print(main(argv), argv[0], flush=True)
  print('of', argv[0], file=sys.stderr, flush=True)
"""


@pytest.mark.parametrize('platforms', ['tpu', 'bogus', 'cuda'])
def test_platforms_that_are_not_here_are_one_line_of_every_verb(
  model, reviews, tmp_path, platforms
):
  if libtpu.tpu_chips() or os.path.exists('/dev/nvidia0'):
    pytest.skip('this machine may have one of them')
  np.save(tmp_path / 'there.npy', np.ones((3, 32), np.float32))
  fields = {'length': 3, 'encoder': True, 'decoder': False}
  name = 'prompt_jax.prompts.methods.input.input_prompt.InputPrompt'
  metadata = {
    'base_model': 'bytes', 'fingerprint': load_backbone(model).fingerprint, 'width': 32,
    'method': 'InputPrompt', 'method_config': {'class': name, 'fields': fields},
  }  # fmt: skip
  params = {'encoder': {'prompt': np.ones((3, 32), np.float32)}}
  save_prompt(tmp_path / 'there.safetensors', Prompt(params, {}, metadata))
  done = subprocess.run(
    [sys.executable, '-c', VERBS, model, reviews, str(tmp_path / 'out')],
    env=hidden_tpu(JAX_PLATFORMS=platforms), cwd=tmp_path, capture_output=True, text=True,
    timeout=300,
  )  # fmt: skip
  told = [line for line in done.stderr.splitlines() if not line.startswith('of ')]
  verbs = [line.split() for line in done.stdout.splitlines() if line[:1] in '02']
  refused = [verb for code, verb in verbs if code == '2']
  assert len(verbs) == 10, done.stderr
  assert {'train', 'population', 'eval', 'infer', 'pretrain', 'inspect'} <= set(refused)
  assert len(told) == len(refused), done.stderr
  for line in told:
    assert mentions(line, 'prompt-jax: ', f'JAX_PLATFORMS={platforms!r}', 'Unset', 'cpu')


@pytest.mark.skipif(importlib.util.find_spec('libtpu') is None, reason='libtpu is not installed')
@pytest.mark.skipif(bool(libtpu.tpu_chips()), reason='this machine may have a TPU')
@pytest.mark.parametrize('verb', ['train', 'eval', 'inspect'])
def test_no_verb_lets_the_library_of_tpus_speak(model, reviews, sizes, tmp_path, verb):
  out = str(tmp_path / 'out')
  argv = {
    'train': ['--model', model, '--data', reviews, *sizes, '--steps=1', '--output', out],
    'eval': ['--model', model, '--data', reviews],
    'inspect': [model],
  }[verb]
  done = subprocess.run(
    [sys.executable, '-m', 'prompt_jax', verb, *argv],
    env=hidden_tpu(), capture_output=True, text=True, timeout=300,
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
  ours = [line for line in done.stderr.splitlines() if line.startswith('prompt-jax: warning')]
  assert done.stderr.splitlines() == ours
