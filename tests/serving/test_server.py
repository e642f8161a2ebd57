"""The server in process: routes, mistakes, limits, and what waits."""

import asyncio
import json
import threading
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from starlette.testclient import TestClient

from prompt_jax.prompts.methods.input.input_prompt import InputPrompt
from prompt_jax.serving.app import Server
from prompt_jax.serving.asking import Limits
from prompt_jax.serving.bank import Bank
from prompt_jax.serving.completions import read
from prompt_jax.serving.jax_engine import JaxEngine
from prompt_jax.serving.measures import Histogram, Measures
from prompt_jax.serving.queue import Full, Queue
from prompt_jax.serving.refused import Refused
from prompt_jax.serving.rows import Found, Row, Settings
from prompt_jax.serving.tuned_prompts import TunedPrompts
from tests.serving.conftest import MANY, YES_NO


@pytest.fixture(scope='module')
def prompts(tuned):
  bank = Bank(tuned(InputPrompt(length=2)).backbone)
  for name, length, labels in (('small', 2, YES_NO), ('large', 7, MANY), ('free', 4, None)):
    bank.add(name, tuned(InputPrompt(length=length), length, labels))
  return TunedPrompts(bank)


@pytest.fixture(scope='module')
def client(prompts):
  server = Server(JaxEngine(prompts, 4, beams=3), Limits(rows=4, bytes=2000))
  with TestClient(server.app, raise_server_exceptions=False) as found:
    assert found.get('/health').status_code in (200, 503)
    until = time.monotonic() + 600
    while found.get('/health').status_code == 503 and time.monotonic() < until:
      time.sleep(0.2)
    assert found.get('/health').json() == {'status': 'ready', 'ready': True}
    yield found


def ask(client, **body):
  return client.post('/v1/completions', json=body)


def test_answers_are_those_of_the_bank(client, prompts):
  for name in ('small', 'large'):
    texts = ['ab', 'some text', '</s> <extra_id_0>']
    answer = ask(client, model=name, prompt=texts, logprobs=1).json()
    expected = prompts.predict(texts, name)
    assert [c['text'] for c in answer['choices']] == [a.prediction for a in expected]
    for choice, a in zip(answer['choices'], expected, strict=True):
      assert choice['probabilities'][a.prediction] == pytest.approx(a.probability, abs=1e-5)
      assert sum(choice['probabilities'].values()) == pytest.approx(1)
      assert list(choice['logprobs']['labels']) == list(choice['probabilities'])
  (text,) = prompts.generate(['some text'], 'free')
  answer = ask(client, model='free', prompt='some text').json()
  assert [c['text'] for c in answer['choices']] == [text]
  short = ask(client, model='free', prompt='some text', max_tokens=2).json()['choices'][0]
  assert text.startswith(short['text'])


def test_samples_repeat_with_their_seed(client):
  one, same, other = (
    [c['text'] for c in ask(client, model='free', prompt='x', temperature=1.0, seed=s, n=4).json()[
      'choices']]
    for s in (1, 1, 2)
  )  # fmt: skip
  assert one == same != other
  assert len(set(one)) > 1


def test_models_are_the_prompts(client):
  found = client.get('/v1/models').json()
  assert [m['id'] for m in found['data']] == ['small', 'large', 'free']
  assert found['data'][0]['labels'] == list(YES_NO)
  assert client.get('/v1/models/large').json() == found['data'][1]
  assert client.get('/v1/models/none').json()['error']['code'] == 'model_not_found'


