"""Preparing a data set with a builder of data/tfds/builders: at most once, never half."""

import contextlib
import fcntl
import importlib
import io
import os
import pathlib
import shutil
import sys
from collections.abc import Iterator, Sequence
from typing import Any

import errors
from data.tfds import catalog

_BUILDERS = pathlib.Path(__file__).parent / 'builders'


def builders() -> list[str]:
  """Returns the names of the data sets that have a builder here."""
  return sorted(path.stem for path in _BUILDERS.glob('*.py') if not path.stem.startswith('_'))


def prepare(name: str, root: pathlib.Path, download_dirs: Sequence[pathlib.Path]) -> None:
  """Prepares data set `name` into root/NAME/VERSION, as TFDS lays it out.

  The work is done in a hidden folder of its own and renamed at the end, so a killed preparation
  is never found, and the next one clears it away; a lock keeps two from working at once.

  Args:
    name: 'dataset' or 'dataset/config', with a builder in data/builders.
    root: a folder that can be written.
    download_dirs: TFDS download folders to look for raw files in; downloads go into the first.

  Raises:
    UserError: raw files are missing and cannot be downloaded.
  """
  base, _, _ = catalog.split_name(name)
  with staging(root, base) as folder:
    if not catalog.find(name, [root]):  # else another process was faster
      _build(name, folder, root, download_dirs)


@contextlib.contextmanager
def staging(root: pathlib.Path, base: str) -> Iterator[pathlib.Path]:
  """Gives the hidden folder in which data set `base` is made; nothing of it is there afterwards.

  What a killed preparation left is cleared away first; a lock keeps two from working at once.
  """
  folder = root / f'.preparing-{base}'
  with _lock(root / f'.preparing-{base}.lock'):
    shutil.rmtree(folder, ignore_errors=True)
    try:
      yield folder
    finally:
      shutil.rmtree(folder, ignore_errors=True)


def publish(builder: Any, folder: pathlib.Path, root: pathlib.Path) -> pathlib.Path:
  """Renames what a TFDS builder made in the staging folder to its place in `root`, returned."""
  final = root / builder.data_path.relative_to(folder)
  final.parent.mkdir(parents=True, exist_ok=True)
  os.rename(builder.data_path, final)
  return final


def _build(
  name: str, folder: pathlib.Path, root: pathlib.Path, download_dirs: Sequence[pathlib.Path]
) -> None:
  import tensorflow_datasets as tfds

  base, config, _ = catalog.split_name(name)
  builder = _builder_class(base)(data_dir=folder, config=config, file_format=catalog.FORMAT)
  builder.download_dirs = download_dirs
  place = root / builder.data_path.relative_to(folder)
  print(f'Preparing {name} in {place} ...', file=sys.stderr)
  tfds.disable_progress_bar()
  with contextlib.redirect_stdout(io.StringIO()):  # TFDS prints; stdout belongs to our caller
    builder.download_and_prepare(download_dir=download_dirs[0])
  publish(builder, folder, root)


def _builder_class(base: str) -> Any:
  import tensorflow_datasets as tfds

  module = importlib.import_module(f'data.tfds.builders.{base}')
  for entry in vars(module).values():
    if isinstance(entry, type) and issubclass(entry, tfds.core.GeneratorBasedBuilder):
      if entry.__module__ == module.__name__ and entry.name == base:
        return entry
  raise errors.UserError(
    f'data/tfds/builders/{base}.py holds no TFDS builder named "{base}": name its class in '
    'CamelCase.'
  )


@contextlib.contextmanager
def _lock(path: pathlib.Path) -> Iterator[None]:
  """Holds a lock that the system lets go of when the process ends, however it ends."""
  with path.open('w') as file:
    with contextlib.suppress(OSError):  # some network folders have no locks; the rename is atomic
      fcntl.flock(file, fcntl.LOCK_EX)
    yield
