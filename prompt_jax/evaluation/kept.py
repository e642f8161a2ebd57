"""Answers of a model that are kept on disk, so that it is not asked twice.

A file is named after a digest of all that the answers depend on; it holds scores and answers and no
text of the examples, gzipped JSON. What cannot be read is asked again.
"""

import gzip
import hashlib
import json
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from prompt_jax.checkpoints.prompt_file import write_atomically
from prompt_jax.data.example import Example
from prompt_jax.errors import UserError
from prompt_jax.evaluation.metrics import Scores
from prompt_jax.evaluation.predictions import Prediction

SUFFIX = '.answers.json.gz'
MOST_FILES = 100
# What a file says of each answer; the rest is the example's.
FIELDS = ('prediction', 'correct', 'scores', 'confidence', 'task')


def key(*parts: Any) -> str:
  """A digest of values whose `repr` tells them apart."""
  return hashlib.sha256(repr(parts).encode()).hexdigest()


def digest(examples: Sequence[Example]) -> str:
  """A digest of all that an evaluation reads of examples."""
  total = hashlib.sha256()
  for e in examples:
    asked = (e.inputs_text, e.targets_text, e.label, e.task)
    fields = (e.fields.get('answers'), e.fields.get('group'))
    total.update(repr((asked, fields)).encode())
    total.update(e.inputs.tobytes())
    total.update(e.targets.tobytes())
  return total.hexdigest()


def read(
  folder: pathlib.Path, name: str, examples: Sequence[Example]
) -> tuple[Scores, list[Prediction]] | None:
  """The scores and answers of a key; None where there are none."""
  try:
    found = json.loads(gzip.decompress((folder / f'{name}{SUFFIX}').read_bytes()))
    rows = found['answers']
    if found['key'] != name or len(rows) != len(examples):
      return None
    answers = [
      Prediction(
        input=e.inputs_text,
        target=e.targets_text,
        answers=row.pop('answers'),
        group=e.fields.get('group'),
        **row,
      )
      for e, row in zip(examples, rows, strict=True)
    ]
    return dict(found['scores']), answers
  except (OSError, EOFError, ValueError, KeyError, TypeError, AttributeError):
    return None


def write(
  folder: pathlib.Path, name: str, scores: Scores, predictions: Sequence[Prediction]
) -> None:
  """Keeps them, where the folder can be written; only the `MOST_FILES` latest files stay."""
  rows = [
    {**{field: getattr(p, field) for field in FIELDS}, 'answers': p.answers} for p in predictions
  ]
  text = json.dumps({'key': name, 'scores': scores, 'answers': rows})
  try:
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_atomically(folder / f'{name}{SUFFIX}', gzip.compress(text.encode(), 6, mtime=0))
    files = sorted(folder.glob(f'*{SUFFIX}'), key=os.path.getmtime)
    for old in files[:-MOST_FILES]:
      old.unlink(missing_ok=True)
  except (OSError, UserError):
    return
