"""The short form of scripts/kill_runs.py: one kill of each verb."""

import pathlib
import subprocess
import sys

ROOT = pathlib.Path(__file__).parents[2]


def test_a_killed_run_of_each_verb_ends_as_if_it_was_not():
  done = subprocess.run(
    [sys.executable, 'scripts/kill_runs.py', '--kills=4', '--seed=1'],
    cwd=ROOT,
    capture_output=True,
    text=True,
    timeout=900,
  )
  assert done.returncode == 0, done.stdout + done.stderr
  verbs = [line.split(':')[0] for line in done.stdout.splitlines() if ': 1 kills of 1 ' in line]
  assert verbs == ['train', 'population', 'pretrain', 'eval']
