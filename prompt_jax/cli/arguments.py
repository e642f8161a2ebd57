"""The flags of every verb. Imports nothing heavy: `--help` must be immediate.

Most are shortcuts for gin macros, see shortcuts.py; the others are here.
"""

import argparse
from typing import Any, NoReturn

from prompt_jax import __version__
from prompt_jax.cli import report_arguments
from prompt_jax.cli.flag_types import (
  at_least_one,
  at_least_zero,
)
from prompt_jax.cli.shortcuts import FOLDER, MODEL, MODULE, SHORTCUTS, VOCABULARY, Flag
from prompt_jax.cli.usage import EXAMPLES, OVERVIEW, VERBS
from prompt_jax.errors import UserError, unknown

# Whose file is not named after the verb: `import` is a keyword, export goes with it, and report.py
# is the table at the end of a run.
FILES = {'import': 'import_prompt'}
FORMS = ('npy', 'numpy_checkpoints', 't5x', 'peft')
PLACEMENTS = ('before', 'after_bos', 'before_eos', 'after_eos')
# Names in the parsed arguments that are no flags.
POSITIONAL = ('verb', '_', 'texts', 'file', 'name', 'source', 'dest', 'destination', 'a', 'b',
              'folders')  # fmt: skip


class _Parser(argparse.ArgumentParser):
  """argparse with our errors: one line, and the nearest flags for a misspelt one."""

  def error(self, message: str) -> NoReturn:
    raise UserError(f'{message}. See {self.prog} --help')


