"""C4 and other plain text to train on without labels: span corruption and prefix LM.

SPoT's C4 source task, which Vu et al. (2022) mix in for other languages. The text has the form that
`prompt-jax pretrain` reads (.txt, .xz), or is JSON Lines with a column "text" as C4 and mC4 are
published. Chunks and masks are a pure function of the file and a seed.
"""

import pathlib
from collections.abc import Sequence

import numpy as np

from prompt_jax.data.example import Example, Lengths, Task, check_lengths
from prompt_jax.data.table import fail, read_table
from prompt_jax.data.vocabulary import Vocabulary
from prompt_jax.errors import UserError
from prompt_jax.pretraining import span_corruption, text_stream

NAMES = {'c4_span_corruption': 'span_corruption', 'c4_prefix_lm': 'prefix_lm'}
FILES = {
  'train': ('train', 'c4-train.00000-of-01024'),
  'validation': ('validation', 'c4-validation.00000-of-00008'),
}
ENDINGS = ('.txt', '.txt.xz', '.jsonl', '.jsonl.gz', '.json', '.json.gz')
GET = 'curl -L https://huggingface.co/datasets/allenai/c4/resolve/main/en/{name}.json.gz'
# Most examples of one file: more would fill the memory with examples that no run reads.
MOST = 1_000_000


def denoising_task(name: str, folder: str, seed: int = 0) -> Task:
  """Plain text in a folder as a task: `c4/train.txt` or a file of C4, and so on for validation.

  Args:
    name: a key of NAMES; with a language "c4_prefix_lm.de" the files are `c4/train.de.txt`.
    folder: that holds the folder c4.
    seed: of the masks and cuts.

  Raises:
    UserError: no file for it.
  """
  base, _, language = name.partition('.')
  place = pathlib.Path(folder) / 'c4'
  files = {split: file for split in FILES if (file := _file(place, split, language))}
  if 'train' not in files:
    stem = f'train.{language}' if language else 'train'
    get = GET.format(name=FILES['train'][1])
    raise UserError(
      f'No text for {name} in {place}: expected {stem}.txt, {stem}.jsonl, or a file of C4. '
      f'Get one: {get} -o {place}/{FILES["train"][1]}.json.gz'
    )
  objective = NAMES[base]

  def loader(file: pathlib.Path):
    return lambda vocabulary, lengths: corrupted(
      read(file), vocabulary, lengths, objective, seed, name
    )

  return Task(
    name=name,
    splits={split: loader(file) for split, file in files.items()},
    labels=None,
    metrics=('exact_match',),
    about=f'{objective.replace("_", " ")} of {place}',
  )


def read(path: pathlib.Path) -> list[str]:
  """The documents of a text file, or the column "text" of JSON Lines."""
  if path.name.endswith(('.txt', '.txt.xz')):
    return text_stream.read_documents(path)
  texts = []
  for row in read_table(path).rows:
    if not isinstance(row.values.get('text'), str):
      fail(path, row.line, 'no text in the column "text"')
    texts.append(row.values['text'])
  return texts


def corrupted(
  documents: Sequence[str],
  vocabulary: Vocabulary,
  lengths: Lengths,
  objective: str,
  seed: int,
  task: str,
) -> list[Example]:
  """Chunks of the text, each corrupted once.

  Args:
    documents: joined, with an end of sequence after each.
    vocabulary: the model's.
    lengths: chunks are as long as the inputs allow; for span corruption the targets follow from
      them and must fit.
    objective: "span_corruption" or "prefix_lm".
    seed: of masks and cuts; chunk i depends on (seed, i) alone.
    task: name of the task.

  Raises:
    UserError: the text is shorter than a chunk, or the targets of span corruption do not fit.
  """
  check_lengths(lengths)
  tokens = text_stream.tokenise(list(documents), vocabulary)
  spans = objective == 'span_corruption'
  size = lengths.inputs + lengths.targets - 1
  if spans:
    if not vocabulary.sentinels:
      raise UserError(
        f'The vocabulary has no sentinels <extra_id_0>, ...: {task} masks spans by them.'
      )
    most = span_corruption.longest_inputs(len(vocabulary.sentinels), 0.15, 3.0)
    size = span_corruption.chunk_length(min(lengths.inputs, most), 0.15, 3.0)
    longest = span_corruption.corrupted_lengths(size, 0.15, 3.0)[1]
    if longest > lengths.targets:
      raise UserError(
        f'Span corruption of {lengths.inputs} input tokens has targets of {longest}, more than the '
        f'{lengths.targets} asked for; set target_length to {longest} or more.',
        ['target_length'],
      )
  number = min(len(tokens) // size, MOST)
  if not number:
    raise UserError(f'The text of {task} has {len(tokens)} tokens, less than a chunk of {size}.')
  done = []
  for i in range(number):
    rng = np.random.Generator(np.random.Philox(key=[seed, i]))
    chunk = tokens[i * size : (i + 1) * size]
    if spans:
      inputs, targets = span_corruption.corrupt_spans(
        rng, chunk, sentinels=vocabulary.sentinels, eos=vocabulary.eos_id
      )
    else:
      inputs, targets = span_corruption.prefix_lm(
        rng, chunk, lengths.inputs, lengths.targets, eos=vocabulary.eos_id
      )
    text = [
      vocabulary.decode([t for t in ids if t != vocabulary.eos_id]) for ids in (inputs, targets)
    ]
    done.append(Example(inputs, targets, text[0], text[1], None, {}, task))
  return done


def _file(place: pathlib.Path, split: str, language: str) -> pathlib.Path | None:
  stems = [f'{split}.{language}'] if language else FILES[split]
  paths = [place / f'{stem}{ending}' for stem in stems for ending in ENDINGS]
  return next((p for p in paths if p.is_file()), None)
