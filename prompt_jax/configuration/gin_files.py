"""gin's state for one configuration, and what is put into it: files, settings as text, values.

In text of version 0.1 modules have other places and two parameters other names; it is read under
the names of today.
"""

import contextlib
import difflib
import inspect
import io
import os
import pathlib
import re
import threading
from collections.abc import Iterator, Sequence

from gin import config as gin_config

from prompt_jax.checkpoints import prompt_file
from prompt_jax.configuration.run_files import folder, names
from prompt_jax.errors import UserError, unknown

# Module of version 0.1 -> module of today, both below prompt_jax.
MOVED = {
  'cli.candidates': 'configuration.population',
  'cli.compute': 'loading',
  'cli.convert': 'export.convert',
  'cli.data': 'runs.task_choice',
  'cli.eval': 'runs.evaluate',
  'cli.infer': 'runs.predict',
  'cli.packing': 'runs.packing',
  'cli.plan': 'scale.plan_run',
  'cli.population': 'runs.population',
  'cli.pretrain': 'pretraining.pretrain',
  'cli.sweep': 'sweeps.sweep',
  'cli.train': 'runs.train',
  'models.config': 'models.t5.config',
  **prompt_file.MOVED,
}

# `Decoding.topk` of version 0.1, also below a heading of `Decoding`.
PARAMETER = re.compile(
  r'^(?P<thing>[\w./]*\bDecoding\.|[ \t]+)top(?P<rest>[kp])(?= *=|$)', re.MULTILINE
)

IMPORT = re.compile(
  r'^(?:from prompt_jax(?:\.(?P<package>[\w.]+))? import (?P<name>\w+)(?: as (?P<alias>\w+))?'
  r'|import prompt_jax\.(?P<whole>[\w.]+) as (?P<whole_alias>\w+))(?P<rest>[^\n]*)$',
  re.MULTILINE,
)


def modernised(text: str) -> str:
  """The text with every import of a moved module, and the parameters of today."""

  def line(found: re.Match[str]) -> str:
    package, name = found['package'], found['name']
    old = found['whole'] or (f'{package}.{name}' if package else name)
    alias = found['whole_alias'] or found['alias'] or name
    if old in MOVED:
      return _import(MOVED[old], alias) + found['rest']
    return found[0]

  return modern_name(IMPORT.sub(line, text))


def modern_name(text: str) -> str:
  """'Decoding.topk' -> 'Decoding.top_k'; also in a text of several lines."""
  return PARAMETER.sub(r'\g<thing>top_\g<rest>', text)


def _import(module: str, alias: str) -> str:
  package, _, name = module.rpartition('.')
  package = f'prompt_jax.{package}' if package else 'prompt_jax'
  return f'from {package} import {name}' + ('' if alias == name else f' as {alias}')


# gin keeps one configuration for the whole process; another thread waits for its turn.
_turn = threading.RLock()


@contextlib.contextmanager
def isolated() -> Iterator[None]:
  """An empty gin configuration for as long as it is entered; then the one before, unchanged.

  What was registered with gin stays registered, as a module is imported only once.
  """
  with _turn:
    dicts = (gin_config._CONFIG, gin_config._OPERATIVE_CONFIG, gin_config._SINGLETONS)
    before = [dict(d) for d in dicts]
    imports, prefixes = set(gin_config._IMPORTS), list(gin_config._LOCATION_PREFIXES)
    readers, locked = list(gin_config._FILE_READERS), gin_config.config_is_locked()
    for d in (*dicts, gin_config._IMPORTS):
      d.clear()
    gin_config._set_config_is_locked(False)
    try:
      # A scope that the caller is in would choose other bindings.
      with gin_config.config_scope(None):
        yield
    finally:
      for d, saved in zip(dicts, before, strict=True):
        d.clear()
        d.update(saved)
      gin_config._IMPORTS.clear()
      gin_config._IMPORTS.update(imports)
      gin_config._LOCATION_PREFIXES[:] = prefixes
      gin_config._FILE_READERS[:] = readers
      gin_config._set_config_is_locked(locked)


KINDS = {'prompts': 'prompt method', 'inits': 'initialiser', 'models': 'model size'}


