"""Software that runs exported programs, see `prompt_groups`: JAX alone, and TensorFlow."""

import abc
import pathlib
from collections.abc import Sequence
from typing import Any

import numpy as np

from prompt_jax.checkpoints.on_disk import read_json
from prompt_jax.export import manifest, savedmodel, stablehlo
from prompt_jax.export.asking import BATCH, Asked, Ids, ended, padded
from prompt_jax.export.served_prompt import ServedPrompt

# Sizes of batches: rows of a small one, and multiples of tokens.
FEW, WIDTH = 8, 32


class _Programs(abc.ABC):
  """What both do: batches of one shape for each program.

  Attributes:
    where: of a prompt by name, the program's group and the prompt's number there.
  """

  where: dict[str, tuple[int, int]]
  eos_id: int

  @abc.abstractmethod
  def call(self, group: int, name: str, *args: np.ndarray) -> Any:
    """The first result of a program."""

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
      written = self.call(
        group,
        'write',
        places,
        tokens,
        each(length, np.int32),
        each(temperature, np.float32),
        each(1, np.int32),
        each(0, np.float32),
        each(0, np.int32),
      )
      for i, row in zip(numbers, np.asarray(written).tolist(), strict=False):
        found[i] = ended(row[:length], self.eos_id)
    return [found[i] for i in range(len(sources))]

  def log_probs(self, sources: Sequence[Asked], targets: Sequence[Ids]) -> list[np.ndarray]:
    found: dict[int, np.ndarray] = {}
    size = _multiple(max(map(len, targets)), FEW)
    for group, numbers, places, tokens in self._batches(sources):
      wanted = padded([targets[i] for i in numbers], size)
      wanted = np.concatenate([wanted, np.repeat(wanted[-1:], len(tokens) - len(numbers), 0)])
      scores = self.call(group, 'score', places, tokens, wanted[:, None])
      for i, row in zip(numbers, np.asarray(scores), strict=False):
        found[i] = row[0, : len(targets[i])]
    return [found[i] for i in range(len(sources))]

  def _batches(
    self, sources: Sequence[Asked]
  ) -> list[tuple[int, list[int], np.ndarray, np.ndarray]]:
    """Of each: the group, the numbers of its sources, their places, their tokens.

    They have few shapes, filled up with the last row, as each is compiled.
    """
    by_group: dict[int, list[int]] = {}
    for i, source in enumerate(sources):
      by_group.setdefault(self.where[source.prompt][0], []).append(i)
    count = BATCH if len(sources) > FEW else FEW
    found = []
    for group, members in by_group.items():
      for start in range(0, len(members), count):
        numbers = members[start : start + count]
        filled = [*numbers, *[numbers[-1]] * (count - len(numbers))]
        places = np.array([self.where[sources[i].prompt][1] for i in filled], np.int32)
        rows = [sources[i].ids for i in filled]
        tokens = padded(rows, _multiple(max(map(len, rows)), WIDTH))
        found.append((group, numbers, places, tokens))
    return found


class StableHLO(_Programs):
  """Programs and arrays, read by JAX from their files."""

  def __init__(self, folder: pathlib.Path, rows: int, eos_id: int):
    import jax

    del rows
    self.name, self.eos_id = f'JAX {jax.__version__}', eos_id
    about = read_json(folder / manifest.NAME)
    self.where = {p['name']: (p['group'], p['place']) for p in about['prompts']}
    self._weights = _arrays(folder / stablehlo.WEIGHTS)
    self._groups = [_opened(folder / group['folder']) for group in about['groups']]

  def source(self, prompt: ServedPrompt, text: str) -> Ids:
    return prompt.source(text)

  def answers(self, prompts: Sequence[str], texts: Sequence[str]) -> None:
    del prompts, texts

  def call(self, group: int, name: str, *args: np.ndarray) -> Any:
    own = self._groups[group]
    found = own[name](self._weights, own['prompts'], *args)
    return found[0] if name == 'write' else found


def _multiple(n: int, of: int) -> int:
  """The smallest that is at least n."""
  return -(-n // of) * of


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


class SavedModel(_Programs):
  """A SavedModel, opened by TensorFlow."""

  def __init__(self, folder: pathlib.Path, rows: int, eos_id: int):
    tf = savedmodel.tensorflow()
    del rows
    self.name, self.eos_id = f'TensorFlow {tf.__version__}', eos_id
    about = read_json(folder / manifest.NAME)
    self.where = {p['name']: (0, p['place']) for p in about['prompts']}
    self._call = savedmodel.signatures_of(folder)
    self._text = 'tokens' in self._call

  def source(self, prompt: ServedPrompt, text: str) -> Ids:
    if not self._text:
      return prompt.source(text)
    constant = savedmodel.tensorflow().constant
    found = self._call['tokens'](task=constant([prompt.name]), text=constant([text]))
    return found['tokens'][0].numpy().tolist()

  def answers(self, prompts: Sequence[str], texts: Sequence[str]) -> list[str] | None:
    if not self._text:
      return None
    constant = savedmodel.tensorflow().constant
    found = self._call['serving_default'](task=constant(prompts), text=constant(texts))
    return [text.decode() for text in found['text'].numpy().tolist()]

  def call(self, group: int, name: str, *args: np.ndarray) -> Any:
    del group
    constant, names = savedmodel.tensorflow().constant, stablehlo.PROGRAMS[name]
    found = self._call[name](**dict(zip(names, map(constant, args), strict=True)))
    return found['tokens' if name == 'write' else 'log_probs'].numpy()
