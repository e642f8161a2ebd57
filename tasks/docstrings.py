"""Which chapter of the library reference is it? Docstrings of Python's own standard library.

Real text that every installation has: the sources of the running interpreter's standard library
are parsed (never imported), and each docstring of a module, class or function is labelled with the
chapter of docs.python.org/3/library in which its module is described.

The input is prose alone. Names of modules, classes and functions and signatures are not given:
lines that are a signature, doctests and everything after the first paragraphs are left out. What
the prose itself mentions stays, so a docstring that says "Tk" may be told by that word.

Two tasks, both without duplicates (a text that stands under two chapters is left out altogether):

`docstrings_iid`: at most CAP docstrings a chapter; 70 % train, 10 % validation, 20 % test.
`docstrings_files`: all of them, and whole files are held out, so that the style of a file, which
  the first variant lets one learn, is of no use. Harder, and nearer to what is asked of a text
  from elsewhere.

The numbers of examples differ a little between versions of Python, as the library does.
"""

import ast
import hashlib
import inspect
import pathlib
import re
import sysconfig
import warnings
from collections.abc import Callable, Iterator
from typing import NamedTuple

from prompt_jax.data.example import Task, TextExample, text_task
from prompt_jax.data.splits import held_out
from prompt_jax.errors import UserError

CAP = 300
MIN_CHARACTERS = 40
# Paragraphs are taken until there are so many characters, and then no more.
ENOUGH_CHARACTERS = 200
FRACTIONS = {'validation': 0.1, 'test': 0.2}


class Chapter(NamedTuple):
  """A chapter, the word that the model writes for it, and its modules.

  A private module stands with the public one that it implements. Modules that a version of Python
  lacks are passed over; deprecated chapters and modules on their way out are not listed.
  """

  title: str
  word: str
  modules: str


# The ten chapters with the most docstrings, of those that every version from 3.11 on has.
CHAPTERS = (
  Chapter(
    'Data Types',
    'collection',
    'datetime _pydatetime zoneinfo calendar collections _collections_abc heapq bisect weakref '
    '_weakrefset types copy pprint reprlib enum graphlib',
  ),
  Chapter(
    'Numeric and Mathematical Modules',
    'number',
    'numbers decimal _pydecimal fractions random statistics',
  ),
  Chapter(
    'Generic Operating System Services',
    'system',
    'os io _pyio _strptime argparse optparse getopt logging getpass curses platform ctypes',
  ),
  Chapter(
    'Concurrent Execution',
    'parallel',
    'threading _threading_local multiprocessing concurrent subprocess sched queue contextvars',
  ),
  Chapter(
    'Networking and Interprocess Communication',
    'network',
    'asyncio socket ssl selectors signal',
  ),
  Chapter(
    'Internet Data Handling',
    'mail',
    'email json mailbox mimetypes base64 quopri',
  ),
  Chapter(
    'Internet Protocols and Support',
    'protocol',
    'webbrowser wsgiref urllib http ftplib poplib imaplib smtplib uuid socketserver xmlrpc '
    'ipaddress nturl2path',
  ),
  Chapter(
    'Graphical User Interfaces with Tk',
    'window',
    'tkinter',
  ),
  Chapter(
    'Development Tools',
    'test',
    'typing pydoc doctest unittest',
  ),
  Chapter(
    'Importing Modules',
    'import',
    'zipimport pkgutil modulefinder runpy importlib',
  ),
)
LABELS = tuple(chapter.word for chapter in CHAPTERS)
METRICS = ('accuracy', 'f1_macro')

# Tests that some packages carry, and vendored or generated code.
SKIPPED_FOLDERS = frozenset({'test', 'tests', '_vendor', '_bundled', '__pycache__'})
SIGNATURE = re.compile(r'[\w.]+\s*\(.*\)\s*(->.*|=.*)?:?')


class Docstring(NamedTuple):
  """A cleaned docstring, the chapter's index, and the file (relative) and line it is from."""

  text: str
  label: int
  file: str
  line: int


def docstrings_iid(library: str | None = None) -> Task:
  """Chapters of docstrings drawn at random; the quick start's task.

  Args:
    library: folder of a standard library; None for the running interpreter's.
  """
  return _task('docstrings_iid', library, _split_iid)


def docstrings_files(library: str | None = None) -> Task:
  """Chapters of docstrings in files of which none was seen in training.

  Args:
    library: folder of a standard library; None for the running interpreter's.
  """
  return _task('docstrings_files', library, _split_by_file)


