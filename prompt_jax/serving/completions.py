"""A request for completions as JSON: read, checked, and its answer written.

The fields and the forms of answers and errors are those that clients of OpenAI's API know. A field
that would have no effect is refused, not ignored.
"""

import json
import time
import uuid
from collections.abc import Mapping
from typing import Any

from prompt_jax.data.vocabulary import EOS_ID
from prompt_jax.evaluation.probabilities import label_probabilities
from prompt_jax.serving.asking import Answered, Asked
from prompt_jax.serving.refused import wrong

MOST_TEXTS = 64
# Fields that clients send along, and the values of them that change nothing.
NEUTRAL: dict[str, tuple[Any, ...]] = {
  'stream': (False, None), 'echo': (False, None), 'suffix': (None, ''), 'stop': (None, [], ''),
  'presence_penalty': (0, None), 'frequency_penalty': (0, None), 'logit_bias': (None, {}),
  'stream_options': (None,), 'best_of': (1, None),
}  # fmt: skip
FIELDS = ('model', 'prompt', 'max_tokens', 'temperature', 'top_p', 'seed', 'n', 'logprobs', 'user')


def read(body: bytes) -> Asked:
  """The request in a body.

  Raises:
    Refused: what is wrong with it, with status 400.
  """
  try:
    found = json.loads(body.decode('utf-8'), parse_constant=_no_number)
  except (ValueError, RecursionError):
    raise wrong('The body is no JSON object in UTF-8.', None) from None
  if not isinstance(found, dict):
    raise wrong('The body is no JSON object.', None)
  for name, value in found.items():
    if name in NEUTRAL:
      if not any(value == v and isinstance(value, bool) == isinstance(v, bool)
                 for v in NEUTRAL[name]):  # fmt: skip
        raise wrong(f'{name} is not supported; leave it out.', name)
    elif name not in FIELDS:
      raise wrong(f'{name[:40]!r} is unknown; known: {", ".join(FIELDS)}.', name[:40])
  prompt = found.get('model')
  if not isinstance(prompt, str):
    raise wrong('model is missing: the name of a prompt, see /v1/models.', 'model')
  n = _number(found, 'n', 1, 16, whole=True)
  texts = _texts(found.get('prompt'))
  n = 1 if n is None else int(n)
  if len(texts) * n > MOST_TEXTS:
    raise wrong(f'There are {len(texts) * n} answers to give; at most {MOST_TEXTS}.', 'prompt')
  most, seed = (
    _number(found, 'max_tokens', 1, 4096, whole=True),
    _number(found, 'seed', 0, 2**32 - 1, whole=True),
  )
  temperature, top_p = _number(found, 'temperature', 0, 10), _number(found, 'top_p', 0, 1)
  logprobs = found.get('logprobs')
  if not (logprobs is None or isinstance(logprobs, bool) or logprobs in (0, 1)):
    raise wrong('logprobs is true, false, 0 or 1: those of the answer itself.', 'logprobs')
  return Asked(
    prompt,
    texts,
    None if most is None else int(most),
    float(temperature or 0.0),
    1.0 if top_p is None else float(top_p),
    None if seed is None else int(seed),
    n,
    logprobs is not None and logprobs is not False,
  )


def _no_number(name: str) -> Any:
  raise ValueError(name)


def _texts(given: Any) -> tuple[str, ...]:
  texts = [given] if isinstance(given, str) else given
  if not isinstance(texts, list) or not texts or not all(isinstance(t, str) for t in texts):
    raise wrong('prompt is a text, or a list of at least one text.', 'prompt')
  if any('\ud800' <= character <= '\udfff' for text in texts for character in text):
    raise wrong('prompt holds halves of characters, which no text has.', 'prompt')
  return tuple(texts)


def _number(
  found: Mapping[str, Any], name: str, least: float, most: float, whole: bool = False
) -> float | None:
  value = found.get(name)
  kinds: Any = int if whole else (int, float)
  if value is None:
    return None
  if isinstance(value, bool) or not isinstance(value, kinds) or not least <= value <= most:
    what = 'a whole number' if whole else 'a number'
    raise wrong(f'{name} is {what} from {least} to {most}.', name)
  return float(value) if not whole else value


def written(asked: Asked, answered: Answered) -> Any:
  """The JSON of an answer."""
  choices = []
  for i, (one, text) in enumerate(zip(answered.found, answered.texts, strict=True)):
    tokens = int((one.tokens > 0).sum())
    ended = one.label is not None or one.tokens[tokens - 1] == EOS_ID
    choice: dict[str, Any] = {
      'index': i, 'text': text, 'finish_reason': 'stop' if ended else 'length', 'logprobs': None
    }  # fmt: skip
    if one.label is not None:
      shares = label_probabilities(one.scores)
      choice['label'] = text
      choice['probabilities'] = dict(zip(one.entry.labels, map(float, shares), strict=True))
    if asked.logprobs:
      scores = dict(zip(one.entry.labels, map(float, one.scores), strict=True))
      choice['logprobs'] = {'answer': one.log_prob, **({'labels': scores} if scores else {})}
    choices.append(choice)
  return {
    'id': f'cmpl-{uuid.uuid4().hex}', 'object': 'text_completion', 'created': int(time.time()),
    'model': asked.prompt, 'choices': choices,
    'usage': {
      'prompt_tokens': answered.read, 'completion_tokens': answered.wrote,
      'total_tokens': answered.read + answered.wrote,
    },
  }  # fmt: skip
