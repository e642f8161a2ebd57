"""The Open Inference Protocol, version 2: texts in, texts, labels and probabilities out."""

import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from prompt_jax.serving import completions
from prompt_jax.serving.asking import Answered, Asked
from prompt_jax.serving.refused import wrong
from prompt_jax.serving.rows import Served

FIELDS = ('id', 'inputs', 'parameters', 'outputs')
PARAMETERS = ('max_tokens', 'temperature', 'top_p', 'seed', 'beams')
INPUT = {'name': 'text', 'datatype': 'BYTES', 'shape': [-1]}


def metadata(prompt: Served) -> dict[str, Any]:
  """What a prompt takes and gives."""
  outputs: list[dict[str, Any]] = [{'name': 'text', 'datatype': 'BYTES', 'shape': [-1]}]
  if prompt.labels:
    outputs += [
      {'name': 'label', 'datatype': 'BYTES', 'shape': [-1]},
      {'name': 'probabilities', 'datatype': 'FP32', 'shape': [-1, len(prompt.labels)]},
    ]
  return {
    'name': prompt.name, 'platform': 'prompt_jax', 'inputs': [INPUT], 'outputs': outputs,
    'labels': list(prompt.labels) or None,
  }  # fmt: skip


def read(prompt: Served, body: bytes) -> tuple[Asked, Sequence[str], str | None]:
  """The request in a body: what is asked, the outputs that are wanted, and its id.

  Raises:
    Refused: what is wrong with it, with status 400.
  """
  found = completions.parsed(body)
  for name in found.keys() - set(FIELDS):
    raise wrong(f'{name[:40]!r} is unknown; known: {", ".join(FIELDS)}.', name[:40])
  given, number = found.get('parameters') or {}, found.get('id')
  if not isinstance(given, dict) or given.keys() - set(PARAMETERS):
    raise wrong(f'parameters is an object; known: {", ".join(PARAMETERS)}.', 'parameters')
  if not isinstance(number, str | None):
    raise wrong('id is a text.', 'id')
  body = json.dumps({**given, 'model': prompt.name, 'prompt': _texts(found.get('inputs'))}).encode()
  return completions.read(body), _outputs(prompt, found.get('outputs')), number


def _texts(inputs: Any) -> list[str]:
  """The texts of the one input."""
  if not isinstance(inputs, list) or len(inputs) != 1 or not isinstance(inputs[0], dict):
    raise wrong('inputs has one input, "text".', 'inputs')
  one = inputs[0]
  if one.get('name') != 'text' or one.get('datatype') != 'BYTES':
    raise wrong('The input is called "text" and has the datatype BYTES.', 'inputs')
  data, shape = one.get('data'), one.get('shape')
  if not isinstance(data, list) or not data:
    raise wrong('data of the input is a list of at least one text.', 'inputs')
  column = all(isinstance(row, list) and len(row) == 1 for row in data)
  data = [row[0] for row in data] if column else data
  if not all(isinstance(text, str) for text in data):
    raise wrong('data of the input is a list of texts.', 'inputs')
  if shape not in ([len(data)], [len(data), 1]):
    raise wrong(f'shape of the input is {str(shape)[:40]}; there are {len(data)} texts.', 'inputs')
  return data


def _outputs(prompt: Served, outputs: Any) -> list[str]:
  """The names of the outputs that are wanted; all where none are named."""
  known = [each['name'] for each in metadata(prompt)['outputs']]
  if outputs is None or outputs == []:
    return known
  listed = outputs if isinstance(outputs, list) else [outputs]
  names: list[Any] = [each.get('name') if isinstance(each, dict) else None for each in listed]
  if any(name not in known for name in names):
    raise wrong(f'{prompt.name!r} has the outputs {", ".join(known)}.', 'outputs')
  return names


def written(prompt: Served, answered: Answered, wanted: Sequence[str], number: str | None) -> Any:
  """The JSON of an answer."""
  count, texts = len(answered.texts), list(answered.texts)
  values: dict[str, tuple[str, list[int], list[Any]]] = {
    'text': ('BYTES', [count], texts), 'label': ('BYTES', [count], texts)
  }  # fmt: skip
  if prompt.labels:
    shares = np.concatenate([one.probabilities for one in answered.found])
    values['probabilities'] = ('FP32', [count, len(shares) // count], shares.tolist())
  outputs = [
    dict(zip(('name', 'datatype', 'shape', 'data'), (name, *values[name]), strict=True))
    for name in wanted
  ]
  about = {} if number is None else {'id': number}
  return {'model_name': prompt.name, **about, 'outputs': outputs}
