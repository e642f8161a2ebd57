"""gin configuration of a verb: found, parsed, checked, recorded.

gin files are read in this order, later ones winning: the verb's own run file, gin/runs/VERB.gin,
the user's `--gin_file`s, then the named flags, then `--gin.NAME=VALUE`. gin accepts in silence a
misspelt macro and a binding of something that the run never builds; both are refused here.
"""

import argparse
import contextlib
import difflib
import inspect
import os
import pathlib
import re
import shlex
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from gin import config as gin_config

from prompt_jax.checkpoints.prompt_file import write_atomically
from prompt_jax.cli import arguments
from prompt_jax.configuration import gin_text, plain_values
from prompt_jax.configuration.run_files import folder, names
from prompt_jax.errors import UserError, unknown

# Saved states of a run, of one of several seeds, and of a stage of pretraining.
STATES = ('state/[0-9]*', 'seed_*/state/[0-9]*', 'runs/*/state/[0-9]*')
# Where and how a run computes may be another each time that it goes on.
MAY_CHANGE = ('COMPILATION_CACHE', 'DEVICE', 'PROFILE')
GIN_ADDS = '\n  In call to configurable'
MACRO = re.compile(r'^([A-Za-z_]\w*)\s*=', re.MULTILINE)
# `thing.parameter =`, or `thing:` before an indented block of parameters.
BINDING = re.compile(r'^((?:\w+/)*[A-Za-z_][\w.]*)(?:\.\w+\s*=|:\s*$)', re.MULTILINE)


def load(
  args: argparse.Namespace, entry: Callable[..., Any], includes: Sequence[tuple[str, str]] = ()
) -> Callable[..., Any]:
  """Parses everything the user gave and returns `entry` with its arguments bound.

  Args:
    args: of the verb (cli/arguments.py).
    entry: the function that the verb's run file binds.
    includes: (subfolder, name) of gin files that named flags chose, such as ('prompts', 'prefix').

  Raises:
    UserError: an unknown file, macro or binding, a value that gin cannot read, or one of another
      type than a parameter's.
  """
  gin_config.clear_config()
  # gin looks in the working directory first, where a folder of the user's may have the same name as
  # one of ours; includes are found in the package, then where the user says.
  searched = [s for s in args.gin_search_paths.split(',') if s]
  gin_config._LOCATION_PREFIXES[:] = [str(folder()), *searched]
  _file(f'runs/{args.verb}.gin', searched)
  files = [_file(name, searched) for name in args.gin_file]
  _include(includes, searched)
  flags = arguments.given(args)
  for flag, value in flags:
    _parse(f'{flag.macro} = {value!r}', f'--{flag.name}')
  for name, value in args.gin:
    _parse(f'{name} = {value}', f'--gin.{name}={value}')
  _refuse_leftovers(args, entry, files, {flag.macro: f'--{flag.name}' for flag, _ in flags})
  plain_values.check(_reachable(gin_config._inverse_lookup(entry).selector)[1])
  gin_config.finalize()
  return _call(gin_config.get_configurable(entry))


def _call(bound: Callable[..., Any]) -> Callable[..., Any]:
  """`bound`, whose errors say what we said: gin adds which of its configurables was called."""

  def call(*args: Any) -> Any:
    try:
      return bound(*args)
    except UserError as e:
      raise UserError(str(e).split(GIN_ADDS)[0]) from e

  return call


def built(entry: Callable[..., Any]) -> dict[str, Any]:
  """The arguments that `load` bound to `entry`, made but not used.

  Raises:
    UserError: one of them cannot be made.
  """
  try:
    return gin_config.get_bindings(entry)
  except UserError as e:
    raise UserError(str(e).split(GIN_ADDS)[0]) from e


def _singular(subfolder: str) -> str:
  return {'prompts': 'prompt method', 'inits': 'initialiser', 'models': 'model size'}.get(
    subfolder, subfolder
  )


def _ours(path: pathlib.Path) -> bool:
  return path.is_relative_to(folder())


