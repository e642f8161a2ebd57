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

from prompt_jax.errors import UserError
from prompt_jax.export.served_prompt import ServedPrompt
from prompt_jax.injections import Placement
from prompt_jax.loading import Tuned
from prompt_jax.named_prompts import NamedFile
from prompt_jax.prompt_formats.foreign import DecoderKeysValues, plain


@dataclasses.dataclass(frozen=True)
class PromptIds(ServedPrompt):
  """A prompt whose rows are ids of a vocabulary.

  Attributes:
    rows: float32[P, H] embeddings of its ids.
    first: the id of the first row; the others follow.
    placement: where the ids go among those of the text.
  """

  rows: np.ndarray
  first: int
  placement: Placement

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

  def source(self, text: str) -> list[int]:
    """The ids of an input: those of the text with the prompt's."""
    return self.placed(self.text_ids(text))

  def placed(self, ids: Sequence[int]) -> list[int]:
    """Ids of a text, the end of the sequence last, with those of the prompt where they belong."""
    text = list(ids)
    at = {'before': 0, 'after_bos': 1, 'before_eos': len(text) - 1, 'after_eos': len(text)}
    k = at[self.placement]
    return [*text[:k], *self.ids, *text[k:]]

  def about(self) -> dict[str, Any]:
    return {
      'name': self.name,
      'word': self.word,
      'rows': len(self.rows),
      'ids': self.ids,
      'tokens': self.tokens,
      'placement': self.placement,
      **self.facts(),
    }


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
    rows = plain(tuned.injections(), said, instead(to))
    if isinstance(rows, DecoderKeysValues):
      raise UserError(
        f"{said} adds keys and values to the decoder, which are no rows of the encoder's input. "
        f'{instead(to, "peft")}'
      )
    prompts.append(PromptIds(name, tuned, rows.values, first, rows.placement))
    first += len(rows.values)
  return prompts


def instead(to: str, *others: str) -> str:
  """What to do with a prompt that is more than rows."""
  takers = ', '.join(repr(name) for name in (*others, 'stablehlo', 'savedmodel'))
  return (
    f'{to!r} takes only rows among the token embeddings: the formats {takers} take it, and '
    '`prompt-jax infer` answers with it; or train the prompt "input" (a model may recommend '
    'another: the embedded one "prefix").'
  )
