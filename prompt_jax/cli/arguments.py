"""The command line of every verb, parsed. Imports nothing heavy: `--help` must be immediate.

Most flags are settings of the verb's run file (configuration/run_files.py); own_arguments.py
has those of single verbs that are not.
"""

import argparse
import shlex
from typing import Any, NoReturn

from prompt_jax import __version__
from prompt_jax.cli import own_arguments
from prompt_jax.cli.usage import EXAMPLES, OVERVIEW, VERBS
from prompt_jax.configuration import other_names
from prompt_jax.configuration.run_files import (
  CHOSEN,
  Request,
  Setting,
  is_configured,
  names,
  settings_of,
  whole,
  whole_or_zero,
)
from prompt_jax.errors import UserError

# A verb whose file has another name, because `import` is a keyword.
FILES = {'import': 'import_prompt'}
# Names in the parsed arguments that are no flags.
POSITIONAL = ('verb', '_', 'texts', 'file', 'files', 'name', 'source', 'dest', 'destination', 'a',
              'b', 'folders', 'prompts', 'operation')  # fmt: skip
# Flags that read a gin file by its name, by verb and section of the help.
_CHOSEN = {
  ('train', 'Prompt'): ('prompt', 'init'),
  ('population', 'Prompt'): ('prompt', 'init'),
  ('plan', 'Prompt'): ('prompt',),
  ('infer', 'Generated text'): ('decoding',),
}
_POSITIONAL = {
  'sweep': '[FILE]', 'infer': '[TEXT ...]', 'convert': 'SOURCE DEST', 'compare': 'A B',
  'report': 'FOLDER ...', 'tasks': '[check] [NAME | --data FILE]', 'inspect': 'FILE',
  'import': 'SOURCE DEST',
  'serve': 'PROMPT_FILE...',
  'export': 'PROMPT_FILE... DEST',
  'edit': 'OPERATION PROMPT_FILE... DEST',
}  # fmt: skip


class _Parser(argparse.ArgumentParser):
  """argparse with our errors: one line, and the nearest flags for a misspelt one."""

  def error(self, message: str) -> NoReturn:
    raise UserError(f'{message}. See {self.prog} --help')


class _Help(argparse.RawDescriptionHelpFormatter):
  """Short lines in the list of flags: the metavar stands once."""

  def __init__(self, prog: str) -> None:
    super().__init__(prog, max_help_position=32)

  def _format_action_invocation(self, action: argparse.Action) -> str:
    if not action.option_strings or action.nargs == 0:
      return super()._format_action_invocation(action)
    several = '...' if action.nargs == '+' else ''
    return f'{", ".join(action.option_strings)} {action.metavar or _choices(action)}{several}'


def _choices(action: argparse.Action) -> str:
  return '|'.join(action.choices) if action.choices else action.dest.upper()


def build(verb: str | None = None) -> _Parser:
  """The parser, complete for one verb; of the others only the names and summaries."""
  top = _Parser(
    prog='prompt-jax',
    description='Soft-prompt tuning of frozen T5s and decoder-only models.',
    epilog=OVERVIEW,
    formatter_class=argparse.RawDescriptionHelpFormatter,
    allow_abbrev=False,
  )
  top.add_argument('--version', action='version', version=f'prompt-jax {__version__}')
  verbs = top.add_subparsers(dest='verb', metavar='VERB', parser_class=_Parser)
  for name, summary in VERBS.items():
    if name != verb:
      verbs.add_parser(name, help=summary)
      continue
    sub = verbs.add_parser(
      name,
      help=summary,
      usage=_usage(name),
      description=f'{summary[0].upper()}{summary[1:]}.',
      epilog='examples:' + EXAMPLES[name],
      formatter_class=_Help,
      allow_abbrev=False,
    )
    _add_arguments(name, sub)
  return top


def _add_arguments(verb: str, sub: argparse.ArgumentParser) -> None:
  groups: dict[str, Any] = {'': sub}
  for setting in _unique(verb):
    if setting.section not in groups:
      groups[setting.section] = group = sub.add_argument_group(setting.section)
      _add_files(verb, setting.section, group)
    _add(groups[setting.section], setting)
  if verb in own_arguments.ADD:
    own_arguments.ADD[verb](sub)
  if verb in ('train', 'population', 'eval', 'infer'):
    _add_processes(sub)
  if is_configured(verb):
    _add_gin(sub)


def _usage(verb: str) -> str:
  """The first line of the help."""
  return ' '.join(['prompt-jax', verb, _POSITIONAL.get(verb, ''), '[options]']).replace('  ', ' ')


def _add_files(verb: str, section: str, group: Any) -> None:
  """Adds the flags of a section that read a gin file by its name."""
  for flag in _CHOSEN.get((verb, section), ()):
    _, folder, metavar, what = CHOSEN[flag]
    known = ', '.join(names(folder))
    group.add_argument(f'--{flag}', metavar=metavar, help=f'{what}, of gin/{folder}: {known}')


