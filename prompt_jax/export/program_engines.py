"""Software that runs exported programs, see `prompt_groups`: JAX alone, and TensorFlow."""

import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from prompt_jax.checkpoints.on_disk import read_json
from prompt_jax.export import manifest, stablehlo
from prompt_jax.export.asking import BATCH, Asked, Ids, ended, padded
from prompt_jax.export.served_prompt import ServedPrompt


class StableHLO:
  """Programs and arrays, read by JAX from their files."""

  def __init__(self, folder: pathlib.Path, rows: int, eos_id: int):
    import jax

    del rows
    self.name = f'JAX {jax.__version__}'
    about = read_json(folder / manifest.NAME)
    self._prompts = {prompt['name']: prompt for prompt in about['prompts']}
    self._eos_id = eos_id
    self._weights = _arrays(folder / stablehlo.WEIGHTS)
    self._groups = [_opened(folder / group['folder']) for group in about['groups']]

  def source(self, prompt: ServedPrompt, text: str) -> Ids:
    return prompt.source(text)

  def greedy(self, sources: Sequence[Asked], length: int) -> list[Ids]:
    found = self._write(sources, length, 0.0)
    # The most probable token alone leaves sampling no choice; it is the same program.
    if self._write(sources, length, 1.0) != found:
      raise ValueError('sampled among one token, another answer is written than decoded greedily')
    return found

  def _write(self, sources: Sequence[Asked], length: int, temperature: float) -> list[Ids]:
    found: dict[int, Ids] = {}
    for group, numbers, places, tokens in self._batches(sources):
      each = lambda value, dtype, n=len(tokens): np.full(n, value, dtype)
      written, _ = self._groups[group]['write'](
        self._weights,
        self._groups[group]['prompts'],
        places,
        tokens,
        each(length, np.int32),
        each(temperature, np.float32),
        each(1, np.int32),
        each(0, np.float32),
        each(0, np.int32),
      )
      for i, row in zip(numbers, np.asarray(written).tolist(), strict=False):
        found[i] = ended(row[:length], self._eos_id)
    return [found[i] for i in range(len(sources))]

  def log_probs(self, sources: Sequence[Asked], targets: Sequence[Ids]) -> list[np.ndarray]:
    found: dict[int, np.ndarray] = {}
    size = max(2, *map(len, targets))
    for group, numbers, places, tokens in self._batches(sources):
      wanted = padded([targets[i] for i in numbers], size)
      wanted = np.concatenate([wanted, np.repeat(wanted[-1:], len(tokens) - len(numbers), 0)])
      scores = self._groups[group]['score'](
        self._weights, self._groups[group]['prompts'], places, tokens, wanted[:, None]
      )
      for i, row in zip(numbers, np.asarray(scores), strict=False):
        found[i] = row[0, : len(targets[i])]
    return [found[i] for i in range(len(sources))]

  def _batches(
    self, sources: Sequence[Asked]
  ) -> list[tuple[int, list[int], np.ndarray, np.ndarray]]:
    """Of each: the group, the numbers of its sources, their places, their tokens.

    All have one shape, filled up with the last row, so that one program each is compiled.
    """
    by_group: dict[int, list[int]] = {}
    for i, source in enumerate(sources):
      by_group.setdefault(self._prompts[source.prompt]['group'], []).append(i)
    count = min(BATCH, max(map(len, by_group.values())))
    width = -(-max(len(source.ids) for source in sources) // 8) * 8
    found = []
    for group, members in by_group.items():
      for start in range(0, len(members), count):
        numbers = members[start : start + count]
        filled = [*numbers, *[numbers[-1]] * (count - len(numbers))]
        places = np.array([self._prompts[sources[i].prompt]['place'] for i in filled], np.int32)
        tokens = padded([sources[i].ids for i in filled], width)
        found.append((group, numbers, places, tokens))
    return found


def _arrays(path: pathlib.Path) -> dict[str, Any]:
  import jax
  import safetensors.numpy

  return jax.device_put(safetensors.numpy.load_file(path))


def _opened(folder: pathlib.Path) -> dict[str, Any]:
  import jax
  from jax import export

  read = lambda name: export.deserialize(
    bytearray((folder / f'{name}{stablehlo.SUFFIX}').read_bytes())
  )
  programs = {name: jax.jit(read(name).call) for name in stablehlo.PROGRAMS}
  return {'prompts': _arrays(folder / stablehlo.PROMPTS), **programs}
