"""One batch of examples, as the model reads it. The names are T5X's feature names."""

from collections.abc import Mapping

import jax
from flax import struct

Array = jax.Array
# Numbers that describe an example, by name: its task, user, language, ...; int32[B].
Features = Mapping[str, Array]


@struct.dataclass
class Batch:
  """Rows of token ids; 0 is padding, which is only at the end of a row.

  Attributes:
    encoder_input_tokens: int32[B, T].
    decoder_input_tokens: int32[B, U] targets shifted right by one, starting with 0.
    decoder_target_tokens: int32[B, U].
    decoder_loss_weights: float32[B, U] 0 where a target is padding.
    features: name -> int32[B], such as "task_id": which task (and prompt) a row belongs to; in
      packed rows int32[B, G], that of example g in g - 1, anything where a row has fewer than G.
      Those that the prompt method reads.
    encoder_segment_ids: int32[B, T] packed rows only: 1, 2, ... per example, 0 padding.
    encoder_positions: int32[B, T] packed rows only: position within the example.
    decoder_segment_ids: int32[B, U] as above.
    decoder_positions: int32[B, U] as above.
    prompt_slot: int32[B, T] packed rows only: the prompt row reserved here, -1 for a token; None
      if the encoder's prompt needs no places among the tokens.
    decoder_prompt_slot: int32[B, U] as above, for prompt rows of the decoder.
  """

  encoder_input_tokens: Array
  decoder_input_tokens: Array
  decoder_target_tokens: Array
  decoder_loss_weights: Array
  features: Features = struct.field(default_factory=dict)
  encoder_segment_ids: Array | None = None
  encoder_positions: Array | None = None
  decoder_segment_ids: Array | None = None
  decoder_positions: Array | None = None
  prompt_slot: Array | None = None
  decoder_prompt_slot: Array | None = None
