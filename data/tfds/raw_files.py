"""Raw files of a data set: found on disk or downloaded, and never used unless their hash is right.

TFDS's own download manager does not hash what is in its cache again, extracts with TensorFlow, and
without a network retries for 200 s. The folders and names here are the ones it uses.
"""

import hashlib
import os
import pathlib
import sys
import urllib.parse
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from typing import ClassVar, NamedTuple

import tensorflow_datasets as tfds
from tensorflow_datasets.core.download import resource

import errors

_TIMEOUT_S = 4.0
_BLOCK = 1 << 20


class Raw(NamedTuple):
  """One raw file: where it comes from and the SHA-256 of its bytes."""

  url: str
  sha256: str

  @property
  def filename(self) -> str:
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
    """Returns the checked file RAW[key]; `fallback` is the folder if `download_dirs` is empty."""
    return locate(self.RAW[key], self.name, self.download_dirs or (pathlib.Path(fallback),))


def locate(raw: Raw, dataset: str, folders: Sequence[pathlib.Path]) -> pathlib.Path:
  """Returns the path of `raw` with the right hash, downloading it into folders[0] if need be.

  Raises:
    UserError: it is not in any folder and cannot be downloaded, naming the ways out.
  """
  wrong = []
  for path in _candidates(raw, dataset, folders):
    if _sha256(path) == raw.sha256:
      return path
    wrong.append(str(path))
  try:
    return _download(raw, folders[0] / dataset / _cached_name(raw), dataset)
  except OSError as error:  # urllib's URLError and time-outs are OSErrors
    raise _missing(raw, dataset, folders[0], wrong, error) from error


def _candidates(raw: Raw, dataset: str, folders: Sequence[pathlib.Path]) -> Iterator[pathlib.Path]:
  # mnist and fashion_mnist share file names, so manual/DATASET/ comes before manual/ itself.
  places = ('manual', dataset, raw.filename), ('manual', raw.filename)
  cached = (dataset, _cached_name(raw)), (_cached_name(raw),)
  for folder in folders:
    yield from (path for parts in places + cached if (path := folder.joinpath(*parts)).is_file())


def _cached_name(raw: Raw) -> str:
  return resource.get_dl_fname(raw.url, raw.sha256)


def _sha256(path: pathlib.Path) -> str:
  with path.open('rb') as file:
    return hashlib.file_digest(file, 'sha256').hexdigest()


def _download(raw: Raw, path: pathlib.Path, dataset: str) -> pathlib.Path:
  print(f'Downloading {raw.url}', file=sys.stderr)
  part = path.with_name(f'{path.name}.{os.getpid()}.part')
  path.parent.mkdir(parents=True, exist_ok=True)
  try:
    with urllib.request.urlopen(raw.url, timeout=_TIMEOUT_S) as answer, part.open('wb') as file:
      while block := answer.read(_BLOCK):
        file.write(block)
    if _sha256(part) != raw.sha256:
      raise OSError('what arrived has another SHA-256')
    _write_info(raw, path, dataset, part.stat().st_size)
    part.replace(path)
  finally:
    part.unlink(missing_ok=True)
  return path


def _write_info(raw: Raw, path: pathlib.Path, dataset: str, size: int) -> None:
  """Writes the note beside the file without which TFDS itself would not use it."""
  from etils import epath
  from tensorflow_datasets.core.download import checksums

  url_info = checksums.UrlInfo(size=size, checksum=raw.sha256, filename=raw.filename)
  resource.write_info_file(raw.url, epath.Path(path), dataset, raw.filename, url_info)


def _missing(
  raw: Raw, dataset: str, folder: pathlib.Path, wrong: Sequence[str], error: OSError
) -> errors.UserError:
  damaged = f' ({", ".join(wrong)} is there, but its SHA-256 is wrong)' if wrong else ''
  return errors.UserError(
    f'{raw.filename} of data set {dataset} cannot be downloaded ({error}){damaged}: put the file '
    f'from {raw.url} into {folder / "manual" / dataset}, or point TFDS_DATA_DIR at a folder where '
    f'{dataset} is prepared, or use mnist5k, which needs no network.'
  )
