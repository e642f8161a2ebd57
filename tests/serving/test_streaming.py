"""Text as it is written: events, their end, and mistakes on the way."""

import concurrent.futures
import contextlib
import http.client
import json
import socket
import time

import jax
import numpy as np
import pytest

from prompt_jax.prompts.methods.input.input_prompt import InputPrompt
from prompt_jax.serving import asking
from prompt_jax.serving.app import Server
from prompt_jax.serving.asking import Limits
from prompt_jax.serving.bank import Bank
from prompt_jax.serving.jax_engine import JaxEngine
from prompt_jax.serving.rows import Found
from prompt_jax.serving.tuned_prompts import TunedPrompts
from tests.serving.over_http import complete, running, server_of


@contextlib.contextmanager
def streaming(address, **body):
  """An iterator of the data of events; the connection is closed at the end."""
  connection = http.client.HTTPConnection(*address, timeout=30)
  try:
    text = json.dumps({'stream': True, **body})
    connection.request('POST', '/v1/completions', text)
    found = connection.getresponse()
    assert (found.status, found.headers['content-type']) == (
      200, 'text/event-stream; charset=utf-8'
    )  # fmt: skip
    lines = (line.decode().rstrip('\n') for line in found)
    yield (line.removeprefix('data: ') for line in lines if line)
  finally:
    connection.close()


def choices(events):
  """[(index, text, reason)] until the end."""
  *parts, end = events
  assert end == '[DONE]'
  found = [choice for part in parts for choice in json.loads(part)['choices']]
  return [(c['index'], c['text'], c['finish_reason']) for c in found]


def joined(parts):
  texts = {}
  for index, text, _ in parts:
    texts[index] = texts.get(index, '') + text
  return [texts[i] for i in sorted(texts)]


def test_texts_come_in_pieces_each_with_its_number():
  with (
    running(server_of()) as address,
    streaming(address, model='back', prompt=['cba', 'fed']) as events,
  ):
    parts = choices(events)
  assert joined(parts) == ['abc', 'def']
  assert len(parts) > 4
  assert sorted((i, reason) for i, _, reason in parts if reason) == [(0, 'stop'), (1, 'stop')]


def test_the_first_event_comes_before_the_last_token():
  server = server_of()
  server.engine.step.clear()  # the engine goes no further than its first token
  with running(server) as address, streaming(address, model='back', prompt='ba') as events:
    assert json.loads(next(events))['choices'][0]['text'] == 'a'
    server.engine.step.set()
    assert choices(events)[-1] == (0, '', 'stop')


def test_the_number_of_tokens_is_told_if_it_is_wanted():
  with running(server_of()) as address:
    more = {'stream_options': {'include_usage': True}}
    with streaming(address, model='back', prompt='abc', **more) as events:
      *_, last, _ = events
    whole = complete(address, 'back', 'abc')[1]
    assert json.loads(last)['usage'] == whole['usage']


def test_a_stream_that_takes_too_long_ends_with_a_mistake():
  server = server_of(seconds=0.3)
  server.engine.go.clear()
  with running(server) as address, streaming(address, model='back', prompt='ab') as events:
    (only,) = events
    assert json.loads(only)['error']['code'] == 'timeout'
  assert server.measures.requests['back', 503] == 1


def test_the_stream_of_a_client_that_is_gone_is_dropped():
  server = server_of(rows=1)
  server.engine.go.clear()
  with running(server) as address, concurrent.futures.ThreadPoolExecutor(1) as clients:
    first = clients.submit(complete, address, 'back', 'first')
    assert server.engine.begun.acquire(timeout=20)
    with streaming(address, model='back', prompt='leaves'):
      until = time.monotonic() + 20
      while not len(server.queue):
        assert time.monotonic() < until
    while not server.measures.requests['back', 499]:
      assert time.monotonic() < until
      time.sleep(0.01)
    server.engine.go.set()
    assert first.result()[0] == 200
  assert [batch[0][1] for batch in server.engine.batches] == ['first']


