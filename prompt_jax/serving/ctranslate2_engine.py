"""The engine of CTranslate2: prompts of a folder that `prompt-jax export` wrote. Without JAX."""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Any

import numpy as np

from prompt_jax.data.example import Lengths, encode
from prompt_jax.data.vocabulary import FILE_NAME, ByteVocabulary, Vocabulary, load_vocabulary
from prompt_jax.errors import UserError
from prompt_jax.serving.rows import Found, Row, Served, Settings, Tell

MANIFEST = 'prompts.json'
SOURCE, TARGET = 'source_vocabulary.json', 'target_vocabulary.json'


@dataclasses.dataclass(frozen=True, eq=False)
class Prompt:
  """A prompt of the folder.

  Attributes:
    name: of it.
    lengths: most tokens of an input, the prompt's left out, and of an answer.
    labels: the words that it answers with; () for free text.
    label_ids: of each label, the end of the sequence included.
    ids: of the prompt.
    placement: where they go among those of a text.
  """

  name: str
  lengths: Lengths
  labels: tuple[str, ...]
  label_ids: tuple[tuple[int, ...], ...]
  ids: tuple[int, ...]
  placement: str

  def placed(self, tokens: np.ndarray) -> list[int]:
    """The ids of a text, the end of the sequence last, with those of the prompt."""
    text = tokens.tolist()
    at = {'before': 0, 'after_bos': 1, 'before_eos': len(text) - 1, 'after_eos': len(text)}
    k = at[self.placement]
    return [*text[:k], *self.ids, *text[k:]]


