"""Prompt tuning beside model tuning and what needs no tuning, on several tasks and seeds.

  python scripts/compare.py --output runs/compare --data ../data sst2 trec ag_news docstrings_iid

Every system is one `prompt-jax train` command, printed before it runs; a command that was stopped
goes on where it stood when this one is given again. Writes table.md and table.png.
"""

import argparse
import json
import pathlib
import subprocess
import sys

import matplotlib

matplotlib.use('Agg')
import matplotlib.pyplot as plt

from prompt_jax.training.records import MeanStd, mean_std

# What differs between the systems; what they share is given on the command line.
SYSTEMS = {
  'prompt tuning': ['--prompt', 'input'],
  'prompt tuning, both inputs': ['--prompt', 'input_both'],
  'deep prompts': ['--prompt', 'deep'],
  'model tuning': ['--train', 'all'],
}
BASELINES = ('majority class', 'TF-IDF + logistic regression', 'the model, untuned')
TUNED = ('tuned prompt', 'tuned weights')


def main() -> None:
  parser = argparse.ArgumentParser(description=__doc__.split('\n')[0])
  parser.add_argument('tasks', nargs='+', metavar='TASK')
  parser.add_argument('--output', type=pathlib.Path, required=True, metavar='DIR')
  parser.add_argument('--data', type=pathlib.Path, metavar='DIR', help='of JSON Lines files')
  parser.add_argument('--seeds', default='0,1,2')
  parser.add_argument('--model', default='embedded')
  parser.add_argument('--length', default='20', help='rows of a prompt')
  parser.add_argument('--input_length', default='48')
  parser.add_argument('--batch_size', default='16')
  parser.add_argument('--prompt_steps', default='1200')
  parser.add_argument('--model_steps', default='400')
  args = parser.parse_args()
  table = {task: _scores(task, args) for task in args.tasks}
  text = _markdown(table)
  (args.output / 'table.md').write_text(text, encoding='utf-8')
  _plot(table, args.output / 'table.png')
  print(f'\n{text}\n{args.output / "table.md"}, {args.output / "table.png"}')


def _scores(task: str, args: argparse.Namespace) -> dict[str, MeanStd]:
  """Accuracy of each system on the test split, in percent."""
  found = {}
  for system, flags in SYSTEMS.items():
    folder = args.output / task / system.replace(',', '').replace(' ', '_')
    steps = args.model_steps if '--train' in flags else args.prompt_steps
    command = ['prompt-jax', 'train', '--task', task, '--model', args.model, '--seeds', args.seeds]
    command += ['--input_length', args.input_length, '--batch_size', args.batch_size]
    command += ['--steps', steps, '--output', str(folder)]
    command += flags if '--train' in flags else ['--length', args.length, *flags]
    if args.data and (args.data / task).is_dir():
      command += ['--folder', str(args.data)]
    if not (folder / 'results.json').is_file():
      print('$', ' '.join(command), flush=True)
      if subprocess.run([sys.executable, '-m', 'prompt_jax', *command[1:]]).returncode:
        sys.exit(f'{task}: {system} did not end; see above')
    systems = json.loads((folder / 'results.json').read_text('utf-8'))['systems']
    for name in BASELINES:
      found[name] = _accuracy(systems[name])
    found[system] = _accuracy(next(systems[name] for name in TUNED if name in systems))
  return found


def _accuracy(system: dict) -> MeanStd:
  return mean_std([scores['accuracy'] for scores in system['scores']])


def _markdown(table: dict[str, dict[str, MeanStd]]) -> str:
  names = list(next(iter(table.values())))
  lines = ['| task | ' + ' | '.join(names) + ' |', '| --- |' + ' ---: |' * len(names)]
  for task, scores in table.items():
    cells = [_cell(scores[name]) for name in names]
    lines.append(f'| `{task}` | ' + ' | '.join(cells) + ' |')
  return '\n'.join(lines) + '\n'


def _cell(value: MeanStd) -> str:
  return f'{value.mean:.1f}' if value.n == 1 else f'{value.mean:.1f} ± {value.std:.1f}'


def _plot(table: dict[str, dict[str, MeanStd]], path: pathlib.Path) -> None:
  """A bar for each system with its score beside it, grey for baselines; a row of axes per task."""
  names = list(next(iter(table.values())))[::-1]
  colors = ['#b0b0b0' if name in BASELINES else 'C0' for name in names]
  size = (7, 0.6 + 0.36 * len(names) * len(table))
  figure, rows = plt.subplots(
    len(table), sharex=True, squeeze=False, figsize=size, layout='constrained'
  )
  for axes, (task, scores) in zip(rows[:, 0], table.items(), strict=True):
    values = [scores[name] for name in names]
    spread = [v.std if v.n > 1 else 0.0 for v in values]
    bars = axes.barh(names, [v.mean for v in values], xerr=spread, color=colors, height=0.7)
    axes.bar_label(bars, [_cell(v) for v in values], padding=4, fontsize='small')
    axes.set_title(task, fontsize='medium', loc='left')
    axes.spines[['top', 'right']].set_visible(False)
  axes.set_xlim(0, 100)
  axes.set_xlabel('test accuracy, %')
  figure.savefig(path, dpi=110)


if __name__ == '__main__':
  main()