@pytest.mark.parametrize(
  ('body', 'status', 'parameter'),
  [
    ({'prompt': 'a'}, 400, 'model'),
    ({'model': 'none', 'prompt': 'a'}, 404, 'model'),
    ({'model': 'small'}, 400, 'prompt'),
    ({'model': 'small', 'prompt': []}, 400, 'prompt'),
    ({'model': 'small', 'prompt': [1]}, 400, 'prompt'),
    ({'model': 'small', 'prompt': 'a', 'stream': True}, 400, 'stream'),
    ({'model': 'small', 'prompt': 'a', 'n': 2, 'temperature': 1}, 400, 'n'),
    ({'model': 'free', 'prompt': 'a', 'n': 2}, 400, 'n'),
    ({'model': 'free', 'prompt': 'a', 'best_of': 2}, 400, 'best_of'),
    ({'model': 'free', 'prompt': 'a', 'best_of': 2, 'n': 3, 'temperature': 1}, 400, 'best_of'),
    ({'model': 'free', 'prompt': 'a', 'beams': 4}, 400, 'beams'),
    ({'model': 'free', 'prompt': 'a', 'beams': 3, 'temperature': 1}, 400, 'beams'),
    ({'model': 'free', 'prompt': 'a', 'beams': 3, 'stream': True}, 400, 'beams'),
    ({'model': 'free', 'prompt': 'a', 'logprobs': 1, 'stream': True}, 400, 'logprobs'),
    ({'model': 'free', 'prompt': 'a', 'stream': 1}, 400, 'stream'),
    (
      {'model': 'free', 'prompt': 'a', 'stream_options': {'include_usage': True}},
      400,
      'stream_options',
    ),
    ({'model': 'small', 'prompt': 'a', 'file': '/etc/passwd'}, 400, 'file'),
    ({'model': 'small', 'prompt': 'a', 'temperature': -1}, 400, 'temperature'),
    ({'model': 'small', 'prompt': 'a', 'top_p': True}, 400, 'top_p'),
    ({'model': 'free', 'prompt': 'a', 'temperature': 1, 'top_p': 0}, 400, 'top_p'),
    ({'model': 'small', 'prompt': 'a', 'max_tokens': 0}, 400, 'max_tokens'),
    ({'model': 'small', 'prompt': ['a'] * 65}, 400, 'prompt'),
    ({'model': 'small', 'prompt': 'a' * 3000}, 413, None),
  ],
)
def test_mistakes_are_told_as_json(client, body, status, parameter):
  found = ask(client, **body)
  assert found.status_code == status
  assert found.json()['error']['param'] == parameter
  assert found.json()['error']['message']


def test_unknown_routes_and_methods(client):
  for call in (client.get('/v3'), client.get('/v1/completions'), client.post('/metrics')):
    assert call.status_code in (404, 405)
    assert call.json()['error']['code'] == 'not_found'
  for call in (client.get('/v2/none'), client.get('/v2/models/free/infer')):
    assert call.status_code in (404, 405)
    assert isinstance(call.json()['error'], str)  # as the protocol has it
  assert client.get('/v1/completions').headers['allow'] == 'POST'


def test_measures_are_text_for_prometheus(client):
  ask(client, model='small', prompt='a')
  ask(client, model='none', prompt='a')
  text = client.get('/metrics').text
  assert 'prompt_jax_requests_total{prompt="small",status="200"}' in text
  assert '"none"' not in text
  names = {line.split('{')[0].split()[0] for line in text.splitlines() if line[0] != '#'}
  assert {'prompt_jax_waiting_rows', 'prompt_jax_mixed_batches_total'} <= names


# Halves of characters too, which JSON can say.
ANY_TEXT = st.text(st.characters(exclude_categories=()), max_size=20)
JSON = st.recursive(
  st.none() | st.booleans() | st.integers() | st.floats() | ANY_TEXT,
  lambda x: st.lists(x, max_size=4) | st.dictionaries(st.text(max_size=8), x, max_size=4),
  max_leaves=8,
)
NAMES = st.sampled_from(['model', 'prompt', 'max_tokens', 'temperature', 'top_p', 'n', 'stream',
                         'logprobs', 'seed', 'stop', 'user', 'best_of', 'x'])  # fmt: skip


@given(st.binary(max_size=60) | st.dictionaries(NAMES, JSON).map(lambda x: json.dumps(x).encode()))
@settings(max_examples=300, deadline=None)
def test_no_body_makes_the_server_fail(client, body):
  found = client.post('/v1/completions', content=body)
  assert found.status_code in (400, 404, 413, 429)
  assert 'Traceback' not in found.text
  assert found.json()['error']['message']


@given(st.dictionaries(NAMES, JSON).map(lambda x: x | {'model': 'small', 'prompt': 'a'}))
@settings(max_examples=300, deadline=None)
def test_no_field_is_read_wrongly(body):
  try:
    asked = read(json.dumps(body).encode())
  except Refused as found:
    refused = found
  else:
    refused = None
    assert (asked.prompt, asked.texts) == ('small', ('a',))
    assert 0 <= asked.top_p <= 1
  assert refused is None or refused.status == 400


def test_a_token_is_asked_for(prompts):
  client = TestClient(Server(JaxEngine(prompts, 4), Limits(), token='secret').app)
  assert client.get('/v1/models').status_code == 401
  assert client.get('/v1/models', headers={'Authorization': 'Bearer wrong'}).status_code == 401
  assert client.get('/v1/models', headers={'Authorization': 'Bearer secret'}).status_code == 200
  assert client.get('/health').status_code == 503  # not begun, and asked without a token


