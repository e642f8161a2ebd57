"""Prints the sizes of the embedded tasks and what they yield without a language model.

python scripts/docstrings_baseline.py
"""

import collections

from prompt_jax.data.example import Lengths
from prompt_jax.data.vocabulary import ByteVocabulary
from prompt_jax.evaluation.findings import baselines
from prompt_jax.tasks import docstrings


def main() -> None:
  for task in (docstrings.docstrings_iid(), docstrings.docstrings_files()):
    splits = {s: task.load(s, ByteVocabulary(), Lengths(512, 32)) for s in task.splits}
    print(f'{task.name}: ' + ', '.join(f'{split} {len(e)}' for split, e in splits.items()))
    for split, examples in splits.items():
      counts = collections.Counter(e.targets_text for e in examples)
      print(f'  {split:10s}', ' '.join(f'{label} {counts[label]}' for label in task.labels or ()))
    for split in ('validation', 'test'):
      for name, scores in baselines(splits['train'], splits[split], task).items():
        print(f'  {split:10s} {name}: {scores["accuracy"]:.1f}')


if __name__ == '__main__':
  main()
