"""A server on this machine that answers as Google Cloud Storage does to those who read.

Of its JSON API (https://cloud.google.com/storage/docs/json_api/v1/objects): `get` with alt=media
or alt=json, and `list`, which gives a few names a page. Buckets are folders; nobody may read the
one named private.
"""

import http.server
import json
import pathlib
import threading
import urllib.parse

PAGE = 3
GENERATION = 1


class Handler(http.server.BaseHTTPRequestHandler):
  protocol_version = 'HTTP/1.1'
  wbufsize = -1  # an answer is one write: two would wait for each other's acknowledgement
  server: 'ObjectStore'

  def do_GET(self):
    url = urllib.parse.urlsplit(self.path)
    query = dict(urllib.parse.parse_qsl(url.query))
    # "/storage/v1/b/BUCKET/o/NAME"; the slashes of a name are percent-encoded.
    parts = [urllib.parse.unquote(part) for part in url.path.split('/')]
    self.server.asked.append((parts, query, dict(self.headers)))
    if parts[1:4] != ['storage', 'v1', 'b'] or not (self.server.folder / parts[4]).is_dir():
      return self.answer(404, {'error': {'code': 404, 'message': 'Not Found'}})
    bucket = self.server.folder / parts[4]
    if bucket.name == 'private':
      return self.answer(401, {'error': {'code': 401, 'message': 'no storage.objects.get access'}})
    if len(parts) == 6:
      return self.list(bucket, query)
    path = bucket / parts[6]
    if not path.is_file():
      return self.answer(404, {'error': {'code': 404, 'message': 'No such object'}})
    if query.get('alt') == 'media':
      return self.media(path.read_bytes())
    return self.answer(200, self.about(bucket, path))

  def list(self, bucket: pathlib.Path, query: dict[str, str]):
    names = sorted(str(p.relative_to(bucket)) for p in bucket.rglob('*') if p.is_file())
    end = query.get('endOffset')
    names = [n for n in names if n >= query.get('startOffset', '') and (end is None or n < end)]
    start = int(query.get('pageToken', 0))
    found = {'items': [self.about(bucket, bucket / n) for n in names[start : start + PAGE]]}
    if start + PAGE < len(names):
      found['nextPageToken'] = str(start + PAGE)
    self.answer(200, found)

  def media(self, content: bytes):
    asked = self.headers.get('Range')
    if asked is None:
      return self.send(200, content)
    first, last = asked.removeprefix('bytes=').split('-')
    start = int(first) if first else len(content) - int(last)
    part = content[start : int(last) + 1 if first and last else None]
    where = f'bytes {start}-{start + len(part) - 1}/{len(content)}'
    self.send(206, part, {'Content-Range': where})

  def about(self, bucket: pathlib.Path, path: pathlib.Path) -> dict[str, str]:
    size = str(path.stat().st_size)
    return {'name': str(path.relative_to(bucket)), 'size': size, 'generation': str(GENERATION)}

  def answer(self, code: int, content: dict):
    self.send(code, json.dumps(content).encode())

  def send(self, code: int, content: bytes, more: dict[str, str] | None = None):
    headers = {'Content-Length': str(len(content)), 'x-goog-generation': str(GENERATION)}
    self.send_response(code)
    for name, value in {**headers, **(more or {})}.items():
      self.send_header(name, value)
    self.end_headers()
    self.wfile.write(content)

  def log_message(self, *_):
    """Nothing into the output of the tests."""


class ObjectStore(http.server.ThreadingHTTPServer):
  """Serves `folder`, whose subfolders are buckets, while it is entered.

  Attributes:
    asked: (path, query, headers) of every request.
  """

  def __init__(self, folder: pathlib.Path):
    super().__init__(('127.0.0.1', 0), Handler)
    self.folder = folder
    self.asked: list[tuple[list[str], dict[str, str], dict[str, str]]] = []

  @property
  def address(self) -> str:
    return f'127.0.0.1:{self.server_port}'

  def __enter__(self):
    threading.Thread(target=self.serve_forever, args=(0.01,), daemon=True).start()
    return self

  def __exit__(self, *_):
    self.shutdown()
    self.server_close()
