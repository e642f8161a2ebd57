"""The launchers, by what they say they would do, and against clouds that only take notes."""

import os
import pathlib
import shutil
import subprocess

import pytest

from tests.shared import mentions

ROOT = pathlib.Path(__file__).parent.parent.parent
LAUNCH = ROOT / 'contrib' / 'launch'
SCRIPTS = sorted(LAUNCH.glob('*.sh'))
# With a space and a quote, which have to arrive as they are.
TRAIN = ['--', 'prompt-jax', 'train', '--data', "it's here.tsv", '--output', 'out']
QUOTED = r'prompt-jax train --data it\'s\ here.tsv --output out'

TPU = f"""\
gcloud compute tpus queued-resources create pod --node-id=pod --zone=us-west4-a \
--project=mine --accelerator-type=v5litepod-16 --runtime-version=v2-alpha-tpuv5-lite --spot
# wait until its state is ACTIVE
git -C {ROOT} archive --format=tar.gz --output=checkout.tar.gz HEAD
gcloud compute tpus tpu-vm scp checkout.tar.gz pod:prompt_jax_run.tar.gz --zone=us-west4-a \
--project=mine --worker=all
rm -f checkout.tar.gz
INSTALL
gcloud compute tpus tpu-vm ssh pod --zone=us-west4-a --project=mine --worker=all \
--command=cd prompt_jax_run; . .venv/bin/activate; {QUOTED}
gcloud compute tpus tpu-vm scp --recurse pod:prompt_jax_run/out . --zone=us-west4-a \
--project=mine --worker=0
gcloud compute tpus queued-resources delete pod --zone=us-west4-a --project=mine --force --quiet
"""
XPK = f"""\
xpk cluster create --cluster=c --zone=z --tpu-type=v5litepod-16 --num-slices=1
xpk workload create --workload=run-1 --cluster=c --zone=z --tpu-type=v5litepod-16 --num-slices=1 \
--base-docker-image=python:3.11 --script-dir={ROOT} --max-restarts=3 \
--command=pip install --quiet -c constraints.txt '.[tpu]' && {QUOTED}
xpk workload list --cluster=c --zone=z --wait-for-job-completion=run-1
xpk workload delete --workload=run-1 --cluster=c --zone=z
xpk cluster delete --cluster=c --zone=z
"""
SLURM = rf"""#!/usr/bin/env bash
#SBATCH --job-name=prompt_jax
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --gpus-per-node=4
#SBATCH --signal=TERM@60
#SBATCH --requeue
#SBATCH --output=prompt_jax-%j.log
#SBATCH --partition=gpu
#SBATCH --time=04:00:00
set -euo pipefail
cd {ROOT}
. /shared/my\ venv/bin/activate
# One task a GPU, which JAX finds by SLURM_PROCID and joins; 143: stopped and saved.
code=0
srun {QUOTED} || code=$?
[ "$code" -ne 143 ] || exec scontrol requeue "$SLURM_JOB_ID"
exit "$code"
sbatch prompt_jax.sbatch
"""


def launch(script, *flags, path=None, cwd=ROOT):
  env = {**os.environ, **({'PATH': f'{path}{os.pathsep}{os.environ["PATH"]}'} if path else {})}
  return subprocess.run(
    [str(LAUNCH / script), *flags], capture_output=True, text=True, check=False, env=env, cwd=cwd
  )


def unquoted(text: str) -> list[list[str]]:
  """What a shell makes of each line of a dry run."""
  read = (
    'while IFS= read -r line; do eval "set -- $line"; printf "%s\\0" "$@"; printf "\\n\\0"; done'
  )
  done = subprocess.run(
    ['bash', '-c', read], input=text, capture_output=True, text=True, check=True
  )
  lines, words = [], []
  for word in done.stdout.split('\0')[:-1]:
    if word == '\n':
      lines.append(words)
      words = []
    else:
      words.append(word)
  return lines


def test_a_dry_run_of_a_tpu_pod():
  flags = ['--name', 'pod', '--zone', 'us-west4-a', '--type', 'v5litepod-16', '--project', 'mine']
  done = launch('tpu_pod.sh', '--dry-run', *flags, '--spot', *TRAIN)
  assert done.returncode == 0, done.stderr
  lines = [' '.join(words) for words in unquoted(done.stdout.replace('# wait', '\\# wait'))]
  (install,) = [i for i, line in enumerate(lines) if 'python3.11 -m venv' in line]
  assert lines[install].endswith("pip install --quiet -c constraints.txt '.[tpu]'")
  lines[install] = 'INSTALL'
  assert '\n'.join(lines) + '\n' == TPU


def test_a_dry_run_of_xpk():
  flags = ['--cluster', 'c', '--workload', 'run-1', '--type', 'v5litepod-16', '--zone', 'z']
  more = ['--restarts', '3', '--create', '--delete']
  done = launch('gke_xpk.sh', '--dry-run', *flags, *more, *TRAIN)
  assert done.returncode == 0, done.stderr
  assert '\n'.join(' '.join(words) for words in unquoted(done.stdout)) + '\n' == XPK


