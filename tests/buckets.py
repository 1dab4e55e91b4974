"""Buckets in memory behind gs://, with the habits of an object store that surprise programs.

`Bucket` is what fsspec opens. TensorStore, which writes the arrays of Orbax's checkpoints, has an
HTTP client of its own: `Endpoint` serves it the same objects.
"""

import base64
import datetime
import hashlib
import http.server
import io
import json
import re
import threading
import urllib.parse
from collections.abc import Mapping
from types import MappingProxyType, SimpleNamespace
from typing import Any, ClassVar

from fsspec.spec import AbstractFileSystem


class Bucket(AbstractFileSystem):
  """All buckets of one pretended Google Cloud Storage.

  There are no folders, only objects whose names have slashes: a folder is there as long as an
  object is in it. Objects appear when their upload is complete, and cannot be appended to.
  """

  protocol = ('gs', 'gcs')
  cachable = False
  objects: ClassVar[dict[str, tuple[bytes, datetime.datetime]]] = {}
  uploads: ClassVar[list[str]] = []
  downloads: ClassVar[list[str]] = []
  lock: ClassVar[threading.RLock] = threading.RLock()

  @classmethod
  def _strip_protocol(cls, path: str) -> str:
    return path.removeprefix('gs://').removeprefix('gcs://').strip('/')

  def ls(self, path: str, detail: bool = True, **options: Any) -> list:
    path = self._strip_protocol(path)
    names = list(self.objects)  # other threads may write meanwhile
    inside = [name.removeprefix(f'{path}/') for name in names if name.startswith(f'{path}/')]
    if path in self.objects:
      found = [self.info(path)]
    elif not inside and '/' in path:
      raise FileNotFoundError(path)
    else:
      found = [self.info(f'{path}/{name}') for name in sorted({n.split('/')[0] for n in inside})]
    return found if detail else [entry['name'] for entry in found]

  def info(self, path: str, **options: Any) -> dict[str, Any]:
    path = self._strip_protocol(path)
    if path in self.objects:
      content, when = self.objects[path]
      md5 = base64.b64encode(hashlib.md5(content).digest()).decode()
      return {'name': path, 'type': 'file', 'size': len(content), 'mtime': when, 'md5Hash': md5}
    if '/' not in path or any(name.startswith(f'{path}/') for name in list(self.objects)):
      return {'name': path, 'type': 'directory', 'size': 0}
    raise FileNotFoundError(path)

  def modified(self, path: str) -> datetime.datetime:
    return self.info(path)['mtime']

  def mkdir(self, path: str, create_parents: bool = True, **options: Any) -> None:
    pass

  def makedirs(self, path: str, exist_ok: bool = False) -> None:
    pass

  def rmdir(self, path: str) -> None:
    pass

  def rm(self, path: str, recursive: bool = False, maxdepth: int | None = None) -> None:
    path = self._strip_protocol(path)
    objects = list(self.objects)
    names = [name for name in objects if name == path or name.startswith(f'{path}/')]
    if not names:
      raise FileNotFoundError(path)
    if names != [path] and not recursive:
      raise IsADirectoryError(path)
    for name in names:
      del self.objects[name]

  def rm_file(self, path: str) -> None:
    self.rm(path)

  def cp_file(self, path1: str, path2: str, **options: Any) -> None:
    if not self.isdir(path1):
      self._put(self._strip_protocol(path2), self.cat_file(path1))

  @classmethod
  def generation(cls, name: str) -> int:
    """A number that grows whenever the object is written; 0 if there is none."""
    if name not in cls.objects:
      return 0
    return int(cls.objects[name][1].timestamp() * 1e6)

  @classmethod
  def _put(cls, name: str, content: bytes) -> None:
    with cls.lock:
      when = datetime.datetime.now(datetime.UTC)
      if name in cls.objects:
        when = max(when, cls.objects[name][1] + datetime.timedelta(microseconds=10))
      cls.objects[name] = content, when
      cls.uploads.append(name)

  def _open(self, path: str, mode: str = 'rb', *args: Any, **options: Any) -> io.BytesIO:
    if mode == 'rb':
      if path not in self.objects:
        raise FileNotFoundError(path)
      self.downloads.append(path)
      return io.BytesIO(self.objects[path][0])
    if mode == 'xb' and path in self.objects:
      raise FileExistsError(path)
    if mode not in ('wb', 'xb'):
      raise ValueError(f'an object cannot be opened as {mode}')
    return _Upload(self, path)


class _Upload(io.BytesIO):
  """A file whose object appears when it is closed without an error."""

  def __init__(self, store: Bucket, name: str):
    super().__init__()
    self._store, self._name = store, name

  def seekable(self) -> bool:
    return False

  def seek(self, *place: int) -> int:
    raise OSError('an upload cannot be sought in')

  def __exit__(self, kind: Any, *rest: Any) -> None:
    if kind is None:
      self.close()

  def close(self) -> None:
    if not self.closed:
      self._store._put(self._name, self.getvalue())
    super().close()


