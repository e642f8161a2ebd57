"""Several prompts in one evaluation, and two of them compared, on a tiny model."""

import dataclasses
import json
import pathlib
import re
import shutil

import numpy as np
import pytest

from prompt_jax.checkpoints.prompt_file import load_prompt, save_prompt
from prompt_jax.cli.main import main
from tests.shared import mentions


def read(path: pathlib.Path):
  return [json.loads(line) for line in path.read_text().splitlines()]


@pytest.fixture(scope='module')
def trained(model, reviews, sizes, tmp_path_factory) -> pathlib.Path:
  """A run of two seeds."""
  out = tmp_path_factory.mktemp('out')
  command = ['train', '--model', model, '--data', reviews, *sizes, '--length=4', '--steps=3']
  assert main([*command, '--gin.EVAL_EVERY=3', '--seeds=0,1', '--output', str(out)]) == 0
  return out


@pytest.fixture(scope='module')
def longer(model, reviews, sizes, tmp_path_factory) -> pathlib.Path:
  """A prompt of another length."""
  out = tmp_path_factory.mktemp('out')
  command = ['train', '--model', model, '--data', reviews, *sizes, '--length=3', '--steps=1']
  assert main([*command, '--output', str(out)]) == 0
  return out


def files(trained, longer) -> list[str]:
  folders = (trained / 'seed_0', trained / 'seed_1', longer)
  return [str(folder / 'prompt.safetensors') for folder in folders]


@pytest.fixture(scope='module')
def three(trained, longer, reviews, tmp_path_factory) -> pathlib.Path:
  """An evaluation of three prompts, of which two share a shape."""
  out = tmp_path_factory.mktemp('three')
  command = ['eval', '--prompt_file', *files(trained, longer), '--data', reviews]
  assert main([*command, '--output', str(out)]) == 0
  return out


def test_prompts_together_answer_as_each_alone(three, trained, longer, reviews, tmp_path):
  results = json.loads((three / 'results.json').read_text())
  names = list(results['systems'])
  assert results['prompts'] == files(trained, longer)
  assert names[3] == 'mean'
  assert names[4].startswith('best: ')
  assert names[5:] == ['majority vote', 'mean probability']
  scores = [results['systems'][name]['scores'][0] for name in names]
  for number, file in enumerate(files(trained, longer), 1):
    out = tmp_path / str(number)
    assert main(['eval', '--prompt_file', file, '--data', reviews, '--output', str(out)]) == 0
    alone = json.loads((out / 'results.json').read_text())
    (found,) = alone['systems'].values()
    assert found['scores'][0] == pytest.approx(scores[number - 1], abs=1e-3)
    for a, b in zip(
      read(out / 'predictions.jsonl'), read(three / f'predictions-{number}.jsonl'), strict=True
    ):
      assert a['scores'] == pytest.approx(b['scores'], abs=1e-4)
  for key in ('accuracy', 'ece', 'brier'):
    assert scores[3][key] == pytest.approx(np.mean([s[key] for s in scores[:3]]))
  assert scores[4]['accuracy'] == max(s['accuracy'] for s in scores[:3])


def test_vote_and_average_follow_from_the_members(three):
  members = [read(three / f'predictions-{n}.jsonl') for n in (1, 2, 3)]
  voted, averaged = read(three / 'vote.jsonl'), read(three / 'average.jsonl')
  for vote, mean, *each in zip(voted, averaged, *members, strict=True):
    said = [p['prediction'] for p in each]
    assert vote['prediction'] == max(set(said), key=said.count)  # of two labels, three members
    shares = np.exp([[p['scores'][label] for label in ('bad', 'good')] for p in each])
    shares = (shares / shares.sum(-1, keepdims=True)).mean(0)
    assert mean['prediction'] == ('bad', 'good')[int(shares.argmax())]
    assert mean['confidence'] == pytest.approx(shares.max(), abs=1e-6)
    assert mean['correct'] == (mean['prediction'] == mean['target'])
  systems = json.loads((three / 'results.json').read_text())['systems']
  for name, found in (('majority vote', voted), ('mean probability', averaged)):
    share = 100 * np.mean([p['correct'] for p in found])
    assert systems[name]['scores'][0]['accuracy'] == pytest.approx(share)


def test_intervals_and_reliability_stand_beside_the_scores(three, capsys):
  results = json.loads((three / 'results.json').read_text())
  assert (results['resamples'], results['level']) == (1000, 0.95)
  for name in ('majority vote', 'mean probability'):
    low, high = results['intervals'][name]['accuracy']
    assert 0 <= low <= results['systems'][name]['scores'][0]['accuracy'] <= high <= 100
    assert low < high
  assert 'ece' not in results['systems']['majority vote']['scores'][0]
  predictions = read(three / 'average.jsonl')
  (bins,) = results['reliability']['mean probability'].values()
  assert len(bins) == 15
  assert sum(b['examples'] for b in bins) == len(predictions) == 60
  gap = sum(b['examples'] * abs(b['accuracy'] - b['confidence']) for b in bins) / 60
  ece = results['systems']['mean probability']['scores'][0]['ece']
  assert ece == pytest.approx(100 * gap)


