"""The proof that an export answers like `infer`: the same texts, asked here and of its own engine.

Compared are the tokens of greedy decoding, the log-probability of each, and those of the labels
where a prompt was tuned on some.
"""

import dataclasses
import functools
from collections.abc import Iterator, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from prompt_jax.errors import UserError
from prompt_jax.export.asking import BATCH, Asked, Engine, Ids, ended, padded
from prompt_jax.export.served_prompt import ServedPrompt
from prompt_jax.inference.decode import greedy
from prompt_jax.prompted import PromptedT5

SAMPLES = (
  'a warm and funny film',
  'two hours of my life that I will not get back',
  'The house is wonderful, and so is the garden behind it.',
  'Was it a car or a cat I saw?',
  'no',
  'In 2014 about 37 % of them said "yes"; the others did not answer (or could not).',
  'It is by no means perfect, but it has charm and a cast that clearly enjoys every minute of it.',
  'How many people live in Tokyo?',
)
LONGEST = 16  # tokens of an answer that are compared
# Nats, of one token. Other software sums in another order.
TOLERANCE = 1e-4
# Nats by which a token must lead, to be the same for sure.
TIE = 1e-3


@dataclasses.dataclass(frozen=True)
class Answered:
  """What a prompt answers to a text here.

  Attributes:
    prompt: the prompt.
    text: the text.
    tokens: of greedy decoding, the end of the sequence included.
    log_probs: float32[U] of `tokens`.
    sure: leading tokens of `tokens` that no rounding exchanges for others.
    labels: float32[C] log-probabilities of the labels; None where there are none.
  """

  prompt: ServedPrompt
  text: str
  tokens: Ids
  log_probs: np.ndarray
  sure: int
  labels: np.ndarray | None


@dataclasses.dataclass(frozen=True)
class Agreement:
  """How an export compares.

  Attributes:
    engine: what ran it.
    texts: that were asked.
    prompts: that were asked.
    answers: share of equal answers: the label where there are labels, else all tokens.
    difference: the largest, of log-probabilities of a token, in nats.
  """

  engine: str
  texts: int
  prompts: int
  answers: float
  difference: float

  def about(self) -> dict[str, Any]:
    return dataclasses.asdict(self)


def answers(prompts: Sequence[ServedPrompt], texts: Sequence[str]) -> list[Answered]:
  """What `infer` answers, prompt by prompt."""
  return [answered for prompt in prompts for answered in _of_prompt(prompt, texts)]


def _of_prompt(prompt: ServedPrompt, texts: Sequence[str]) -> list[Answered]:
  model, variables, words = prompt.tuned.model, prompt.tuned.variables, prompt.words
  length = min(LONGEST, prompt.lengths.targets)
  labels = prompt.label_ids or []
  found = []
  sources = [prompt.text_ids(text) for text in texts]
  size, most = max(map(len, sources)), max([length, *map(len, labels)])
  for start in range(0, len(texts), BATCH):
    part = sources[start : start + BATCH]
    tokens = padded(part, size)
    written = [
      ended(row, words.eos_id)
      for row in _write(model, length, words.eos_id, variables, tokens).tolist()
    ]
    # One program: what was written, and each label for every text.
    targets = np.stack([padded(t, most) for t in (written, *([x] * len(part) for x in labels))])
    own, lead = (np.asarray(x) for x in _score(model, variables, tokens, targets))
    ranked = np.sum(own[1:], -1, where=targets[1:] > 0).T
    for i, ids in enumerate(written):
      close = np.flatnonzero(lead[0, i, : len(ids)] < TIE)
      sure = int(close[0]) if len(close) else len(ids)
      of_labels = ranked[i] if labels else None
      text = texts[start + i]
      found.append(Answered(prompt, text, ids, own[0, i, : len(ids)], sure, of_labels))
  return found


# Compiled once for all prompts of one method and length.
@functools.partial(jax.jit, static_argnums=(0, 1, 2))
def _write(model: PromptedT5, length: int, eos_id: int, variables: Any, tokens: Any) -> jax.Array:
  return greedy(model, variables, tokens, length, eos_id)


