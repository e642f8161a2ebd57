"""The settings of each verb, read from gin/runs/VERB.gin as text: no gin is imported.

The run file is the one place of a setting: its name, default, type and help.

    # How long                                        a heading, after an empty line

    STEPS = 1000  # N: training steps                 the flag --steps N
    MODULES = ()  # --module NAME...: modules that    --module or --modules, one or more values
      # register tasks                                the help goes on
    LOSS = @losses.Loss()  # what is minimized        no flag: set in a gin file

The word before the colon is the metavar of the flag and says its type: see `TYPES`; any other word
is a text, and a|b are the values of one. A verb has the settings that its function reads: the
function is the last thing that the file binds, and a setting is read if it is reached from there. A
file that sets a macro of an include again changes the default; "no flag" takes the flag away.

A `Request` is what a user asks of a verb, on the command line or in Python.
"""

import argparse
import ast
import dataclasses
import functools
import pathlib
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import prompt_jax


def whole(text: str, least: int = 1) -> int:
  """A whole number of at least `least`."""
  try:
    n = int(text)
  except ValueError:
    n = least - 1
  if n < least:
    raise argparse.ArgumentTypeError(f'{text!r} is not a whole number of at least {least}')
  return n


def whole_or_zero(text: str) -> int:
  return whole(text, 0)


def number(text: str) -> float:
  try:
    return float(text)
  except ValueError:
    raise argparse.ArgumentTypeError(f'{text!r} is not a number') from None


def seed(text: str) -> int:
  """A seed of jax.random, which has 32 bits."""
  try:
    n = int(text)
  except ValueError:
    n = -1
  if not 0 <= n < 2**32:
    raise argparse.ArgumentTypeError(f'{text!r} is not a whole number from 0 to {2**32 - 1}')
  return n


def mesh(text: str) -> tuple[int, int]:
  """'4x2' -> (4, 2)."""
  sides = text.split('x')
  if len(sides) != 2 or not all(side.isdecimal() and int(side) for side in sides):
    raise argparse.ArgumentTypeError(f'{text!r} is not a mesh; write DATAxMODEL devices, as 4x2')
  return int(sides[0]), int(sides[1])


def mapping(text: str) -> dict[str, Any]:
  """'{"rte": 2}' -> {'rte': 2}, in the notation of Python."""
  try:
    value = ast.literal_eval(text)
  except (ValueError, SyntaxError, MemoryError, RecursionError):
    value = None
  if not isinstance(value, dict):
    raise argparse.ArgumentTypeError(f"{text!r} is not a mapping such as {{'name': 1}}")
  return value


def listed(kind: Callable[[str], Any], example: str = '') -> Callable[[str], list[Any]]:
  """The type of a comma-separated list: '0.3,1' -> [0.3, 1.0].

  Args:
    kind: the type of each element.
    example: a list that is right, for the message about one that is not.
  """

  def parse(text: str) -> list[Any]:
    try:
      return [kind(part) for part in text.split(',')]
    except argparse.ArgumentTypeError as e:
      raise argparse.ArgumentTypeError(f'{e}; expected a list such as {example}') from None

  return parse


TYPES: dict[str, Callable[[str], Any]] = {
  'N': whole,
  'N>=0': whole_or_zero,
  'X': number,
  'SEED': seed,
  'DATAxMODEL': mesh,
  '{...}': mapping,
  'N,N': listed(whole, '20,100'),
  'X,X': listed(number, '0.3,1'),
  'SEED,SEED': listed(seed, '0,1,2'),
  'NAME,NAME': listed(str),
}
SWITCH = 'switch'


class Chosen(NamedTuple):
  """A setting whose value may be the name of a gin file.

  Attributes:
    macro: of gin.
    folder: in gin/, of the files.
    kind: what a value is, as `--help` shows it.
    help: what is chosen.
  """

  macro: str
  folder: str
  kind: str
  help: str


# By the name of the flag and of the Python keyword.
CHOSEN = {
  'prompt': Chosen(
    'PROMPT',
    'prompts',
    'METHOD',
    "prompt method (default: the one that the model's config.json recommends, else input)",
  ),
  'init': Chosen('PROMPT_INIT', 'inits', 'NAME', 'initializer of the prompt'),
  'decoding': Chosen('DECODING', 'decoding', 'NAME', 'file of these settings'),
}

_INCLUDE = re.compile(r"include '([\w/.]+)'")
_BLOCK = re.compile(r'([\w/.]+):$')
_BINDING = re.compile(r'( *)([\w/.]+) = (.*?)(?:  # (.*))?$')
_FLAG = re.compile(
  r'(?P<names>(?:--\w+ )*)(?P<kind>switch|\{\.\.\.\}|[A-Z][^\s.]*|[a-z0-9_]+(?:\|[a-z0-9_]+)+)'
  r'(?P<several>\.\.\.)?: (?P<help>.+)'
)
_REFERENCE = re.compile(r'[%@](?:\w+/)*([\w.]+)')


class Setting(NamedTuple):
  """One setting of a verb.

  Attributes:
    names: of the flag and of the Python keyword, the usual one first.
    macro: of gin.
    default: a value; the text of what gin makes, such as "@losses.Loss()".
    help: one sentence.
    kind: what a value is, as `--help` shows it: "N", "FILE", "rank|generate", ...
    several: whether the flag takes one or more values.
    section: the heading that it stands below; '' for none.
  """

  names: tuple[str, ...]
  macro: str
  default: Any
  help: str
  kind: str
  several: bool
  section: str

  @property
  def name(self) -> str:
    return self.names[0]

  @property
  def type(self) -> Callable[[str], Any]:
    """Reads a value from text; raises argparse.ArgumentTypeError."""
    return TYPES.get(self.kind, str)

  @property
  def switch(self) -> bool:
    """Whether the flag has no value."""
    return self.kind == SWITCH

  def value(self, given: Any) -> Any:
    """What the macro becomes: one of several values stands alone where no list is expected."""
    listed = isinstance(given, list | tuple) and len(given) == 1
    alone = listed and self.several and not isinstance(self.default, tuple | list)
    return given[0] if alone else given


