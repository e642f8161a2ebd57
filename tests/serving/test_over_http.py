"""What a client sees of the server: time, room, size, who asks, and the end of it."""

import concurrent.futures
import dataclasses
import gc
import json
import socket
import time

import pytest

from tests.serving.over_http import call, complete, running, server_of


def answer(found):
  status, body, _ = found
  assert status == 200, body
  return body['choices'][0]['text']


def waits_until(condition):
  until = time.monotonic() + 20
  while not condition():
    assert time.monotonic() < until
    time.sleep(0.01)


def test_every_answer_goes_to_who_asked():
  with running(server_of()) as address, concurrent.futures.ThreadPoolExecutor(16) as clients:
    texts = [f'text {i * 37}' for i in range(60)]
    backwards = clients.map(lambda t: answer(complete(address, 'back', t)), texts)
    parities = clients.map(lambda t: answer(complete(address, 'parity', t)), texts)
    assert list(backwards) == [text[::-1] for text in texts]
    assert list(parities) == [('odd', 'even')[len(text) % 2] for text in texts]


def test_a_request_takes_no_longer_than_its_time():
  server = server_of(seconds=0.3)
  server.engine.go.clear()
  with running(server) as address:
    status, body, headers = complete(address, 'back', 'slow')
    assert (status, body['error']['code']) == (503, 'timeout')
    assert int(headers['retry-after']) >= 1
    status, _, _ = complete(address, 'back', 'behind it')
    assert status == 503
    server.engine.go.set()
    assert answer(complete(address, 'back', 'later')) == 'retal'
  asked = [text for batch in server.engine.batches for _, text in batch]
  assert asked == ['slow', 'later']  # what nobody waits for any more is not computed


def test_what_has_no_room_is_told_when_to_come_again():
  server = server_of(rows=1, waiting=2)
  server.engine.go.clear()
  with running(server) as address, concurrent.futures.ThreadPoolExecutor(3) as clients:
    first = clients.submit(complete, address, 'back', 'a')
    assert server.engine.begun.acquire(timeout=20)
    others = [clients.submit(complete, address, 'back', text) for text in ('b', 'c')]
    waits_until(lambda: len(server.queue) == 2)
    status, body, headers = complete(address, 'back', 'd')
    assert (status, body['error']['code']) == (429, 'queue_full')
    assert int(headers['retry-after']) >= 1
    server.engine.go.set()
    assert [answer(each.result()) for each in (first, *others)] == ['a', 'b', 'c']


def connected(address):
  found = socket.create_connection(address, timeout=20)
  return found


def sent(connection, prompt, text):
  body = json.dumps({'model': prompt, 'prompt': text}).encode()
  head = f'POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: {len(body)}\r\n\r\n'
  connection.sendall(head.encode() + body)


def test_the_work_for_a_client_that_is_gone_is_dropped():
  server = server_of(rows=1)
  server.engine.go.clear()
  with running(server) as address, concurrent.futures.ThreadPoolExecutor(2) as clients:
    first = clients.submit(complete, address, 'back', 'stays')
    assert server.engine.begun.acquire(timeout=20)
    leaves = connected(address)
    sent(leaves, 'back', 'leaves')
    waits_until(lambda: len(server.queue) == 1)
    other = clients.submit(complete, address, 'back', 'other')
    waits_until(lambda: len(server.queue) == 2)
    leaves.close()
    waits_until(lambda: server.measures.requests['back', 499])
    server.engine.go.set()
    assert (answer(first.result()), answer(other.result())) == ('syats', 'rehto')
  asked = [text for batch in server.engine.batches for _, text in batch]
  assert asked == ['stays', 'other']


@pytest.mark.parametrize('size', [3000, 30_000_000])
@pytest.mark.parametrize('chunked', [False, True])
def test_a_body_that_is_too_large(size, chunked):
  with running(server_of(bytes=2000)) as address:
    whole = json.dumps({'model': 'back', 'prompt': 'x' * size}).encode()
    body = (whole[i : i + 65536] for i in range(0, len(whole), 65536)) if chunked else whole
    status, found, _ = call(address, 'POST', '/v1/completions', body)
    assert (status, found['error']['code']) == (413, 'too_large')
    assert answer(complete(address, 'back', 'ab')) == 'ba'


