"""Texts for prompts, and their answers: what the server and an engine give each other."""

import dataclasses
from collections.abc import Callable
from typing import Literal, NamedTuple, Protocol

import numpy as np
from scipy.special import softmax

from prompt_jax.data.example import Lengths

# (number of the row in its batch, number of the token, token) -> None; from any thread.
Tell = Callable[[int, int, int], None]
Way = Literal['rank', 'constrained', 'generate']


class Served(Protocol):
  """A prompt that is served.

  Attributes:
    name: of it.
    lengths: most tokens of an input and of an answer.
    labels: the words that it answers with; () for free text.
  """

  @property
  def name(self) -> str: ...
  @property
  def lengths(self) -> Lengths: ...
  @property
  def labels(self) -> tuple[str, ...]: ...


class Settings(NamedTuple):
  """What all rows of a batch share.

  Attributes:
    way: "rank" scores all labels of a row's prompt, "constrained" decodes one of them, "generate"
      writes text.
    normalize: of "rank", see `inference.score.rank`.
    beams: of "generate"; 1 for none.
    length_penalty: of a beam search, see `inference.beam_search.gnmt_penalty`; None for the
      default there.
    sampled: of "generate": whether any row is sampled.
    streamed: of "generate": whether each token is told as soon as it is written.
  """

  way: Way
  normalize: Literal['none', 'tokens'] = 'none'
  beams: int = 1
  length_penalty: float | None = None
  sampled: bool = False
  streamed: bool = False


# Greedy rows among them have temperature 0: one program for both.
STREAMED = Settings('generate', sampled=True, streamed=True)


@dataclasses.dataclass(frozen=True, eq=False)
class Row:
  """A text for a prompt.

  Attributes:
    prompt: its name.
    tokens: int32[t] the text, with the end of the sequence.
    limit: most tokens to be written.
    temperature: of sampling, as `top_k` and `top_p` see `inference.decode.sample`; 0 is greedy.
    top_k: see `temperature`.
    top_p: see `temperature`.
    seed: of sampling.
    number: of several samples of one seed.
  """

  prompt: str
  tokens: np.ndarray
  limit: int = 1
  temperature: float = 0.0
  top_k: int = 0
  top_p: float = 0.0
  seed: int = 0
  number: int = 0


class Found(NamedTuple):
  """The answer to a row.

  Attributes:
    entry: the prompt that gave it.
    tokens: int32[U] what was written; empty where a label was chosen.
    log_prob: of these tokens, or of the label's, in nats.
    label: index of the label that was chosen; None for text.
    scores: float32[C] of all labels, where they were ranked; empty elsewhere.
    allowed: log-probability of the label among what can only be a label ("constrained").
  """

  entry: Served
  tokens: np.ndarray
  log_prob: float
  label: int | None = None
  scores: np.ndarray = np.zeros(0, np.float32)
  allowed: float = 0.0

  @property
  def probabilities(self) -> np.ndarray:
    """float64[C] of all labels, where they were ranked."""
    found: np.ndarray = softmax(np.asarray(self.scores, np.float64))
    return found