def build() -> _Parser:
  top = _Parser(
    prog='prompt-jax',
    description='Soft-prompt tuning of frozen T5-family models.',
    epilog=OVERVIEW,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  top.add_argument('--version', action='version', version=f'prompt-jax {__version__}')
  verbs = top.add_subparsers(dest='verb', metavar='VERB', parser_class=_Parser)
  for verb, summary in VERBS.items():
    sub = verbs.add_parser(
      verb,
      help=summary,
      description=f'{summary[0].upper()}{summary[1:]}.',
      epilog='examples:' + EXAMPLES[verb],
      formatter_class=argparse.RawDescriptionHelpFormatter,
      allow_abbrev=False,
    )
    for flag in SHORTCUTS[verb]:
      _add(sub, flag)
    _own_arguments(verb, sub)
  return top


def _add(sub: argparse.ArgumentParser, flag: Flag) -> None:
  if flag.switch:
    sub.add_argument(f'--{flag.name}', action='store_const', const=True, help=flag.help)
    return
  action = 'append' if flag.many else 'store'
  options: dict[str, Any] = {'nargs': '+'} if flag.several else {}
  sub.add_argument(
    f'--{flag.name}', type=flag.type, metavar=flag.metavar, help=flag.help, action=action, **options
  )


def _own_arguments(verb: str, sub: argparse.ArgumentParser) -> None:
  """Arguments that are not shortcuts for a gin macro."""
  if verb in ('train', 'population'):
    sub.add_argument('--prompt', metavar='METHOD', help='prompt method: a file of gin/prompts')
    sub.add_argument('--init', metavar='NAME', help='initialiser: a file of gin/inits')
  if verb in ('train', 'population', 'eval', 'infer'):
    _of_processes(sub)
  if verb == 'sweep':
    sub.add_argument('file', nargs='?', metavar='FILE', help='a gin file: see gin/runs/sweep.gin')
  if verb == 'plan':
    sub.add_argument(
      '--model', metavar='NAME', help='a file of gin/models, as t5_1_1/xxl, or a model folder'
    )
    sub.add_argument('--prompt', metavar='METHOD', help='prompt method: a file of gin/prompts')
  if verb == 'infer':
    sub.add_argument(
      'texts', nargs='*', metavar='TEXT', help='texts; without any, --input or stdin'
    )
    sub.add_argument('--decoding', metavar='NAME', help='how to decode: a file of gin/decoding')
  if verb in ('inspect', 'import', 'export'):
    _of_prompt_files(verb, sub)
  if verb == 'tasks':
    _of_tasks(sub)
  if verb == 'compare':
    _of_comparisons(sub)
  if verb == 'report':
    report_arguments.add_to(sub)
  if verb == 'convert':
    sub.add_argument('source', metavar='SOURCE', help=MODEL.help)
    sub.add_argument('dest', metavar='DEST', help='a folder that does not exist yet')
  if configured(verb):
    _of_gin(sub)


def _of_comparisons(sub: argparse.ArgumentParser) -> None:
  """Arguments of the verb that compares two systems."""
  what = 'an output folder of train or eval, or a file of predictions'
  sub.add_argument('a', metavar='A', help=what)
  sub.add_argument('b', metavar='B', help='another, of the same examples')
  sub.add_argument(
    '--metric', nargs='+', metavar='NAME', help="to compare by, if not by the task's own"
  )
  sub.add_argument('--vocabulary', metavar='FILE', help='a SentencePiece model, for sp_rouge')
  sub.add_argument(
    '--examples', type=at_least_zero, default=0, metavar='N',
    help='show so many that only one has right',
  )  # fmt: skip
  sub.add_argument(
    '--resamples', type=at_least_one, default=1000, metavar='N', help='of the paired bootstrap'
  )


def _of_processes(sub: argparse.ArgumentParser) -> None:
  """Where the processes of a run meet; what differs between them is no setting of the run."""
  several = sub.add_argument_group('several processes (found alone on a TPU pod and under srun)')
  add = several.add_argument
  add('--coordinator', metavar='HOST:PORT', help='an address of the first process')
  add('--processes', type=at_least_one, metavar='N', help='how many there are')
  add('--process', type=at_least_zero, metavar='I', help='number of this one, from 0')


def _of_tasks(sub: argparse.ArgumentParser) -> None:
  """Arguments of the verb that shows and checks data."""
  add = sub.add_argument
  add('name', nargs='*', metavar='NAME', help='show this task; "check NAME": lengths, labels, ...')
  add('--filter', metavar='WORD', help='list the tasks of a kind, language or name')
  add('--examples', type=at_least_one, default=3, metavar='N', help='how many to show')
  add('--sample', type=at_least_one, default=1000, metavar='N', help='how many to check')
  add('--folder', metavar='DIR', help=FOLDER.help)
  add('--module', action='append', default=[], metavar='NAME', help=MODULE.help)
  add('--record', metavar='FILE', help='write the tokenised examples to an .npz file')
  add('--model', default='embedded', help='whose vocabulary records or checks')
  add('--vocabulary', metavar='FILE', help='a SentencePiece model or "bytes" instead')
  for name, most in (('input_length', 128), ('target_length', 64)):
    add(f'--{name}', type=at_least_one, default=most, metavar='N', help='most tokens')


def _of_prompt_files(verb: str, sub: argparse.ArgumentParser) -> None:
  """Arguments of the verbs that read or write a prompt file and train nothing."""
  if verb == 'inspect':
    sub.add_argument('file', metavar='FILE', help='a prompt file; or a model, to list its arrays')
    sub.add_argument(
      '--model', default=None, help='the model it was tuned on, if not the recorded one'
    )
    sub.add_argument('--vocabulary', metavar='FILE', help=VOCABULARY.help)
    sub.add_argument('--plots', metavar='DIR', help='also write PNG plots there')
  if verb == 'import':
    sub.add_argument(
      'source', metavar='SOURCE', help='a .npy file, a checkpoint of T5X, or a PEFT folder'
    )
    sub.add_argument('destination', metavar='DEST', help='the prompt file to write')
    sub.add_argument('--model', default='embedded', help='the model it was trained on')
    sub.add_argument('--vocabulary', metavar='FILE', help=VOCABULARY.help)
    sub.add_argument('--labels', metavar='A,B', help='what it answers, to rank instead of write')
    sub.add_argument(
      '--placement', choices=PLACEMENTS, help='where its rows go, if not before the input'
    )
  if verb == 'export':
    sub.add_argument('file', metavar='PROMPT_FILE', help='a prompt file')
    sub.add_argument('destination', metavar='DEST', help='the file or folder to write')
    sub.add_argument('--to', choices=FORMS, required=True, help='its form')
    sub.add_argument(
      '--model', default=None, help='the model it was tuned on, if not the recorded one'
    )
    sub.add_argument('--vocabulary', metavar='FILE', help=VOCABULARY.help)
    sub.add_argument(
      '--base_model', metavar='NAME', help='what PEFT calls the model, if not as recorded'
    )


def _of_gin(sub: argparse.ArgumentParser) -> None:
  gin = sub.add_argument_group('configuration')
  gin.add_argument('--gin_file', action='append', default=[], metavar='FILE', help='repeatable')
  gin.add_argument('--gin_search_paths', default='', metavar='DIR,DIR', help='where to look for it')
  gin.add_argument(
    '--gin.NAME=VALUE',
    dest='_',
    action='store_const',
    const=None,
    help='set a macro (--gin.STEPS=100) or a binding (--gin.InputPrompt.length=20)',
  )


def configured(verb: str) -> bool:
  """Whether the verb has a gin run file."""
  return bool(SHORTCUTS[verb])


def parse(argv: list[str]) -> argparse.Namespace:
  """Parses the command line. `args.gin` holds the `--gin.` settings as (name, value) pairs."""
  _refuse_other_encodings(argv)
  end = argv.index('--') if '--' in argv else len(argv)
  flags, texts = argv[:end], argv[end:]  # what stands behind -- is taken as it is
  settings = [a for a in flags if a.startswith('--gin.')]
  rest = [_underscores(a) for a in flags if not a.startswith('--gin.')]
  parser = build()
  args, extra = parser.parse_known_args([*rest, *texts])
  if args.verb is None:
    raise UserError(f'no verb given: one of {", ".join(VERBS)}. See prompt-jax --help')
  if extra:
    known = [f'--{name}' for name in vars(args) if name not in POSITIONAL]
    raise unknown(f'argument of prompt-jax {args.verb}', extra[0].split('=')[0], known)
  if settings and not configured(args.verb):
    raise UserError(
      f'prompt-jax {args.verb} has no gin configuration, so {settings[0]} sets nothing'
    )
  args.gin = [_setting(s) for s in settings]
  return args


def _refuse_other_encodings(argv: list[str]) -> None:
  """Python passes on bytes that are not UTF-8 as halves of characters, which no file can hold."""
  for number, arg in enumerate(argv, 1):
    try:
      arg.encode('utf-8')
    except UnicodeEncodeError:
      raise UserError(
        f'Argument {number}, {arg!a}, is not UTF-8. Write a text in UTF-8; a file of such a '
        'name needs another one.'
      ) from None


def _underscores(arg: str) -> str:
  """--batch-size=8 -> --batch_size=8."""
  if not arg.startswith('--'):
    return arg
  name, equals, value = arg.partition('=')
  return '--' + name[2:].replace('-', '_') + equals + value


def _setting(arg: str) -> tuple[str, str]:
  name, equals, value = arg.removeprefix('--gin.').partition('=')
  if not equals or not name or not value:
    raise UserError(f'{arg!r} sets nothing; write --gin.NAME=VALUE, for instance --gin.STEPS=100')
  return name, value


def shortcuts(args: argparse.Namespace) -> list[tuple[Flag, Any]]:
  """The shortcuts that the user gave, with their values."""
  given = ((f, getattr(args, f.name)) for f in SHORTCUTS[args.verb])
  alone = lambda f, v: v[0] if f.several and len(v) == 1 else v
  return [(f, alone(f, v)) for f, v in given if v is not None]