def test_the_table_shows_intervals_unless_none_are_asked_for(trained, reviews, capsys):
  command = ['eval', '--prompt_file', str(trained / 'seed_0/prompt.safetensors'), '--data', reviews]
  assert main([*command, '--gin.RESAMPLES=50']) == 0
  shown = ' '.join(capsys.readouterr().out.split())
  assert mentions(shown, '95 %', '50')
  assert ' to ' in shown
  assert main([*command, '--gin.RESAMPLES=0']) == 0
  assert 'resamples' not in capsys.readouterr().out


def altered(file: str, folder: pathlib.Path, **metadata) -> str:
  """The same prompt, which says something else of itself."""
  prompt = load_prompt(file)
  changed = dataclasses.replace(prompt, metadata={**prompt.metadata, **metadata})
  save_prompt(folder / 'prompt.safetensors', changed)
  return str(folder / 'prompt.safetensors')


def test_prompts_that_do_not_go_together_are_refused(trained, longer, reviews, tmp_path, capsys):
  prompts = files(trained, longer)

  def says(*argv: str) -> str:
    assert main(['eval', '--data', reviews, '--prompt_file', *argv]) == 2
    return capsys.readouterr().err

  assert 'twice' in says(prompts[0], prompts[0])
  foreign = altered(prompts[1], tmp_path / 'foreign', fingerprint='0' * 64)
  err = says(prompts[0], foreign)
  assert 'model' in err
  assert foreign in err
  other = altered(prompts[1], tmp_path / 'other', labels=['poor', 'fine'])
  assert 'words' in says(prompts[0], other)


def test_compare_of_runs_goes_seed_by_seed(trained, longer, reviews, tmp_path, capsys):
  assert main(['compare', str(trained), str(trained), '--resamples=20']) == 0
  out = capsys.readouterr().out
  assert 'seed_0' in out
  assert 'seed_1' in out
  assert '+0.0 to +0.0' in out
  assert 'p = 1' in out
  assert main(['compare', str(trained), str(longer)]) == 2
  assert 'seeds' in capsys.readouterr().err


def test_compare_tells_scores_and_examples(three, tmp_path, capsys):
  first = read(three / 'predictions-1.jsonl')
  turned = [dict(p) for p in first]
  for p in [p for p in turned if p['correct']][:2]:
    p['prediction'], p['correct'] = {'good': 'bad', 'bad': 'good'}[p['prediction']], False
  other = tmp_path / 'turned.jsonl'
  other.write_text(''.join(json.dumps(p) + '\n' for p in turned))
  command = ['compare', str(three / 'predictions-1.jsonl'), str(other)]
  assert main([*command, '--examples=5']) == 0
  out = capsys.readouterr().out
  right = sum(p['correct'] for p in first)
  assert re.search(rf'\b{right - 2}\D+2\D+0\D+{60 - right}\b', out)  # both, one alone, neither
  assert 'p = 0.5' in out
  assert f'{100 * right / 60:.1f}' in out
  assert f'{-100 * 2 / 60:+.1f}' in out
  assert out.count('A correct') == out.count('B wrong') == 2
  assert main([*command, '--metric', 'squad']) == 0
  out = capsys.readouterr().out
  assert 'A correct' not in out
  assert ' f1 ' in out
  assert main([*command, '--metric', 'sp_rouge']) == 2
  assert '--vocabulary' in capsys.readouterr().err
  assert main([*command, '--metric', 'blue']) == 2
  assert "'bleu'" in capsys.readouterr().err


def test_compare_refuses_what_cannot_be_compared(three, tmp_path, capsys):
  rows = read(three / 'predictions-1.jsonl')
  first = str(three / 'predictions-1.jsonl')
  other = tmp_path / 'other.jsonl'

  def says(*lines: str) -> str:
    other.write_text('\n'.join(lines) + '\n')
    assert main(['compare', first, str(other)]) == 2
    return capsys.readouterr().err

  lines = [json.dumps(p) for p in rows]
  assert mentions(says(*lines[:-1]), '60', '59')
  changed = json.dumps({**rows[1], 'target': 'else'})
  assert mentions(says(lines[0], changed, *lines[2:]), '2', 'target')
  assert mentions(
    says(lines[0], json.dumps({'input': 'a', 'target': 'b', 'prediction': 'c'})), ':2', "'correct'"
  )
  assert 'turned.jsonl:1' not in says('{"inp')
  empty = tmp_path / 'empty'
  empty.mkdir()
  assert main(['compare', first, str(empty)]) == 2
  assert 'predictions.jsonl' in capsys.readouterr().err
  shutil.rmtree(empty)
  assert main(['compare', first, str(empty)]) == 2
  assert str(empty) in capsys.readouterr().err
