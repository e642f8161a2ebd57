"""How many files a training run passes through, and how far its gradient is from the flags."""

import json
import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parent.parent.parent
FILES = 69  # lower it where files become fewer
TO_THE_GRADIENT = 12


def test_a_training_run_enters_few_files(model, reviews, sizes, tmp_path):
  report = tmp_path / 'entered.json'
  command = ['train', '--model', model, '--data', reviews, '--output', str(tmp_path / 'out')]
  done = subprocess.run(
    [sys.executable, '-m', 'tests.entered', str(report), *command, *sizes, '--steps=2'],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=600,
  )
  assert done.returncode == 0, done.stderr
  found = json.loads(report.read_text())
  assert 'training/loop.py' in found['entered']  # it is the run that was followed
  assert len(found['entered']) <= FILES, found['entered']
  assert found['stack'][0] == 'cli/main.py'
  assert len(set(found['stack'])) <= TO_THE_GRADIENT, found['stack']
