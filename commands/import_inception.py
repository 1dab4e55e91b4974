"""Puts the weights of Inception-v3 that FID is defined by into the cache."""

import logging
import sys
import tempfile
from pathlib import Path

import pooch

import files
from errors import UserError
from metrics.features.checksums import read_checked
from metrics.features.inception import CHECKSUM, FILE, read_parameters, weights_file

URL = f'https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/{FILE}'
_TIMEOUT_S = 30.0


def import_inception(source: str) -> None:
  """Checks the file of weights and copies it into the cache.

  Args:
    source: a local copy of the file; '' to download it.

  Raises:
    UserError: it cannot be had, is another file, or the cache cannot be written.
  """
  target = weights_file()
  if source:
    _keep(Path(source).expanduser(), target, f'give a whole copy of {URL}')
  else:
    with tempfile.TemporaryDirectory() as folder:
      _keep(_download(Path(folder)), target, 'try again')
  print(f'written  {target}')


def _keep(file: Path, target: Path, way_out: str) -> None:
  content = read_checked(file, CHECKSUM, way_out)
  read_parameters(content, str(file))
  try:
    files.write_bytes(target, content)
  except OSError as error:
    reason = files.why_not_written(target, error)
    raise UserError(f'cannot write {target}: {reason}') from error


def _download(folder: Path) -> Path:
  print(f'downloading {URL}', file=sys.stderr)
  pooch.get_logger().setLevel(logging.WARNING)
  downloader = pooch.HTTPDownloader(timeout=_TIMEOUT_S)
  try:
    pooch.retrieve(URL, known_hash=None, fname=FILE, path=folder, downloader=downloader)
  except (OSError, ValueError) as error:  # the errors of requests are OSErrors too
    raise UserError(
      f'{FILE} cannot be downloaded ({type(error).__name__}); bring it from {URL} and give '
      '--from=FILE'
    ) from error
  return folder / FILE
