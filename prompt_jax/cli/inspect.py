"""`prompt-jax inspect`: describes a prompt file, with the tokens nearest to its rows."""

import argparse
import dataclasses
import json
import pathlib
from typing import Any

import numpy as np
from rich.console import Console
from rich.table import Table

from prompt_jax import loading
from prompt_jax.checkpoints.backbone import Backbone
from prompt_jax.errors import UserError
from prompt_jax.evaluation.inspect import Block, blocks, effective_rank, nearest, norms, plot
from prompt_jax.injections import TASK
from prompt_jax.models.module import embed_scale
from prompt_jax.reports import listing

# Long or shown elsewhere on the card.
HIDDEN = ('gin', 'method_config')
NEIGHBOURS = 5


def run(args: argparse.Namespace) -> None:
  console = Console()
  if listing.is_model(args.file):
    listing.show(args.file, console)
    return
  ready = loading.load(args.model, args.file, 'float32', args.vocabulary)
  _card(console, pathlib.Path(args.file), ready.metadata)
  if ready.model.prompt is None:
    console.print('This file has no prompt; it contains weights of the model itself.')
    return
  cfg, params = ready.backbone.config, ready.variables['params']['prompt']
  constants = ready.variables['constants'].get('prompt', {})
  reads = ready.model.prompt.depends_on
  if own := sorted(reads - {TASK}):
    console.print(
      f'{type(ready.model.prompt).__name__} reads {", ".join(own)} of each example. What follows '
      'is what it adds to an empty one.',
      soft_wrap=True,
    )
  tasks = (ready.metadata.get('tasks') or ()) if TASK in reads else ()
  found = [
    dataclasses.replace(block, name=f'{task} {block.name}'.strip())
    for number, task in enumerate(tasks or ('',))
    for block in blocks(ready.model.prompt, params, constants, cfg.sizes, number)
  ]
  usual = float(np.mean(norms(_words(ready.backbone))))
  _blocks(console, found, usual)
  for block in found:
    if block.in_vocabulary_space:
      _neighbours(console, block, ready.backbone)
  if args.plots:
    path = pathlib.Path(args.plots) / f'{pathlib.Path(args.file).stem}.png'
    try:
      path.parent.mkdir(parents=True, exist_ok=True)
      plot(found, usual, path)
    except OSError as e:
      raise UserError(f'Cannot write {path}: {e.strerror}.') from None
    console.print(f'Plots: {path}', soft_wrap=True)


def _words(backbone: Backbone) -> np.ndarray:
  """float32[words, H] the embedding rows of tokens; padding rows and sentinels left out."""
  vocabulary = backbone.vocabulary
  table = np.asarray(backbone.params['token_embedder']['embedding'], np.float32)
  table = table * embed_scale(backbone.config)
  end = vocabulary.size - vocabulary.extra_ids
  while '<extra_id_' in vocabulary.pieces(end - 1):  # its own, as mT5's has
    end -= 1
  return table[:end]


def _card(console: Console, path: pathlib.Path, metadata: dict[str, Any]) -> None:
  table = Table(title=str(path), title_justify='left', show_header=False, box=None)
  # The meaning of the rows also depends on these fields: placement, sees_input, kv_bias, ...
  method = (metadata.get('method_config') or {}).get('fields', {})
  conventions = {k: v for k, v in method.items() if isinstance(v, bool | int | float | str)}
  for name, value in {**conventions, **metadata}.items():
    if name not in HIDDEN and value is not None:
      table.add_row(name, value if isinstance(value, str) else json.dumps(value))
  console.print(table)


def _blocks(console: Console, found: list[Block], usual: float) -> None:
  table = Table(
    title=f"Prompt rows (mean norm of the model's token embeddings: {usual:.3g})",
    title_justify='left',
  )
  for name in ('where', 'rows', 'width', 'mean norm', 'min', 'max', 'effective rank'):
    table.add_column(name, justify='left' if name == 'where' else 'right')
  for block in found:
    n = norms(block.rows)
    p, h = block.rows.shape
    values = (f'{n.mean():.3g}', f'{n.min():.3g}', f'{n.max():.3g}')
    rank = f'{effective_rank(block.rows):.1f} of {min(p, h)}'
    table.add_row(block.name, str(p), str(h), *values, rank)
  console.print(table)


def _neighbours(console: Console, block: Block, backbone: Backbone) -> None:
  ids, similarity = nearest(block.rows, _words(backbone), NEIGHBOURS)
  table = Table(title=f'{block.name}: nearest tokens (cosine)', title_justify='left')
  table.add_column('row', justify='right')
  table.add_column('norm', justify='right')
  table.add_column('tokens')
  for i, norm in enumerate(norms(block.rows)):
    pairs = zip(ids[i], similarity[i], strict=True)
    text = '  '.join(f'{backbone.vocabulary.pieces(int(t))} {s:.2f}' for t, s in pairs)
    table.add_row(str(i), f'{norm:.3g}', text)
  console.print(table, markup=False)
