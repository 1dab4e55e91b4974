"""Prepares data sets with the builders in data/tfds/builders, each once and atomically."""

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
import files
from data.folders import cache_dir
from data.tfds import bucket, catalog

_BUILDERS = pathlib.Path(__file__).parent / 'builders'


def builders() -> list[str]:
  """Lists the names of the data sets that have a builder here."""
  return sorted(path.stem for path in _BUILDERS.glob('*.py') if not path.stem.startswith('_'))


def prepare(name: str, root: files.Path, download_dirs: Sequence[files.Path]) -> None:
  """Prepares data set `name` in root/NAME/VERSION, in TFDS's layout.

  The work is done in a hidden folder that is renamed at the end, so that a killed preparation is
  never found; the next one removes it. A lock keeps two processes from preparing at once.

  Args:
    name: 'dataset' or 'dataset/config', with a builder in data/tfds/builders.
    root: a writable local folder.
    download_dirs: TFDS download folders searched for raw files; downloads go into the first.

  Raises:
    UserError: the builder makes no such configuration or version, or raw files are missing and
      cannot be downloaded.
  """
  base, _, _ = catalog.split_name(name)
  _check_made(name)
  with staging(root, base) as folder:
    if not catalog.find(name, [root]):  # else another process prepared it meanwhile
      _build(name, folder, root, download_dirs)


@contextlib.contextmanager
def staging(root: files.Path, base: str) -> Iterator[pathlib.Path]:
  """Yields an empty hidden folder in which to make data set `base`, and removes it afterwards.

  It lies in `root`, or in the cache if `root` is in a bucket. A lock keeps two processes from
  making the same data set at once.
  """
  place = pathlib.Path(root) if files.is_local(root) else cache_dir() / 'uploads'
  place.mkdir(parents=True, exist_ok=True)
  folder = place / f'.preparing-{base}'
  with _lock(place / f'.preparing-{base}.lock'):
    shutil.rmtree(folder, ignore_errors=True)
    try:
      yield folder
    finally:
      shutil.rmtree(folder, ignore_errors=True)


def publish(builder: Any, folder: pathlib.Path, root: files.Path) -> files.Path:
  """Moves a data set from the staging folder to its place in `root`, and returns that place.

  The folder is renamed, or uploaded if `root` is in a bucket.

  Args:
    builder: the TFDS builder that prepared it.
    folder: the staging folder.
    root: the TFDS folder it goes to.
  """
  final = root / builder.data_path.relative_to(folder)
  which = folder / builder.name / catalog.DEFAULT
  if which.exists():
    files.write_text(root / builder.name / catalog.DEFAULT, which.read_text())
  if files.is_local(root):
    files.make_folder(final.parent)
    os.rename(builder.data_path, final)
  else:
    bucket.upload(pathlib.Path(builder.data_path), final)
  return final


def _build(
  name: str, folder: pathlib.Path, root: files.Path, download_dirs: Sequence[files.Path]
) -> None:
  import tensorflow_datasets as tfds

  base, config, _ = catalog.split_name(name)
  builder = _builder_class(base)(data_dir=folder, config=config, file_format=catalog.FORMAT)
  builder.download_dirs = download_dirs
  place = root / builder.data_path.relative_to(folder)
  print(f'preparing {name} in {place}', file=sys.stderr)
  tfds.disable_progress_bar()
  with contextlib.redirect_stdout(io.StringIO()):  # TFDS prints there, but stdout is our caller's
    builder.download_and_prepare(download_dir=download_dirs[0])
  publish(builder, folder, root)


def _check_made(name: str) -> None:
  base, config, version = catalog.split_name(name)
  builder = _builder_class(base)
  configs = [each.name for each in builder.BUILDER_CONFIGS]
  if config and config not in configs:
    known = ', '.join(f'"{base}/{each}"' for each in configs) or f'only "{base}"'
    raise errors.UserError(
      f'data set {name} cannot be prepared: data/tfds/builders/{base}.py makes no configuration '
      f'"{config}"{errors.nearest(config, configs)}; it makes {known}'
    )
  if version not in (None, str(builder.VERSION)):
    raise errors.UserError(
      f'data set {name} cannot be prepared: data/tfds/builders/{base}.py makes version '
      f'{builder.VERSION}; remove ":{version}" from the name, or copy the folder of that version'
    )


def _builder_class(base: str) -> Any:
  import tensorflow_datasets as tfds

  module = importlib.import_module(f'data.tfds.builders.{base}')
  for entry in vars(module).values():
    if isinstance(entry, type) and issubclass(entry, tfds.core.GeneratorBasedBuilder):
      if entry.__module__ == module.__name__ and entry.name == base:
        return entry
  raise errors.UserError(
    f'data/tfds/builders/{base}.py holds no TFDS builder named "{base}"; name its class in '
    'CamelCase'
  )


@contextlib.contextmanager
def _lock(path: pathlib.Path) -> Iterator[None]:
  """Holds a lock that the operating system releases when the process ends, however it ends."""
  with path.open('w') as file:
    # Some network folders have no locks; the rename is atomic there too.
    with contextlib.suppress(OSError):
      fcntl.flock(file, fcntl.LOCK_EX)
    yield
