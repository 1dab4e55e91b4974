"""The folders in which data sets are searched, and the cache folder of this project."""

import os
import pathlib
import tempfile

import errors
import files


def cache_dir() -> pathlib.Path:
  """Returns the cache folder, which need not exist.

  It is $ATELIER_CACHE, or else atelier/ in $XDG_CACHE_HOME or in ~/.cache.

  Raises:
    UserError: $ATELIER_CACHE is in a bucket.
  """
  if chosen := os.environ.get('ATELIER_CACHE'):
    if not files.is_local(chosen):
      raise errors.UserError(f'ATELIER_CACHE={chosen} must be a local folder')
    return pathlib.Path(chosen).expanduser()
  base = os.environ.get('XDG_CACHE_HOME') or '~/.cache'
  return pathlib.Path(base).expanduser() / 'atelier'


def roots(data_dir: str) -> tuple[files.Path, ...]:
  """Returns the TFDS folders to read, in the order in which they are searched.

  Args:
    data_dir: the first of them; '' means $TFDS_DATA_DIR, or TFDS's own default folder.

  Raises:
    UserError: there is no folder `data_dir`.
  """
  given = files.named_path(data_dir, 'config.data.data_dir')
  if data_dir and files.is_local(data_dir) and not given.is_dir():
    raise errors.UserError(
      f'config.data.data_dir={data_dir} is no folder; create it, or leave the option empty to use '
      '$TFDS_DATA_DIR or ~/tensorflow_datasets'
    )
  first = data_dir or os.environ.get('TFDS_DATA_DIR') or '~/tensorflow_datasets'
  return files.path(first), files.path(cache_dir() / 'tfds')


def writable_root(data_dir: str) -> files.Path:
  """Returns the folder to prepare a data set in: `data_dir` if it is writable, else the cache.

  $TFDS_DATA_DIR and TFDS's default in the home folder are read but never written, since other
  projects and people share them. A bucket is not written either, since TFDS and array_record open
  their files themselves.

  Raises:
    UserError: neither is writable.
  """
  named = [files.path(data_dir)] if data_dir and files.is_local(data_dir) else []
  tried = [*named, files.path(cache_dir() / 'tfds')]
  for root in tried:
    if _writable(root):
      return root
  names = ' or '.join(str(root) for root in tried)
  raise errors.UserError(
    f'no data set can be written in {names}; set config.data.data_dir or ATELIER_CACHE to a '
    'writable folder'
  )


def _writable(root: files.Path) -> bool:
  try:
    os.makedirs(root, exist_ok=True)
    if not os.stat(root).st_mode & 0o222:  # a superuser could write here, but the owner forbids it
      return False
    with tempfile.TemporaryFile(dir=root):
      return True
  except OSError:
    return False
