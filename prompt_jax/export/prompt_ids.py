"""Prompts as entries of a vocabulary: a row of the prompt is the embedding of a new token id.

P rows before the input are P ids before the text's own, whatever software runs the model. The ids
come behind the model's table, so that prompts of any number and length share one model, and the
rows of a batch may each have another one. Exact for rows among the token embeddings, however they
were parametrised; nothing else that a method injects is the embedding of a token.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np

from prompt_jax.checkpoints.prompt_file import build_method, load_facts
from prompt_jax.data.example import Lengths, encode, encode_labels
from prompt_jax.data.vocabulary import Vocabulary
from prompt_jax.errors import UserError
from prompt_jax.injections import Placement
from prompt_jax.loading import Tuned
from prompt_jax.named_prompts import OF_TASKS, NamedFile
from prompt_jax.prompt_formats.foreign import DecoderKeysValues, plain


@dataclasses.dataclass(frozen=True)
class PromptIds:
  """A prompt whose rows are ids of a vocabulary.

  Attributes:
    name: how a text asks for it.
    rows: float32[P, H] embeddings of its ids.
    first: the id of the first row; the others follow.
    placement: where the ids go among those of the text.
    tuned: the model with the prompt itself, for comparison.
  """

  name: str
  rows: np.ndarray
  first: int
  placement: Placement
  tuned: Tuned

  @property
  def ids(self) -> list[int]:
    return list(range(self.first, self.first + len(self.rows)))

  @property
  def tokens(self) -> list[str]:
    """The names of the ids; a prompt's name has no colon, so that no two prompts share one."""
    return [f'<{self.name}:{i}>' for i in range(len(self.rows))]

  @property
  def word(self) -> str:
    """What stands for all of the ids in a text."""
    return f'<{self.name}>'

  @property
  def lengths(self) -> Lengths:
    """Most tokens of an input, the prompt's left out, and of an answer."""
    return self.tuned.lengths()

  @property
  def labels(self) -> list[str] | None:
    return self.tuned.metadata.get('labels') or None

  @property
  def label_ids(self) -> list[list[int]] | None:
    """Of each label, the end of the sequence included."""
    if self.labels is None:
      return None
    return [ids.tolist() for ids in encode_labels(self.labels, self.words, self.lengths.targets)]

  def source(self, text: str) -> list[int]:
    """The ids of an input: those of the text with the prompt's."""
    return self.placed(self.text_ids(text))

  def text_ids(self, text: str) -> list[int]:
    """The ids of a text alone, cut as `infer` cuts it."""
    return [int(i) for i in encode(text, self.words, self.lengths.inputs)]

  def placed(self, ids: Sequence[int]) -> list[int]:
    """Ids of a text, the end of the sequence last, with those of the prompt where they belong."""
    text = list(ids)
    at = {'before': 0, 'after_bos': 1, 'before_eos': len(text) - 1, 'after_eos': len(text)}
    k = at[self.placement]
    return [*text[:k], *self.ids, *text[k:]]

  @property
  def words(self) -> Vocabulary:
    return self.tuned.backbone.vocabulary

  def about(self) -> dict[str, Any]:
    """What a program must know to ask with it, as JSON."""
    known, lengths = self.tuned.metadata, self.lengths
    return {
      'name': self.name,
      'word': self.word,
      'rows': len(self.rows),
      'ids': self.ids,
      'tokens': self.tokens,
      'placement': self.placement,
      'labels': self.labels,
      'label_ids': self.label_ids,
      'words': known.get('words'),
      'input_length': lengths.inputs,
      'target_length': lengths.targets,
      'task': known.get('task'),
      'method': known['method'],
      'step': known.get('step'),
    }


def check_methods(found: Sequence[NamedFile], to: str) -> None:
  """Refuses what is no prompt of its own, before a model is read.

  Raises:
    UserError: a file is damaged, holds weights of the model, prompts of several tasks, or a method
      that reads its input; in one line, with what can be done.
  """
  for _, file in found:
    kind, metadata, _ = load_facts(file)
    if kind == 'weights':
      raise UserError(
        f'{file!r} holds weights of the model, not a prompt, and many prompts share the model of '
        f'{to!r}. `prompt-jax infer` answers with it.'
      )
    reads: frozenset[str] = getattr(
      build_method(metadata.get('method_config')), 'depends_on', frozenset()
    )
    if reads == {'task_id'}:
      raise UserError(
        f'{file!r} holds a prompt for each of several tasks ({metadata["method"]}); give the '
        f'folder {OF_TASKS} that training left beside it.'
      )
    if reads:
      raise UserError(
        f'{file!r}: {metadata["method"]} reads {", ".join(sorted(reads))} of each input, so it is '
        f'no fixed set of rows. {_instead(to)}'
      )


def numbered(found: Sequence[NamedFile], ready: Sequence[Tuned], to: str) -> list[PromptIds]:
  """The prompts with ids behind the model's table, in order.

  Raises:
    UserError: a prompt is more than rows among the token embeddings; in one line, with what can
      serve it; or its name is a token of the vocabulary.
  """
  first = ready[0].backbone.config.vocab_size
  prompts = []
  for (name, file), tuned in zip(found, ready, strict=True):
    words: Any = tuned.backbone.vocabulary
    if words.ids_of(f'<{name}>'):
      raise UserError(f'<{name}> is a token of the model. Give {file} another name.', ['names'])
    said = f'{file!r}: {type(tuned.model.prompt).__name__}'
    rows = plain(tuned.injections(), said, _instead(to))
    if isinstance(rows, DecoderKeysValues):
      raise UserError(
        f"{said} adds keys and values to the decoder, which are no rows of the encoder's input. "
        f'{_instead(to, "peft")}'
      )
    prompts.append(PromptIds(name, rows.values, first, rows.placement, tuned))
    first += len(rows.values)
  return prompts


def _instead(to: str, other: str | None = None) -> str:
  """What to do with a prompt that is more than rows."""
  also = f'the format {other!r} takes it, and ' if other else ''
  return (
    f'{to!r} takes only rows among the token embeddings: {also}`prompt-jax infer` answers with it; '
    'or train the prompt "input" (a model may recommend another: the embedded one "prefix").'
  )
