"""`prompt-jax sweep` on a GKE cluster, with a program in the place of xpk."""

import csv
import json
import os
import pathlib
import re
import shlex
import sys

import pytest

from prompt_jax.cli.main import main
from tests.shared import mentions

ROOT = pathlib.Path(__file__).parent.parent.parent
XPK = "XPK = {'cluster': 'mine', 'zone': 'z', 'tpu-type': 'v5litepod-16', 'spot': True}"
HEADER = (
  'Jobset Name   Created Time   Priority   TPU VMs Needed   TPU VMs Running/Ran   TPU VMs Done   '
  'Status   Status Message   Status Time'
)


class Gke:
  """A program in the place of xpk: notes what is created, and lists what a test says."""

  def __init__(self, folder: pathlib.Path):
    self.folder = folder
    folder.mkdir()
    (folder / 'xpk').write_text(f"""#!{sys.executable}
import json, pathlib, sys
here, args = pathlib.Path({str(folder)!r}), sys.argv[1:]
with open(here / 'calls', 'a') as file:
  file.write(json.dumps(args) + '\\n')
if args[:2] == ['workload', 'list']:
  print('[XPK] Starting xpk', (here / 'table').read_text(), '[XPK] Exiting XPK cleanly', sep='\\n')
elif (here / 'refuses').exists():
  sys.exit('[XPK] Unable to find the cluster')
""")
    (folder / 'xpk').chmod(0o755)
    self.lists({})

  def lists(self, workloads):
    """Workloads by name: (machines that run, status, message)."""
    time = '2025-11-03T10:00:00Z'
    rows = [f'{n}   {time}   medium   4   {m}   <none>   {status}   {said}   {time}'
            for n, (m, status, said) in workloads.items()]  # fmt: skip
    (self.folder / 'table').write_text('\n'.join([HEADER, *rows]))

  def created(self) -> list[list[str]]:
    calls = self.folder / 'calls'
    lines = calls.read_text().splitlines() if calls.exists() else []
    return [call for call in map(json.loads, lines) if call[:2] == ['workload', 'create']]


@pytest.fixture
def gke(tmp_path, monkeypatch):
  monkeypatch.setenv('PATH', str(tmp_path / 'bin'), prepend=os.pathsep)
  monkeypatch.chdir(ROOT)  # a checkout, from which containers install
  return Gke(tmp_path / 'bin')


def test_xpk_gets_a_workload_for_each_run_once_and_results_are_gathered(
  sweep, gke, tmp_path, capsys
):
  flags = ['sweep', sweep(f'LENGTHS = [4, 5, 6]\n{XPK}'), '--cluster=xpk']
  assert main([*flags, '--dry-run']) == 0
  dry = [shlex.split(x) for x in capsys.readouterr().out.splitlines() if x.startswith('xpk')]
  assert not (tmp_path / 'out').exists()
  assert not gke.created()

  assert main(flags) == 0
  capsys.readouterr()
  created = gke.created()
  assert [['xpk', *call] for call in created] == dry
  out, cells = tmp_path / 'out', [f'model_bytes-length_{n}-seed_0' for n in (4, 5, 6)]
  names = [call[2].removeprefix('--workload=') for call in created]
  assert all(re.fullmatch('pj-[a-z0-9-]*length-[456]-seed-0-[0-9a-f]{8}', n) for n in names)
  assert max(map(len, names)) <= 40
  assert created[0][3:-1] == [
    '--base-docker-image=python:3.11', '--script-dir=.', '--num-slices=1', '--cluster=mine',
    '--zone=z', '--tpu-type=v5litepod-16', '--spot',
  ]  # fmt: skip
  setup, _, command = created[0][-1].removeprefix('--command=').partition(' && ')
  assert setup == "pip install --quiet -c constraints.txt '.[tpu]'"
  words = shlex.split(command)
  assert words[:2] == ['prompt-jax', 'train']
  assert words[-1] == f'--output={out}/{cells[0]}'

  # The first runs to its end; the second waits, and the third fails.
  assert main(words[1:]) == 0
  gke.lists({
    names[0]: (4, 'Finished', 'jobset completed successfully'),
    names[1]: ('<none>', 'QuotaReserved', 'Quota reserved in ClusterQueue'),
    names[2]: (4, 'Finished', 'jobset failed due to one or more job failures'),
    f'{names[2]}-of-others': (4, 'Finished', 'jobset completed successfully'),
  })  # fmt: skip
  capsys.readouterr()
  assert main(flags) == 2
  shown, err = capsys.readouterr()
  assert mentions(shown, cells[1], names[1], 'waiting')
  assert mentions(err, cells[2], names[2], 'jobset failed due to')
  with open(out / 'sweep.csv', newline='') as file:
    assert [row['length'] for row in csv.DictReader(file)] == ['4']
  assert len(gke.created()) == 3  # what failed is told before it is tried again

  gke.lists({names[1]: (4, 'Admitted', 'The workload is admitted')})
  assert main(flags) == 0
  shown = capsys.readouterr().out
  assert mentions(shown, '3 cells', '1 done', '1 failed', '1 submitted', '2 to run')
  assert mentions(shown, cells[1], names[1], 'running')
  again = gke.created()[3:]
  assert [call[-1].split()[-1] for call in again] == [f'--output={out}/{cells[2]}']
  # The cluster keeps workloads that ended, and would refuse a second one of that name.
  assert again[0][2].removeprefix('--workload=') not in names


