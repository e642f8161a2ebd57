"""The routes of the Open Inference Protocol, version 2, and the measures for Prometheus."""

import pytest
from prometheus_client.parser import text_string_to_metric_families

import prompt_jax
from tests.serving.over_http import call, complete, running, server_of


@pytest.fixture(scope='module')
def address():
  with running(server_of(rows=4)) as found:
    yield found


def text_input(*texts, **more):
  return {'name': 'text', 'datatype': 'BYTES', 'shape': [len(texts)], 'data': list(texts)} | more


def infer(address, name, *texts, **more):
  body = {'inputs': [text_input(*texts)], **more}
  return call(address, 'POST', f'/v2/models/{name}/infer', body)[:2]


def test_the_server_and_its_prompts_are_described(address):
  get = lambda path: call(address, 'GET', path)[:2]
  assert get('/v2/health/live') == (200, {'live': True})
  assert get('/v2/health/ready')[1]['ready'] is True
  about = get('/v2')[1]
  assert (about['name'], about['version']) == ('prompt_jax', prompt_jax.__version__)
  assert get('/v2/models/back/ready') == (200, {'name': 'back', 'ready': True})
  prompt = get('/v2/models/parity')[1]
  assert [(i['name'], i['datatype']) for i in prompt['inputs']] == [('text', 'BYTES')]
  assert [o['name'] for o in prompt['outputs']] == ['text', 'label', 'probabilities']
  assert prompt['outputs'][2]['shape'] == [-1, 2]
  assert [o['name'] for o in get('/v2/models/back')[1]['outputs']] == ['text']


def test_answers_are_those_of_the_other_form(address):
  texts = ['abc', 'de', '</s>']
  status, found = infer(address, 'parity', *texts, id='7')
  assert (status, found['model_name'], found['id']) == (200, 'parity', '7')
  outputs = {o['name']: o for o in found['outputs']}
  expected = complete(address, 'parity', texts)[1]['choices']
  assert outputs['label']['data'] == outputs['text']['data'] == [c['label'] for c in expected]
  assert outputs['probabilities']['shape'] == [3, 2]
  flat = [x for c in expected for x in c['probabilities'].values()]
  assert outputs['probabilities']['data'] == pytest.approx(flat)
  assert infer(address, 'back', 'abc', outputs=[{'name': 'text'}])[1] == {
    'model_name': 'back',
    'outputs': [{'name': 'text', 'datatype': 'BYTES', 'shape': [1], 'data': ['cba']}],
  }
  column = {'inputs': [text_input(['abc'], ['de'], shape=[2, 1])]}
  found = call(address, 'POST', '/v2/models/back/infer', column)[1]
  assert found['outputs'][0]['data'] == ['cba', 'ed']
  short = infer(address, 'back', 'abc', parameters={'max_tokens': 2})[1]
  assert short['outputs'][0]['data'] == ['cb']


@pytest.mark.parametrize(
  ('body', 'status'),
  [
    ([], 400),
    ({}, 400),
    ({'inputs': []}, 400),
    ({'inputs': [text_input('a'), text_input('a')]}, 400),
    ({'inputs': [text_input('a', name='other')]}, 400),
    ({'inputs': [text_input('a', datatype='FP32')]}, 400),
    ({'inputs': [text_input('a', shape=[2])]}, 400),
    ({'inputs': [text_input('a', data=[1])]}, 400),
    ({'inputs': [text_input(*(['a'] * 65))]}, 400),
    ({'inputs': [text_input('a')], 'outputs': [{'name': 'label'}]}, 400),
    ({'inputs': [text_input('a')], 'outputs': 3}, 400),
    ({'inputs': [text_input('a')], 'parameters': {'n': 2}}, 400),
    ({'inputs': [text_input('a')], 'parameters': {'max_tokens': 0}}, 400),
    ({'inputs': [text_input('a')], 'id': 7}, 400),
    ({'inputs': [text_input('a')], 'file': 'x'}, 400),
  ],
)
def test_mistakes_are_told_as_text(address, body, status):
  found = call(address, 'POST', '/v2/models/back/infer', body)
  assert found[0] == status
  assert isinstance(found[1]['error'], str)
  for method, path in (('GET', '/v2/models/none'), ('GET', '/v2/models/none/ready'),
                       ('POST', '/v2/models/none/infer')):  # fmt: skip
    status, found, _ = call(address, method, path, {} if method == 'POST' else None)
    assert status == 404
    assert 'none' in found['error']


def families(address):
  """{name: {labels: value}} as Prometheus reads them."""
  found = {}
  for family in text_string_to_metric_families(call(address, 'GET', '/metrics')[1]):
    for sample in family.samples:
      key = tuple(sorted(sample.labels.items()))
      found.setdefault(sample.name.removeprefix('prompt_jax_'), {})[key] = sample.value
  return found


def test_measures_of_each_prompt_are_read_by_prometheus():
  server = server_of(rows=4)
  with running(server) as address:
    complete(address, 'back', ['abc', 'de'])
    complete(address, 'parity', 'a')
    infer(address, 'parity', 'a')
    complete(address, 'parity', 'a', n=3, temperature=1)
    found = families(address)
  of = lambda prompt, **more: tuple(sorted({'prompt': prompt, **more}.items()))
  assert found['prompts'] == {(): 2}
  assert found['waiting_rows'] == {(): 0}
  assert found['batches_total'] == {(): 3}
  assert found['mixed_batches_total'] == found['mixed_batches_share'] == {(): 0}
  assert found['batch_rows_sum'] == {(): 4}
  assert found['queue_seconds_count'] == {(): 4}
  assert found['batch_seconds_count'] == {(): 3}
  assert found['rows_total'] == {of('back'): 2, of('parity'): 2}
  assert found['request_seconds_count'] == {of('back'): 1, of('parity'): 2}
  assert found['requests_total'] == {
    of('back', status='200'): 1, of('parity', status='200'): 2, of('parity', status='400'): 1,
  }  # fmt: skip
  assert found['tokens_total'] == {
    of('back', kind='read'): 7, of('back', kind='wrote'): 7,
    of('parity', kind='read'): 4, of('parity', kind='wrote'): 0,
  }  # fmt: skip
  bounds = found['request_seconds_bucket']
  assert bounds[of('parity', le='+Inf')] == 2