@pytest.mark.parametrize(
  'body',
  [
    b'{"model": "back", "prompt": "a\\ud800"}',
    b'{"model": "back", "prompt": "a", "\\udfff": 1}',
    b'{"model": "\\ud800", "prompt": "a"}',
    b'{"inputs": [{"name": "text", "datatype": "BYTES", "shape": [1], "data": ["a"]}],'
    b' "id": "\\ud800"}',
  ],
)
def test_halves_of_characters_are_refused_wherever_they_are(body):
  with running(server_of()) as address:
    for path in ('/v1/completions', '/v2/models/back/infer'):
      assert call(address, 'POST', path, body)[0] == 400


def test_a_body_that_does_not_come():
  with running(server_of(seconds=0.3)) as address, connected(address) as client:
    client.sendall(b'POST /v1/completions HTTP/1.1\r\nHost: x\r\nContent-Length: 99\r\n\r\n{"mod')
    assert client.recv(1000).startswith(b'HTTP/1.1 408 ')


def test_only_who_knows_the_token_is_answered():
  with running(server_of(token='secret')) as address:
    for headers in ({}, {'Authorization': 'Bearer wrong'}, {'Authorization': 'secret'},
                    {'Authorization': 'Basic secret'}):  # fmt: skip
      status, body, got = call(address, 'POST', '/v1/completions', {}, headers)
      assert (status, body['error']['code']) == (401, 'invalid_api_key')
      assert got['www-authenticate'] == 'Bearer'
    body = {'model': 'back', 'prompt': 'ab'}
    for scheme in ('Bearer', 'bearer'):  # in any case, says RFC 9110
      known = {'Authorization': f'{scheme} secret'}
      assert answer(call(address, 'POST', '/v1/completions', body, known)) == 'ba'
    assert call(address, 'GET', '/health')[0] == 200  # for who watches over it


def test_what_was_begun_is_answered_at_the_end():
  server = server_of(rows=1)
  server.engine.go.clear()
  texts = ['first', 'second', 'third']
  with concurrent.futures.ThreadPoolExecutor(3) as clients, running(server) as address:
    begun = [clients.submit(complete, address, 'back', text) for text in texts]
    waits_until(lambda: len(server.queue) == 2)
    server.stop()  # as SIGTERM does
    waits_until(lambda: _refused(address))
    server.engine.go.set()
    assert {answer(each.result()) for each in begun} == {text[::-1] for text in texts}


def _refused(address):
  try:
    connected(address).close()
  except ConnectionRefusedError:
    return True
  return False


def test_a_request_is_answered_by_one_prompt_alone():
  server = server_of(rows=1)
  engine, found = server.engine, server.engine.answer
  # Replaced between two batches.
  engine.answer = lambda prompt, row: found(dataclasses.replace(prompt), row)
  with running(server) as address:
    assert answer(complete(address, 'back', 'one')) == 'eno'
    status, body, headers = complete(address, 'back', ['one', 'two'])
    assert (status, body['error']['code']) == (503, 'prompt_replaced')
    assert headers['retry-after'] == '1'


def test_more_texts_than_can_ever_wait_are_no_matter_of_patience():
  with running(server_of(waiting=2)) as address:
    status, body, _ = complete(address, 'back', ['a', 'b', 'c'])
    assert (status, body['error']['param']) == (400, 'prompt')
    assert complete(address, 'back', ['a', 'b'])[0] == 200


def test_garbage_collections_leave_out_what_a_server_that_is_ready_holds():
  """A full one would keep all requests waiting."""
  with running(server_of()) as address:
    assert gc.get_freeze_count() > 1000
    assert answer(complete(address, 'back', 'ab')) == 'ba'
  assert gc.get_freeze_count() == 0
