"""Arguments of single verbs that are not settings of a run file."""

import argparse

from prompt_jax.configuration.run_files import listed, whole, whole_or_zero

FORMATS = (
  'npy',
  'numpy_checkpoints',
  't5x',
  'peft',
  'hf',
  'ctranslate2',
  'stablehlo',
  'savedmodel',
)
QUANTIZE = ('int8', 'int8_float32', 'int8_float16', 'int16', 'float16')
OPERATIONS = ('average', 'add', 'concatenate', 'keep')
PLACEMENTS = ('before', 'after_bos', 'before_eos', 'after_eos')
_OWN_FILE = (
  ('data', 'FILE', 'a file of your own instead of a named task, as in train'),
  ('validation', 'FILE', 'its validation file'),
  ('test', 'FILE', 'its test file'),
  ('text', 'COLUMN', 'column of the text; several: a,b'),
  ('label', 'COLUMN', 'column of the label'),
  ('inputs', 'COLUMN', 'column of the inputs of a text-to-text file'),
  ('targets', 'COLUMN', 'column of its targets'),
)
_MODEL = 'the model that the prompt was trained on; default: the one that the file names'
_VOCABULARY = "a SentencePiece model, or 'bytes', for a model without one (T5X)"


def _sweep(parser: argparse.ArgumentParser) -> None:
  parser.add_argument('file', nargs='?', metavar='FILE', help='a gin file: see gin/runs/sweep.gin')


def _plan(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    '--model', metavar='NAME', help='a file of gin/models, such as t5_1_1/xxl, or a model folder'
  )


def _infer(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    'texts', nargs='*', metavar='TEXT', help='texts; default: --input or standard input'
  )


def _serve(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    'prompts', nargs='*', metavar='PROMPT_FILE',
    help='prompts of one model, or folders of runs for all below; with --engine=ctranslate2 '
    'the folder of an export',
  )  # fmt: skip
  parser.add_argument(
    '--engine', choices=('jax', 'ctranslate2'), default='jax', help='what computes (default: jax)'
  )


def _convert(parser: argparse.ArgumentParser) -> None:
  parser.add_argument(
    'source',
    metavar='SOURCE',
    help='a model folder (ours or of Hugging Face), a T5X checkpoint, or a GGUF file',
  )
  parser.add_argument('dest', metavar='DEST', help='a folder that does not exist yet')


def _compare(parser: argparse.ArgumentParser) -> None:
  add = parser.add_argument
  add('a', metavar='A', help='an output folder of train or eval, or a file of predictions')
  add('b', metavar='B', help='another one, for the same examples')
  add('--metric', nargs='+', metavar='NAME', help="metrics; default: the task's")
  add('--vocabulary', metavar='FILE', help='a SentencePiece model, for sp_rouge')
  add(
    '--examples', type=whole_or_zero, default=0, metavar='N',
    help='show N examples that only one system answers correctly (default: 0)',
  )  # fmt: skip
  add(
    '--resamples', type=whole, default=1000, metavar='N',
    help='resamples of the paired bootstrap (default: 1000)',
  )  # fmt: skip


def _report(parser: argparse.ArgumentParser) -> None:
  add = parser.add_argument
  names = listed(str)
  add('folders', nargs='+', metavar='FOLDER', help='folders of runs, at any depth')
  add('--output', metavar='DIR', help='write report.html, report.md, runs.csv and plots there')
  add(
    '--columns', type=names, metavar='NAME,NAME',
    help='columns to show: properties, scores, or settings such as STEPS',
  )  # fmt: skip
  add('--sort', metavar='NAME', help='order by a column; --sort=-accuracy: highest first')
  add(
    '--group_by', type=names, metavar='NAME,NAME',
    help='combine runs with the same values in these columns into one row',
  )  # fmt: skip


def _tasks(parser: argparse.ArgumentParser) -> None:
  add = parser.add_argument
  add(
    'name', nargs='*', metavar='NAME',
    help='task to show; "check NAME" checks its data, "check --data FILE" your own',
  )  # fmt: skip
  add('--filter', metavar='WORD', help='list the tasks with this word in name, kind or language')
  add(
    '--examples', type=whole, default=3, metavar='N',
    help='examples of each split to show (default: 3)',
  )  # fmt: skip
  add(
    '--sample', type=whole, default=1000, metavar='N',
    help='examples of each split to check (default: 1000)',
  )  # fmt: skip
  add('--folder', metavar='DIR', help='folder that contains the folders of data sets')
  add(
    '--module', action='append', default=[], metavar='NAME',
    help='a Python module that registers seqio tasks; repeatable',
  )  # fmt: skip
  for name, metavar, what in _OWN_FILE:
    add(f'--{name}', metavar=metavar, help=what)
  add('--record', metavar='FILE', help='write the tokenized examples to an .npz file')
  add(
    '--model', default='embedded', metavar='NAME',
    help='model whose vocabulary is used (default: embedded)',
  )  # fmt: skip
  add('--vocabulary', metavar='FILE', help='a SentencePiece model or "bytes" instead')
  for name, most, what in (('input_length', 128, 'an input'), ('target_length', 64, 'a target')):
    add(
      f'--{name}', type=whole, default=most, metavar='N',
      help=f'maximum tokens of {what} (default: {most})',
    )  # fmt: skip


