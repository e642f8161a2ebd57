"""What the server counts, as text that Prometheus reads."""

import bisect
import collections
import itertools
from collections.abc import Callable, Iterable, Sequence

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

  def lines(self, name: str, labels: str = '') -> list[str]:
    """In Prometheus' text format; `labels` such as 'prompt="a"'."""
    sums = list(itertools.accumulate(self.counts))
    bounds = [*map(str, self.bounds), '+Inf']
    of = f'{labels},' if labels else ''
    buckets = [f'{name}_bucket{{{of}le="{b}"}} {n}' for b, n in zip(bounds, sums, strict=True)]
    own = f'{{{labels}}}' if labels else ''
    return [*buckets, f'{name}_sum{own} {self.total}', f'{name}_count{own} {sums[-1]}']


class Measures:
  """What was counted since the start.

  Attributes:
    waiting: rows in the queue now.
    prompts: that there are now.
    mixed: batches with rows of more than one prompt.
    batch_rows: rows of each batch.
    batch_seconds: that each batch was computed.
    queue_seconds: that each row waited.
    rows: that were answered, by prompt.
    tokens: by prompt and "read" or "wrote".
    seconds: of each request that was answered, by prompt.
    requests: by (prompt, status).
  """

  def __init__(self) -> None:
    self.waiting = self.prompts = self.mixed = 0
    self.batch_rows = Histogram(ROWS)
    self.batch_seconds, self.queue_seconds = Histogram(SECONDS), Histogram(SECONDS)
    self.rows: collections.Counter[str] = collections.Counter()
    self.tokens: collections.Counter[tuple[str, str]] = collections.Counter()
    self.seconds = collections.defaultdict[str, Histogram](lambda: Histogram(SECONDS))
    self.requests: collections.Counter[tuple[str, int]] = collections.Counter()

  def keep(self, prompts: Sequence[str]) -> None:
    """Forgets prompts that there are no more: under ever new names they would pile up."""
    self.prompts, there = len(prompts), set(prompts)
    for own in (self.rows, self.seconds):
      for name in own.keys() - there:
        del own[name]
    for pairs in (self.tokens, self.requests):
      for pair in [pair for pair in pairs if pair[0] not in there]:
        del pairs[pair]

  def waited(self, seconds: Iterable[float]) -> None:
    """Counts how long rows waited."""
    for each in seconds:
      self.queue_seconds.add(each)

  def batch(self, prompts: Sequence[str], seconds: float) -> None:
    """Counts a batch with rows of these prompts."""
    self.mixed += len(set(prompts)) > 1
    self.batch_rows.add(len(prompts))
    self.batch_seconds.add(seconds)
    self.rows.update(prompts)

  def read_and_wrote(self, prompt: str, read: int, wrote: int) -> None:
    """Counts tokens of a request."""
    self.tokens[prompt, 'read'] += read
    self.tokens[prompt, 'wrote'] += wrote

  def request(self, prompt: str, status: int, seconds: float) -> None:
    """Counts a request and how long it took."""
    self.requests[prompt, status] += 1
    if status == 200:
      self.seconds[prompt].add(seconds)

  def text(self) -> str:
    """All of it."""
    found: list[str] = []

    def tell(name: str, kind: str, what: str, lines: Callable[[str], Iterable[str]]) -> None:
      name = PREFIX + name
      found.extend([f'# HELP {name} {what}', f'# TYPE {name} {kind}', *lines(name)])

    one = lambda value: lambda name: [f'{name} {value}']
    of = lambda prompt: f'prompt="{_escaped(prompt)}"'
    batches = sum(self.batch_rows.counts)
    tell('prompts', 'gauge', 'Prompts that are served.', one(self.prompts))
    tell('waiting_rows', 'gauge', 'Rows in the queue.', one(self.waiting))
    tell('queue_seconds', 'histogram', 'From the queue to a batch.', self.queue_seconds.lines)
    tell('batches_total', 'counter', 'Batches.', one(batches))
    tell('mixed_batches_total', 'counter', 'Batches with rows of several prompts.', one(self.mixed))
    what = 'Share of the batches that had rows of several prompts.'
    tell('mixed_batches_share', 'gauge', what, one(self.mixed / max(1, batches)))
    tell('batch_rows', 'histogram', 'Rows of a batch.', self.batch_rows.lines)
    tell('batch_seconds', 'histogram', 'Seconds of a batch.', self.batch_seconds.lines)
    rows = lambda name: [f'{name}{{{of(p)}}} {n}' for p, n in sorted(self.rows.items())]
    tell('rows_total', 'counter', 'Rows that were computed, by prompt.', rows)
    tokens = lambda name: [
      f'{name}{{{of(p)},kind="{kind}"}} {n}' for (p, kind), n in sorted(self.tokens.items())
    ]
    what = 'Tokens of texts (read) and answers (wrote), by prompt.'
    tell('tokens_total', 'counter', what, tokens)
    seconds = lambda name: [
      line for p, times in sorted(self.seconds.items()) for line in times.lines(name, of(p))
    ]
    tell('request_seconds', 'histogram', 'From a request to its answer, by prompt.', seconds)
    requests = lambda name: [
      f'{name}{{{of(p)},status="{status}"}} {n}' for (p, status), n in sorted(self.requests.items())
    ]
    tell('requests_total', 'counter', 'Requests by prompt and status.', requests)
    return '\n'.join(found) + '\n'


def _escaped(text: str) -> str:
  return text.replace('\\', '\\\\').replace('"', '\\"').replace('\n', '\\n')
