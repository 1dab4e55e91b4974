"""Where data sets are looked for and where this project keeps what it made."""

import os
import pathlib
import tempfile

import errors


def cache_dir() -> pathlib.Path:
  """Returns $ATELIER_CACHE, or atelier/ in $XDG_CACHE_HOME or ~/.cache; it need not exist."""
  if chosen := os.environ.get('ATELIER_CACHE'):
    return pathlib.Path(chosen).expanduser()
  base = os.environ.get('XDG_CACHE_HOME') or '~/.cache'
  return pathlib.Path(base).expanduser() / 'atelier'


def roots(data_dir: str) -> tuple[pathlib.Path, ...]:
  """Returns the TFDS folders to read, first match wins; '' means TFDS's own default folder."""
  first = data_dir or os.environ.get('TFDS_DATA_DIR') or '~/tensorflow_datasets'
  return pathlib.Path(first).expanduser(), cache_dir() / 'tfds'


def writable_root(data_dir: str) -> pathlib.Path:
  """Returns the first folder a data set can be prepared in: the one the user named, or the cache.

  TFDS's default in the home folder is read but never written: nobody asked for it.
  """
  chosen = data_dir or os.environ.get('TFDS_DATA_DIR')
  tried = ([pathlib.Path(chosen).expanduser()] if chosen else []) + [cache_dir() / 'tfds']
  for root in tried:
    if _writable(root):
      return root
  names = ' nor in '.join(str(root) for root in tried)
  raise errors.UserError(
    f'A data set can be written neither in {names}: set config.data.data_dir or ATELIER_CACHE to a '
    'folder that can be written.'
  )


def _writable(root: pathlib.Path) -> bool:
  try:
    root.mkdir(parents=True, exist_ok=True)
    if not root.stat().st_mode & 0o222:  # root may write here all the same; the owner said no
      return False
    with tempfile.TemporaryFile(dir=root):
      return True
  except OSError:
    return False
