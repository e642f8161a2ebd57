"""What a server needs of the software that computes: one model, and its prompts by name."""

from collections.abc import Callable, Hashable, Iterator, Sequence
from typing import Protocol

import numpy as np

from prompt_jax.serving.rows import Found, Row, Served, Settings, Tell


class Engine(Protocol):
  """One model and its prompts.

  Attributes:
    base_model: the name of the model.
    names: of the prompts, in order.
    prompts: that are there, in order.
    beams: the widths of a beam search that can be asked for.
  """

  @property
  def base_model(self) -> str: ...
  @property
  def names(self) -> tuple[str, ...]: ...
  @property
  def beams(self) -> Sequence[int]: ...
  @property
  def prompts(self) -> Sequence[Served]: ...

  def __getitem__(self, name: str) -> Served:
    """The prompt of that name.

    Raises:
      UserError: there is none.
    """
    ...

  def tokens(self, text: str, prompt: Served) -> np.ndarray:
    """int32[t] the ids of a text, cut as the prompt was trained, the end of the sequence last."""
    ...

  def words(self, tokens: np.ndarray) -> str:
    """The text of what was written."""
    ...

  def group(self, prompt: Served, tokens: np.ndarray) -> Hashable:
    """Equal for rows that can share a batch without loss."""
    ...

  def __call__(
    self, rows: Sequence[Row], settings: Settings, tell: Tell | None = None
  ) -> list[Found | None]:
    """The answers of a batch of one group; None where the prompt is not there any more.

    `tell` is given where the settings are streamed, and called for each token in order.
    """
    ...

  def programs(self) -> Iterator[Callable[[], object]]:
    """Each compiles a program that a request can ask for."""
    ...


class Changeable(Engine, Protocol):
  """An engine whose prompts come and go while it answers."""

  def add(self, name: str, file: str) -> None:
    """Adds the prompt of a file, or replaces the one of that name; compiles before it is there.

    Raises:
      UserError: the file is damaged, of another model, or no prompt that can be served.
    """
    ...

  def remove(self, name: str) -> None:
    """Takes a prompt out.

    Raises:
      UserError: there is none of that name.
    """
    ...
