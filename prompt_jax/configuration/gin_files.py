"""gin files: where they are, and how they are read.

Files of version 0.1 import modules that lie elsewhere today; they are read under the new names.
"""

import difflib
import inspect
import io
import os
import pathlib
from collections.abc import Sequence

from gin import config as gin_config

from prompt_jax.configuration.old_names import modernised
from prompt_jax.configuration.run_files import folder, names
from prompt_jax.errors import UserError, unknown

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
