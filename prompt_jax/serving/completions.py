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
from prompt_jax.serving.asking import Answered, Asked
from prompt_jax.serving.refused import wrong
from prompt_jax.serving.rows import Found

MOST_TEXTS = 64
# Fields that clients send along, and the values of them that change nothing.
NEUTRAL: dict[str, tuple[Any, ...]] = {
  'echo': (False, None), 'suffix': (None, ''), 'stop': (None, [], ''),
  'presence_penalty': (0, None), 'frequency_penalty': (0, None), 'logit_bias': (None, {}),
}  # fmt: skip
FIELDS = ('model', 'prompt', 'max_tokens', 'temperature', 'top_p', 'seed', 'n', 'best_of', 'beams',
          'stream', 'stream_options', 'logprobs', 'user')  # fmt: skip


def read(body: bytes) -> Asked:
  """The request in a body.

  Raises:
    Refused: what is wrong with it, with status 400.
  """
  found = parsed(body)
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
  best_of = int(_number(found, 'best_of', n, 16, whole=True) or n)
  if len(texts) * best_of > MOST_TEXTS:
    raise wrong(
      f'{len(texts) * best_of} answers are to be written; at most {MOST_TEXTS}.', 'prompt'
    )
  most = _number(found, 'max_tokens', 1, 4096, whole=True)
  seed = _number(found, 'seed', 0, 2**32 - 1, whole=True)
  temperature, top_p = _number(found, 'temperature', 0, 10), _number(found, 'top_p', 0, 1)
  if top_p == 0:
    raise wrong('top_p is above 0; for the most probable token leave out temperature.', 'top_p')
  stream = found.get('stream') or False
  if not isinstance(stream, bool):
    raise wrong('stream is true or false.', 'stream')
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
    best_of,
    int(_number(found, 'beams', 1, 64, whole=True) or 1),
    stream,
    _wants_usage(found.get('stream_options'), stream),
    logprobs is not None and logprobs is not False,
  )


def parsed(body: bytes) -> dict[str, Any]:
  """The JSON object in a body.

  Raises:
    Refused: there is none, with status 400.
  """
  try:
    found = json.loads(body.decode('utf-8'), parse_constant=_no_number)
    json.dumps(found, ensure_ascii=False).encode()  # halves of characters can be said in JSON
  except (ValueError, RecursionError):
    raise wrong('The body is no JSON object in UTF-8, of whole characters.', None) from None
  if not isinstance(found, dict):
    raise wrong('The body is no JSON object.', None)
  return found


def _wants_usage(options: Any, stream: bool) -> bool:
  if options is None:
    return False
  known = isinstance(options, dict) and options.keys() <= {'include_usage'}
  if not known or not isinstance(options.get('include_usage', False), bool):
    raise wrong('stream_options has include_usage, true or false, alone.', 'stream_options')
  if options.get('include_usage') and not stream:
    raise wrong('stream_options has no effect without stream.', 'stream_options')
  return options.get('include_usage', False)


def _no_number(name: str) -> Any:
  raise ValueError(name)


def _texts(given: Any) -> tuple[str, ...]:
  texts = [given] if isinstance(given, str) else given
  if not isinstance(texts, list) or not texts or not all(isinstance(t, str) for t in texts):
    raise wrong('prompt is a text, or a list of at least one text.', 'prompt')
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
    choice = choice_of(i, text, finish_reason(one))
    if one.label is not None:
      choice['label'] = text
      shares = map(float, one.probabilities)
      choice['probabilities'] = dict(zip(one.entry.labels, shares, strict=True))
    if asked.logprobs:
      scores = dict(zip(one.entry.labels, map(float, one.scores), strict=True))
      choice['logprobs'] = {'answer': one.log_prob, **({'labels': scores} if scores else {})}
    choices.append(choice)
  return {**head(asked), 'choices': choices, 'usage': usage(answered.read, answered.wrote)}


def head(asked: Asked) -> dict[str, Any]:
  """What answers begin with."""
  return {
    'id': f'cmpl-{uuid.uuid4().hex}', 'object': 'text_completion', 'created': int(time.time()),
    'model': asked.prompt,
  }  # fmt: skip


def choice_of(index: int, text: str, reason: str | None) -> dict[str, Any]:
  """An answer, or a part of one where it has no reason to have ended."""
  return {'index': index, 'text': text, 'finish_reason': reason, 'logprobs': None}


def finish_reason(found: Found) -> str:
  """ "stop" at the end of a text, "length" where it is cut."""
  tokens = int((found.tokens > 0).sum())
  ended = found.label is not None or (tokens > 0 and found.tokens[tokens - 1] == EOS_ID)
  return 'stop' if ended else 'length'


def usage(read: int, wrote: int) -> dict[str, int]:
  """The numbers of tokens of a request."""
  return {'prompt_tokens': read, 'completion_tokens': wrote, 'total_tokens': read + wrote}
