"""A number of bytes for people, with three digits that count."""

UNITS = ('bytes', 'kB', 'MB', 'GB', 'TB')


def written(count: float) -> str:
  """What a disk or a file has, in powers of 1000: 57976 is "58.0 kB"; only nothing is "0 bytes"."""
  for unit in UNITS:
    if count < 999.5 or unit == UNITS[-1]:
      break
    count /= 1000
  digits = 0 if unit == UNITS[0] or count >= 99.95 else 1 if count >= 9.995 else 2
  return f'{count:.{digits}f} {unit}'


def gibibytes(count: float) -> str:
  """The number of GiB in three digits, "15.8", and whole above 1,000."""
  size = count / 2**30
  return f'{size:.3g}' if size < 999.5 else f'{size:,.0f}'
