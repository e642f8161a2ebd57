"""What the server counts, as text that Prometheus reads."""

import bisect
import collections
import dataclasses
import itertools
from collections.abc import Iterable

SECONDS = (0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
ROWS = (1, 2, 4, 8, 16, 32, 64)
PREFIX = 'prompt_jax_'


class Histogram:
  """Counts of values up to each bound, and their sum."""

  def __init__(self, bounds: Iterable[float]):
    self.bounds = tuple(bounds)
    self.counts, self.total = [0] * (len(self.bounds) + 1), 0.0

  def add(self, value: float) -> None:
    self.counts[bisect.bisect_left(self.bounds, value)] += 1
    self.total += value

  def lines(self, name: str) -> list[str]:
    """In Prometheus' text format."""
    sums = list(itertools.accumulate(self.counts))
    bounds = [*map(str, self.bounds), '+Inf']
    buckets = [f'{name}_bucket{{le="{b}"}} {n}' for b, n in zip(bounds, sums, strict=True)]
    return [*buckets, f'{name}_sum {self.total}', f'{name}_count {sums[-1]}']


@dataclasses.dataclass
class Measures:
  """What was counted since the start.

  Attributes:
    waiting: rows in the queue now.
    batches: computed.
    mixed: batches with rows of more than one prompt.
    rows: of each batch.
    seconds: of each request that was answered.
    requests: by (prompt, status); only prompts that there are, so that they stay few.
  """

  waiting: int = 0
  batches: int = 0
  mixed: int = 0
  rows: Histogram = dataclasses.field(default_factory=lambda: Histogram(ROWS))
  seconds: Histogram = dataclasses.field(default_factory=lambda: Histogram(SECONDS))
  requests: collections.Counter[tuple[str, int]] = dataclasses.field(
    default_factory=collections.Counter
  )

  def batch(self, rows: int, prompts: int) -> None:
    """Counts a batch with so many rows and different prompts."""
    self.batches += 1
    self.mixed += prompts > 1
    self.rows.add(rows)

  def request(self, prompt: str, status: int, seconds: float) -> None:
    """Counts a request and how long it took."""
    self.requests[prompt, status] += 1
    if status == 200:
      self.seconds.add(seconds)

  def text(self) -> str:
    """All of it."""
    found = []

    def tell(name: str, kind: str, what: str, lines: Iterable[str]) -> None:
      name = PREFIX + name
      found.extend([f'# HELP {name} {what}', f'# TYPE {name} {kind}', *lines])

    value = lambda name, x: [f'{PREFIX}{name} {x}']
    tell('waiting_rows', 'gauge', 'Rows in the queue.', value('waiting_rows', self.waiting))
    tell('batches_total', 'counter', 'Batches.', value('batches_total', self.batches))
    what = 'Batches with rows of several prompts.'
    tell('mixed_batches_total', 'counter', what, value('mixed_batches_total', self.mixed))
    rows, seconds = (f'{PREFIX}{name}' for name in ('batch_rows', 'request_seconds'))
    tell('batch_rows', 'histogram', 'Rows of a batch.', self.rows.lines(rows))
    what = 'From a request to its answer.'
    tell('request_seconds', 'histogram', what, self.seconds.lines(seconds))
    lines = [
      f'{PREFIX}requests_total{{prompt="{_escaped(prompt)}",status="{status}"}} {n}'
      for (prompt, status), n in sorted(self.requests.items())
    ]
    tell('requests_total', 'counter', 'Requests by prompt and status.', lines)
    return '\n'.join(found) + '\n'


def _escaped(text: str) -> str:
  return text.replace('\\', '\\\\').replace('"', '\\"').replace('\n', '\\n')