def _file(name: str, searched: Sequence[str]) -> pathlib.Path:
  """Parses one gin file, by path or by its name in the package or the search paths."""
  roots = [folder(), *(pathlib.Path(s) for s in searched)]
  candidates = [pathlib.Path(name), *(root / name for root in roots)]
  path = next((c for c in candidates if os.path.isfile(c)), None)
  if path is None:
    known = [p.relative_to(root).as_posix() for root in roots for p in root.rglob('*.gin')]
    # Folders and suffixes are alike in all: what is between them must be near.
    stem = lambda path: pathlib.PurePath(path).stem
    stems = difflib.get_close_matches(stem(name), {stem(k) for k in known}, n=3)
    near = difflib.get_close_matches(name, [k for k in known if stem(k) in stems], n=3, cutoff=0)
    hint = f' Did you mean {" or ".join(near)}?' if near else ''
    places = ', '.join(['the working directory', str(folder()), *searched])
    raise UserError(f'No gin file {name!r} in {places}.{hint}')
  try:
    gin_config.parse_config_file(str(path.resolve()))
  except Exception as e:
    raise UserError(f'{path}: {_reason(e)}') from e
  return path.resolve()


def _parse(binding: str, flag: str) -> None:
  """Parses one setting of the command line."""
  name, _, value = binding.partition(' = ')
  try:
    gin_config.parse_config(binding)
  except SyntaxError as e:
    raise UserError(
      f'{flag}: {value} is not a value that gin reads; a text needs quotes inside the '
      f"shell's: '--gin.{name}=\"{value}\"'"
    ) from e
  except Exception as e:
    raise _binding_error(name, flag, e) from e


def _binding_error(name: str, flag: str, e: Exception) -> UserError:
  """Turns gin's complaint about `Thing.parameter` into one with the nearest names."""
  scoped, _, parameter = name.rpartition('.')
  thing = scoped.rsplit('/', 1)[-1]
  registered = dict(gin_config._REGISTRY.items())
  matching = gin_config._REGISTRY.matching_selectors(thing) if thing else []
  if thing and not matching:
    return unknown(f'name in {flag}:', thing, {s.rsplit('.', 1)[-1] for s in registered})
  if len(matching) == 1:
    known = set(inspect.signature(registered[matching[0]].wrapped).parameters)
    if parameter not in known:
      return unknown(f'parameter of {thing}', parameter, known - {'self', 'parent', 'name'})
  return UserError(f'{flag}: {_reason(e)}')


def _reason(e: Exception) -> str:
  """gin's own words, on one line."""
  return ' '.join(str(e).split()) or type(e).__name__


def _refuse_leftovers(
  args: argparse.Namespace,
  entry: Callable[..., Any],
  files: Sequence[pathlib.Path],
  flags: dict[str, str],
) -> None:
  """Refuses what was given and can have no effect: nothing that `entry` builds refers to it."""
  macros, selectors = _reachable(gin_config._inverse_lookup(entry).selector)
  given = {**flags, **{name: f'--gin.{name}' for name, _ in args.gin if '.' not in name}}
  bound = [
    (name.rpartition('.')[0], f'--gin.{name}={value}') for name, value in args.gin if '.' in name
  ]
  for path in files:
    text = path.read_text(encoding='utf-8')
    if _ours(path):
      _refuse_useless(path, text, macros)
      continue
    given.update({name: str(path) for name in MACRO.findall(text)})
    bound += [(name, f'{name} in {path}') for name in BINDING.findall(text)]
  for name, where in given.items():
    if name not in macros:
      raise unknown(f'macro (from {where})', name, macros)
  for name, where in bound:
    # gin has parsed it, so there is exactly one such configurable.
    (selector,) = gin_config._REGISTRY.matching_selectors(name.rpartition('/')[2])
    if selector not in selectors:
      used = sorted(s.rsplit('.', 1)[-1] for s in selectors)
      raise UserError(
        f'{where} has no effect: this run does not use {name!r}. It uses {", ".join(used)}.'
      )


def _refuse_useless(path: pathlib.Path, text: str, macros: set[str]) -> None:
  unread = [name for name in MACRO.findall(text) if name not in macros]
  if unread:
    raise UserError(
      f'{path.relative_to(folder())} is not for this run, which does not read {", ".join(unread)}.'
    )


def _reachable(start: str) -> tuple[set[str], set[str]]:
  """The macros and the selectors that the configurable `start` refers to, directly or not."""
  macros: set[str] = set()
  selectors = {start}
  queue = [start]
  while queue:
    for reference in _references(queue.pop()):
      is_macro = reference.configurable.wrapped is gin_config.macro
      name = '/'.join(reference.scopes) if is_macro else reference.configurable.selector
      seen = macros if is_macro else selectors
      if name not in seen:
        seen.add(name)
        queue.append(f'%{name}' if is_macro else name)
  return macros, selectors


