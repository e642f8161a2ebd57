"""Analysis of a trained prompt: norms, spectrum, and the nearest tokens of its rows.

Lester et al. 2021 (arXiv:2104.08691), section 7. Pure functions on arrays; `plot` draws them.
Letters: P prompt rows, H model width, V vocabulary, L layers.
"""

import dataclasses
import os
from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from prompt_jax.injections import Injection, Sizes
from prompt_jax.prompts.base import injected


@dataclasses.dataclass(frozen=True)
class Block:
  """The rows that a method adds in one place.

  Attributes:
    name: where: "encoder rows", "decoder rows", "encoder layer 3 rows", "cross layer 0 keys"; of
      what edits the layers, with a row for each of them, "encoder query 0", "decoder mlp up".
    rows: float32[P, width].
    in_vocabulary_space: whether the rows are inputs like token embeddings, so that comparing them
      with the embedding table is meaningful.
  """

  name: str
  rows: np.ndarray
  in_vocabulary_space: bool


def blocks(
  method: Any,
  params: Mapping[str, Any],
  constants: Mapping[str, Any],
  sizes: Sizes,
  task_id: int = 0,
) -> list[Block]:
  """Everything that a method adds to an empty input; `delta`s are left out.

  Args:
    method: the method.
    params: its parameters.
    constants: its other state.
    sizes: of the model.
    task_id: whose prompt, of a method that holds several.
  """
  injections = jax.device_get(injected(method, params, constants, sizes, task_id))
  found = []
  for stack in ('encoder', 'decoder', 'cross'):
    injection = getattr(injections, stack)
    if injection.prefix is not None:
      # Rows that are first seen by a later layer are compared with its states, not with inputs.
      found.append(Block(f'{stack} rows', _rows(injection.prefix[0]), not injection.first_layer))
    found += [
      Block(f'{stack} layer {i} rows', _rows(rows), False)
      for leaf in _by_layer(injection)
      for i, rows in enumerate(leaf)
    ]
    if injection.kv is not None:
      found += [
        Block(f'{stack} layer {i} {what}', _rows(pair[j, 0]), False)
        for i, pair in enumerate(injection.kv)
        for j, what in enumerate(('keys', 'values'))
      ]
    for edit in injection.inside:
      for path, leaf in jax.tree_util.tree_flatten_with_path(edit.theta)[0]:
        part = ''.join(str(getattr(key, 'key', getattr(key, 'idx', key))) for key in path)
        found.append(Block(f'{stack} {edit.point} {part}'.rstrip(), _rows(leaf), False))
  return found


def _by_layer(injection: Injection) -> list[Any]:
  """Rows [L, P, H] that an edit adds in each layer, but for those that only repeat `prefix`."""
  theta = None if injection.hidden is None else injection.hidden.theta
  leaves = [x for x in jax.tree.leaves(theta) if np.ndim(x) == 3 and x.dtype.kind != 'b']
  first = None if injection.prefix is None else injection.prefix[0]
  same = lambda rows: first is not None and np.array_equal(rows, first)
  return [leaf for leaf in leaves if not all(map(same, leaf))]


def _rows(x: Any) -> np.ndarray:
  """[P, ...] -> float32[P, width]."""
  x = np.asarray(x, np.float32)
  return x.reshape(x.shape[0], -1)


def norms(rows: np.ndarray) -> np.ndarray:
  """float32[P] the length of each row."""
  return np.linalg.norm(rows, axis=-1)


def spectrum(rows: np.ndarray) -> np.ndarray:
  """float32[min(P, H)] singular values in descending order."""
  return np.linalg.svd(np.asarray(rows, np.float32), compute_uv=False)


def effective_rank(rows: np.ndarray) -> float:
  """exp(entropy of the normalised singular values): Roy and Vetterli 2007, definition 1.

  1 where all rows have one direction, min(P, H) for a flat spectrum; 0 for all zeros.
  """
  values = spectrum(rows).astype(np.float64)
  if not values.any():
    return 0.0
  p = values[values > 0] / values.sum()
  return float(np.exp(-np.sum(p * np.log(p))))


def nearest(rows: np.ndarray, embedding: np.ndarray, count: int) -> tuple[np.ndarray, np.ndarray]:
  """The vocabulary rows with the highest cosine similarity to each prompt row.

  Args:
    rows: float32[P, H].
    embedding: [V, H], the rows of real tokens only.
    count: how many.

  Returns:
    int[P, count] ids and float32[P, count] similarities, in descending order.
  """
  similarity = _unit(rows) @ _unit(np.asarray(embedding, np.float32)).T
  ids = np.argsort(-similarity, axis=-1, kind='stable')[:, :count]
  return ids, np.take_along_axis(similarity, ids, axis=-1)


def _unit(x: np.ndarray) -> np.ndarray:
  return x / np.maximum(np.linalg.norm(x, axis=-1, keepdims=True), 1e-12)


def plot(found: Sequence[Block], usual_norm: float | None, path: str | os.PathLike) -> None:
  """Draws norms, spectra and row similarities as a PNG.

  Args:
    found: the blocks; the norms and spectra of all are drawn, the similarities of the first.
    usual_norm: mean length of an embedding row, drawn as a line; None for none.
    path: the PNG.
  """
  from matplotlib import colormaps
  from matplotlib.backends.backend_agg import FigureCanvasAgg
  from matplotlib.figure import Figure
  from matplotlib.ticker import MaxNLocator

  figure = Figure(figsize=(13, 4), layout='constrained')
  FigureCanvasAgg(figure)
  length, values, alike = figure.subplots(1, 3)
  # Few blocks: a colour and a name each. Many: shades in their order, from dark to light.
  few = len(found) <= 6
  colours = [f'C{i}' if few else colormaps['viridis'](i / len(found)) for i in range(len(found))]
  for block, colour in zip(found, colours, strict=True):
    length.plot(norms(block.rows), '.-', label=block.name, color=colour)
    index = np.arange(1, min(block.rows.shape) + 1)
    values.plot(index, spectrum(block.rows), '.-', color=colour)
  if usual_norm is not None and any(b.in_vocabulary_space for b in found):
    length.axhline(usual_norm, color='grey', linestyle=':', label='mean embedding row')
  length.set(title='length of each row', xlabel='row', ylabel='norm', ylim=(0, None))
  names, handles = length.get_legend_handles_labels()[::-1]
  shown = list(range(len(names)))
  if not few:
    shown = [0, len(found) // 2, len(found) - 1, *shown[len(found) :]]
  length.legend([handles[i] for i in shown], [names[i] for i in shown], fontsize='small')
  values.set(title='singular values', xlabel='index', yscale='log')
  first = _unit(found[0].rows)
  image = alike.imshow(first @ first.T, vmin=-1, vmax=1, cmap='RdBu')
  alike.set(title=f'cosine similarity, {found[0].name}', xlabel='row', ylabel='row')
  figure.colorbar(image, ax=alike)
  for axis in (length.xaxis, values.xaxis, alike.xaxis, alike.yaxis):
    axis.set_major_locator(MaxNLocator(integer=True))
  figure.savefig(path, dpi=120)
