"""Cost of a training run beyond its steps, as the file of examples grows.

python scripts/bench_rows.py --rows 3000,30000,300000

Each run trains 200 steps on the embedded model in a process of its own, with an own cache of
compiled programs and answers, filled by a run on 3,000 other rows. Rows have 20 words and one of 3
labels. Time beyond the steps is all time of the process but that of the steps themselves: imports,
reading, compiling, evaluations. It is given in seconds and in CPU seconds, which other processes
stretch less. Memory is the largest resident set of the process.
"""

import argparse
import json
import multiprocessing
import pathlib
import random
import resource
import sys
import tempfile
import time

LABELS = {'good': 'fine', 'bad': 'poor', 'plain': 'usual'}
WORDS = (
  'time year people way day man thing woman life child world school state family student group '
  'country problem hand part place case week company system program question work government '
  'number night point home water room mother area money story fact month lot right study book eye '
  'job word business issue side kind head house service friend father power hour game line end '
  'member law car city name president team minute idea body information back parent face level '
  'office door health person art war history party result change morning reason research girl '
  'guy moment air teacher force education'
)


def write_rows(path: pathlib.Path, rows: int, seed: int) -> None:
  """Texts of 20 words, one of which tells the label."""
  draw, words_to_draw = random.Random(seed), WORDS.split()
  with open(path, 'w', encoding='utf-8') as file:
    file.write('text\tlabel\n')
    for _ in range(rows):
      label = draw.choice(list(LABELS))
      words = [*(draw.choice(words_to_draw) for _ in range(19)), LABELS[label]]
      draw.shuffle(words)
      file.write(f'{" ".join(words)}\t{label}\n')


def train(data: str, output: str, cache: str, steps: int, found) -> None:
  """One run; puts its costs into the queue `found`."""
  began = time.monotonic()
  from prompt_jax.cli.main import main
  from prompt_jax.training import loop

  spent = {'loop': [0.0, 0.0], 'evaluations': [0.0, 0.0]}

  def timed(name, function):
    def call(*args, **kwargs):
      wall, cpu = time.monotonic(), time.process_time()
      try:
        return function(*args, **kwargs)
      finally:
        spent[name][0] += time.monotonic() - wall
        spent[name][1] += time.process_time() - cpu

    return call

  loop._loop = timed('loop', loop._loop)
  loop._evaluate = timed('evaluations', loop._evaluate)
  flags = [f'--steps={steps}', f'--output={output}', f'--compilation_cache={cache}']
  code = main(['train', '--data', data, *flags])
  whole = [time.monotonic() - began, time.process_time()]
  steps_only = [a - b for a, b in zip(spent['loop'], spent['evaluations'], strict=True)]
  found.put(
    {
      'code': code,
      'whole': whole,
      'steps': steps_only,
      'beyond': [a - b for a, b in zip(whole, steps_only, strict=True)],
      'evaluations': spent['evaluations'],
      'memory': resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e6,
    }
  )


def measured(rows: int, folder: pathlib.Path, steps: int, seed: int) -> dict:
  """The costs of a run on so many rows."""
  data = folder / f'rows_{rows}_{seed}.tsv'
  write_rows(data, rows, seed)
  context = multiprocessing.get_context('spawn')
  found = context.Queue()
  args = (str(data), str(folder / f'run_{rows}_{seed}'), str(folder / 'cache'), steps, found)
  process = context.Process(target=train, args=args)
  process.start()
  result = found.get()
  process.join()
  if result['code']:
    sys.exit(f'train ended with {result["code"]}')
  return result


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('--rows', default='3000,30000,300000')
  parser.add_argument('--steps', type=int, default=200)
  parser.add_argument('--output', type=pathlib.Path, help='a JSON file for the same')
  args = parser.parse_args()
  results = {}
  with tempfile.TemporaryDirectory() as name:
    measured(3000, pathlib.Path(name), args.steps, seed=1)  # fills the cache
    for rows in map(int, args.rows.split(',')):
      results[rows] = measured(rows, pathlib.Path(name), args.steps, seed=0)
  first = next(iter(results.values()))['memory']
  print('| rows | beyond the steps: s | CPU s | of it evaluations: s | CPU s | steps: s | CPU s '
        '| memory MB | over the first |')  # fmt: skip
  print('| ---: ' * 9 + '|')
  for rows, r in results.items():
    cells = [*r['beyond'], *r['evaluations'], *r['steps'], r['memory'], r['memory'] - first]
    print(f'| {rows:,} | ' + ' | '.join(f'{c:.1f}' for c in cells) + ' |')
  if args.output:
    args.output.write_text(json.dumps(results, indent=2))


if __name__ == '__main__':
  main()
