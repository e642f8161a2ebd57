"""Runs a command of prompt-jax and writes which files of the package it enters, and how deep it is.

    python -m tests.entered REPORT.json train --data x.tsv …

A file is entered where a function of it runs; importing it is not enough. "stack" is the chain of
files from the command line to the deepest place at which a gradient is taken, a file once for each
of its frames.
"""

import inspect
import json
import pathlib
import sys
import threading

import jax

FUNCTION = inspect.CO_OPTIMIZED  # neither a module's body nor a class's


def main(report: str, argv: list[str]) -> int:
  import prompt_jax.cli.main

  package = pathlib.Path(prompt_jax.cli.main.__file__).parent.parent
  prefix = f'{package}/'
  ours: dict = {}  # by identity: equal code of two files is one key
  stack: list[str] = []

  def note(frame, event, _):
    code = frame.f_code
    if id(code) not in ours:
      ours[id(code)] = code if code.co_filename.startswith(prefix) else None

  grad = jax.grad

  def noting(function, *args, **kwargs):
    gradient = grad(function, *args, **kwargs)

    def call(*args, **kwargs):
      files = [f.filename for f in inspect.stack(0) if f.filename.startswith(prefix)][::-1]
      if len(files) > len(stack):
        stack[:] = [file.removeprefix(prefix) for file in files]
      return gradient(*args, **kwargs)

    return call

  jax.grad = noting
  threading.settrace(note)  # returns None: it is called where a function begins, at no line of it
  sys.settrace(note)
  code = prompt_jax.cli.main.main(argv)
  sys.settrace(None)
  files = {code.co_filename for code in ours.values() if code and code.co_flags & FUNCTION}
  entered = sorted(file.removeprefix(prefix) for file in files)
  pathlib.Path(report).write_text(json.dumps({'entered': entered, 'stack': stack}))
  return code


if __name__ == '__main__':
  sys.exit(main(sys.argv[1], sys.argv[2:]))
