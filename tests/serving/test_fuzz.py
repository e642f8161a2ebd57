"""Random requests over real HTTP: no failure of the server, and no traceback in an answer.

FUZZ=100000 sets the number of requests; a few hundred are made otherwise.
"""

import http.client
import json
import os

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from prompt_jax.serving.admin import Admin
from prompt_jax.serving.app import Server
from prompt_jax.serving.asking import Limits
from tests.serving.over_http import Engine, running
from tests.serving.test_server import JSON, NAMES

COUNT = int(os.environ.get('FUZZ', 300))
PATHS = ['/v1/completions', '/v1/models', '/v2', '/v2/models/back/infer',
         '/v2/models/parity/infer', '/v2/models/%00', '/v2/health/ready', '/admin/prompts/x',
         '/admin/prompts/../x', '/', '/health', '/metrics', '/%ff', '//', '/?a=%']  # fmt: skip
FIELDS = NAMES | st.sampled_from(
  ['stream_options', 'beams', 'inputs', 'outputs', 'parameters', 'id']
)
TEXTS = st.text(max_size=30) | st.lists(JSON, max_size=3)
GOOD = st.fixed_dictionaries(
  {'model': st.sampled_from(['back', 'parity']), 'prompt': TEXTS},
  optional={
    'n': st.integers(0, 4), 'temperature': st.floats(0, 2), 'best_of': st.integers(0, 4),
    'beams': st.sampled_from([1, 3]), 'stream': st.booleans(), 'max_tokens': st.integers(0, 9),
  },
)  # fmt: skip
INFER = st.fixed_dictionaries(
  {
    'inputs': st.lists(
      st.fixed_dictionaries(
        {'name': st.just('text'), 'datatype': st.just('BYTES'), 'shape': st.just([1]),
         'data': st.lists(st.text(max_size=9) | JSON, max_size=2)},
      ),
      max_size=2,
    )
  },
  optional={'parameters': JSON, 'outputs': JSON, 'id': JSON},
)  # fmt: skip
OBJECTS = GOOD | INFER | st.dictionaries(FIELDS, JSON) | st.tuples(GOOD, st.dictionaries(
  FIELDS, JSON, max_size=2)).map(lambda pair: pair[0] | pair[1])  # fmt: skip
BODIES = OBJECTS.map(lambda x: json.dumps(x).encode()) | st.binary(max_size=200)
HEADERS = st.dictionaries(
  st.sampled_from(['Authorization', 'Content-Type', 'Accept', 'Expect', 'X-Other']),
  st.text(st.characters(min_codepoint=32, max_codepoint=126), max_size=20) | st.just('Bearer root'),
  max_size=2,
)


class Unchangeable(Engine):
  """Takes no prompt."""

  def add(self, name, file):
    raise AssertionError('no random bytes are a prompt file')

  def remove(self, name):
    self[name]


@pytest.fixture(scope='module')
def connection():
  engine = Unchangeable()
  limits = Limits(rows=8, seconds=5, bytes=2000)
  with running(Server(engine, limits, None, Admin(engine, 'root', 2000))) as address:
    found = http.client.HTTPConnection(*address, timeout=30)
    yield found
    found.close()


AS_JSON = lambda path, objects: st.tuples(
  st.just('POST'), st.just(path), objects.map(lambda x: json.dumps(x).encode()), st.just({})
)
METHODS = st.sampled_from(['POST', 'GET', 'PUT', 'DELETE', 'HEAD'])
REQUESTS = st.one_of(
  AS_JSON('/v1/completions', OBJECTS),
  AS_JSON('/v2/models/back/infer', OBJECTS),
  st.tuples(METHODS, st.sampled_from(PATHS), BODIES, HEADERS),
)


@given(REQUESTS)
@settings(max_examples=COUNT, deadline=None, suppress_health_check=list(HealthCheck))
def test_no_request_makes_the_server_fail(connection, request_):
  method, path, body, headers = request_
  if headers.get('Expect'):
    headers = {**headers, 'Expect': '100-continue'}
  try:
    connection.request(method, path, body, headers)
    found = connection.getresponse()
    text = found.read().decode()
  except (http.client.HTTPException, ConnectionError):  # it hung up on what is no HTTP
    connection.close()
    connection.request('GET', '/health')
    found = connection.getresponse()
    text = found.read().decode()
    assert found.status == 200
  assert found.status < 500 or found.status == 503, text
  assert 'Traceback' not in text
  assert '"internal"' not in text
  if found.status >= 400 and method != 'HEAD' and text.startswith('{'):
    assert json.loads(text)['error']
