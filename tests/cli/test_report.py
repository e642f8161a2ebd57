"""`prompt-jax report` on folders that real runs left: all kinds of them, made once."""

import csv
import json
import pathlib
import shutil

import pytest

from prompt_jax.checkpoints import on_disk
from prompt_jax.cli.main import main
from prompt_jax.reports.find import find
from tests.cli.test_mixtures import SIZES as LONGER
from tests.cli.test_mixtures import folder  # noqa: F401 (a fixture: sets of data)
from tests.cli.test_pretrain import WORDS
from tests.shared import mentions

SIZES = ['--batch_size=8', '--input_length=16', '--target_length=6', '--gin.EVAL_EVERY=2']
PROMPT = ['--length=4']
# What an evaluation of two prompts measures.
PROMPTS = [f'learning_rate_{rate}-seed_0/prompt.safetensors' for rate in ('0.3', '3.0')]
ENSEMBLES = [*PROMPTS, 'majority vote', 'mean probability']


@pytest.fixture(scope='module')
def runs(model, reviews, folder, tmp_path_factory) -> pathlib.Path:  # noqa: F811
  """Model tuning with two seeds, a population, evaluations, a mixture, two languages, free text,
  and pre-training."""
  root = tmp_path_factory.mktemp('runs')
  shared = ['--model', model, '--data', reviews, *SIZES]
  pairs = ''.join(f'say {i % 7} now\tno {i % 7}\n' for i in range(40))
  (root / 'pairs.tsv').write_text(f'inputs\ttargets\n{pairs}')
  (root / 'text.txt').write_text('\n\n'.join(f'{WORDS} {i}' for i in range(150)))
  prompts = [str(root / 'pop' / name) for name in PROMPTS]
  sets = ['--model', model, '--folder', folder, *LONGER, '--steps=2']
  for out, command in {
    'tuning': ['train', *shared, '--steps=2', '--train=all', '--seeds=0,1'],
    'pop': ['population', *shared, *PROMPT, '--steps=4', '--seeds=0,1',
            '--learning_rates=0.3,3.0'],
    'pop/test': ['eval', '--data', reviews, '--gin.RESAMPLES=0', '--prompt_file', *prompts],
    'bare': ['eval', '--data', reviews, '--model', model, '--gin.RESAMPLES=0'],
    'mixture': ['train', '--task', 'sst2', 'trec', '--prompt=task_prompts', *sets],
    'languages': ['train', '--task', 'nusax_senti.english:all', *sets],
    'text': ['train', '--data', str(root / 'pairs.tsv'), '--model', model, *SIZES, *PROMPT,
             '--steps=2'],
    'lm': ['pretrain', '--corpus', str(root / 'text.txt'), '--vocabulary=bytes',
           '--gin.T5Config.vocab_size=384', '--steps=2', '--adapt_steps=2', '--batch_size=4',
           '--input_length=48', '--gin.EVAL_EVERY=1', '--gin.WARMUP_STEPS=0'],
  }.items():  # fmt: skip
    assert main([*command, '--output', str(root / out)]) == 0, command
  return root


def scores(root: pathlib.Path, system: str):
  """What results.json says."""
  return tuple(json.loads((root / 'results.json').read_text())['systems'][system]['scores'])


def test_every_run_is_read_as_its_results_say(runs):
  found = find([str(runs)])
  assert found.unreadable == ()
  by_name = {run.name: run for run in found.runs}
  assert list(by_name) == [
    'bare', 'languages', 'lm/runs/span_corruption', 'lm/runs/prefix_lm', 'mixture',
    'pop/learning_rate_0.3', 'pop/learning_rate_3.0', 'pop/vote',
    *(f'pop/test/{name}' for name in ENSEMBLES), 'text', 'tuning',
  ]  # fmt: skip
  assert {run.status for run in found.runs} == {'finished'}
  for name, folder_, system in (
    ('tuning', 'tuning', 'tuned weights'),
    ('languages', 'languages', 'tuned prompt'),
    ('mixture', 'mixture', 'tuned prompt'),
    ('text', 'text', 'tuned prompt'),
    ('pop/learning_rate_3.0', 'pop', 'learning_rate 3.0'),
    ('pop/vote', 'pop', 'majority vote of 4'),
  ):
    assert by_name[name].scores == scores(runs / folder_, system), name
  tuning, grown, bare = (by_name[n] for n in ('tuning', 'pop/learning_rate_3.0', 'bare'))
  assert (tuning.method, tuning.rate, tuning.seeds) == ('model tuning', 0.001, (0, 1))
  assert tuning.trained == tuning.parameters == grown.parameters > 10_000
  assert (grown.method, grown.rows, grown.trained, grown.rate) == ('input prompt', 4, 128, 3.0)
  assert (bare.method, bare.trained, bare.task, bare.split) == ('untuned', 0, 'reviews', 'test')
  first, second, vote, average = (by_name[f'pop/test/{name}'] for name in ENSEMBLES)
  assert (first.method, first.trained, vote.method) == ('input prompt', 128, 'majority vote')
  files = [run.predictions[0].name for run in (first, second, vote, average)]
  assert files == ['predictions-1.jsonl', 'predictions-2.jsonl', 'vote.jsonl', 'average.jsonl']
  assert by_name['mixture'].method == 'task prompts'
  assert by_name['languages'].source == 'nusax_senti.english'
  lm = by_name['lm/runs/prefix_lm']
  assert lm.metric == 'held_out_loss'
  assert 0 < lm.scores[0]['held_out_loss'] < 20
  assert all(run.seconds > 0 for run in found.runs if run.histories)
  systems = {(r.task, r.system) for r in found.references}
  assert {('reviews', 'majority class'), ('pairs', 'the model, untuned')} <= systems