class Engine:
  """Answers when it is let, and remembers the batches."""

  def __init__(self):
    self.go, self.batches = threading.Event(), []

  def __call__(self, rows, settings, tell):
    assert self.go.wait(10)
    self.batches.append([row.prompt for row in rows])
    return [None] * len(rows)


def row(prompt):
  return Row(prompt, np.ones(1, np.int32))


def test_what_waits_is_one_batch_whatever_its_prompts():
  async def run():
    engine, measures = Engine(), Measures()
    queue = Queue(engine, measures, most_rows=4, room=7)
    running = asyncio.create_task(queue.run())
    rank, text = Settings('rank'), Settings('generate')
    found = queue.put([row('first')], rank, ['g'])
    await asyncio.sleep(0.05)  # it computes
    found += queue.put([row('a'), row('b')], rank, ['g', 'g'])
    found += queue.put([row('x')], text, ['g']) + queue.put([row('y')], rank, ['other'])
    gone = queue.put([row('gone')], rank, ['g'])
    found += queue.put([row('c'), row('d')], rank, ['g', 'g'])
    with pytest.raises(Full) as full:
      queue.put([row('more')], rank, ['g'])
    assert full.value.seconds >= 1
    gone[0].cancel()
    found += queue.put([row('e')], rank, ['g'])  # in its place
    engine.go.set()
    await asyncio.gather(*found)
    queue.close()
    await running
    return engine.batches, measures

  batches, measures = asyncio.run(run())
  assert batches == [['first'], ['a', 'b', 'c', 'd'], ['x'], ['y'], ['e']]
  assert (sum(measures.batch_rows.counts), measures.mixed, measures.waiting) == (5, 1, 0)


def test_a_batch_that_fails_fails_alone():
  async def run():
    def answer(rows, settings, tell):
      if rows[0].prompt == 'bad':
        raise ValueError('no')
      return [None]

    queue = Queue(answer, Measures(), most_rows=1, room=4)
    found = queue.put([row('bad'), row('good')], Settings('rank'), ['g', 'g'])
    running = asyncio.create_task(queue.run())
    done = await asyncio.gather(*found, return_exceptions=True)
    queue.close()
    await running
    return done

  bad, good = asyncio.run(run())
  assert isinstance(bad, ValueError)
  assert good is None


def test_a_prompt_that_is_replaced_by_one_asked_otherwise_fails_alone(tuned):
  bank = Bank(tuned(InputPrompt(length=2)).backbone)
  for name, labels in (('same', YES_NO), ('text', None), ('labels', MANY)):
    bank.add(name, tuned(InputPrompt(length=2), 1, labels))
  engine = JaxEngine(TunedPrompts(bank), 2)
  bank.add('labels', tuned(InputPrompt(length=2), 2, None))
  bank.add('text', tuned(InputPrompt(length=2), 3, YES_NO))
  same, gone = engine([row('same'), row('labels')], Settings('rank'))
  assert (same.entry.name, gone) == ('same', None)
  assert engine([row('text')], Settings('generate')) == [None]


def test_measures_of_prompts_that_are_gone_are_forgotten():
  found = Measures()
  for name in ('here', 'gone'):
    found.batch([name], 0.1)
    found.read_and_wrote(name, 1, 1)
    found.request(name, 200, 0.1)
  assert 'prompt="gone"' in found.text()
  found.keep(['here'])
  text = found.text()
  assert 'gone' not in text
  assert text.count('prompt="here"') > 4
  assert 'prompt_jax_prompts 1\n' in text


def test_buckets_of_a_histogram_add_up():
  found = Histogram((1, 2))
  for value in (0.5, 1, 2, 3):
    found.add(value)
  assert found.lines('x') == [
    'x_bucket{le="1"} 2', 'x_bucket{le="2"} 3', 'x_bucket{le="+Inf"} 4', 'x_sum 6.5', 'x_count 4'
  ]  # fmt: skip


def test_probabilities_are_a_softmax_that_does_not_overflow():
  for scores, first in (([-1000.0, -1001.0], 1 / (1 + np.exp(-1))), ([-3.0, -3.0], 0.5)):
    got = Found(None, np.zeros(0), 0.0, 0, np.array(scores, np.float32)).probabilities
    np.testing.assert_allclose(got[0], first, atol=1e-12)
    np.testing.assert_allclose(got.sum(), 1)