def search(places: Sequence[str]) -> None:
  """Makes gin look in the package, then in `places`, and read old names as new ones.

  By itself gin looks in the working directory first, where a folder may have the name of ours.
  """
  gin_config._LOCATION_PREFIXES[:] = [str(folder()), *places]
  gin_config._FILE_READERS[:] = [(_opened, os.path.isfile)]


def _opened(path: str) -> io.StringIO:
  return io.StringIO(modernised(pathlib.Path(path).read_text(encoding='utf-8')))


def read(name: str, places: Sequence[str]) -> pathlib.Path:
  """Parses one gin file, by path or by its name in the package or in `places`.

  Raises:
    UserError: there is no such file, or gin cannot read it.
  """
  roots = [folder(), *(pathlib.Path(s) for s in places)]
  candidates = [pathlib.Path(name), *(root / name for root in roots)]
  path = next((c for c in candidates if os.path.isfile(c)), None)
  if path is None:
    known = [p.relative_to(root).as_posix() for root in roots for p in root.rglob('*.gin')]
    # All have the same folders and suffix: what is between them must be near.
    stem = lambda path: pathlib.PurePath(path).stem
    stems = difflib.get_close_matches(stem(name), {stem(k) for k in known}, n=3)
    near = difflib.get_close_matches(name, [k for k in known if stem(k) in stems], n=3, cutoff=0)
    hint = f' Did you mean {" or ".join(near)}?' if near else ''
    searched = ', '.join(['the working directory', str(folder()), *places])
    raise UserError(f'No gin file {name!r} in {searched}.{hint}', parameters=['gin_file'])
  try:
    gin_config.parse_config_file(str(path.resolve()))
  except Exception as e:
    raise UserError(f'{path}: {reason(e)}') from e
  return path.resolve()


def include(includes: Sequence[tuple[str, str]], places: Sequence[str] = ()) -> None:
  """Parses files of the package, or of `places`, by (subfolder, name).

  Raises:
    UserError: an unknown name.
  """
  for subfolder, name in includes:
    roots = [folder(), *map(pathlib.Path, places)]
    known = {n: root for root in reversed(roots) for n in names(subfolder, root)}
    if name not in known:
      also = ', '.join(f'{place}/{subfolder}' for place in places)
      looked = f'Looked in {also} too.' if also else ''
      raise unknown(KINDS.get(subfolder, subfolder), name, known, looked)
    read(str(known[name] / f'{subfolder}/{name}.gin'), places)


def parse(name: str, value: str, where: str) -> None:
  """Parses one setting.

  Args:
    name: of a macro or binding.
    value: text that gin reads.
    where: the text was given, for messages.

  Raises:
    UserError: gin cannot read the value, or knows no such name.
  """
  try:
    gin_config.parse_config(f'{name} = {value}')
  except SyntaxError as e:
    raise UserError(
      f'{where}: {value} is not a value that gin reads; a text needs quotes inside the '
      f"shell's: '--gin.{name}=\"{value}\"'"
    ) from e
  except Exception as e:
    raise _binding_error(name, where, e) from e


def bind(name: str, value: object, where: str) -> None:
  """Binds a Python value.

  Args:
    name: of a macro ("LEARNING_RATE") or binding ("adafactor.decay").
    value: for it.
    where: it was given, for messages.

  Raises:
    UserError: gin knows no such binding.
  """
  key = name if '.' in name else f'{name}/gin.macro.value'
  try:
    gin_config.bind_parameter(key, value)
  except Exception as e:
    raise _binding_error(name, where, e) from e


def _binding_error(name: str, where: str, e: Exception) -> UserError:
  """Turns gin's complaint about `Thing.parameter` into one with the nearest names."""
  scoped, _, parameter = name.rpartition('.')
  thing = scoped.rsplit('/', 1)[-1]
  registered = dict(gin_config._REGISTRY.items())
  matching = gin_config._REGISTRY.matching_selectors(thing) if thing else []
  if thing and not matching:
    return unknown(f'name in {where}:', thing, {s.rsplit('.', 1)[-1] for s in registered})
  if len(matching) == 1:
    known = set(inspect.signature(registered[matching[0]].wrapped).parameters)
    if parameter not in known:
      return unknown(f'parameter of {thing}', parameter, known - {'self', 'parent', 'name'})
  return UserError(f'{where}: {reason(e)}')


def reason(e: Exception) -> str:
  """gin's own words, on one line."""
  return ' '.join(str(e).split()) or type(e).__name__
