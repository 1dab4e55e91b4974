"""Raw files of a data set: found on disk or downloaded, and never used unless their hash is right.

TFDS's own download manager does not hash what is in its cache again, extracts with TensorFlow, and
without a network retries for 200 s. The folders and names here are the ones it uses.
"""

import logging
import os
import pathlib
import sys
import urllib.parse
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, NamedTuple

import pooch
import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import resource

import errors

_TIMEOUT_S = 4.0


class Raw(NamedTuple):
  """One raw file: where it comes from and the SHA-256 of its bytes."""

  url: str
  sha256: str

  @property
  def filename(self) -> str:
    """The last part of the URL's path."""
    return pathlib.PurePosixPath(urllib.parse.urlparse(self.url).path).name


class RawBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """A TFDS builder that reads raw files; whoever prepares it may set `download_dirs`.

  Attributes:
    RAW: the raw files by a short name of the builder's choice.
    download_dirs: TFDS download folders; all are searched, downloads go into the first.
  """

  RAW: ClassVar[Mapping[str, Raw]]
  download_dirs: Sequence[pathlib.Path] = ()

  def raw(self, key: str, fallback: os.PathLike) -> pathlib.Path:
    """Finds or downloads RAW[key]; `fallback` is the folder if `download_dirs` is empty."""
    return locate(self.RAW[key], self.name, self.download_dirs or (pathlib.Path(fallback),))


def locate(raw: Raw, dataset: str, folders: Sequence[pathlib.Path]) -> pathlib.Path:
  """Finds the file `raw` with the right hash; it is downloaded into folders[0] if none has it.

  Raises:
    UserError: it is not in any folder and cannot be downloaded, naming the ways out.
  """
  wrong = []
  for path in _candidates(raw, dataset, folders):
    if pooch.file_hash(path) == raw.sha256:
      return path
    wrong.append(str(path))
  try:
    return _download(raw, folders[0] / dataset / _cached_name(raw), dataset)
  except OSError as error:  # those of requests are OSErrors too
    raise _missing(raw, dataset, folders[0], wrong, _cause(error)) from error
  except ValueError as error:
    raise _missing(raw, dataset, folders[0], wrong, 'what arrived has another SHA-256') from error


def _candidates(raw: Raw, dataset: str, folders: Sequence[pathlib.Path]) -> Iterator[pathlib.Path]:
  # mnist and fashion_mnist share file names, so manual/DATASET/ comes before manual/ itself.
  places = ('manual', dataset, raw.filename), ('manual', raw.filename)
  cached = (dataset, _cached_name(raw)), (_cached_name(raw),)
  for folder in folders:
    yield from (path for parts in places + cached if (path := folder.joinpath(*parts)).is_file())


def _cached_name(raw: Raw) -> str:
  return resource.get_dl_fname(raw.url, raw.sha256)


def _download(raw: Raw, path: pathlib.Path, dataset: str) -> pathlib.Path:
  """Downloads a file; nothing is left of it unless it is whole and has the right hash."""
  print(f'downloading {raw.url}', file=sys.stderr)
  pooch.get_logger().setLevel(logging.WARNING)  # it would print the same, and a second hash
  pooch.retrieve(
    raw.url,
    known_hash=f'sha256:{raw.sha256}',
    fname=path.name,
    path=path.parent,
    downloader=pooch.HTTPDownloader(timeout=_TIMEOUT_S),
  )
  _write_info(raw, path, dataset, path.stat().st_size)
  return path


def _cause(error: OSError) -> str:
  """What the system answered; requests wraps it several times, in sentences of 300 letters."""
  cause, found = error, error
  while (found := found.__context__) is not None:
    cause = found if isinstance(found, OSError) else cause
  return str(cause)


def _write_info(raw: Raw, path: pathlib.Path, dataset: str, size: int) -> None:
  """Writes the note beside the file without which TFDS itself would not use it."""
  from etils import epath
  from tensorflow_datasets.core.download import checksums

  url_info = checksums.UrlInfo(size=size, checksum=raw.sha256, filename=raw.filename)
  resource.write_info_file(raw.url, epath.Path(path), dataset, raw.filename, url_info)


def _missing(
  raw: Raw, dataset: str, folder: pathlib.Path, wrong: Sequence[str], reason: str
) -> errors.UserError:
  damaged = f' ({", ".join(wrong)} is there, but its SHA-256 is wrong)' if wrong else ''
  return errors.UserError(
    f'{raw.filename} of data set {dataset} cannot be downloaded ({reason}){damaged}; put the file '
    f'from {raw.url} into {folder / "manual" / dataset}, or point TFDS_DATA_DIR at a folder where '
    f'{dataset} is prepared, or use mnist5k, which needs no network'
  )
