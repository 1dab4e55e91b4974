"""Tells the errors by which a disk or a bucket refuses to write from all others."""

import errno
import os

import jax

import files

# What a disk refuses a write with.
_REFUSED = (
  errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.ENOENT, errno.ENOTDIR,
  errno.EEXIST, errno.EFBIG, errno.EIO,
)  # fmt: skip
# HTTP statuses of a bucket that does not let this account in.
FORBIDDEN = (401, 403)


def why_refused(error: Exception, folder: files.Path) -> str:
  """Returns why a disk or a bucket refused to write in `folder`, and the way out.

  Returns:
    The end of a sentence; '' where the error is another.
  """
  # TensorStore says so in words, Google's client and gcsfs by the status of HTTP. Before Orbax
  # deletes a checkpoint it asks for the bucket itself, which most roles for objects do not allow.
  if 'PERMISSION_DENIED' in str(error) or getattr(error, 'code', None) in FORBIDDEN:
    quoted = str(error).splitlines()[0][:160]
    return (
      f'access is denied ({quoted}); allow this account storage.buckets.get and to read, write '
      'and delete objects there'
    )
  refused = _refusal(error, folder)
  return '' if refused is None else files.why_not_written(folder, refused)


def _refusal(error: Exception, folder: files.Path) -> OSError | None:
  """The error of the disk that an error is, or that its text quotes; None for any other.

  An error about a file that is not in `folder` is another.
  """
  if isinstance(error, OSError) and error.errno in _REFUSED:
    name = error.filename
    inside = name is None or files.Path(os.path.realpath(name)).is_relative_to(folder)
    return error if inside else None
  # Orbax's background writer raises ValueError with the text of the system, and numbers of its own:
  # its RESOURCE_EXHAUSTED is a full disk, that of jax is memory.
  if isinstance(error, jax.errors.JaxRuntimeError):
    return None
  text = str(error)
  possible = _REFUSED if str(folder) in text else (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
  quoted = [number for number in possible if os.strerror(number) in text]
  return OSError(quoted[0], os.strerror(quoted[0])) if quoted else None
