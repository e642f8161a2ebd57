"""Target of a process that tokenises its share."""

import pathlib
import pickle
import sys
import time

import prompt_jax
from prompt_jax.data import example
from prompt_jax.data.example import Lengths, TextExample, text_task
from prompt_jax.data.vocabulary import load_vocabulary
from prompt_jax.errors import UserError
from prompt_jax.runtime import processes
from tests.several import print_to


def load(texts):
  """The examples of a task of these (inputs, targets)."""
  rows = [TextExample(i, t, n % 3, {'n': n}) for n, (i, t) in enumerate(texts)]
  task = text_task('toy', {'train': lambda: rows}, None, ('exact_match',))
  vocabulary = load_vocabulary(pathlib.Path(prompt_jax.__file__).parent / 'embedded')
  return task.load('train', vocabulary, Lengths(12, 4))


def tokenize_one_of_several(log, where, file, texts):
  print_to(log)
  encoded = []
  alone = example.encode
  example.encode = lambda text, *rest: encoded.append(text) or alone(text, *rest)
  try:
    with processes.distributed(*where):
      began = time.perf_counter()
      found = load(texts)
      print(f'{time.perf_counter() - began:.1f} s', flush=True)
      file.write_bytes(pickle.dumps((found, len(encoded))))
  except UserError as e:
    print(f'prompt-jax: {e}')
    sys.exit(2)
