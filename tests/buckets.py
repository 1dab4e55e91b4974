"""A bucket in memory behind gs://, with the habits of an object store that surprise programs."""

import base64
import datetime
import hashlib
import io
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

  @classmethod
  def _strip_protocol(cls, path: str) -> str:
    return path.removeprefix('gs://').removeprefix('gcs://').strip('/')

  def ls(self, path: str, detail: bool = True, **options: Any) -> list:
    path = self._strip_protocol(path)
    inside = [name.removeprefix(f'{path}/') for name in self.objects if name.startswith(f'{path}/')]
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
    if '/' not in path or any(name.startswith(f'{path}/') for name in self.objects):
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
    names = [name for name in self.objects if name == path or name.startswith(f'{path}/')]
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

  def _put(self, name: str, content: bytes) -> None:
    self.objects[name] = content, datetime.datetime.now(datetime.UTC)
    self.uploads.append(name)

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
