"""A prompt of an export: how a text asks for it, what it reads and what it answers."""

import abc
import dataclasses
from collections.abc import Sequence
from typing import Any

from prompt_jax.checkpoints.prompt_file import build_method, load_facts
from prompt_jax.data.example import Lengths, encode, encode_labels
from prompt_jax.data.vocabulary import Vocabulary
from prompt_jax.errors import UserError
from prompt_jax.injections import READS, TASK
from prompt_jax.loading import Tuned
from prompt_jax.named_prompts import OF_TASKS, NamedFile


@dataclasses.dataclass(frozen=True)
class ServedPrompt(abc.ABC):
  """What the prompts of all formats share.

  Attributes:
    name: how a text asks for it.
    tuned: the model with the prompt itself, for comparison.
  """

  name: str
  tuned: Tuned

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

  @property
  def words(self) -> Vocabulary:
    return self.tuned.backbone.vocabulary

  def text_ids(self, text: str) -> list[int]:
    """The ids of a text alone, cut as `infer` cuts it."""
    return [int(i) for i in encode(text, self.words, self.lengths.inputs)]

  @abc.abstractmethod
  def source(self, text: str) -> list[int]:
    """The ids with which software is asked."""

  @abc.abstractmethod
  def about(self) -> dict[str, Any]:
    """What a program must know to ask with it, as JSON."""

  def facts(self) -> dict[str, Any]:
    """What `about` says in every format."""
    known, lengths = self.tuned.metadata, self.lengths
    return {
      'labels': self.labels,
      'label_ids': self.label_ids,
      'words': known.get('words'),
      'input_length': lengths.inputs,
      'target_length': lengths.targets,
      'task': known.get('task'),
      'method': known['method'],
      'step': known.get('step'),
    }


def check_methods(found: Sequence[NamedFile], instead: str | None) -> None:
  """Refuses what is no prompt of its own, before a model is read.

  Args:
    found: the prompts.
    instead: what to do with a method that reads its input; None where the format takes it.

  Raises:
    UserError: a file is damaged, holds weights of the model, prompts of several tasks, or a method
      that reads its input; in one line, with what can be done.
  """
  for _, file in found:
    kind, metadata, _ = load_facts(file)
    if kind == 'weights':
      raise UserError(
        f'{file!r} holds weights of the model, not a prompt, and the prompts of an export share '
        'one model: answer with it alone, by infer.'
      )
    reads: frozenset[str] = getattr(
      build_method(metadata.get('method_config')), 'depends_on', frozenset()
    )
    if TASK in reads:
      raise UserError(
        f'{file!r} holds a prompt for each of several tasks ({metadata["method"]}); give the '
        f'folder {OF_TASKS} that training left beside it.'
      )
    if features := sorted(reads - set(READS)):
      raise UserError(
        f'{file!r}: {metadata["method"]} reads {", ".join(features)} of each example, and what is '
        'exported is asked with a text alone. Answer with the prompt file, by infer, on a file '
        'with these columns.'
      )
    if reads and instead:
      raise UserError(
        f'{file!r}: {metadata["method"]} reads {", ".join(sorted(reads))} of each input, so it is '
        f'no fixed set of rows. {instead}'
      )