def _add_gin(parser: argparse.ArgumentParser) -> None:
  """The arguments of every verb with a run file."""
  group = parser.add_argument_group('Configuration (docs/configuration.md)')
  add = group.add_argument
  add('--gin_file', action='append', default=[], metavar='FILE', help='a gin file; repeatable')
  add('--gin_search_paths', default='', metavar='DIR,DIR', help='folders to look for it in')
  add(
    '--gin.NAME=VALUE',
    dest='_',
    action='store_const',
    const=None,
    help='set a macro (--gin.STEPS=100) or a binding (--gin.InputPrompt.length=20)',
  )


def _add_processes(parser: argparse.ArgumentParser) -> None:
  """How the processes of a run connect. These arguments are not settings of the run."""
  group = parser.add_argument_group('Several processes (detected on a TPU pod and under srun)')
  add = group.add_argument
  add('--coordinator', metavar='HOST:PORT', help='address of the first process')
  add('--processes', type=whole, metavar='N', help='number of processes')
  add('--process', type=whole_or_zero, metavar='I', help='number of this process, from 0')


def _unique(verb: str) -> list[Setting]:
  """The settings of a verb, each once."""
  return list({s.macro: s for s in settings_of(verb).values()}.values())


def _add(group: Any, setting: Setting) -> None:
  flags = [f'--{name}' for name in setting.names]
  text = _help(setting).replace('%', '%%')
  if setting.switch:
    if setting.default:
      flags, text = [f'--no_{name}' for name in setting.names], f'leave out: {text}'
    group.add_argument(
      *flags, dest=setting.name, action='store_const', const=not setting.default, help=text
    )
    return
  options: dict[str, Any] = {'nargs': '+', 'action': 'extend'} if setting.several else {}
  group.add_argument(
    *flags, dest=setting.name, type=setting.type, metavar=setting.kind, help=text, **options
  )


def _help(setting: Setting) -> str:
  """The help with the default, if that is a value and the help does not say it."""
  default, text = setting.default, setting.help
  silent = setting.switch or 'default' in text or default in (None, '', (), [], {})
  if silent or (isinstance(default, str) and default.startswith(('%', '@'))):
    return text
  if isinstance(default, tuple | list):
    default = ','.join(map(str, default))
  return f'{text} (default: {default})'


def parse(argv: list[str]) -> argparse.Namespace:
  """Parses the command line. `args.gin` holds the `--gin.` settings as (name, value) pairs, and
  `args.command` all of it."""
  _refuse_other_encodings(argv)
  end = argv.index('--') if '--' in argv else len(argv)
  flags, texts = argv[:end], argv[end:]  # what follows -- is taken literally
  settings = [a for a in flags if a.startswith('--gin.')]
  rest = [_underscores(a) for a in flags if not a.startswith('--gin.')]
  parser = build(next((a for a in rest if not a.startswith('-')), None))
  args, extra = parser.parse_known_args([*rest, *texts])
  if args.verb is None:
    raise UserError(f'no verb given: one of {", ".join(VERBS)}. See prompt-jax --help')
  if extra:
    raise _unknown(args, extra[0].split('=')[0])
  if settings and not is_configured(args.verb):
    raise UserError(
      f'prompt-jax {args.verb} has no gin configuration, so {settings[0]} sets nothing'
    )
  args.gin = [_setting(s) for s in settings]
  args.command = f'prompt-jax {shlex.join(argv)}'
  return args


def _unknown(args: argparse.Namespace, got: str) -> UserError:
  """The error for an argument that does not exist, with what the user may have meant."""
  known = {*settings_of(args.verb), *(n for n in vars(args) if n not in POSITIONAL)}
  flag = got.startswith('--')
  hint = other_names.hint(got.removeprefix('--'), known, '--') if flag else ''
  return UserError(
    f'Unknown argument of prompt-jax {args.verb} {got!r}.{hint} See prompt-jax {args.verb} --help'
  )


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


def given(args: argparse.Namespace) -> list[tuple[Setting, Any]]:
  """The settings of the run file that the user gave as flags, with their values."""
  found = ((s, getattr(args, s.name)) for s in _unique(args.verb))
  return [(setting, value) for setting, value in found if value is not None]


def request_of(args: argparse.Namespace) -> Request:
  """The flags as settings by macro, and what was given as gin text.

  Args:
    args: of the verb, see `arguments.parse`.
  """
  flags = given(args)
  settings = {setting.macro: value for setting, value in flags}
  origins = {setting.macro: f'--{setting.name}' for setting, _ in flags}
  for name, chosen in CHOSEN.items():
    if getattr(args, name, None) is not None:
      settings[chosen.macro], origins[chosen.macro] = getattr(args, name), f'--{name}'
  return Request(
    settings=settings,
    bindings=args.gin,
    files=args.gin_file,
    search=[folder for folder in args.gin_search_paths.split(',') if folder],
    origins=origins,
    command=args.command,
  )
