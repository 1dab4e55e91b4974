"""Copies prepared data sets from a bucket to the cache to read them, and uploads new ones.

TFDS and array_record open record files themselves, and array_record opens local files only.
"""

import base64
import hashlib
import os
import pathlib
import sys
from collections.abc import Mapping
from typing import Any, BinaryIO

import errors
import files
from data.folders import cache_dir
from data.tfds.catalog import DESCRIPTION, FORMAT, Prepared

_BLOCK = 1 << 22  # bytes read at a time


def on_disk(prepared: Prepared, split: str) -> pathlib.Path:
  """Returns a local folder with the files that reading `split` needs: the data set's or a copy.

  Copies are kept in the cache. Record files are copied one after another, each announced by a line
  on stderr. A file appears in the copy once its size and MD5 equal those in the bucket.

  Args:
    prepared: a finished data set, local or in a bucket.
    split: a TFDS split; record files with none of its examples are not copied.

  Raises:
    UserError: a file is missing, arrives damaged, or cannot be written.
  """
  if files.is_local(prepared.folder):
    return pathlib.Path(prepared.folder)
  key = hashlib.sha256(f'{prepared.folder} {prepared.stamp}'.encode()).hexdigest()[:24]
  copy = cache_dir() / 'copies' / key
  for path in files.entries(prepared.folder):
    if f'.{FORMAT}-' not in path.name:
      _fetch(path, copy / path.name)
  shards = _shards(copy, split)
  for number, name in enumerate(shards, 1):
    _fetch(prepared.folder / name, copy / name, f'{number} of {len(shards)}')
  return copy


def upload(folder: pathlib.Path, target: files.Path) -> None:
  """Uploads a finished data set to a bucket, last the description that marks it as finished."""
  paths = sorted(folder.iterdir(), key=lambda path: (path.name == DESCRIPTION, path.name))
  for path in paths:
    store, name = files.object_store(target / path.name)
    store.put_file(os.fspath(path), name)


def _shards(folder: pathlib.Path, split: str) -> list[str]:
  """Returns the names of the record files that hold a split."""
  import tensorflow_datasets as tfds

  return sorted(tfds.builder_from_directory(folder).info.splits[split].filenames)


def _fetch(source: files.Path, target: pathlib.Path, count: str = '') -> None:
  """Copies an object unless `target` exists; prints `count` with it, or nothing if it is ''."""
  if target.exists():
    return
  store, name = files.object_store(source)
  try:
    info = store.info(name)
    if count:
      print(f'copying {source} ({count}, {info["size"] / 1e6:,.1f} MB)', file=sys.stderr)
    files.write(files.path(target), lambda file: _download(store, name, info, file))
  except FileNotFoundError as error:
    raise errors.UserError(
      f'{source.parent} is incomplete: {source.name} is missing; prepare the data set again'
    ) from error
  except OSError as error:
    raise errors.UserError(
      f'cannot copy {source} to {target.parent} ({error.strerror or error}); set ATELIER_CACHE to '
      'a folder with room, or run the same command again'
    ) from error


def _download(store: Any, name: str, info: Mapping[str, Any], file: BinaryIO) -> None:
  """Copies an object into `file`; raises OSError if its size or MD5 is not that of `info`."""
  md5, size = hashlib.md5(usedforsecurity=False), 0
  with store.open(name, 'rb') as source:
    while block := source.read(_BLOCK):
      file.write(block)
      md5.update(block)
      size += len(block)
  found = base64.b64encode(md5.digest()).decode()
  # GCS keeps no MD5 of an object that was uploaded in parallel pieces.
  if size != info['size'] or found != info.get('md5Hash', found):
    raise OSError('the copy differs from the object in size or MD5')