@functools.partial(jax.jit, static_argnums=0)
def _score(model: PromptedT5, variables: Any, tokens: Any, targets: Any) -> Any:
  """float32[K, B, U] log-probabilities of K targets [K, B, U], and their leads if greedy."""
  encoded = model.apply(variables, tokens, method='encode')

  def one(target: jax.Array) -> Any:
    before = jnp.pad(target[:, :-1], ((0, 0), (1, 0)))
    logits: Any = model.apply(variables, encoded, before, method='decode')
    scores = jax.nn.log_softmax(logits)
    best = jax.lax.top_k(scores, 2)[0]
    own = jnp.take_along_axis(scores, target[..., None], -1)[..., 0]
    return own, best[..., 0] - best[..., 1]

  return jax.lax.map(one, targets)


def compare(expected: Sequence[Answered], engine: Engine, exact: bool) -> Agreement:
  """Asks the engine the same.

  Args:
    expected: what is answered here.
    engine: with the export.
    exact: whether the numbers are meant to be the same; False for quantised ones.

  Raises:
    UserError: other ids of a text; or, if `exact`, another answer, or a log-probability that
      differs by more than TOLERANCE.
  """
  sources = [_source(a, engine) for a in expected]
  length = max(len(a.tokens) for a in expected)
  written = engine.greedy(sources, length)
  written = [w[: len(a.tokens)] for a, w in zip(expected, written, strict=True)]
  scores = engine.log_probs(sources, [a.tokens for a in expected])
  off = [float(np.max(np.abs(s - a.log_probs))) for a, s in zip(expected, scores, strict=True)]
  same = []
  for a, tokens in zip(expected, written, strict=True):
    same.append(tokens[: a.sure] == a.tokens[: a.sure])
    if exact and not same[-1]:
      raise _refused(engine, a, f'writes the tokens {tokens}; expected {a.tokens}')
  for i, values in _of_labels(expected, engine, sources):
    a, ids = expected[i], expected[i].prompt.label_ids or []
    assert a.labels is not None
    apart = np.abs(values - a.labels) / [len(x) for x in ids]
    off[i] = max(off[i], float(np.max(apart)))
    best = np.sort(a.labels)[::-1]
    same[i] = int(np.argmax(values)) == int(np.argmax(a.labels)) or best[0] - best[1] < TIE
  worst = int(np.argmax(off))
  if exact and not off[worst] <= TOLERANCE:
    raise _refused(
      engine,
      expected[worst],
      f'gives log-probabilities that differ by {off[worst]:.2g}; expected at most {TOLERANCE}',
    )
  _check_words(expected, engine)
  names = {a.prompt.name for a in expected}
  texts = len({a.text for a in expected})
  return Agreement(engine.name, texts, len(names), float(np.mean(same)), off[worst])


def _of_labels(
  expected: Sequence[Answered], engine: Engine, sources: Sequence[Asked]
) -> Iterator[tuple[int, np.ndarray]]:
  """Numbers of the answers that have labels, and the log-probabilities of these, asked at once."""
  labels = {i: a.prompt.label_ids or [] for i, a in enumerate(expected) if a.prompt.labels}
  both = [(sources[i], ids) for i, own in labels.items() for ids in own]
  found = iter(engine.log_probs(*zip(*both, strict=True)) if both else [])
  for i, own in labels.items():
    yield i, np.asarray([next(found).sum() for _ in own])


def _check_words(expected: Sequence[Answered], engine: Engine) -> None:
  """Refuses an engine that takes text and answers with another one."""
  found = engine.answers([a.prompt.name for a in expected], [a.text for a in expected])
  for a, answer in zip(expected, found or [], strict=False):
    words, tokens = a.prompt.words, a.tokens
    if a.labels is not None:
      best = np.sort(a.labels)[::-1]
      labels: Any = a.prompt.labels
      sure, wanted = best[0] - best[1] >= TIE, labels[int(np.argmax(a.labels))]
    else:
      whole = words.eos_id in tokens or len(tokens) == a.prompt.lengths.targets
      sure, wanted = whole and a.sure == len(tokens), words.decode(tokens)
    if sure and answer != wanted:
      raise _refused(engine, a, f'answers {answer!r}; expected {wanted!r}')


def _source(answered: Answered, engine: Engine) -> Asked:
  prompt, text = answered.prompt, answered.text
  found, wanted = engine.source(prompt, text), prompt.source(text)
  if found != wanted:
    raise _refused(engine, answered, f'reads the ids {found}; expected {wanted}')
  return Asked(prompt.name, found)


def _refused(engine: Engine, answered: Answered, what: str) -> UserError:
  return UserError(
    f'{engine.name} {what}, for the prompt {answered.prompt.name!r} and the text '
    f'{answered.text!r}. What was written was removed.'
  )
