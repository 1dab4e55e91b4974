"""A folder that is written whole or not at all."""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path

from errors import UserError


def check_empty(target: Path, flag: str) -> None:
  """Raises UserError unless there is nothing at `target`, or an empty folder."""
  if target.exists() and (not target.is_dir() or any(target.iterdir())):
    raise UserError(f'{flag}={target} holds something already; choose another {flag}')


@contextlib.contextmanager
def new_folder(target: Path, flag: str) -> Iterator[Path]:
  """A folder beside `target` to write in, which becomes it in the end, or goes away on an error.

  Args:
    target: what `check_empty` let pass.
    flag: that the user gave it by, for messages.

  Raises:
    UserError: it cannot be written.
  """
  # Whole paths only: 'runs/..' has no place beside it.
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