class Endpoint(http.server.ThreadingHTTPServer):
  """Serves the objects of `Bucket` by the part of Google's JSON API that TensorStore uses.

  https://cloud.google.com/storage/docs/json_api/v1
  """

  daemon_threads = True
  writable = True

  def __init__(self):
    super().__init__(('127.0.0.1', 0), _Request)
    threading.Thread(target=self.serve_forever, daemon=True).start()

  @property
  def environment(self) -> dict[str, str]:
    """What sends TensorStore here; it is read at the first use of a bucket in a process."""
    return {
      'TENSORSTORE_GCS_HTTP_URL': f'http://127.0.0.1:{self.server_port}',
      'GOOGLE_AUTH_TOKEN_FOR_TESTING': 'token',
    }


class _Request(http.server.BaseHTTPRequestHandler):
  """One request: GET and DELETE of /storage/v1/b/BUCKET/o/NAME, GET and POST of …/BUCKET/o."""

  protocol_version = 'HTTP/1.1'

  def log_message(self, *arguments: Any) -> None:
    pass

  def do_GET(self) -> None:
    bucket, name, query = self._parts()
    if not name:
      self._answer_json(200, {'items': self._listed(bucket, query)})
      return
    content, _ = Bucket.objects.get(f'{bucket}/{name}', (None, None))
    generation = Bucket.generation(f'{bucket}/{name}')
    if content is None:
      self._answer(404)
    elif int(query.get('ifGenerationMatch', generation)) != generation:
      self._answer(412)
    elif query.get('ifGenerationNotMatch') == str(generation):
      self._answer(304)
    elif query['alt'] == 'json':
      self._answer_json(200, self._described(bucket, name))
    else:
      self._answer_media(content, generation)

  def do_POST(self) -> None:
    bucket, _, query = self._parts()
    content = self.rfile.read(int(self.headers['Content-Length']))
    name = query['name']
    if not self.server.writable:
      self._answer(403)
      return
    with Bucket.lock:
      generation = Bucket.generation(f'{bucket}/{name}')
      if int(query.get('ifGenerationMatch', generation)) != generation:
        self._answer(412)
        return
      Bucket._put(f'{bucket}/{name}', content)
    self._answer_json(200, self._described(bucket, name))

  def do_DELETE(self) -> None:
    bucket, name, _ = self._parts()
    self._answer(404 if Bucket.objects.pop(f'{bucket}/{name}', None) is None else 204)

  def _parts(self) -> tuple[str, str, dict[str, str]]:
    url = urllib.parse.urlsplit(self.path)
    bucket, name = re.search('/storage/v1/b/([^/]+)/o/?(.*)', url.path).groups()
    return bucket, urllib.parse.unquote(name), dict(urllib.parse.parse_qsl(url.query))

  def _listed(self, bucket: str, query: dict[str, str]) -> list[dict[str, str]]:
    first, end = query.get('startOffset', ''), query.get('endOffset', '\U0010ffff')
    keys = [key for key in sorted(list(Bucket.objects)) if key.startswith(f'{bucket}/')]
    names = [key.removeprefix(f'{bucket}/') for key in keys]
    return [self._described(bucket, name) for name in names if first <= name < end]

  def _described(self, bucket: str, name: str) -> dict[str, str]:
    key = f'{bucket}/{name}'
    size, generation = len(Bucket.objects[key][0]), Bucket.generation(key)
    return {'name': name, 'size': str(size), 'generation': str(generation)}

  def _answer_media(self, content: bytes, generation: int) -> None:
    headers = {'x-goog-generation': str(generation)}
    requested = re.fullmatch(r'bytes=(\d*)-(\d*)', self.headers.get('Range', ''))
    if not requested:
      self._answer(200, content, headers)
      return
    start, last = requested.groups()
    if start:
      begin, end = int(start), min(int(last or len(content)) + 1, len(content))
    else:
      begin, end = max(0, len(content) - int(last)), len(content)
    headers['Content-Range'] = f'bytes {begin}-{end - 1}/{len(content)}'
    self._answer(206, content[begin:end], headers)

  def _answer_json(self, status: int, value: Any) -> None:
    self._answer(status, json.dumps(value).encode(), {'Content-Type': 'application/json'})

  def _answer(
    self, status: int, content: bytes = b'', headers: Mapping[str, str] = MappingProxyType({})
  ) -> None:
    self.send_response(status)
    for name, value in {**headers, 'Content-Length': str(len(content))}.items():
      self.send_header(name, value)
    self.end_headers()
    self.wfile.write(content)


class Client:
  """Stands for `google.cloud.storage.Client`, which Orbax asks for the kind of a bucket."""

  def get_bucket(self, name: str) -> Any:
    return SimpleNamespace(name=name, hierarchical_namespace_enabled=False)
