#!/usr/bin/env python3
"""Peak host memory of loading a model, on a synthetic one written here.

    python scripts/measure_load_memory.py --gigabytes 4 --form t5x

Writes a random float32 model of about that size (needs the disk), loads it in a process of its
own, in float32 and in bfloat16, and prints that process's peak beside what stays in memory on a
machine whose device is its own memory: the weights. The rest is counted in largest leaves.
"""

import argparse
import json
import pathlib
import resource
import shutil
import subprocess
import sys
import tempfile
import time

WIDTH, INNER, VOCABULARY = 1024, 2816, 32128  # T5 1.1 large


def write(folder: pathlib.Path, gigabytes: float, form: str) -> None:
  """A model of T5 1.1 large's widths and as many layers as the size allows."""
  import numpy as np

  from prompt_jax.checkpoints.leaf import Leaf, blocks, expected_shapes
  from prompt_jax.data.vocabulary import ByteVocabulary
  from prompt_jax.export import model as convert
  from prompt_jax.models.t5.config import T5Config

  a_layer = 4 * (12 * WIDTH**2 + 6 * WIDTH * INNER)  # bytes of one layer of both stacks
  layers = max(round((gigabytes * 1e9 - 8 * VOCABULARY * WIDTH) / a_layer), 1)
  config = T5Config(VOCABULARY, WIDTH, 16, 64, layers, layers, INNER)
  rng = np.random.default_rng(0)

  def leaf(shape: tuple[int, ...]) -> Leaf:
    def fill(out: np.ndarray) -> None:
      for part in blocks(out.shape, out.itemsize):
        out[part] = rng.standard_normal(out[part].shape, np.float32)

    return Leaf(shape, np.dtype(np.float32), 'synthetic', fill)

  leaves = {path: leaf(shape) for path, shape in sorted(expected_shapes(config).items())}
  dtypes = {path: x.dtype for path, x in leaves.items()}
  model = convert.Model('synthetic', config, leaves, dtypes, ByteVocabulary())
  convert.write(folder, form, model, lambda count: None)


def load(folder: str, dtype: str) -> None:
  """Loads and prints its own peak; run in a process of its own."""
  import jax

  from prompt_jax.checkpoints.backbone import load_backbone

  jax.block_until_ready(jax.numpy.zeros(1))
  before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
  began = time.monotonic()
  params = load_backbone(folder, dtype, vocabulary='bytes').params
  seconds = time.monotonic() - began
  peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
  sizes = [x.nbytes for x in jax.tree.leaves(params)]
  found = {'before': before, 'peak': peak, 'weights': sum(sizes), 'leaf': max(sizes)}
  print(json.dumps({**found, 'seconds': seconds}))


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--gigabytes', type=float, default=4.0, help='of the model in float32')
  parser.add_argument('--form', choices=('native', 't5x', 'hf'), default='t5x')
  parser.add_argument('--folder', help='for the model; a temporary one is removed afterwards')
  parser.add_argument('--write', metavar='FOLDER', help=argparse.SUPPRESS)
  parser.add_argument('--load', nargs=2, metavar=('FOLDER', 'DTYPE'), help=argparse.SUPPRESS)
  args = parser.parse_args()
  if args.load:
    load(*args.load)
    return
  if args.write:
    write(pathlib.Path(args.write), args.gigabytes, args.form)
    return
  # A new process begins with the peak of the one that started it, so this one stays small.
  folder = pathlib.Path(tempfile.mkdtemp(dir=args.folder))
  try:
    size = ['--gigabytes', str(args.gigabytes), '--form', args.form]
    writing = [sys.executable, __file__, '--write', str(folder / 'model'), *size]
    subprocess.run(writing, check=True)
    for dtype in ('float32', 'bfloat16'):
      command = [sys.executable, __file__, '--load', str(folder / 'model'), dtype]
      done = subprocess.run(command, check=True, capture_output=True, text=True)
      m = json.loads(done.stdout.splitlines()[-1])
      gb = {name: f'{m[name] / 1e9:.2f}' for name in ('before', 'peak', 'weights', 'leaf')}
      above = (m['peak'] - m['before'] - m['weights']) / m['leaf']
      print(
        f'{args.form} to {dtype}: peak {gb["peak"]} GB; weights {gb["weights"]} GB, largest leaf '
        f'{gb["leaf"]} GB, process before {gb["before"]} GB: weights and {above:.2f} leaves; '
        f'{m["seconds"]:.0f} s'
      )
  finally:
    shutil.rmtree(folder)


if __name__ == '__main__':
  main()