class CTranslate2Engine:
  """An `Engine`, see there. Its prompts are those of the folder, for as long as it answers."""

  def __init__(self, folder: str, beams: int = 1):
    """Reads the folder.

    Args:
      folder: an export of format ctranslate2.
      beams: a width of a beam search that requests may ask for; 1 for none.

    Raises:
      UserError: it is no such folder.
    """
    import ctranslate2

    path = pathlib.Path(folder)
    about = _manifest(path)
    self.base_model: str = about['base_model']
    self.beams = (beams,) if beams > 1 else ()
    self._prompts = {p['name']: _prompt(p) for p in about['prompts']}
    self._vocabulary = _vocabulary(path, about['vocabulary'])
    self._source, self._target = (
      json.loads((path / name).read_text()) for name in (SOURCE, TARGET)
    )
    self._id = {name: i for i, name in enumerate(self._target)}
    try:
      self._model: Any = ctranslate2.Translator(str(path), device='auto')
    except (RuntimeError, ValueError) as e:
      raise UserError(f'CTranslate2 cannot open {folder}: {e}') from None

  @property
  def names(self) -> tuple[str, ...]:
    return tuple(self._prompts)

  @property
  def prompts(self) -> Sequence[Served]:
    return tuple(self._prompts.values())

  def __getitem__(self, name: str) -> Prompt:
    if name not in self._prompts:
      raise UserError(f'There is no prompt {name!r}.')
    return self._prompts[name]

  def tokens(self, text: str, prompt: Served) -> np.ndarray:
    return encode(text, self._vocabulary, prompt.lengths.inputs)

  def words(self, tokens: np.ndarray) -> str:
    return self._vocabulary.decode(tokens)

  def group(self, prompt: Served, tokens: np.ndarray) -> Hashable:
    return max(len(tokens) - 1, 15).bit_length()  # texts of similar length

  def programs(self) -> Iterator[Callable[[], object]]:
    yield from ()

  def __call__(
    self, rows: Sequence[Row], settings: Settings, tell: Tell | None = None
  ) -> list[Found | None]:
    if settings.way == 'rank':
      return self._ranked(rows)
    found: list[Found | None] = [None] * len(rows)
    alike: dict[Hashable, list[int]] = {}
    for i, row in enumerate(rows):  # of one call, CTranslate2 takes one limit and one sampling
      alike.setdefault((row.limit, row.temperature, row.top_p), []).append(i)
    for numbers in alike.values():
      answers = self._written([rows[i] for i in numbers], settings, _renumbered(tell, numbers))
      for i, answer in zip(numbers, answers, strict=True):
        found[i] = answer
    return found

  def _ranked(self, rows: Sequence[Row]) -> list[Found | None]:
    prompts = [self[row.prompt] for row in rows]
    sources = self._sources(rows)
    pairs = [
      (source, ids) for source, p in zip(sources, prompts, strict=True) for ids in p.label_ids
    ]
    scores = iter(self._scores(*zip(*pairs, strict=True)))
    found: list[Found | None] = []
    for prompt in prompts:
      own = np.array([next(scores) for _ in prompt.label_ids], np.float32)
      best = int(own.argmax())
      found.append(Found(prompt, np.zeros(0, np.int32), float(own[best]), best, own))
    return found

  def _written(self, rows: Sequence[Row], settings: Settings, tell: Tell | None) -> list[Found]:
    first, sources = rows[0], self._sources(rows)
    options: dict[str, Any] = {'beam_size': settings.beams}
    if first.temperature:
      options |= {'sampling_topk': 0, 'sampling_temperature': first.temperature}
      options |= {'sampling_topp': first.top_p or 1.0}
    if tell is not None:
      options['callback'] = lambda step: tell(step.batch_id, step.step, step.token_id)
    results = self._model.translate_batch(
      sources,
      max_decoding_length=first.limit,
      min_decoding_length=0,  # else an answer cannot be empty
      max_input_length=0,
      length_penalty=0 if settings.beams == 1 else 0.6,
      return_end_token=True,
      **options,
    )
    written = [tuple(self._id[name] for name in result.hypotheses[0]) for result in results]
    scores = self._scores(sources, written)
    prompts = [self[row.prompt] for row in rows]
    return [
      Found(prompt, np.array(ids, np.int32), float(score))
      for prompt, ids, score in zip(prompts, written, scores, strict=True)
    ]

  def _sources(self, rows: Sequence[Row]) -> list[list[str]]:
    return [[self._source[i] for i in self[row.prompt].placed(row.tokens)] for row in rows]

  def _scores(self, sources: Sequence[Any], targets: Sequence[tuple[int, ...]]) -> list[float]:
    """The log-probability of each target under the model itself."""
    end = self._vocabulary.eos_id  # it is scored too, and not given
    whole = [ids[:-1] if ids[-1] == end else ids for ids in targets]
    names = [[self._target[i] for i in ids] for ids in whole]
    found = self._model.score_batch(list(sources), names, max_input_length=0)
    return [sum(f.log_probs[: len(ids)]) for f, ids in zip(found, targets, strict=True)]


def _renumbered(tell: Tell | None, numbers: Sequence[int]) -> Tell | None:
  if tell is None:
    return None
  return lambda row, step, token: tell(numbers[row], step, token)


def _prompt(about: dict[str, Any]) -> Prompt:
  labels, ids = about['labels'] or (), about['label_ids'] or ()
  lengths = Lengths(about['input_length'], about['target_length'])
  own = tuple(map(tuple, ids))
  return Prompt(about['name'], lengths, tuple(labels), own, tuple(about['ids']), about['placement'])


def _manifest(folder: pathlib.Path) -> dict[str, Any]:
  try:
    about = json.loads((folder / MANIFEST).read_text(encoding='utf-8'))
    kind = about['to']
  except (OSError, ValueError, KeyError, TypeError):
    kind = None
  if kind != 'ctranslate2':
    raise UserError(
      f'{folder} is no folder that prompt-jax export wrote for ctranslate2. Write one: prompt-jax '
      'export PROMPT_FILE... FOLDER --to=ctranslate2'
    )
  return about


def _vocabulary(folder: pathlib.Path, about: dict[str, Any]) -> Vocabulary:
  if (folder / FILE_NAME).exists():
    return load_vocabulary(folder / FILE_NAME, 0)  # the sentinels are in it
  words = ByteVocabulary()
  return ByteVocabulary(about['size'] - words.size + words.extra_ids)
