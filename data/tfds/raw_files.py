"""Finds the raw files of data sets on disk or downloads them, and checks their SHA-256 before use.

TFDS's own download manager trusts the files in its cache, extracts archives with TensorFlow, and
retries for 200 s when there is no network. Folders and file names here are the ones it uses.
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
  """A raw file: the URL it is downloaded from and the SHA-256 of its bytes."""

  url: str
  sha256: str

  @property
  def filename(self) -> str:
    """The last part of the URL's path."""
    return pathlib.PurePosixPath(urllib.parse.urlparse(self.url).path).name


class RawBuilder(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """A TFDS builder that reads raw files.

  Attributes:
    RAW: the raw files, by short names of the builder's choice.
    download_dirs: TFDS download folders, set by the caller that prepares the data set; all are
      searched, and downloads go into the first.
  """

  RAW: ClassVar[Mapping[str, Raw]]
  download_dirs: Sequence[pathlib.Path] = ()

  def raw(self, key: str, fallback: os.PathLike) -> pathlib.Path:
    """Finds or downloads RAW[key], in the folder `fallback` if `download_dirs` is empty."""
    return locate(self.RAW[key], self.name, self.download_dirs or (pathlib.Path(fallback),))


def locate(raw: Raw, dataset: str, folders: Sequence[pathlib.Path]) -> pathlib.Path:
  """Returns the path of a raw file with the right hash, downloading it into folders[0] if needed.

  Args:
    raw: the file.
    dataset: the name of the data set it belongs to.
    folders: TFDS download folders, in the order in which they are searched.

  Raises:
    UserError: no folder has the file and it cannot be downloaded.
  """
  wrong = []
  for path in _candidates(raw, dataset, folders):
    if pooch.file_hash(path) == raw.sha256:
      return path
    wrong.append(str(path))
  try:
    return _download(raw, folders[0] / dataset / _cached_name(raw), dataset)
  except OSError as error:  # the errors of requests are OSErrors too
    raise _missing(raw, dataset, folders[0], wrong, _cause(error)) from error
  except ValueError as error:
    raise _missing(raw, dataset, folders[0], wrong, 'the download has another SHA-256') from error


def _candidates(raw: Raw, dataset: str, folders: Sequence[pathlib.Path]) -> Iterator[pathlib.Path]:
  # mnist and fashion_mnist share file names, so manual/DATASET/ comes before manual/ itself.
  places = ('manual', dataset, raw.filename), ('manual', raw.filename)
  cached = (dataset, _cached_name(raw)), (_cached_name(raw),)
  for folder in folders:
    yield from (path for parts in places + cached if (path := folder.joinpath(*parts)).is_file())


def _cached_name(raw: Raw) -> str:
  return resource.get_dl_fname(raw.url, raw.sha256)


def _download(raw: Raw, path: pathlib.Path, dataset: str) -> pathlib.Path:
  """Downloads a file; one that is incomplete or has another hash is not kept."""
  print(f'downloading {raw.url}', file=sys.stderr)
  pooch.get_logger().setLevel(logging.WARNING)  # else it prints this line again, and the hash
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
  """Returns the operating system's message, which requests wraps in several long sentences."""
  cause, found = error, error
  while (found := found.__context__) is not None:
    cause = found if isinstance(found, OSError) else cause
  return str(cause)


def _write_info(raw: Raw, path: pathlib.Path, dataset: str, size: int) -> None:
  """Writes the .INFO file beside the download, without which TFDS itself would not use it."""
  from etils import epath
  from tensorflow_datasets.core.download import checksums

  url_info = checksums.UrlInfo(size=size, checksum=raw.sha256, filename=raw.filename)
  resource.write_info_file(raw.url, epath.Path(path), dataset, raw.filename, url_info)


def _missing(
  raw: Raw, dataset: str, folder: pathlib.Path, wrong: Sequence[str], reason: str
) -> errors.UserError:
  damaged = f' ({", ".join(wrong)} exists, but its SHA-256 is wrong)' if wrong else ''
  return errors.UserError(
    f'{raw.filename} of data set {dataset} cannot be downloaded ({reason}){damaged}; put the file '
    f'from {raw.url} into {folder / "manual" / dataset}, or point TFDS_DATA_DIR at a folder where '
    f'{dataset} is prepared, or use mnist5k, which needs no network'
  )
