"""A number of bytes for people."""

import pytest

from prompt_jax.byte_size import gibibytes, written


@pytest.mark.parametrize(
  ('count', 'text'),
  [
    (0, '0 bytes'), (1, '1 bytes'), (999, '999 bytes'), (1000, '1.00 kB'), (57976, '58.0 kB'),
    (999_499, '999 kB'), (999_500, '1.00 MB'), (12_345_678, '12.3 MB'), (3_010_000_000, '3.01 GB'),
    (141e9, '141 GB'), (2e12, '2.00 TB'), (5e16, '50000 TB'),
  ],
)  # fmt: skip
def test_three_digits_and_never_nothing(count, text):
  assert written(count) == text


@pytest.mark.parametrize(
  ('gib', 'text'), [(0.5, '0.5'), (15.75, '15.8'), (999, '999'), (999.6, '1,000'), (5853, '5,853')]
)
def test_gibibytes_have_no_exponent(gib, text):
  assert gibibytes(gib * 2**30) == text
