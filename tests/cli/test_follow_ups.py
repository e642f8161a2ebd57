"""What a verb prints as the next command is one that works."""

import json
import shlex
import shutil

import numpy as np
import pytest

from prompt_jax.cli.main import main


@pytest.fixture(autouse=True)
def here(tmp_path, monkeypatch):
  monkeypatch.chdir(tmp_path)
  return tmp_path


@pytest.fixture
def follow(capsys):
  """Runs a command and then the one that it prints, with FILE replaced and more flags."""

  def call(argv, file='', more=()):
    assert main([str(a) for a in argv]) == 0
    (line,) = [s for s in capsys.readouterr().out.splitlines() if s.startswith('Use it: ')]
    next_one = shlex.split(line.removeprefix('Use it: '))
    assert next_one[0] == 'prompt-jax'
    next_one = [file if word == 'FILE' else word for word in next_one]
    assert main([*next_one[1:], *more]) == 0, line
    return next_one

  return call


def test_after_training(follow, model, reviews, sizes, here):
  shutil.copytree(model, here / 'my model')
  small = ['--model', 'my model', '--data', reviews, *sizes, '--steps=1', '--output', 'my run']
  follow(['train', *small])
  follow(['train', *small[:-1], 'seeds', '--seeds=0,1'])
  follow(['train', *small[:-1], 'all', '--train', 'all'])
  follow(['population', *small[:-1], 'population', '--seeds=0,1'])
  # A vocabulary of its own is named too.
  said = follow(['train', *small[:-1], 'words', '--vocabulary=bytes'])
  assert '--vocabulary' in said


@pytest.mark.parametrize('tasks', [['sst2'], ['sst2', 'trec']])
def test_after_training_a_prompt_for_each_task(follow, model, sizes, here, tasks):
  columns = {'sst2': ('sentence', 'positive', 'negative'), 'trec': ('question', 'human', 'number')}
  for name, (text, *labels) in columns.items():
    for split, count in (('train', 12), ('validation', 4)):
      rows = [{text: f'{split} {i}', 'label': labels[i % 2]} for i in range(count)]
      path = here / 'sets' / name / f'{split}.jsonl'
      path.parent.mkdir(parents=True, exist_ok=True)
      path.write_text(''.join(json.dumps(row) + '\n' for row in rows))
  said = follow([
    'train', '--model', model, '--task', *tasks, '--folder', 'sets', '--prompt=task_prompts',
    '--batch_size=4', '--input_length=16', '--target_length=24', '--length=3', '--steps=1',
    '--output=out',
  ])  # fmt: skip
  assert 'out/task_prompts/sst2.safetensors' in said


def test_after_importing_and_pretraining(follow, model, reviews, here):
  np.save(here / 'x.npy', np.ones((3, 32), np.float32))
  follow(['import', 'x.npy', 'my prompt.safetensors', '--model', model])
  lines = (f'the {i} birds sing of {i * 7} old trees and a river' for i in range(300))
  (here / 'corpus.txt').write_text('\n\n'.join(lines))
  pretrain = [
    'pretrain', '--corpus=corpus.txt', '--vocabulary=bytes', '--steps=1', '--adapt_steps=1',
    '--output=a model', '--batch_size=2', '--input_length=16', '--target_length=8',
    '--gin.T5Config.vocab_size=384', '--gin.T5Config.emb_dim=16', '--gin.T5Config.num_heads=1',
    '--gin.T5Config.head_dim=16', '--gin.T5Config.mlp_dim=16', '--warmup_steps=0',
  ]  # fmt: skip
  follow(pretrain, reviews, ['--steps=1', '--length=2', '--batch_size=4', '--output=tuned'])