def test_the_verb_prints_a_table_and_writes_files(runs, tmp_path, capsys):
  out = tmp_path / 'report'
  assert main(['report', str(runs), '--output', str(out), '--sort=-accuracy']) == 0
  shown = capsys.readouterr().out
  for words in ('14 runs', 'pop/learning_rate_0.3', 'english (trained on)', 'languages: gap',
                'model tuning', 'finished', str(out / 'report.html')):  # fmt: skip
    assert words in shown
  with open(out / 'runs.csv', newline='') as file:
    rows = list(csv.DictReader(file))
  assert len(rows) == 14
  accuracy = [float(row['accuracy']) for row in rows if row['accuracy']]
  assert accuracy == sorted(accuracy, reverse=True)
  assert len(accuracy) == 9
  pictures = {p.name for p in (out / 'pictures').iterdir()}
  for stem in ('training_loss-reviews', 'validation_accuracy-reviews', 'by_method-reviews-test',
               'by_trainable_parameters-reviews_test', 'confusion-tuning',
               'confusion-mixture_sst2_', 'by_language-nusax_senti.english_all-test',
               'by_task-sst2+trec-validation', 'training_loss-prefix_lm'):  # fmt: skip
    assert f'{stem}.png' in pictures
  assert not any(name.startswith('confusion-text') for name in pictures)
  page = (out / 'report.html').read_text()
  assert page.count('<img ') == len(pictures)
  parts = list(csv.DictReader((out / 'parts.csv').read_text().splitlines()))
  assert [p['part'] for p in parts if p['folder'] == 'languages'] == [
    'nusax_senti.english', 'nusax_senti.ngaju',
  ]  # fmt: skip


def test_groups_and_columns(runs, capsys):
  command = ['report', str(runs / 'pop'), '--group_by', 'LEARNING_RATE']
  assert main([*command, '--columns=task,accuracy,STEPS']) == 0
  lines = capsys.readouterr().out.splitlines()
  (head,) = [line for line in lines if 'LEARNING_RATE' in line]
  assert [h.strip() for h in head.strip('┃').split('┃')] == [
    'LEARNING_RATE', 'task', 'runs', 'accuracy', 'STEPS',
  ]  # fmt: skip
  rows = [[c.strip() for c in line.strip('│').split('│')] for line in lines if '│' in line]
  assert [row[0] for row in rows] == ['0.3', '3', '-']  # the vote and the evaluation have none
  assert [row[2] for row in rows] == ['1', '1', '5']
  assert rows[0][4] == '4'


def test_a_run_in_progress(runs, tmp_path, capsys):
  """As it is while seed 1 trains: no results, no checksums, and half a line at the end."""
  shutil.copytree(runs / 'tuning', tmp_path / 'tuning')
  on_disk.unseal(tmp_path / 'tuning', tmp_path / 'tuning' / 'seed_1')
  (tmp_path / 'tuning' / 'results.json').unlink()
  path = tmp_path / 'tuning' / 'seed_1' / 'metrics.jsonl'
  path.write_text(path.read_text()[:40])
  assert main(['report', str(tmp_path), '--output', str(tmp_path / 'report')]) == 0
  shown = capsys.readouterr().out
  assert '0 of 2' in shown
  assert 'unfinished' in shown
  assert mentions(shown, 'seed 0', 'step 2', 'seed 1', 'step 0')
  assert 'Could not be read' not in shown


def test_what_cannot_be_read_is_named_and_counted(runs, tmp_path, capsys):
  shutil.copytree(runs / 'bare', tmp_path / 'a')
  shutil.copytree(runs / 'bare', tmp_path / 'b')
  on_disk.unseal(tmp_path / 'b')
  (tmp_path / 'b' / 'results.json').write_text('{"task')
  (tmp_path / 'a' / 'predictions.jsonl').write_text('{"inp')
  assert main(['report', str(tmp_path), '--output', str(tmp_path / 'report')]) == 0
  shown = capsys.readouterr().out
  assert 'Could not be read: 2' in shown
  assert mentions(shown, str(tmp_path / 'b'), 'results.json', 'JSON')
  assert mentions(shown, str(tmp_path / 'a'), 'predictions.jsonl', 'checksum')
  assert 'Could not be read: 2' in (tmp_path / 'report' / 'report.html').read_text()
  assert 'Could not be read: 2' in (tmp_path / 'report' / 'report.md').read_text()
  assert main(['report', str(tmp_path / 'b')]) == 2
  assert 'runs' in capsys.readouterr().err


@pytest.mark.parametrize(
  ('command', 'words'),
  [
    ([], ['FOLDER', '--help']),
    (['{runs}/tunning'], ['tuning']),
    (['{runs}/text.txt'], ['file', 'folder']),
    (['{runs}/tuning/seed_0/state'], ['runs', 'operative_config.gin', 'metrics.jsonl']),
    (['{runs}', '--sort', 'acuracy'], ["'acuracy'", "'accuracy'"]),
    (['{runs}', '--columns', 'folder,STEP'], ["'STEP'", "'STEPS'"]),
    (['{runs}', '--group_by', 'methods'], ["'methods'", "'method'"]),
    (['{runs}', '--output', '{runs}/text.txt/x'], ['/text.txt/x']),
    (['{runs}', '--gin.STEPS=1'], ['gin']),
  ],
)
def test_a_mistake_is_one_line(command, words, runs, capsys):
  assert main(['report', *(c.format(runs=runs) for c in command)]) == 2
  err = capsys.readouterr().err
  for word in words:
    assert word in err
  assert err.count('\n') == 1
  assert 'Traceback' not in err
