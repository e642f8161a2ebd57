"""The benchmark of GPUs, on whatever is here and a tiny model: the table's form, no figures."""

import os
import pathlib
import re
import subprocess
import sys

import pytest

SCRIPTS = pathlib.Path(__file__).parents[2] / 'scripts'


@pytest.fixture
def bench(monkeypatch):
  monkeypatch.syspath_prepend(str(SCRIPTS))
  import bench_gpu

  return bench_gpu


def test_the_table_has_a_line_of_each_side_and_of_each_comparison(tmp_path):
  path = tmp_path / 'table.md'
  flags = '--sizes=tiny --parity=tiny --sides=plain,cudnn,peft --rounds=1 --steps=1 --peak=0.5'
  shapes = '--batch=2 --inputs=8 --targets=2 --prompt=2'
  subprocess.run(
    [sys.executable, str(SCRIPTS / 'bench_gpu.py'), *flags.split(), *shapes.split(),
     '--output', str(path)],
    env={**os.environ, 'JAX_PLATFORMS': 'cpu'}, check=True, capture_output=True, timeout=600,
  )  # fmt: skip
  text = path.read_text()
  head, _, *lines = [line for line in text.splitlines() if line.startswith('|')]
  assert head == '| T5 1.1 | side | steps/s | examples/s | of PEFT | MFU | peak GiB |'
  number = r'[\d.e+-]+'
  measured = rf'\| {number} \| {number} \| {number} \| {number} % \| {number} \|'
  wanted = [
    rf'\| tiny \| prompt_jax, `ATTENTION` plain {measured}',
    r'\| tiny \| cudnn \| RuntimeError: cuDNN is not detected. \| \| \| \| \|',
    rf'\| tiny \| PEFT, torch {measured}',
    r'\| tiny, beside the CPU in float32 \| loss \| prompt gradient \|',
    r'\| --- \| ---: \| ---: \|',
    rf'\| plain, float32 \| {number} \| {number} \|',
    rf'\| plain, bfloat16 \| {number} \| {number} \|',
    r'\| cudnn, bfloat16 \| RuntimeError: cuDNN is not detected. \| \|',
  ]
  assert len(lines) == len(wanted), text
  for line, pattern in zip(lines, wanted, strict=True):
    assert re.fullmatch(pattern, line), line
  assert text.startswith('cpu; jax ')


def test_the_cpu_is_compared_with_itself(bench):
  args = bench.parse(
    ['--parity=tiny', '--sides=plain,scores', '--inputs=8', '--targets=2', '--prompt=2']
  )
  found = bench.parity(args)
  assert found.keys() == {'plain, float32', 'plain, bfloat16', 'scores, bfloat16'}
  assert max(found['plain, float32']) < 1e-6
  assert 1e-4 < found['plain, bfloat16'][1] < 0.1


@pytest.mark.parametrize(
  ('device', 'peak'),
  [
    ('NVIDIA A100-SXM4-80GB', 312),
    ('NVIDIA H100 80GB HBM3', 989),
    ('NVIDIA H100 PCIe', None),
    ('NVIDIA H200', 989),
    ('NVIDIA L4', 121),
    ('NVIDIA L40S', None),
    ('NVIDIA GeForce RTX 4090', 165),
  ],
)
def test_peaks_are_those_of_the_very_chip(bench, device, peak):
  assert bench.peak_of(device, None) == peak
  assert bench.peak_of(device, 100.0) == 100.0


def test_a_step_of_known_flops(bench):
  """Half of the peak at 2 steps of a fourth of it a second."""
  args = bench.parse(['--sides=plain,peft', '--peak=1', '--batch=2'])
  flops = bench.flops_of(args, 'tiny', 'plain')
  args.peak = 4 * flops / 1e12
  run = {'wall': [0.5], 'peak_gib': 1.5, 'device': 'x'}
  slow = {**run, 'wall': [1.0]}
  assert bench.rows_of(args, 'tiny', {'plain': [run], 'peft': [slow]}) == [
    '| tiny | prompt_jax, `ATTENTION` plain | 2.00 | 4.0 | 2.00 | 50.0 % | 1.50 |',
    '| tiny | PEFT, torch | 1.00 | 2.0 | 1.00 | 25.0 % | 1.50 |',
  ]


def test_rows_without_peft_have_no_ratio(bench):
  args = bench.parse(['--sides=plain,peft'])
  run = {'wall': [1.0], 'peak_gib': 1.5, 'device': 'NVIDIA H100 PCIe'}
  lines = bench.rows_of(args, 'tiny', {'plain': [run], 'peft': [{'failed': 'out of memory'}]})
  assert lines[0].endswith('| 32.0 |  | unknown | 1.50 |')
  assert lines[1] == '| tiny | PEFT, torch | out of memory | | | | |'