def _methods(parser: argparse.ArgumentParser) -> None:
  add = parser.add_argument
  add('--filter', metavar='WORD', help='only methods with this word in their line')
  add('--markdown', action='store_true', help='print a table in Markdown')


def _inspect(parser: argparse.ArgumentParser) -> None:
  add = parser.add_argument
  add('file', metavar='FILE', help='a prompt file; or a model, to list its arrays')
  add('--model', metavar='NAME', help=_MODEL)
  add('--vocabulary', metavar='FILE', help=_VOCABULARY)
  add('--plots', metavar='DIR', help='also write PNG plots there')


def _import(parser: argparse.ArgumentParser) -> None:
  add = parser.add_argument
  add('source', metavar='SOURCE', help='an .npy file, a T5X checkpoint, or a PEFT folder')
  add('destination', metavar='DEST', help='the prompt file to write')
  add(
    '--model', default='embedded', metavar='NAME',
    help='the model that the prompt was trained on (default: embedded)',
  )  # fmt: skip
  add('--vocabulary', metavar='FILE', help=_VOCABULARY)
  add('--labels', metavar='A,B', help='labels to rank; default: generate text')
  add(
    '--placement', choices=PLACEMENTS,
    help='where the prompt rows are placed; default: before the input',
  )  # fmt: skip


def _export(parser: argparse.ArgumentParser) -> None:
  add = parser.add_argument
  add(
    'files', nargs='+', metavar='PROMPT_FILE',
    help='prompt files, or folders of train, population and sweep for all prompts below',
  )  # fmt: skip
  add('destination', metavar='DEST', help='the file or folder to write, which does not exist yet')
  add(
    '--to', choices=FORMATS, required=True,
    help='format to write; from hf on: the model with all prompts, ready to serve',
  )  # fmt: skip
  add(
    '--names', type=listed(str), metavar='A,B',
    help="names of the prompts; default: the files', prompt.safetensors that of its folder",
  )  # fmt: skip
  add('--model', metavar='NAME', help=_MODEL)
  add('--vocabulary', metavar='FILE', help=_VOCABULARY)
  add('--base_model', metavar='NAME', help='name of the model for PEFT; default: the recorded one')
  add(
    '--quantize', choices=QUANTIZE,
    help='numbers of ctranslate2; prints how many answers stay the same (default: float32)',
  )  # fmt: skip
  add(
    '--samples', metavar='FILE',
    help='texts, a line each, on which such a model must answer like infer; default: a few',
  )  # fmt: skip
  add(
    '--least_agreement', type=float, default=0.9, metavar='X',
    help='share of equal answers on them that --quantize must have (default: 0.9)',
  )  # fmt: skip


def _edit(parser: argparse.ArgumentParser) -> None:
  add = parser.add_argument
  add('operation', choices=OPERATIONS, metavar='OPERATION', help=', '.join(OPERATIONS))
  add('files', nargs='+', metavar='PROMPT_FILE', help='prompt files of one model')
  add('destination', metavar='DEST', help='the prompt file to write, which does not exist yet')
  add(
    '--weights', type=listed(float, '1,-0.5'), metavar='X,X',
    help='of each file, for average and add; a negative one subtracts (default: 1 each)',
  )  # fmt: skip
  add(
    '--rows', type=listed(int, '0,1,-1'), metavar='N,N',
    help='the rows that keep keeps, in this order; 0 is the first, -1 the last',
  )  # fmt: skip


# By verb.
ADD = {
  'sweep': _sweep,
  'plan': _plan,
  'infer': _infer,
  'serve': _serve,
  'convert': _convert,
  'compare': _compare,
  'report': _report,
  'tasks': _tasks,
  'methods': _methods,
  'edit': _edit,
  'inspect': _inspect,
  'import': _import,
  'export': _export,
}
