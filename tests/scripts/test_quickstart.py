"""The quick start: what it hands to the installer and to the verb, with both replaced."""

import os
import pathlib
import shutil
import subprocess

SCRIPT = pathlib.Path(__file__).parents[2] / 'scripts' / 'quickstart.sh'


def test_arguments_are_the_verbs_and_not_the_installers(tmp_path):
  (tmp_path / 'scripts').mkdir()
  shutil.copy(SCRIPT, tmp_path / 'scripts')
  (tmp_path / 'scripts/install.sh').write_text('echo "extras=<$1>"\n')
  verb = tmp_path / 'bin' / 'prompt-jax'
  verb.parent.mkdir()
  verb.write_text('#!/bin/sh\necho "verb $*"\n')
  verb.chmod(0o755)
  done = subprocess.run(
    ['bash', str(tmp_path / 'scripts/quickstart.sh'), '--steps', '7'],
    env={**os.environ, 'PATH': f'{verb.parent}:{os.environ["PATH"]}'},
    capture_output=True,
    text=True,
    check=True,
  )
  assert 'extras=<>\n' in done.stdout
  assert done.stdout.splitlines()[-2].endswith('--steps 7')