def read_docstrings(library: str | None = None) -> list[Docstring]:
  """All cleaned docstrings in the order of chapters, files and lines, each text once.

  Raises:
    UserError: the folder holds no sources, as where only compiled files are installed.
  """
  root = pathlib.Path(library or sysconfig.get_paths()['stdlib'])
  found = [d for label in range(len(CHAPTERS)) for d in _chapter(root, label)]
  if not found:
    raise UserError(
      f'No sources of the standard library in {root}; this task needs them. Use a Python that '
      'installs its .py files, or another task.'
    )
  first: dict[str, Docstring] = {}
  ambiguous = set()
  for docstring in found:
    key = docstring.text.lower()
    if first.setdefault(key, docstring).label != docstring.label:
      ambiguous.add(key)
  return [docstring for key, docstring in first.items() if key not in ambiguous]


def clean(docstring: str) -> str:
  """The prose of the first paragraphs in one line; empty where there is none.

  Paragraphs are taken until they hold ENOUGH_CHARACTERS. Doctests and lines that are a signature
  are left out: they name what the model is to recognise.
  """
  taken: list[str] = []
  for paragraph in re.split(r'\n\s*\n', inspect.cleandoc(docstring)):
    lines = [line.strip() for line in paragraph.split('\n')]
    if lines[0].startswith('>>>'):
      continue
    prose = [line for line in lines if not SIGNATURE.fullmatch(line)]
    text = ' '.join(' '.join(prose).split())
    if text:
      taken.append(text)
    if sum(map(len, taken)) >= ENOUGH_CHARACTERS:
      break
  return ' '.join(taken)


def _chapter(root: pathlib.Path, label: int) -> Iterator[Docstring]:
  for module in CHAPTERS[label].modules.split():
    file = root / f'{module}.py'
    for path in [file] if file.is_file() else sorted((root / module).rglob('*.py')):
      relative = path.relative_to(root)
      if not SKIPPED_FOLDERS & set(relative.parts):
        yield from _file(path, relative.as_posix(), label)


def _file(path: pathlib.Path, name: str, label: int) -> Iterator[Docstring]:
  with warnings.catch_warnings():
    # Invalid escapes in old sources are not our business.
    warnings.simplefilter('ignore')
    tree = ast.parse(path.read_bytes(), name)
  nodes = [
    node
    for node in ast.walk(tree)
    if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef)
  ]
  for node in sorted(nodes, key=lambda n: getattr(n, 'lineno', 0)):
    text = clean(ast.get_docstring(node, clean=False) or '')
    if len(text) >= MIN_CHARACTERS:
      yield Docstring(text, label, name, getattr(node, 'lineno', 1))


def _task(
  name: str, library: str | None, split: Callable[[list[Docstring]], dict[str, list[Docstring]]]
) -> Task:
  # Parsing takes seconds, so the splits share one, made when the first is asked for.
  parsed: dict[str, list[TextExample]] = {}

  def read(which: str) -> list[TextExample]:
    if not parsed:
      for part, docstrings in split(read_docstrings(library)).items():
        parsed[part] = [_example(d) for d in docstrings]
    return parsed[which]

  return text_task(
    name,
    {which: (lambda which=which: read(which)) for which in ('train', *FRACTIONS)},  # type: ignore[misc]
    LABELS,
    METRICS,
    about='docstrings of the standard library -> chapter of the library reference (PSF licence)',
  )


def _example(docstring: Docstring) -> TextExample:
  return TextExample(
    inputs=docstring.text,
    targets=LABELS[docstring.label],
    label=docstring.label,
    fields={'file': docstring.file, 'line': docstring.line},
    source=f'{docstring.file}:{docstring.line}',
  )


def _split_iid(docstrings: list[Docstring]) -> dict[str, list[Docstring]]:
  kept = []
  for label in range(len(CHAPTERS)):
    in_chapter = [d for d in docstrings if d.label == label]
    chosen = sorted(in_chapter, key=lambda d: hashlib.sha256(d.text.encode()).digest())[:CAP]
    kept += [d for d in in_chapter if d in set(chosen)]
  return _parts(kept, [d.text.lower() for d in kept])


def _split_by_file(docstrings: list[Docstring]) -> dict[str, list[Docstring]]:
  return _parts(docstrings, [d.file for d in docstrings])


def _parts(docstrings: list[Docstring], groups: list[str]) -> dict[str, list[Docstring]]:
  where = held_out(groups, [d.label for d in docstrings], FRACTIONS, seed=0)
  return {
    part: [d for d, w in zip(docstrings, where, strict=True) if w == part]
    for part in ('train', *FRACTIONS)
  }
