"""A frozen model and its prompt, for use from Python: answers, text, scores."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from prompt_jax import html_table
from prompt_jax.data.example import Lengths, checked_texts
from prompt_jax.errors import UserError
from prompt_jax.evaluation.evaluator import Method
from prompt_jax.inference.beam_search import LENGTH_PENALTY
from prompt_jax.inference.decoding import Decoding
from prompt_jax.inference.score import Normalize
from prompt_jax.loading import Tuned
from prompt_jax.runs.predict import Predictor
from prompt_jax.runs.results import Answers
from prompt_jax.sharding.placement import Placement

SHOWN = ('task', 'method', 'length', 'base_model', 'metric', 'value', 'step', 'labels')


@dataclasses.dataclass(frozen=True, repr=False)
class TunedModel:
  """What `prompt_jax.load` returns.

  Programs are compiled once for each shape of a batch, and kept on disk for the next process.

  Attributes:
    ready: the model and its variables, for use as `ready.model.apply(ready.variables, batch)`.
    placement: the devices of several processes, over which the model lies; None for one device.
      Each process then asks for the same answers and gets all of them.
    predictors: those that were used, by their options.
  """

  ready: Tuned
  placement: Placement | None = None
  predictors: dict[Any, Predictor] = dataclasses.field(default_factory=dict)

  @property
  def metadata(self) -> dict[str, Any]:
    """What the prompt file says of itself; {} without one."""
    return self.ready.metadata

  @property
  def labels(self) -> tuple[str, ...] | None:
    """The words that it answers with, where it was tuned on labels."""
    labels = self.metadata.get('labels')
    return tuple(labels) if labels else None

  def predict(
    self,
    texts: Sequence[str],
    *,
    method: Method | None = None,
    normalize: Normalize = 'none',
    batch_size: int = 32,
    input_length: int | None = None,
    features: Mapping[str, Sequence[Any]] | None = None,
  ) -> Answers:
    """The answer to each text, in order: a label with its probability, or text.

    Args:
      texts: at least one.
      method: "rank" takes the label of the highest probability; "constrained" decodes what can only
        be a label; "generate" decodes text greedily. None: "rank" where the prompt was tuned on
        labels, else "generate".
      normalize: with "rank", "tokens" divides a label's log-probability by its length.
      batch_size: texts at a time.
      input_length: most tokens of a text; None as in training.
      features: name -> value for each text, of the features that the prompt reads; None for none.

    Raises:
      UserError: no texts, a method that needs labels where there are none, or a feature that is
        missing or has a value that the prompt was not tuned on.
    """
    lengths = self.ready.lengths(input_length, None)
    predictor = self._predictor(lengths, method, normalize, None, batch_size)
    texts = checked_texts(texts)
    return Answers(tuple(predictor(texts, _by_text(texts, features))))

  def generate(
    self,
    texts: Sequence[str],
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
    features: Mapping[str, Sequence[Any]] | None = None,
  ) -> list[str]:
    """The text that the model writes for each text.

    Args:
      texts: at least one.
      beams: hypotheses of beam search; 1 decodes greedily, or samples.
      length_penalty: of beam search: greater values prefer longer text, 0 is none, see
        `inference.beam_search.gnmt_penalty`.
      temperature: of sampling; 0 is greedy.
      top_k: sample among so many most probable tokens; 0 for all.
      top_p: sample among the most probable tokens of this total probability; 0 for all.
      seed: of sampling.
      max_new_tokens: most tokens of an answer; None as in training.
      batch_size: texts at a time.
      input_length: most tokens of a text; None as in training.
      features: see `predict`.

    Raises:
      UserError: no texts, settings that exclude each other, or see `predict`.
    """
    decoding = Decoding(temperature, top_k, top_p, beams, length_penalty, seed=seed)
    lengths = self.ready.lengths(input_length, max_new_tokens)
    predictor = self._predictor(lengths, 'generate', 'none', decoding, batch_size)
    texts = checked_texts(texts)
    return [answer.prediction for answer in predictor(texts, _by_text(texts, features))]

  def _predictor(
    self,
    lengths: Lengths,
    method: Method | None,
    normalize: Normalize,
    decoding: Decoding | None,
    batch_size: int,
  ) -> Predictor:
    """The one of these options, made once, so that its programs are compiled once."""
    options = (lengths, method, normalize, decoding, batch_size)
    if options not in self.predictors:
      self.predictors[options] = Predictor(
        self.ready,
        lengths,
        method=method,
        normalize=normalize,
        decoding=decoding,
        batch_size=batch_size,
        placement=self.placement,
      )
    return self.predictors[options]

  def __repr__(self) -> str:
    facts = ', '.join(f'{name}={value!r}' for name, value in self._facts().items())
    return f'TunedModel({facts})'

  def _repr_html_(self) -> str:
    return html_table.table(['prompt', ''], list(self._facts().items()))

  def _facts(self) -> dict[str, Any]:
    if not self.metadata:
      return {'base_model': self.ready.backbone.name, 'method': 'none'}
    return {name: self.metadata[name] for name in SHOWN if self.metadata.get(name) is not None}


def _by_text(
  texts: Sequence[str], features: Mapping[str, Sequence[Any]] | None
) -> list[dict[str, Any]] | None:
  """The features of each text, from the values of each feature."""
  for name, values in (features or {}).items():
    if isinstance(values, str) or len(values) != len(texts):
      raise UserError(
        f'features[{name!r}] is {values!r}; expected a list of {len(texts)} values.',
        ['features'],
      )
  if not features:
    return None
  return [dict(zip(features, of, strict=True)) for of in zip(*features.values(), strict=True)]
