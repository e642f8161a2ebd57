"""The settings of generated text: greedy decoding, sampling or beam search."""

import dataclasses

import jax

from prompt_jax.batch import Features
from prompt_jax.errors import UserError
from prompt_jax.inference.beam_search import LENGTH_PENALTY, beam_search, gnmt_penalty
from prompt_jax.inference.decode import Variables, sample
from prompt_jax.prompted import Prompted


@dataclasses.dataclass(frozen=True)
class Decoding:
  """How text is generated: greedily, if nothing is set.

  Attributes:
    temperature: of sampling, see `inference.decode.sample`; 0 is greedy.
    top_k: see `inference.decode.sample`.
    top_p: see `inference.decode.sample`.
    beams: width of a beam search, see `inference.beam_search`; 1 is none.
    length_penalty: of the beam search, see `inference.beam_search.gnmt_penalty`.
    seed: of sampling.

  Raises:
    UserError: a value out of range, or both sampling and beam search.
  """

  temperature: float | None = None
  top_k: int | None = None
  top_p: float | None = None
  beams: int = 1
  length_penalty: float = LENGTH_PENALTY
  seed: int = 0

  def __post_init__(self):
    if not 0 <= self.seed < 2**32:
      raise UserError(f'seed is {self.seed}; expected 0 to 2**32 - 1.')
    if self.beams < 1:
      raise UserError(f'beams is {self.beams}; expected 1 (greedy) or more.')
    gnmt_penalty(self.length_penalty)
    sampled = {'temperature': self.temperature, 'top_k': self.top_k, 'top_p': self.top_p}
    for name, value in sampled.items():
      if value and self.beams > 1:
        raise UserError(
          f'beams is {self.beams} and {name} is {value}, but beam search does not sample.',
          ['beams', name],
        )

  @property
  def is_set(self) -> bool:
    """Whether sampling, a beam search or greedy decoding (temperature 0) was asked for."""
    sampled = any(v is not None for v in (self.temperature, self.top_k, self.top_p))
    return sampled or self.beams > 1

  def generate(
    self,
    model: Prompted,
    variables: Variables,
    tokens: jax.Array,
    max_len: int,
    batch: int | jax.Array,
    eos_id: int,
    features: Features | None = None,
  ) -> jax.Array:
    """int32[B, T] tokens of batch number `batch`, and `features` -> int32[B, U] tokens."""
    if self.beams > 1:
      divisor = gnmt_penalty(self.length_penalty)
      return beam_search(
        model,
        variables,
        tokens,
        max_len,
        self.beams,
        divisor=divisor,
        eos_id=eos_id,
        features=features,
      ).tokens
    return sample(
      model,
      variables,
      tokens,
      max_len,
      jax.random.fold_in(jax.random.key(self.seed), batch),
      temperature=self.temperature or 0.0,
      top_k=self.top_k or 0,
      top_p=self.top_p or 0.0,
      eos_id=eos_id,
      features=features,
    ).tokens