def test_a_client_that_reads_too_slowly_is_left(monkeypatch):
  bind = socket.socket.bind

  def bind_small(listening, address):  # the machine would take all of it in
    listening.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
    return bind(listening, address)

  monkeypatch.setattr(socket.socket, 'bind', bind_small)
  server = server_of(seconds=0.5)
  with running(server) as address, socket.socket() as client:
    client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
    client.connect(address)
    body = json.dumps({'model': 'back', 'prompt': ['x' * 60] * 64, 'stream': True}).encode()
    head = f'POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n'
    client.sendall(head.encode() + body)
    until = time.monotonic() + 20
    while not server.measures.requests['back', 499]:
      assert time.monotonic() < until
      time.sleep(0.01)
    client.settimeout(20)
    received = b''
    while part := client.recv(1 << 16):  # to the end: the connection is closed
      received += part
  assert b'[DONE]' not in received


@pytest.fixture(scope='module')
def written(tuned):
  """The address of a server of prompts that write text."""
  bank = Bank(tuned(InputPrompt(length=2)).backbone)
  for name, length in (('p', 3), ('q', 6)):
    bank.add(name, tuned(InputPrompt(length=length), length))
  server = Server(JaxEngine(TunedPrompts(bank), 4, beams=3), Limits(rows=4))
  with running(server) as address:
    yield address, TunedPrompts(bank)


@pytest.mark.parametrize('sampling', [{}, {'temperature': 1.0, 'seed': 3, 'n': 2}], ids=str)
def test_a_stream_is_the_text_of_the_answer(written, sampling):
  """With characters of several bytes and bytes that are none."""
  address, _ = written
  for prompt in ('p', 'q'):
    texts = ['ab', 'some text'] if not sampling else 'ab'
    whole = complete(address, prompt, texts, **sampling)[1]['choices']
    with streaming(address, model=prompt, prompt=texts, **sampling) as events:
      parts = choices(events)
    assert joined(parts) == [c['text'] for c in whole]
    assert {i: r for i, _, r in parts if r} == {c['index']: c['finish_reason'] for c in whole}
    assert len(parts) > 2 * len(whole)  # in pieces


def test_streams_of_several_clients_do_not_cross(written):
  address, prompts = written
  texts = [f'text {i}' for i in range(8)]

  def ask(text):
    with streaming(address, model='q', prompt=text) as events:
      return joined(choices(events))[0]

  with concurrent.futures.ThreadPoolExecutor(8) as clients:
    assert list(clients.map(ask, texts)) == prompts.generate(texts, 'q')


def test_beams_and_the_best_of_samples(written):
  address, prompts = written
  (expected,) = prompts.generate(['ab'], 'p', beams=3)
  assert complete(address, 'p', 'ab', beams=3)[1]['choices'][0]['text'] == expected
  ask = lambda **more: complete(
    address, 'p', 'ab', temperature=1.0, seed=1, logprobs=1, **more
  )[1]['choices']  # fmt: skip
  every, best = ask(n=6), ask(n=2, best_of=6)
  assert len(best) == 2
  assert {c['text'] for c in best} <= {c['text'] for c in every}


def test_the_best_are_the_most_probable_by_token():
  tokens = lambda n: np.ones(n, np.int32)
  found = [Found(None, tokens(n), log_prob) for n, log_prob in
           ((1, -1.0), (4, -2.0), (2, -1.5), (1, -9.0), (2, -2.0), (3, -2.0))]  # fmt: skip
  best = asking._best(found, 3, 2)
  assert [(len(one.tokens), one.log_prob) for one in best] == [
    (4, -2.0), (2, -1.5), (3, -2.0), (2, -2.0)
  ]  # fmt: skip


def test_what_streams_is_compiled_before_it_is_ready(written):
  address, _ = written
  names = []
  jax.monitoring.register_event_duration_secs_listener(
    lambda event, seconds, **_: names.append(event) if 'backend_compile' in event else None
  )
  with streaming(address, model='p', prompt=['a', 'b', 'c']) as events:
    list(events)
  complete(address, 'p', 'a', beams=3)
  assert names == []
