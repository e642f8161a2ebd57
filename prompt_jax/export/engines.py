"""Software that runs an export, each by its own means, see `asking.Engine`.

An engine is imported when it is opened; `missing` says what it lacks.
"""

import contextlib
import importlib.util
import json
import pathlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import numpy as np

from prompt_jax.export import program_engines
from prompt_jax.export.asking import BATCH, Asked, Engine, Ids, ended
from prompt_jax.export.ctranslate2_model import SOURCE, TARGET
from prompt_jax.export.prompt_ids import PromptIds

# What each format needs to be run.
NEEDS = {
  'hf': ('transformers', 'torch'),
  'ctranslate2': ('ctranslate2',),
  'stablehlo': ('flatbuffers',),
  'savedmodel': ('tensorflow',),
}


def missing(to: str) -> list[str]:
  """The packages that running a format needs and that are not installed."""
  return [name for name in NEEDS[to] if importlib.util.find_spec(name) is None]


def opened(to: str, folder: pathlib.Path, rows: int, eos_id: int) -> Engine:
  """The engine of a format with what was written.

  Args:
    to: the format.
    folder: that was written.
    rows: ids of the model's own table.
    eos_id: the end of a sequence.
  """
  kinds: dict[str, Callable[..., Engine]] = {
    'hf': _Transformers,
    'ctranslate2': _CTranslate2,
    'stablehlo': program_engines.StableHLO,
    'savedmodel': program_engines.SavedModel,
  }
  return kinds[to](folder, rows, eos_id)


class _Transformers:
  def __init__(self, folder: pathlib.Path, rows: int, eos_id: int):
    import torch
    import transformers

    self.name = f'transformers {transformers.__version__}'
    self._torch, self._rows, self._eos_id = torch, rows, eos_id
    tokenizer, model = transformers.AutoTokenizer, transformers.AutoModelForSeq2SeqLM
    with _silent(transformers.logging):
      self._tokenizer: Any = tokenizer.from_pretrained(folder, local_files_only=True)
      self._model: Any = model.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    self._model.eval()

  def source(self, prompt: PromptIds, text: str) -> Ids:
    typed = f'{prompt.word} {text}' if prompt.placement == 'before' else f'{text} {prompt.word}'
    most = len(prompt.rows) + prompt.lengths.inputs
    return list(self._tokenizer(typed, truncation=True, max_length=most).input_ids)

  def answers(self, prompts: Sequence[str], texts: Sequence[str]) -> None:
    del prompts, texts

  def greedy(self, sources: Sequence[Asked], length: int) -> list[Ids]:
    found: list[Ids] = []
    for part in _parts([source.ids for source in sources]):
      with self._torch.inference_mode():
        written = self._model.generate(
          **self._padded(part), max_new_tokens=length, do_sample=False, num_beams=1
        )
      found += [ended(row[1:].tolist(), self._eos_id)[:length] for row in written]
    return found

  def log_probs(self, sources: Sequence[Asked], targets: Sequence[Ids]) -> list[np.ndarray]:
    torch, found = self._torch, []
    for part, wanted in zip(_parts([s.ids for s in sources]), _parts(targets), strict=True):
      size = max(map(len, wanted))
      ids = torch.tensor([[*t, *[0] * (size - len(t))] for t in wanted])
      before = torch.nn.functional.pad(ids[:, :-1], (1, 0))
      with torch.inference_mode():
        logits = self._model(**self._padded(part), decoder_input_ids=before).logits
        values = logits[..., : self._rows].float().log_softmax(-1).gather(-1, ids[..., None])
      rows = values[..., 0].numpy()
      found += [row[: len(t)] for row, t in zip(rows, wanted, strict=True)]
    return found

  def _padded(self, part: Sequence[Ids]) -> dict[str, Any]:
    size = max(map(len, part))
    ids = self._torch.tensor([[*x, *[0] * (size - len(x))] for x in part])
    count = self._torch.tensor([len(x) for x in part])
    return {'input_ids': ids, 'attention_mask': (self._torch.arange(size) < count[:, None]).long()}


@contextlib.contextmanager
def _silent(logging: Any) -> Iterator[None]:
  """Without transformers' bars and its advice on files that are not its own."""
  before, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
  logging.set_verbosity_error()
  logging.disable_progress_bar()
  try:
    yield
  finally:
    logging.set_verbosity(before)
    if bars:
      logging.enable_progress_bar()


class _CTranslate2:
  def __init__(self, folder: pathlib.Path, rows: int, eos_id: int):
    import ctranslate2

    del rows
    self.name = f'CTranslate2 {ctranslate2.__version__}'
    # One thread: more wait for each other in loops, where the processors have other work.
    self._model = ctranslate2.Translator(str(folder), device='cpu', intra_threads=1)
    self._source, self._target = (json.loads((folder / n).read_text()) for n in (SOURCE, TARGET))
    self._id = {token: i for i, token in enumerate(self._target)}
    self._eos_id = eos_id

  def source(self, prompt: PromptIds, text: str) -> Ids:
    return prompt.source(text)

  def answers(self, prompts: Sequence[str], texts: Sequence[str]) -> None:
    del prompts, texts

  def greedy(self, sources: Sequence[Asked], length: int) -> list[Ids]:
    found = self._model.translate_batch(
      self._named([s.ids for s in sources], self._source),
      max_batch_size=BATCH,
      beam_size=1,
      max_decoding_length=length,
      min_decoding_length=0,  # else an answer cannot be empty
      max_input_length=0,
      return_end_token=True,
    )
    return [[self._id[token] for token in result.hypotheses[0]] for result in found]

  def log_probs(self, sources: Sequence[Asked], targets: Sequence[Ids]) -> list[np.ndarray]:
    # The end of the sequence is scored too, and not given.
    whole = [t[:-1] if t[-1] == self._eos_id else t for t in targets]
    found = self._model.score_batch(
      self._named([s.ids for s in sources], self._source),
      self._named(whole, self._target),
      max_batch_size=BATCH,
      max_input_length=0,
    )
    return [
      np.asarray(result.log_probs, np.float32)[: len(t)]
      for result, t in zip(found, targets, strict=True)
    ]

  def _named(self, rows: Sequence[Ids], names: Sequence[str]) -> list[list[str]]:
    return [[names[i] for i in row] for row in rows]


def _parts(rows: Sequence[Ids]) -> Iterator[Sequence[Ids]]:
  for start in range(0, len(rows), BATCH):
    yield rows[start : start + BATCH]
