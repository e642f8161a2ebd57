"""Which prompts other libraries can be given. Everything else is refused with the reason."""

import jax.numpy as jnp
import numpy as np
import pytest

from prompt_jax.errors import UserError
from prompt_jax.injections import Head, Injection, Injections, LayerEdit
from prompt_jax.prompt_formats.foreign import DecoderKeysValues, Rows, plain
from tests.shared import facts

PREFIX = jnp.arange(12.0).reshape(1, 3, 4)
KV = jnp.arange(48.0).reshape(2, 2, 1, 3, 2, 2)
EDIT = LayerEdit(theta=PREFIX, fn=lambda theta, x, layout: x)


def test_rows_keep_their_placement():
  got = plain(Injections(encoder=Injection(prefix=PREFIX, placement='after_bos')), 'InputPrompt')
  assert isinstance(got, Rows)
  assert got.placement == 'after_bos'
  np.testing.assert_array_equal(got.values, PREFIX[0])


def test_keys_and_values_of_the_decoder():
  got = plain(Injections(decoder=Injection(kv=KV, kv_bias='shifted')), 'PrefixTuning')
  assert isinstance(got, DecoderKeysValues)
  np.testing.assert_array_equal(got.values, KV[:, :, 0])


@pytest.mark.parametrize(
  ('injections', 'reason'),
  [
    (Injections(), 'nothing'),
    (Injections(encoder=Injection(prefix=PREFIX, sees_input=False)), 'sees_input=False'),
    (Injections(encoder=Injection(prefix=PREFIX, seen_by='none')), "seen_by='none'"),
    (Injections(encoder=Injection(prefix=PREFIX, delta=PREFIX)), 'embeddings'),
    (Injections(encoder=Injection(prefix=PREFIX, hidden=EDIT)), facts('every layer', 'encoder')),
    (Injections(decoder=Injection(hidden=EDIT)), facts('every layer', 'decoder')),
    (Injections(decoder=Injection(prefix=PREFIX)), facts('rows', 'decoder')),
    (Injections(decoder=Injection(head=Head({}, print))), facts('logits', 'decoder')),
    (Injections(encoder=Injection(kv=KV)), facts('self attention', 'encoder')),
    (Injections(cross=Injection(kv=KV)), 'cross attention'),
    (Injections(decoder=Injection(kv=KV)), "kv_bias='zero'"),
    (
      Injections(encoder=Injection(prefix=PREFIX), decoder=Injection(kv=KV, kv_bias='shifted')),
      facts('rows', 'keys'),
    ),
  ],
)
def test_what_no_other_library_can_say(injections, reason):
  with pytest.raises(UserError, match=reason) as e:
    plain(injections, 'Method')
  assert str(e.value).startswith('Method ')
  assert '\n' not in str(e.value)
