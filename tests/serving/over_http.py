"""A server over real HTTP, and an engine that answers when it is let."""

import contextlib
import dataclasses
import http.client
import json
import socket
import threading
import time

import numpy as np
import uvicorn

from prompt_jax.data.example import Lengths, encode
from prompt_jax.data.vocabulary import ByteVocabulary
from prompt_jax.errors import unknown
from prompt_jax.serving.app import Server
from prompt_jax.serving.asking import Limits
from prompt_jax.serving.rows import Found

WORDS = ByteVocabulary()
LENGTHS = Lengths(64, 16)


@dataclasses.dataclass(frozen=True)
class Prompt:
  name: str
  labels: tuple[str, ...] = ()
  lengths: Lengths = LENGTHS


class Engine:
  """Says a text backwards, or whether its tokens are even in number; what was asked is kept."""

  base_model, beams = 'fake', (3,)

  def __init__(self, *prompts):
    given = prompts or (Prompt('parity', ('odd', 'even')), Prompt('back'))
    self.by_name = {p.name: p for p in given}
    self.go = threading.Event()
    self.go.set()
    self.step = threading.Event()
    self.step.set()
    self.begun = threading.Semaphore(0)  # a batch each
    self.batches = []

  @property
  def names(self):
    return tuple(self.by_name)

  @property
  def prompts(self):
    return list(self.by_name.values())

  def __getitem__(self, name):
    if name not in self.by_name:
      raise unknown('prompt', name, self.by_name)
    return self.by_name[name]

  def tokens(self, text, prompt):
    return encode(text, WORDS, prompt.lengths.inputs)

  def words(self, tokens):
    return WORDS.decode(tokens)

  def group(self, prompt, tokens):
    return 0

  def __call__(self, rows, settings, tell=None):
    self.batches.append([(row.prompt, self.words(row.tokens)) for row in rows])
    self.begun.release()
    assert self.go.wait(30)
    found = [self.answer(self[row.prompt], row) for row in rows]
    if tell is not None:
      for step in range(max(len(one.tokens) for one in found)):
        for i, one in enumerate(found):
          tell(i, step, int(one.tokens[step]) if step < len(one.tokens) else 0)
        assert self.step.wait(30)
    return found

  def answer(self, prompt, row):
    if prompt.labels:
      scores = np.array([-1.0, -2.0], np.float32)
      label = (len(row.tokens) + 1) % 2
      return Found(prompt, np.zeros(0, np.int32), -1.0, label, scores[:: -1 if label else 1])
    tokens = np.array([*row.tokens[:-1][::-1], 1][: row.limit], np.int32)
    return Found(prompt, tokens, -0.5)

  def programs(self):
    yield from ()


@contextlib.contextmanager
def running(server):
  """The address of an application that answers in a thread; it drains at the end."""
  with socket.socket() as listening:
    listening.bind(('127.0.0.1', 0))
    listening.listen(64)
    config = uvicorn.Config(server.app, log_level='warning', access_log=False)
    uvi = uvicorn.Server(config)
    thread = threading.Thread(target=uvi.run, kwargs={'sockets': [listening]})
    thread.start()
    server.stop = lambda: setattr(uvi, 'should_exit', True)
    try:
      address = listening.getsockname()[:2]
      until = time.monotonic() + 300
      while call(address, 'GET', '/health')[0] != 200 and time.monotonic() < until:
        time.sleep(0.02)
      yield address
    finally:
      server.stop()
      if isinstance(server.engine, Engine):
        server.engine.go.set()
        server.engine.step.set()
      thread.join(30)
      assert not thread.is_alive()


def call(address, method, path, body=None, headers=()):
  """(status, JSON or text, headers) of a request of its own connection."""
  connection = http.client.HTTPConnection(*address, timeout=30)
  try:
    data = json.dumps(body).encode() if isinstance(body, dict | list) else body
    connection.request(method, path, data, dict(headers))
    found = connection.getresponse()
    text = found.read().decode()
    is_json = found.headers.get('content-type') == 'application/json'
    return found.status, json.loads(text) if is_json else text, dict(found.headers)
  finally:
    connection.close()


def complete(address, prompt, text, **more):
  return call(address, 'POST', '/v1/completions', {'model': prompt, 'prompt': text, **more})


def server_of(engine=None, token=None, **limits):
  return Server(engine or Engine(), Limits(**limits), token)
