"""Times the start of `prompt-jax train`: to the end of the first step, and how much is compiling.

python scripts/bench_start.py --rounds 2

Trains the embedded model in processes of their own with a folder of compiled programs that is
empty ("cold"), then with what that run has left in it ("warm"), and with none ("off"); other
arguments are those of `prompt-jax train`. The table has medians of seconds: from the start of the
process to the end of the first step, of the whole command, and those that JAX counts as compiling
or reading programs, with their number.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time

SIDES = ('cold', 'warm', 'off')


def parse() -> tuple[argparse.Namespace, list[str]]:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--rounds', type=int, default=2, help='processes of each side')
  parser.add_argument('--one', action='store_true', help=argparse.SUPPRESS)
  return parser.parse_known_args()


def one(arguments: list[str]) -> dict[str, float]:
  """Runs the verb in this process; seconds since it began."""
  began = time.monotonic()
  import jax

  from prompt_jax.cli.main import main
  from prompt_jax.training.monitor import Progress

  compiling: list[float] = []
  first: list[float] = []

  def listen(event: str, seconds: float, **_) -> None:
    if event.endswith('backend_compile_duration'):  # reading from the cache is part of it
      compiling.append(seconds)

  begin = Progress.begin

  def begin_and_tell(progress: Progress, done: int) -> None:
    first.append(time.monotonic() - began)
    begin(progress, done)

  jax.monitoring.register_event_duration_secs_listener(listen)
  Progress.begin = begin_and_tell
  code = main(['train', *arguments])
  if code:
    sys.exit(code)
  return {
    'first': first[0],
    'whole': time.monotonic() - began,
    'compiling': sum(compiling),
    'programs': len(compiling),
  }


def main() -> None:
  args, more = parse()
  if args.one:
    print(json.dumps(one(more)))
    return
  environment = {k: v for k, v in os.environ.items() if k != 'JAX_COMPILATION_CACHE_DIR'}
  found: dict[str, list[dict[str, float]]] = {side: [] for side in SIDES}
  for _ in range(args.rounds):
    with tempfile.TemporaryDirectory() as folder:
      for side in SIDES:
        cache = 'off' if side == 'off' else os.path.join(folder, 'programs')
        flags = [f'--compilation_cache={cache}', '--output', os.path.join(folder, side)]
        command = [sys.executable, __file__, '--one', '--task=docstrings_iid', '--steps=20']
        run = subprocess.run(
          [*command, *flags, *more],
          check=True,
          env=environment,
          stdout=subprocess.PIPE,
          text=True,
        )
        found[side].append(json.loads(run.stdout.splitlines()[-1]))
  print(f'{"":6}{"first step s":>14}{"whole s":>10}{"compiling s":>13}{"programs":>10}')
  for side, runs in found.items():
    m = {key: statistics.median(run[key] for run in runs) for key in runs[0]}
    print(
      f'{side:6}{m["first"]:14.1f}{m["whole"]:10.1f}{m["compiling"]:13.1f}{m["programs"]:10.0f}'
    )
  print(f'load: {" ".join(f"{x:.1f}" for x in os.getloadavg())}')


if __name__ == '__main__':
  main()
