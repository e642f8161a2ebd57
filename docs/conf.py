"""The documentation site: pages of docs/ as they are, and an API reference from the docstrings.

python -m sphinx -W --keep-going -b html docs build/site

Nothing is fetched while it is built.
"""

import re
from typing import Any

import prompt_jax

project = 'prompt_jax'
author = 'the prompt_jax authors'
release = version = prompt_jax.__version__
copyright = f'2026, {author}'

extensions = ['myst_parser', 'sphinx.ext.autodoc', 'sphinx.ext.napoleon', 'sphinx.ext.viewcode']
source_suffix = {'.md': 'markdown'}
html_theme = 'furo'
html_title = f'prompt_jax {version}'
highlight_language = 'none'
myst_heading_anchors = 3
myst_enable_extensions = ['colon_fence']

# Single backticks in docstrings are code, as in Markdown.
default_role = 'code'
add_module_names = False
autodoc_member_order = 'bysource'
autodoc_default_options = {'members': True, 'show-inheritance': False}
autodoc_typehints = 'signature'
autodoc_preserve_defaults = True
napoleon_numpy_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False


def setup(app: Any) -> None:
  # Before napoleon (priority 500), which turns the sections into fields.
  app.connect('autodoc-process-docstring', _markdown, priority=400)
  app.connect('autodoc-skip-member', _skip)
  app.connect('autodoc-process-signature', _without_flax_fields)


def _markdown(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
  """Turns the little Markdown of our docstrings into reStructuredText, in place.

  An indented block after an empty line is code; `*`, `|` and a trailing `_` outside backticks are
  themselves.
  """
  found: list[str] = []
  in_code = False
  for i, line in enumerate(lines):
    indent = len(line) - len(line.lstrip())
    if in_code and line and indent < 4:
      in_code = False
    elif not in_code and indent >= 4 and i and not lines[i - 1].strip() and _prose_above(lines, i):
      found += ['::', '']
      in_code = True
    found.append(line if in_code else _escaped(line))
  lines[:] = found


def _prose_above(lines: list[str], i: int) -> bool:
  """Whether the text above an indented block is not indented itself, as in a section it is."""
  above = next((line for line in reversed(lines[:i]) if line.strip()), '')
  return not above.startswith(' ')


def _escaped(line: str) -> str:
  parts = re.split(r'(`[^`]*`)', line)
  return ''.join(
    part if i % 2 else re.sub(r'(?<=\w)_(?=\W|$)', r'\\_', re.sub(r'([*|])', r'\\\1', part))
    for i, part in enumerate(parts)
  )


def _skip(app: Any, what: str, name: str, obj: Any, skip: bool, options: Any) -> bool | None:
  """Leaves out what Flax and NamedTuple add: fields are described in the class's docstring."""
  added = (getattr(obj, '__doc__', None) or '').startswith('Alias for field number')
  return True if added or name in {'parent', 'name', 'scope', 'replace'} else None


def _without_flax_fields(
  app: Any, what: str, name: str, obj: Any, options: Any, signature: str | None, returns: str | None
) -> tuple[str | None, str | None]:
  """Leaves out the two fields that Flax adds to every module: `parent` and `name`."""
  if what == 'class' and signature:
    signature = re.sub(r',? ?parent: [^=]*=[^=]*name: str \| None = None', '', signature)
  return signature, returns