def _references(name: str) -> Iterator[gin_config.ConfigurableReference]:
  """References in the bindings of a selector (in any scope), or in the value of a %MACRO."""
  for (scope, selector), bindings in gin_config._CONFIG.items():
    if name.startswith('%'):
      if selector == 'gin.macro' and scope == name[1:]:
        yield from gin_config.iterate_references(bindings)
    elif selector == name:
      yield from gin_config.iterate_references(bindings)


def reads(*parts: Callable[..., Any]) -> set[str]:
  """The macros, and the selectors of gin, that some configurables read, directly or not."""
  found: set[str] = set()
  for part in parts:
    macros, selectors = _reachable(gin_config._inverse_lookup(part).selector)
    found |= macros | selectors
  return found


def check(*parts: Callable[..., Any]) -> None:
  """Refuses values of another type than a parameter's, in what some configurables read."""
  plain_values.check(reads(*parts))


def is_in(name: str, known: set[str]) -> bool:
  """Whether `reads` found a macro, or the thing of a binding such as "adafactor.decay"."""
  if '.' not in name:
    return name in known
  matching = gin_config._REGISTRY.matching_selectors(name.rpartition('.')[0])
  return any(selector in known for selector in matching)


def is_set(binding: str) -> bool:
  """Whether a file or flag gives a value to a parameter, such as "choose.words"."""
  try:
    gin_config.query_parameter(binding)
  except ValueError:
    return False
  return True


@contextlib.contextmanager
def changed(
  settings: Mapping[str, Any], includes: Sequence[tuple[str, str]] = ()
) -> Iterator[None]:
  """Other values for some settings, for as long as it is entered.

  Args:
    settings: values by the name of a macro ("LEARNING_RATE") or binding ("adafactor.decay").
    includes: (subfolder, name) of gin files that are read first.

  Raises:
    UserError: gin knows no such file or binding.
  """
  configs = (gin_config._CONFIG, gin_config._OPERATIVE_CONFIG)
  before = [{key: dict(bindings) for key, bindings in c.items()} for c in configs]
  try:
    with gin_config.unlock_config():
      _include(includes, ())
      for name, value in settings.items():
        key = name if '.' in name else f'{name}/gin.macro.value'
        try:
          gin_config.bind_parameter(key, value)
        except Exception as e:
          raise _binding_error(name, name, e) from e
    yield
  finally:
    for c, saved in zip(configs, before, strict=True):
      c.clear()
      c.update(saved)


def _include(includes: Sequence[tuple[str, str]], searched: Sequence[str]) -> None:
  for subfolder, name in includes:
    if name not in names(subfolder):
      raise unknown(_singular(subfolder), name, names(subfolder))
    _file(f'{subfolder}/{name}.gin', searched)


def used() -> str:
  """The configuration that the run has read so far, as gin text."""
  return gin_config.operative_config_str()


def begun(output: pathlib.Path) -> bool:
  """Whether a run has left a state in the folder."""
  return any(any(output.glob(pattern)) for pattern in STATES)


def record(output: pathlib.Path, may_change: Sequence[str] = ()) -> None:
  """Writes operative_config.gin and command.txt, from which the run can be had again.

  Args:
    output: the folder.
    may_change: macros that may differ from those of the run that the folder already holds, besides
      `MAY_CHANGE`.

  Raises:
    UserError: the folder holds a run with other settings, or cannot be written.
  """
  text, path = used(), output / 'operative_config.gin'
  goes_on = os.path.isfile(path) and begun(output)
  before = gin_text.settings(path.read_text('utf-8') if goes_on else text)
  now = gin_text.settings(text)
  changed = sorted(n for n in before.keys() | now.keys() if before.get(n) != now.get(n))
  changed = [name for name in changed if name not in (*MAY_CHANGE, *may_change)]
  if changed:
    lines = [
      f'  {n}: {before.get(n, "not set")} before, {now.get(n, "not set")} now' for n in changed
    ]
    raise UserError(
      f'The folder {output} holds a run with other settings:\n' + '\n'.join(lines) + '\n'
      'Give them again to go on with it, or another --output.'
    )
  write_atomically(path, text.encode())
  write_atomically(output / 'command.txt', f'prompt-jax {shlex.join(sys.argv[1:])}\n'.encode())
