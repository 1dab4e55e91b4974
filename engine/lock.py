"""One writer for a folder: a lock of the system on a disk, a renewed object in a bucket."""

import fcntl
import json
import os
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import IO, NamedTuple

import files
from errors import UserError

# Seconds between renewals of a lock in a bucket, and how long it counts without one.
RENEWED_EVERY, COUNTS_FOR = 60.0, 300.0
# Seconds for which a lock on a disk is tried: a listing holds one for an instant to look at it.
_TRIED_FOR, _PAUSE = 1.0, 0.02
# Seconds until a lock that was taken over is looked at again: another may have done the same.
_SETTLES_IN = 2.0


@contextmanager
def hold_file(path: files.Path, what: str) -> Iterator[None]:
  """Holds a lock file on a disk, which the system drops when the process ends in whatever way.

  Args:
    path: of the lock.
    what: the folder as the user wrote it, for messages.

  Raises:
    UserError: another process holds it.
  """
  with open(path, 'w') as handle:
    if not _locked(handle):
      raise UserError(
        f'another process is training in {what}; wait for it, or choose another --workdir'
      )
    yield


def _locked(handle: IO[str]) -> bool:
  """Locks a file; False where another process holds it for longer than a listing looks."""
  last = time.monotonic() + _TRIED_FOR
  while True:
    try:
      fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
      return True
    except BlockingIOError:
      if time.monotonic() > last:
        return False
      time.sleep(_PAUSE)


def is_held(path: files.Path) -> bool:
  """Returns whether a process trains in the folder of a lock; the lock itself is not changed."""
  if not path.exists():
    return False
  if not files.is_local(path):
    return _Object(path).is_held()
  with open(path) as handle:
    try:
      # Shared with other readers; dropped at once.
      fcntl.flock(handle, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except OSError:
      return True
  return False


@contextmanager
def hold_object(path: files.Path, what: str) -> Iterator[None]:
  """Holds a lock in a bucket: an object with host, process and time, renewed each minute.

  It counts for five minutes after its last renewal, so that a killed process does not lock a folder
  for good. A process that was not heard of for that long and finds its lock taken over is sent
  SIGTERM, which ends a training run.

  Args:
    path: of the lock.
    what: the folder as the user wrote it, for messages.

  Raises:
    UserError: another process holds it.
  """
  lock = _Object(path)
  lock.take(what)
  ended = threading.Event()
  renewals = threading.Thread(target=_renew, args=(lock, ended, what), daemon=True)
  renewals.start()
  try:
    yield
  finally:
    ended.set()
    renewals.join()
    try:
      lock.release()
    except Exception as error:  # of the network, of any kind; what was done is done
      print(f'warning: the lock of {what} could not be removed ({error})', file=sys.stderr)


class _Held(NamedTuple):
  """What the object of a lock holds: who, when (seconds since 1970), and a word of its own."""

  host: str
  process: int
  time: float
  token: str


class _Object:
  """A lock in a bucket, held by this process or another."""

  def __init__(self, path: files.Path):
    self._store, self._name = files.object_store(path)
    self._token = uuid.uuid4().hex

  def take(self, what: str) -> None:
    """Creates the object; UserError where another process holds it."""
    found = self._read()
    self._refuse(found, what)
    if found is not None:
      self._remove()
    try:
      self._store.pipe_file(self._name, self._content(), mode='create')
    except FileExistsError:
      self._refuse(self._read(), what)
      raise
    if found is not None:
      time.sleep(_SETTLES_IN)
      self._refuse(self._read(), what)

  def is_held(self) -> bool:
    """Whether a process was heard of lately."""
    found = self._read()
    return found is not None and time.time() - found.time < COUNTS_FOR

  def renew(self) -> bool:
    """Writes the time anew; whether the lock is still this process's."""
    if not self._is_ours():
      return False
    self._store.pipe_file(self._name, self._content())
    return True

  def release(self) -> None:
    """Removes the object if it is still this process's."""
    if self._is_ours():
      self._remove()

  def _refuse(self, found: _Held | None, what: str) -> None:
    if found is None or found.token == self._token:
      return
    age = time.time() - found.time
    if age < COUNTS_FOR:
      raise UserError(
        f'process {found.process} on {found.host} is training in {what} (heard of {age:.0f} s ago; '
        f'its lock counts for {COUNTS_FOR:.0f} s); wait for it, or choose another --workdir'
      )

  def _is_ours(self) -> bool:
    found = self._read()
    return found is not None and found.token == self._token

  def _content(self) -> bytes:
    held = _Held(socket.gethostname(), os.getpid(), time.time(), self._token)
    return json.dumps(held._asdict()).encode()

  def _read(self) -> _Held | None:
    """Who holds the lock; None where there is no object."""
    try:
      found = _Held(**files.parse_json(self._store.cat_file(self._name)))
      return found._replace(time=float(found.time))
    except FileNotFoundError:
      return None
    except (ValueError, TypeError):  # not written by this program, so nobody renews it
      return _Held('', 0, 0.0, '')

  def _remove(self) -> None:
    with suppress(FileNotFoundError):
      self._store.rm_file(self._name)


def _renew(lock: _Object, ended: threading.Event, what: str) -> None:
  while not ended.wait(RENEWED_EVERY):
    try:
      held = lock.renew()
    except Exception as error:  # of the network, of any kind; the next time it may be back
      print(f'warning: the lock of {what} could not be renewed ({error})', file=sys.stderr)
      continue
    if not held:
      print(f'error: another process has taken over {what}; this one ends', file=sys.stderr)
      os.kill(os.getpid(), signal.SIGTERM)
      return