@dataclasses.dataclass(frozen=True)
class Request:
  """What a user asks of a verb.

  Attributes:
    settings: macro name -> Python value, literals and objects alike; those of `CHOSEN` also a name.
    bindings: (name, value) of macros or bindings as gin text, such as ("adafactor.decay", "0.7").
    files: gin files, by path or name.
    search: folders in which they and what they include are looked for.
    includes: (subfolder, name) of gin files of the package, such as ("prompts", "prefix").
    origins: macro name -> how it was given, for messages ("--steps"); else the name itself.
    command: the command line or call.
  """

  settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
  bindings: Sequence[tuple[str, str]] = ()
  files: Sequence[str] = ()
  search: Sequence[str] = ()
  includes: Sequence[tuple[str, str]] = ()
  origins: Mapping[str, str] = dataclasses.field(default_factory=dict)
  command: str = ''


def folder() -> pathlib.Path:
  """The package's gin files: prompt_jax/gin where installed, gin/ beside it in a checkout."""
  package = pathlib.Path(prompt_jax.__file__).parent
  installed = package / 'gin'
  return installed if installed.is_dir() else package.parent / 'gin'


def names(subfolder: str, root: pathlib.Path | None = None) -> list[str]:
  """What can be named there: names('prompts') -> ['adept', 'input', ...]; None: in the package."""
  root = (root or folder()) / subfolder
  return sorted(p.relative_to(root).with_suffix('').as_posix() for p in root.rglob('*.gin'))


def is_configured(verb: str) -> bool:
  """Whether the verb has a run file."""
  return (folder() / f'runs/{verb}.gin').is_file()


def settings_of(verb: str) -> dict[str, Setting]:
  """The settings of a verb by each of their names, in the order of the file; none without a file.

  settings_of('train')['steps'] -> Setting(macro='STEPS', default=1000, ...)
  """
  return dict(_settings_in(folder() / f'runs/{verb}.gin')) if is_configured(verb) else {}


@functools.cache
def _settings_in(path: pathlib.Path) -> dict[str, Setting]:
  """See `settings_of`; a command asks several times."""
  found = _File()
  found.read(path)
  read = found.reached()
  chosen = [setting for macro, setting in found.settings.items() if macro in read]
  return {name: setting for setting in chosen for name in setting.names}


class _File:
  """What a run file and its includes say.

  Attributes:
    values: text of the value by macro, and texts of the values by what they are bound to.
    settings: by macro.
    last: what was bound last in a block.
    macro: the last one that was set.
    section: the last heading.
  """

  def __init__(self) -> None:
    self.values: dict[str, list[str]] = {}
    self.settings: dict[str, Setting] = {}
    self.last = self.macro = self.section = ''

  def read(self, path: pathlib.Path) -> None:
    """Adds a file; what it says again replaces what was said before."""
    block, before = '', 'the comment at the top is no heading'
    for line in path.read_text(encoding='utf-8').splitlines():
      if include := _INCLUDE.match(line):
        self.read(folder() / include[1])
      elif line.startswith('#') and not before:
        self.section = line.strip('# ')
      elif line.startswith('  # '):
        self._continue(line.strip('# '))
      elif header := _BLOCK.match(line):
        block = self.last = header[1].rpartition('/')[2]
      elif binding := _BINDING.match(line):
        indent, name, text, comment = binding.groups()
        if indent:
          self.values.setdefault(block, []).append(text)
        elif '.' in name:
          thing = name.rpartition('.')[0].rpartition('/')[2]
          self.values.setdefault(thing, []).append(text)
        else:
          self._set_macro(name, text, comment or '')
      before = line

  def _set_macro(self, name: str, text: str, comment: str) -> None:
    self.macro = name
    self.values[name] = [text]
    flag = _FLAG.match(comment)
    if flag:
      self.settings.pop(name, None)  # to stand below its new heading
      given = tuple(n.removeprefix('--') for n in flag['names'].split())
      names = tuple(dict.fromkeys((*given, name.lower())))
      self.settings[name] = Setting(
        names, name, _literal(text), flag['help'], flag['kind'], bool(flag['several']), self.section
      )
    elif comment.startswith('no flag'):
      self.settings.pop(name, None)
    elif name in self.settings:
      self.settings[name] = self.settings[name]._replace(default=_literal(text))

  def _continue(self, more: str) -> None:
    """Adds a line to the help of the macro before it."""
    if setting := self.settings.get(self.macro):
      self.settings[self.macro] = setting._replace(help=f'{setting.help} {more}')

  def reached(self) -> set[str]:
    """The macros that the last thing reads, directly or not."""
    found, queue = set(), [self.last]
    while queue:
      for name in self._references(queue.pop()):
        if name not in found:
          found.add(name)
          queue.append(name)
    return found

  def _references(self, name: str) -> Iterator[str]:
    for text in self.values.get(name, ()):
      yield from _REFERENCE.findall(text)


def _literal(text: str) -> Any:
  try:
    return ast.literal_eval(text)
  except (ValueError, SyntaxError):
    return text
