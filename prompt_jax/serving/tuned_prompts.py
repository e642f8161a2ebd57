"""Many prompts on one frozen model, for use from Python: each text names its prompt."""

import math
import warnings
from collections.abc import Sequence
from typing import Any

import numpy as np

from prompt_jax import html_table, loading
from prompt_jax.data import splits
from prompt_jax.data.example import Example, Lengths, check_lengths, checked_texts, encode
from prompt_jax.errors import UserError
from prompt_jax.inference.beam_search import LENGTH_PENALTY
from prompt_jax.inference.decode import check_sampling
from prompt_jax.inference.decoding import Decoding
from prompt_jax.inference.score import NORMALIZE, Normalize
from prompt_jax.loading import BaseModel
from prompt_jax.named_prompts import find_prompts
from prompt_jax.runs.results import Answer, Answers
from prompt_jax.serving.bank import SPARE, Bank, Entry
from prompt_jax.serving.batch import Programs
from prompt_jax.serving.rows import Found, Row, Settings, Way

WAYS: tuple[Way, ...] = ('rank', 'constrained', 'generate')


def load(
  base: BaseModel, files: Sequence[str], names: Sequence[str] | None = None, spare: int = SPARE
) -> 'TunedPrompts':
  """Prompts on one model on one device.

  Args:
    base: the model.
    files: prompt files of that model, or folders of runs, see `named_prompts.find_prompts`.
    names: of the prompts; None for those of the files.
    spare: see `Bank`.

  Raises:
    UserError: as `named_prompts.find_prompts`, `loading.load_all` and `Bank.add`.
  """
  found = find_prompts(files, names)
  ready = loading.load_all(base, [named.file for named in found], None)
  prompts = TunedPrompts(Bank(ready[0].backbone, spare))
  for named, tuned in zip(found, ready, strict=True):
    prompts.bank.add(named.name, tuned)
  return prompts


