"""The command line: parse, dispatch, and tell a user's mistake in one line.

    prompt-jax VERB [options]

Each verb is one file of prompt_jax/cli, imported only when it is called, so that `--help` is
immediate.
"""

import argparse
import contextlib
import importlib
import os
import sys
import warnings
from collections.abc import Iterator
from typing import Any

from prompt_jax.cli import arguments
from prompt_jax.errors import UserError
from prompt_jax.runtime import libtpu

INTERRUPTED = 130  # what a shell reports after Ctrl-C


def main(argv: list[str]) -> int:
  """Runs one verb and returns the exit code: 0, or 2 for a mistake of the user."""
  args = None
  try:
    args = arguments.parse(argv)
    _quiet_libraries()
    with warnings.catch_warnings():
      warnings.showwarning = _say  # type: ignore[assignment]
      file = arguments.FILES.get(args.verb, args.verb)
      with _devices_explained():
        importlib.import_module(f'prompt_jax.cli.{file}').run(args)
    return 0
  except UserError as e:
    print(f'prompt-jax: {e}{flags_of(e, args)}', file=sys.stderr)
    return 2
  except KeyboardInterrupt:
    print('prompt-jax: interrupted', file=sys.stderr)
    return INTERRUPTED
  except BrokenPipeError:  # `prompt-jax tasks | head`
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    return 0


def flags_of(error: UserError, args: argparse.Namespace | None) -> str:
  """The flags of what an error names, such as " (--length, --gin.MAX_POSITIONS)"."""
  if args is None or not error.parameters:
    return ''
  named = [flag for name in error.parameters if (flag := _flag(name, args))]
  return f' ({", ".join(named)})' if named else ''


def _flag(parameter: str, args: argparse.Namespace) -> str | None:
  """The flag of a parameter, of a sweep the one of its values; None where there is none."""
  if parameter in vars(args):
    return f'--{parameter}'
  if args.verb == 'sweep':
    return f'--{parameter}s' if f'{parameter}s' in vars(args) else None
  return f'--gin.{parameter.upper()}' if hasattr(args, 'gin_file') else None


@contextlib.contextmanager
def _devices_explained() -> Iterator[None]:
  """Where JAX cannot start, whichever verb first asks for a device, that is what is told."""
  try:
    yield
  except (RuntimeError, AssertionError):
    if 'jax' in sys.modules:
      importlib.import_module('prompt_jax.runtime.devices').start_jax()
    raise


def _quiet_libraries() -> None:
  """Keeps start-up chatter of compiled libraries off the terminal; a user's own setting wins."""
  libtpu.quiet_without_tpu()
  os.environ.setdefault('TF_CPP_MIN_LOG_LEVEL', '2')
  os.environ.setdefault('GRPC_VERBOSITY', 'ERROR')


def _say(message: Warning | str, category: type[Warning], *place: Any) -> None:
  """A warning as one line, without the line of code that raised it."""
  if issubclass(category, UserWarning):
    print(f'prompt-jax: warning: {message}', file=sys.stderr)


def run() -> None:
  """The `prompt-jax` command."""
  code = main(sys.argv[1:])
  if code == INTERRUPTED:  # at once: Python would wait for the threads in which programs compile
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)
  sys.exit(code)