def test_a_dry_run_of_slurm_writes_nothing(tmp_path):
  flags = ['--nodes', '2', '--gpus', '4', '--partition', 'gpu', '--time', '04:00:00']
  venv = ['--venv', '/shared/my venv']
  done = launch('slurm.sh', '--dry-run', *flags, *venv, *TRAIN, cwd=tmp_path)
  assert done.returncode == 0, done.stderr
  assert done.stdout.replace(str(tmp_path), str(ROOT)) == SLURM
  assert list(tmp_path.iterdir()) == []


@pytest.fixture
def cloud(tmp_path):
  """Programs that note their arguments; the run itself, on a pod, fails with 3."""
  folder = tmp_path / 'bin'
  folder.mkdir()
  text = f"""#!/usr/bin/env bash
printf '%s\\n' "$(basename "$0") $*" >> {tmp_path}/notes
case "$*" in *describe*) echo ACTIVE ;; *'--command=cd '*) exit 3 ;; esac
"""
  for name in ('gcloud', 'xpk', 'sbatch'):
    (folder / name).write_text(text)
    (folder / name).chmod(0o755)
  return folder


def notes(tmp_path) -> list[str]:
  return (tmp_path / 'notes').read_text().splitlines()


def test_a_run_that_fails_on_a_pod_has_its_output_copied_and_the_pod_deleted(cloud, tmp_path):
  flags = ['--name', 'pod', '--zone', 'z', '--type', 'v5litepod-16']
  done = launch('tpu_pod.sh', *flags, *TRAIN, path=cloud, cwd=tmp_path)
  assert done.returncode == 3
  said = notes(tmp_path)
  verbs = [' '.join(line.split()[3:5]) for line in said]
  assert verbs == [
    'queued-resources create', 'queued-resources describe', 'tpu-vm scp', 'tpu-vm ssh',
    'tpu-vm ssh', 'tpu-vm scp', 'queued-resources delete',
  ]  # fmt: skip


def test_a_pod_that_is_kept_is_neither_made_again_nor_deleted(cloud, tmp_path):
  flags = ['--name', 'pod', '--zone', 'z', '--type', 'v5litepod-16', '--keep']
  launch('tpu_pod.sh', *flags, *TRAIN, path=cloud, cwd=tmp_path)
  assert not [line for line in notes(tmp_path) if ' create ' in line or ' delete ' in line]


def test_slurm_is_given_the_script_that_a_dry_run_shows(cloud, tmp_path):
  shown = launch('slurm.sh', '--dry-run', *TRAIN, cwd=tmp_path).stdout.splitlines()
  done = launch('slurm.sh', *TRAIN, path=cloud, cwd=tmp_path)
  assert done.returncode == 0, done.stderr
  script = tmp_path / 'prompt_jax.sbatch'
  assert script.read_text().splitlines() == shown[:-1]
  assert notes(tmp_path) == ['sbatch prompt_jax.sbatch']
  subprocess.run(['bash', '-n', str(script)], check=True)


@pytest.mark.parametrize(
  ('script', 'flags', 'message'),
  [
    ('tpu_pod.sh', ['--name', 'x', *TRAIN], ('--zone',)),
    ('tpu_pod.sh', ['--name', 'x', '--zone', 'z', '--type', 't'], ('command',)),
    ('tpu_pod.sh', ['--nmae', 'x', *TRAIN], ('--nmae',)),
    ('tpu_pod.sh', ['--name'], ('--name',)),
    ('gke_xpk.sh', ['--cluster', 'c', '--workload', 'W', '--type', 't', *TRAIN], ('W',)),
    ('slurm.sh', ['--gpus', '0', *TRAIN], ('0',)),
    ('slurm.sh', ['--partition', 'a\nb', *TRAIN], ('character',)),
  ],
)
def test_mistakes_are_told_before_anything_is_done(cloud, tmp_path, script, flags, message):
  done = launch(script, *flags, path=cloud, cwd=tmp_path)
  assert done.returncode == 2
  assert mentions(done.stderr, *message)
  assert not (tmp_path / 'notes').exists()


@pytest.mark.parametrize('script', SCRIPTS, ids=lambda p: p.name)
def test_every_script_is_sound(script):
  subprocess.run(['bash', '-n', str(script)], check=True)
  if script.name != 'common.sh':
    assert 'set -euo pipefail' in script.read_text()
    text = launch(script.name, '--help').stdout
    assert text.count('--dry-run') == 1
    assert 'Not run on a cluster' in text
  if not shutil.which('shellcheck'):
    pytest.skip('shellcheck is not installed; bash -n is content')
  subprocess.run(['shellcheck', '--external-sources', str(script)], check=True, cwd=LAUNCH)
