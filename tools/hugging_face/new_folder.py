"""Writes a folder atomically: completely, or not at all."""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from errors import UserError


def check_empty(target: Path, flag: str) -> None:
  """Raises UserError unless `target` does not exist or is an empty folder."""
  if target.exists() and (not target.is_dir() or any(target.iterdir())):
    raise UserError(f'{flag}={target} holds something already; choose another {flag}')


@contextlib.contextmanager
def new_folder(target: Path, flag: str) -> Iterator[Path]:
  """Yields a temporary folder next to `target`, which is renamed to it, or deleted on an error.

  Args:
    target: a path that `check_empty` accepts.
    flag: the flag that the user gave it with, for messages.

  Raises:
    UserError: the folder cannot be written.
  """
  # A path such as 'runs/..' has no parent of its own, so it is resolved first.
  target = target.resolve()
  part = target.with_name(f'{target.name}.{os.getpid()}.part')
  try:
    part.mkdir(parents=True)
    yield part
    if target.exists():
      target.rmdir()
    part.rename(target)
  except OSError as error:
    full = error.errno in (errno.ENOSPC, errno.EDQUOT)
    raise UserError(
      f'cannot write {target} ({error.strerror or error}); '
      f'{"free some space" if full else f"choose another {flag}"}'
    ) from error
  finally:
    shutil.rmtree(part, ignore_errors=True)