class TunedPrompts:
  """What `prompt_jax.load` returns for a list of files.

  Texts for different prompts are answered in the same batches. Prompts that inject in other ways
  (rows before the input, keys and values, rows in every layer) have batches of their own.

  Attributes:
    bank: the model and the prompts.
    programs: what is compiled.
  """

  def __init__(self, bank: Bank):
    self.bank, self.programs = bank, Programs(bank)

  @property
  def names(self) -> tuple[str, ...]:
    """The names of the prompts."""
    return self.bank.names

  def metadata(self, name: str) -> dict[str, Any]:
    """What the file of a prompt says of itself."""
    return dict(self.bank[name].metadata)

  def add(self, prompt_file: str, name: str | None = None) -> str:
    """Adds a prompt, or replaces the one of that name, and returns the name.

    Nothing is compiled for a prompt that takes a spare place and is no longer than those of its
    kind have room for; otherwise the next call is.

    Args:
      prompt_file: of the same model.
      name: None for that of the file.

    Raises:
      UserError: the file is missing, damaged or of another model; a method that cannot be stacked.
    """
    found = find_prompts([prompt_file], None if name is None else [name])
    if len(found) > 1:
      raise UserError(f'{prompt_file} holds {len(found)} prompts. Add one at a time.')
    self.bank.add(found[0].name, loading.attach(self.bank.backbone, found[0].file))
    return found[0].name

  def remove(self, name: str) -> None:
    """Takes a prompt out; its place is spare.

    Raises:
      UserError: there is none of that name.
    """
    self.bank.remove(name)

  def predict(
    self,
    texts: Sequence[str],
    prompts: str | Sequence[str],
    *,
    method: Way | None = None,
    normalize: Normalize = 'none',
    batch_size: int = 32,
    input_length: int | None = None,
  ) -> Answers:
    """The answer to each text, in order: a label with its probability, or text.

    Args:
      texts: at least one.
      prompts: the name of each text's prompt, or one name for all.
      method: see `TunedModel.predict`; None: "rank" for the prompts that were tuned on labels,
        "generate" for the others.
      normalize: see `TunedModel.predict`; of the ranked texts.
      batch_size: texts at a time.
      input_length: most tokens of a text; None as each prompt was trained.

    Raises:
      UserError: no texts, an unknown prompt, another number of prompts than of texts, or a method
        that needs labels where there are none.
    """
    if method is not None and method not in WAYS:
      raise UserError(f'The method is {method!r}; expected {", ".join(WAYS)}.', ['method'])
    if normalize not in NORMALIZE:
      raise UserError(f'normalize is {normalize!r}; expected {" or ".join(NORMALIZE)}.')
    asked = self._asked(texts, prompts)
    ways = [method or ('rank' if entry.labels else 'generate') for _, entry in asked]
    if normalize != 'none' and 'rank' not in ways:
      raise UserError('normalize is of ranked labels, and here none are ranked.', ['normalize'])
    for way, (_, entry) in zip(ways, asked, strict=True):
      if way != 'generate' and not entry.labels:
        raise UserError(f'{entry.name!r} has no labels for the method {way}.', ['method'])
    rows = self._rows(asked, input_length, None, Decoding())
    found: dict[int, Found] = {}
    for way in dict.fromkeys(ways):
      numbers = [i for i, own in enumerate(ways) if own == way]
      settings = Settings(way, normalize if way == 'rank' else 'none')
      found |= self._answered(rows, numbers, settings, batch_size)
    return Answers(tuple(self.answer(text, found[i]) for i, (text, _) in enumerate(asked)))

  def generate(
    self,
    texts: Sequence[str],
    prompts: str | Sequence[str],
    *,
    beams: int = 1,
    length_penalty: float = LENGTH_PENALTY,
    temperature: float = 0.0,
    top_k: int = 0,
    top_p: float = 0.0,
    seed: int = 0,
    max_new_tokens: int | None = None,
    batch_size: int = 32,
    input_length: int | None = None,
  ) -> list[str]:
    """The text that the model writes for each text.

    What is sampled for a text depends on the seed and the text's number, not on its batch.

    Args:
      texts: at least one.
      prompts: see `predict`.
      beams: this and what follows: see `TunedModel.generate`.
      length_penalty: see `beams`.
      temperature: see `beams`.
      top_k: see `beams`.
      top_p: see `beams`.
      seed: see `beams`.
      max_new_tokens: most tokens of an answer; None as each prompt was trained.
      batch_size: texts at a time.
      input_length: see `predict`.

    Raises:
      UserError: see `predict`; settings that exclude each other.
    """
    how = Decoding(temperature, top_k, top_p, beams, length_penalty, seed=seed)
    check_sampling(top_k, top_p)
    rows = self._rows(self._asked(texts, prompts), input_length, max_new_tokens, how)
    settings = Settings(
      'generate', beams=beams, length_penalty=length_penalty, sampled=temperature > 0
    )
    found = self._answered(rows, range(len(rows)), settings, batch_size)
    return [self.answer('', found[i]).prediction for i in range(len(rows))]

  def answer(self, text: str, found: Found) -> Answer:
    """What was found, in words."""
    if found.label is None:
      return Answer(text, self.bank.backbone.vocabulary.decode(found.tokens))
    if len(found.scores):
      probability = float(found.probabilities[found.label])
    else:
      probability = math.exp(found.allowed)
    return Answer(text, found.entry.labels[found.label], probability)

  def _asked(self, texts: Sequence[str], prompts: str | Sequence[str]) -> list[tuple[str, Entry]]:
    """Each text with its prompt."""
    texts = checked_texts(texts)
    names = [prompts] * len(texts) if isinstance(prompts, str) else list(prompts)
    if len(names) != len(texts):
      raise UserError(
        f'There are {len(texts)} texts and {len(names)} prompts; expected a prompt for each text, '
        'or one name for all.',
        ['prompts'],
      )
    return [(text, self.bank[name]) for text, name in zip(texts, names, strict=True)]

  def _rows(
    self,
    asked: Sequence[tuple[str, Entry]],
    input_length: int | None,
    max_new_tokens: int | None,
    how: Decoding,
  ) -> list[Row]:
    """The texts as tokens, cut as each prompt was trained, with a warning where that cuts much."""
    words, rows = self.bank.backbone.vocabulary, []
    by_length: dict[Lengths, list[Example]] = {}
    for number, (text, entry) in enumerate(asked):
      lengths = Lengths(
        input_length or entry.lengths.inputs, max_new_tokens or entry.lengths.targets
      )
      check_lengths(lengths)
      tokens = encode(text, words, lengths.inputs)
      example = Example(tokens, np.zeros(0, np.int32), text, '', None, {}, '')
      by_length.setdefault(lengths, []).append(example)
      rows.append(
        Row(entry.name, tokens, lengths.targets, how.temperature or 0.0, how.top_k or 0,
            how.top_p or 0.0, how.seed, number)
      )  # fmt: skip
    for lengths, examples in by_length.items():
      cut = splits.cut(examples, words, lengths._replace(targets=2))[0]
      if cut.cut:
        warnings.warn(f'{cut}; a higher input_length keeps more', stacklevel=4)
    return rows

  def _answered(
    self, rows: Sequence[Row], numbers: Sequence[int], settings: Settings, batch_size: int
  ) -> dict[int, Found]:
    """{number of a row: its answer}; a batch has rows of one group and of similar lengths."""
    if batch_size < 1:
      raise UserError(f'The batch size is {batch_size}; it must be at least 1.', ['batch_size'])
    by_group: dict[int, list[int]] = {}
    for i in numbers:
      by_group.setdefault(id(self.bank[rows[i].prompt].group), []).append(i)
    found: dict[int, Found] = {}
    for members in by_group.values():
      members.sort(key=lambda i: len(rows[i].tokens))
      for start in range(0, len(members), batch_size):
        batch = members[start : start + batch_size]
        answers = self.programs([rows[i] for i in batch], settings)
        for i, answer in zip(batch, answers, strict=True):
          if answer is None:
            raise UserError(f'The prompt {rows[i].prompt!r} was removed while it was asked.')
          found[i] = answer
    return found

  def __repr__(self) -> str:
    return f'TunedPrompts({", ".join(self.names)} on {self.bank.backbone.name!r})'

  def _repr_html_(self) -> str:
    rows = [(name, self.bank[name].metadata.get('task')) for name in self.names]
    return html_table.table(['prompt', 'task'], rows)