def test_xpk_is_not_believed_when_the_results_went_elsewhere(sweep, gke, tmp_path, capsys):
  flags = ['sweep', sweep(f'LENGTHS = [4]\n{XPK}'), '--cluster=xpk']
  assert main(flags) == 0
  name = gke.created()[0][2].removeprefix('--workload=')
  gke.lists({name: (4, 'Finished', 'jobset completed successfully')})
  assert main(flags) == 2
  assert f'{tmp_path}/out/model_bytes' in capsys.readouterr().err


def test_a_workload_that_is_gone_is_told_before_another_is_created(sweep, gke, capsys):
  flags = ['sweep', sweep(f'LENGTHS = [4]\n{XPK}'), '--cluster=xpk']
  assert main(flags) == 0
  name = gke.created()[0][2].removeprefix('--workload=')
  assert main(flags) == 2
  assert name in capsys.readouterr().err
  assert len(gke.created()) == 1
  assert main(flags) == 0
  assert len(gke.created()) == 2


def test_a_dry_run_without_xpk_says_that_nobody_was_asked(sweep, gke, monkeypatch, capsys):
  flags = ['sweep', sweep(f'LENGTHS = [4]\n{XPK}'), '--cluster=xpk']
  assert main(flags) == 0
  monkeypatch.setenv('PATH', '/nowhere')
  capsys.readouterr()
  assert main([*flags, '--dry-run']) == 0
  shown = capsys.readouterr().out
  assert mentions(shown, 'xpk', '1')
  assert 'xpk workload create' not in shown


def test_a_workload_that_xpk_refuses_is_not_taken_for_submitted(sweep, gke, tmp_path, capsys):
  flags = ['sweep', sweep(f'LENGTHS = [4]\n{XPK}'), '--cluster=xpk']
  (gke.folder / 'refuses').touch()
  assert main(flags) == 2
  err = capsys.readouterr().err
  assert 'xpk workload create' in err
  assert 'Unable to find the cluster' in err
  record = json.loads((tmp_path / 'out/model_bytes-length_4-seed_0/sweep.json').read_text())
  assert record['what'] == 'new'


@pytest.mark.parametrize(
  ('lists', 'says'),
  [
    ('XPK = {}', ('XPK', 'cluster')),
    ("XPK = {'cluster': 'c'}", ("'tpu-type'", "'device-type'")),
    ("XPK = {'cluster': 'c', 'device-type': 'h100-80gb-8'}", ('device-type', "'h100-80gb-8'")),
    ("XPK = {'cluster': 'c', 'tpu-type': 'v5litepod-4', 'num-slices': '2'}", ('num-slices', "'2'")),
    ("XPK = {'cluster': 'c', 'tpu-type': 't', 'command': 'x'}", ("'command'",)),
    (f"{XPK}\nOUTPUT = 'runs/mine'", ('OUTPUT', "'runs/mine'", 'absolute')),
    ("XPK = {'cluster': 'c', 'tpu-type': 't', 'script-dir': '/'}", ("'/'", 'prompt_jax')),
    (
      "XPK = {'cluster': 'c', 'tpu-type': 't', 'docker-image': 'a', 'base-docker-image': 'b'}",
      ('docker-image', 'base-docker-image'),
    ),
  ],
)
def test_options_with_which_no_workload_can_run_are_refused(
  sweep, gke, tmp_path, monkeypatch, lists, says, capsys
):
  monkeypatch.chdir(tmp_path)
  assert main(['sweep', sweep(lists), '--cluster=xpk']) == 2
  assert mentions(capsys.readouterr().err, *says)
  assert not gke.created()


def test_without_xpk_there_is_still_a_dry_run(sweep, monkeypatch, capsys):
  monkeypatch.setenv('PATH', '/nowhere')
  monkeypatch.chdir(ROOT)
  flags = ['sweep', sweep(XPK), '--cluster=xpk']
  assert main(flags) == 2
  assert 'pip install xpk' in capsys.readouterr().err
  assert main([*flags, '--dry-run']) == 0
  assert 'xpk workload create' in capsys.readouterr().out
