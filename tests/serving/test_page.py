"""The page at `/` in a headless Chromium: at the width of a desk and of a telephone."""

import base64
import contextlib
import json
import os
import pathlib
import shutil
import subprocess
import time

import pytest

from tests.serving.over_http import Engine, Prompt, call, running, server_of

# What a page must show as it is.
EVIL = '<img src=x onerror="document.title=1">&lt;b&gt;'
CHROMIUM = os.environ.get('CHROMIUM') or next(
  filter(None, map(shutil.which, ('chromium-headless-shell', 'chromium', 'google-chrome'))), None
)


class Echo(Engine):
  """Writes the text itself."""

  def answer(self, prompt, row):
    found = super().answer(prompt, row)
    return found if prompt.labels else found._replace(tokens=row.tokens)


class Page:
  """A page of a browser that speaks its protocol over two pipes."""

  def __init__(self, to, back):
    self._to, self._back, self._number, self.said = to, back, 0, []
    target = self.do('Target.createTarget', url='about:blank')['targetId']
    attached = self.do('Target.attachToTarget', targetId=target, flatten=True)
    self._session = attached['sessionId']

  _session = None

  def do(self, method, **params):
    self._number += 1
    message = {'id': self._number, 'method': method, 'params': params}
    if self._session is not None:
      message['sessionId'] = self._session
    self._to.write(json.dumps(message).encode() + b'\0')
    self._to.flush()
    while True:
      found = json.loads(self._read())
      if found.get('id') == self._number:
        return found['result']
      if found.get('method') in ('Log.entryAdded', 'Runtime.exceptionThrown'):
        self.said.append(found['params'])

  def _read(self):
    """A message."""
    found = bytearray()
    while (byte := self._back.read(1)) != b'\0':
      assert byte, 'the browser has ended'
      found += byte
    return bytes(found)

  def js(self, code):
    found = self.do('Runtime.evaluate', expression=code, returnByValue=True, awaitPromise=True)
    return found['result'].get('value')

  def waits_for(self, code):
    until = time.monotonic() + 30
    while not self.js(code):
      assert time.monotonic() < until, code
      time.sleep(0.05)


@contextlib.contextmanager
def browser(folder):
  """A `Page`."""
  if CHROMIUM is None:
    pytest.skip('no Chromium; set CHROMIUM to one')
  flags = ['--headless', '--no-sandbox', '--disable-gpu', '--remote-debugging-pipe',
           '--disable-dev-shm-usage', f'--user-data-dir={folder}/profile']  # fmt: skip
  (own_in, to), (back, own_out) = os.pipe(), os.pipe()

  def wire():  # it reads at 3 and writes at 4
    os.dup2(os.dup(own_in), 3)
    os.dup2(own_out, 4)

  process = subprocess.Popen(
    [CHROMIUM, *flags], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    preexec_fn=wire, pass_fds=(3, 4),
  )  # fmt: skip
  os.close(own_in)
  os.close(own_out)
  try:
    with open(to, 'wb') as sending, open(back, 'rb') as receiving:
      yield Page(sending, receiving)
  finally:
    process.kill()
    process.wait()


def visited(page, address, width, height, token, shot):
  """What a visitor finds who asks every prompt one text."""
  for domain in ('Page', 'Runtime', 'Log'):
    page.do(f'{domain}.enable')
  page.do(
    'Emulation.setDeviceMetricsOverride', width=width, height=height, deviceScaleFactor=1,
    mobile=width < 600,
  )  # fmt: skip
  page.do('Page.navigate', url=f'http://{address[0]}:{address[1]}/')
  page.waits_for("document.readyState === 'complete' && !!document.querySelector('button')")
  if token:
    page.waits_for("!document.getElementById('ask-token').hidden")
    page.js(f"document.getElementById('token').value = {json.dumps(token)}")
    page.js("document.getElementById('text').value = 'x'")
    page.js("document.querySelector('button').click()")
  page.waits_for("document.querySelectorAll('#prompts input').length === 3")
  page.js(f"document.getElementById('text').value = {json.dumps(EVIL)}")
  page.js("document.querySelector('button').click()")
  page.waits_for("document.querySelectorAll('article .time').length === 3")
  picture = page.do('Page.captureScreenshot', captureBeyondViewport=True)
  pathlib.Path(shot).write_bytes(base64.b64decode(picture['data']))
  return page.js(
    """({
      title: document.title, images: document.images.length,
      wide: document.documentElement.scrollWidth > window.innerWidth,
      cards: [...document.querySelectorAll('article')].map(card => ({
        name: card.querySelector('h2').textContent,
        answer: card.querySelector('.answer').textContent,
        labels: [...card.querySelectorAll('.row span:first-child')].map(x => x.textContent),
        bars: [...card.querySelectorAll('.bar')].map(x => x.getBoundingClientRect().width),
        time: card.querySelector('.time').textContent,
        left: card.getBoundingClientRect().left,
      })),
    })"""
  )


@pytest.mark.parametrize('token', [None, 'secret'])
@pytest.mark.parametrize(('width', 'height'), [(1280, 800), (390, 844)], ids=['desk', 'telephone'])
def test_prompts_are_tried_side_by_side(width, height, token, tmp_path):
  labels = ('<i>odd</i>', 'even, with a long name that does not end where one would think')
  prompts = [Prompt('parity', labels), Prompt('back'), Prompt('a-prompt.' + 'long' * 30)]
  shot = f'{os.environ.get("SHOTS", tmp_path)}/{width}-{token}.png'
  server = server_of(Echo(*prompts), token)
  with browser(tmp_path) as page, running(server) as address:
    found = visited(page, address, width, height, token, shot)
  assert [text for text in page.said if '401' not in json.dumps(text)] == []
  assert (found['title'], found['images'], found['wide']) == ('Prompts side by side', 0, False)
  first, *texts = found['cards']
  assert [card['name'] for card in found['cards']] == [p.name for p in prompts]
  assert [card['answer'] for card in texts] == [EVIL] * 2
  assert sorted(first['labels']) == sorted(labels)
  assert first['labels'][0] == first['answer']
  assert first['bars'][0] / first['bars'][1] == pytest.approx(2.718, rel=0.05)
  assert all(card['time'].endswith(' ms') for card in found['cards'])
  columns = {card['left'] for card in found['cards']}
  assert len(columns) == (1 if width < 600 else 3)


def test_the_page_loads_nothing_from_elsewhere():
  with running(server_of()) as address:
    status, text, headers = call(address, 'GET', '/')
  assert status == 200
  assert headers['content-type'].startswith('text/html')
  assert "default-src 'none'" in headers['content-security-policy']
  assert 'http' not in text.replace('http-equiv', '')
  assert 'innerHTML' not in text
