"""The processes of one job, each connected to the first one over TCP from start to end.

Before jax connects anything, all of them meet here, and whoever is missing is named. Afterwards the
connections tell within moments that a process has ended, which collectives of a GPU or TPU do not:
they wait. Nothing that is computed goes this way.

The messages are lines of JSON. A process sends `hello`, then `topic` with a value of its own,
`ended` with a sentence where it fails, and `bye` where it is through. The first process sends
`ready` or `refused`, the values of a topic once it has all of them, and passes `ended` on.
"""

import json
import os
import selectors
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from typing import Any, NamedTuple, TypeGuard

from errors import UserError

# Seconds: between two tries to connect, for one of them, and for a stranger to say who it is.
_PAUSE, _TRY, _INTRODUCTION = 0.2, 5.0, 5.0
# Seconds for which the first process stays after it failed, so that the others hear why.
_LINGERS = 10.0
# Keepalive of the system: a host that has lost its power is noticed after 10 + 4 × 5 seconds.
_IDLE, _INTERVAL, _PROBES = 10, 5, 4
_LONGEST_LINE = 2**24  # bytes


class Lost(NamedTuple):
  """A process of the job that ended before its work was done.

  Attributes:
    process: its number.
    host: where it ran.
    reason: the sentence that it left, '' where it was killed or cannot be reached.
    code: its exit code; 0 where it is not known.
  """

  process: int
  host: str
  reason: str
  code: int


class Rendezvous:
  """The connections of one process to the others of its job; made by `meet`.

  Args:
    process: number of this process.
    hosts: the host of each process.
    port: a free port of the first process's host.
    sockets: connections by process number: to all others on the first process, else to the first.

  Attributes:
    process: number of this process.
    hosts: the host of each process.
    port: for jax's own service.
  """

  def __init__(
    self, process: int, hosts: Sequence[str], port: int, sockets: Mapping[int, '_Connection']
  ):
    self.process, self.hosts, self.port = process, tuple(hosts), port
    self._open = dict(sockets)
    self._through: set[int] = set()  # processes that have said good-bye
    self._values: dict[str, dict[int, Any]] = {}
    self._asked = 0  # so that a topic may come again
    self._changed = threading.Condition()
    self._lost: Lost | None = None
    self._on_lost: Callable[[Lost], None] = lambda lost: None
    threading.Thread(target=self._watch, daemon=True).start()

  @property
  def lost(self) -> Lost | None:
    """The first process that is known to have failed."""
    return self._lost

  def on_lost(self, call: Callable[[Lost], None]) -> None:
    """Has `call` called, in another thread, when a process fails; at once if one has already."""
    with self._changed:
      self._on_lost, lost = call, self._lost
    if lost is not None:
      call(lost)

  def wait_for_loss(self, seconds: float) -> Lost | None:
    """Returns the process that has failed, or that fails within that time; None for none."""
    with self._changed:
      self._changed.wait_for(lambda: self._lost is not None, seconds)
      return self._lost

  def gather(self, topic: str, value: Any) -> list[Any]:
    """Returns the values of all processes, by number; every process asks the same in one order.

    Args:
      topic: which question this is; the same words in every process.
      value: this process's answer, of JSON.

    Raises:
      RuntimeError: a process has ended before it answered.
    """
    self._asked += 1
    return self.exchange(f'{self._asked} {topic}', value)

  def exchange(self, topic: str, value: Any) -> list[Any]:
    """Returns the values of all processes, by number; threads may ask at the same time.

    Args:
      topic: which question this is; the same words in every process, and never twice.
      value: this process's answer, of JSON.

    Raises:
      RuntimeError: a process has ended before it answered.
    """
    self._send({'topic': topic, 'value': value})
    with self._changed:
      self._changed.wait_for(lambda: self._lost or self._complete(topic))
      if not self._complete(topic):
        raise RuntimeError(f'process {self._lost.process} ended' if self._lost else topic)
      found = self._values.pop(topic)
    return [found[process] for process in range(len(self.hosts))]

  def end(self, reason: str = '', code: int = 0) -> None:
    """Tells the others that this process has finished, or failed with a code and a reason.

    The first process returns when they have heard of a failure.
    """
    message = {'ended': reason, 'code': code} if code else {'bye': True}
    with suppress(OSError):
      self._send(message)
    if code:
      self.wait_for_others()

  def wait_for_others(self) -> None:
    """On the first process, returns when all others have closed their connections, or soon."""
    if self.process == 0:
      with self._changed:
        self._changed.wait_for(lambda: not self._open, _LINGERS)

  def _complete(self, topic: str) -> bool:
    return len(self._values.get(topic, {})) == len(self.hosts)

  def _send(self, message: Mapping[str, Any]) -> None:
    if self.process == 0:
      self._receive(0, message)
    elif 0 in self._open:
      self._open[0].send(message)

  def _broadcast(self, message: Mapping[str, Any]) -> None:
    for connection in list(self._open.values()):
      with suppress(OSError):
        connection.send(message)

  def _watch(self) -> None:
    with selectors.DefaultSelector() as selector:
      for process, connection in self._open.items():
        selector.register(connection.socket, selectors.EVENT_READ, process)
      while self._open:
        for key, _ in selector.select():
          process = key.data
          try:
            messages = self._open[process].receive()
          except (OSError, ValueError):
            messages = None
          if messages is None:
            selector.unregister(key.fileobj)
            self._close(process)
          for message in messages or ():
            self._receive(process, message)

  def _close(self, process: int) -> None:
    with self._changed:
      self._open.pop(process).socket.close()
      self._changed.notify_all()
    if process not in self._through:
      self._note(Lost(process, self.hosts[process], '', 0))

  def _receive(self, sender: int, message: Mapping[str, Any]) -> None:
    """Takes a message; the first process passes on what concerns all."""
    process = message.get('process', sender)
    if 'topic' in message:
      self._take(process, message)
    elif 'bye' in message:
      self._through.add(process)
      if self.process == process == 0:
        self._broadcast({'bye': True})
    elif 'ended' in message:
      self._through.add(sender)  # what it says counts, not that it then closes its connection
      self._note(Lost(process, self.hosts[process], message['ended'], message['code']))

  def _take(self, process: int, message: Mapping[str, Any]) -> None:
    """Keeps the value of one process; on all but the first process, those of all."""
    topic = message['topic']
    with self._changed:
      if 'values' in message:
        self._values[topic] = dict(enumerate(message['values']))
      else:
        self._values.setdefault(topic, {})[process] = message['value']
      complete = self._complete(topic)
      found = dict(self._values[topic])
      self._changed.notify_all()
    if complete and self.process == 0:
      values = [found[each] for each in range(len(self.hosts))]
      self._broadcast({'topic': topic, 'values': values})

  def _note(self, lost: Lost) -> None:
    """Keeps the first failure, and tells it to the others and to this process."""
    with self._changed:
      if self._lost is not None:
        return
      self._lost, call = lost, self._on_lost
      self._changed.notify_all()
    if self.process == 0:
      self._broadcast({'process': lost.process, 'ended': lost.reason, 'code': lost.code})
    if lost.process != self.process:
      threading.Thread(target=call, args=(lost,), daemon=True).start()


class _Connection:
  """A socket that carries lines of JSON."""

  def __init__(self, connected: socket.socket):
    self.socket = connected
    self._buffer = b''
    self._sending = threading.Lock()
    connected.settimeout(None)
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    for name, value in (
      ('TCP_KEEPIDLE', _IDLE),
      ('TCP_KEEPINTVL', _INTERVAL),
      ('TCP_KEEPCNT', _PROBES),
      ('TCP_USER_TIMEOUT', 1000 * (_IDLE + _PROBES * _INTERVAL)),
    ):
      if hasattr(socket, name):  # not on every system
        connected.setsockopt(socket.IPPROTO_TCP, getattr(socket, name), value)

  def send(self, message: Mapping[str, Any]) -> None:
    with self._sending:
      self.socket.sendall(json.dumps(message).encode() + b'\n')

  def receive(self) -> list[dict[str, Any]] | None:
    """Waits for bytes, and returns the messages that are complete with them; None at the end.

    Raises:
      OSError: the connection broke, or the time-out that is set has passed.
      ValueError: they are no messages.
    """
    received = self.socket.recv(2**16)
    if not received:
      return None
    *lines, self._buffer = (self._buffer + received).split(b'\n')
    messages = [json.loads(line) for line in lines]
    if len(self._buffer) > _LONGEST_LINE or any(not isinstance(each, dict) for each in messages):
      raise ValueError('no message')
    return messages

  def receive_one(self, seconds: float) -> dict[str, Any] | None:
    """The next message, None if there is none within that time."""
    last = time.monotonic() + seconds
    try:
      while (left := last - time.monotonic()) > 0:
        self.socket.settimeout(left)
        messages = self.receive()
        if messages is None:
          return None
        if messages:
          return messages[0]
      return None
    except (OSError, ValueError):
      return None
    finally:
      self.socket.settimeout(None)


def meet(address: str, process: int, processes: int, patience: float) -> Rendezvous:
  """Waits until all processes of a job are connected.

  Args:
    address: `HOST:PORT` of the first process, the same in all of them.
    process: number of this one, from 0.
    processes: how many there are.
    patience: seconds to wait.

  Raises:
    UserError: some are missing, two have the same number, they disagree on how many they are, or
      the port is taken.
  """
  host, port = split_address(address)
  if process == 0:
    return _wait_for_all(address, port, processes, patience)
  return _go_to_first(address, (host, port), process, processes, patience)


def split_address(address: str) -> tuple[str, int]:
  """Splits `HOST:PORT`; an IPv6 address stands in brackets.

  Raises:
    UserError: it has another form.
  """
  host, colon, port = address.rpartition(':')
  if not colon or not host or not port.isdigit() or not 0 < int(port) < 2**16:
    raise UserError(
      f'JAX_COORDINATOR_ADDRESS={address} must be HOST:PORT, a host that all processes reach and '
      'a free port of it, such as node1:8476'
    )
  return host.strip('[]'), int(port)


def _wait_for_all(address: str, port: int, processes: int, patience: float) -> Rendezvous:
  last = time.monotonic() + patience
  hosts, found = {0: socket.gethostname()}, {}
  refused = ''
  with _listen(address, port) as listener:
    while len(hosts) < processes and not refused:
      left = last - time.monotonic()
      if left <= 0:
        refused = _missing(hosts, processes, patience, address)
        break
      listener.settimeout(left)
      try:
        connection = _Connection(listener.accept()[0])
      except TimeoutError:
        continue
      hello = connection.receive_one(min(_INTRODUCTION, max(left, 0.1)))
      if not _is_hello(hello):
        connection.socket.close()  # somebody who looks for open ports
        continue
      refused = _refusal(hello, hosts, processes)
      number = hello['hello']
      # One that is refused hears why as well.
      found[-1 if refused else number] = connection
      if not refused:
        hosts[number] = hello['host']
    names = [hosts[number] for number in sorted(hosts)]
    free = _free_port()
    for connection in found.values():
      with suppress(OSError):
        connection.send({'refused': refused} if refused else {'ready': free, 'hosts': names})
  if refused:
    raise UserError(refused)
  return Rendezvous(0, names, free, found)


def _is_hello(message: Any) -> TypeGuard[dict[str, Any]]:
  """Whether a message is that of a process that wants to join."""
  kinds = {'hello': int, 'processes': int, 'host': str}
  if not isinstance(message, dict):
    return False
  whole = all(isinstance(message.get(name), kind) for name, kind in kinds.items())
  return whole and 0 < message['hello'] < message['processes']


def _listen(address: str, port: int) -> socket.socket:
  """Opens the port of the first process, for IPv4 and IPv6 where the system has both."""
  both = socket.has_dualstack_ipv6()
  try:
    return socket.create_server(
      ('', port), family=socket.AF_INET6 if both else socket.AF_INET, dualstack_ipv6=both,
      backlog=1024,
    )  # fmt: skip
  except OSError as error:
    reason = os.strerror(error.errno or 0)
    raise UserError(
      f'process 0 cannot listen at {address} on {socket.gethostname()}: {reason}; another '
      'job may use that port: give JAX_COORDINATOR_ADDRESS another one'
    ) from error


def _free_port() -> int:
  with socket.socket() as probe:
    probe.bind(('', 0))
    return probe.getsockname()[1]


def _refusal(hello: Mapping[str, Any], hosts: Mapping[int, str], processes: int) -> str:
  """Why a process cannot belong to the job; '' if it can."""
  number, said, host = hello['hello'], hello['processes'], hello['host']
  if said != processes:
    return (
      f'process 0 on {hosts[0]} is told of {processes} processes, and process {number} on {host} '
      f'of {said}; give all of them the same JAX_NUM_PROCESSES'
    )
  if number in hosts:
    return (
      f'two processes are told to be process {number}, on {hosts[number]} and on {host}; give each '
      f'its own JAX_PROCESS_ID from 0 to {processes - 1}'
    )
  return ''


def _missing(hosts: Mapping[int, str], processes: int, patience: float, address: str) -> str:
  missing = [number for number in range(processes) if number not in hosts]
  shown = ', '.join(map(str, missing[:20])) + (', …' if missing[20:] else '')
  here = ', '.join(f'{number} on {hosts[number]}' for number in sorted(hosts)[:20])
  return (
    f'process{"es" if missing[1:] else ""} {shown} of {processes} did not join at {address} within '
    f'{patience:g} s ({here}{", …" if len(hosts) > 20 else ""} did); look at the output of the '
    'missing ones, or wait longer with --join_timeout=SECONDS'
  )


def _go_to_first(
  address: str, place: tuple[str, int], process: int, processes: int, patience: float
) -> Rendezvous:
  last = time.monotonic() + patience
  reason = 'nobody answered'
  hello = {'hello': process, 'processes': processes, 'host': socket.gethostname()}
  while (left := last - time.monotonic()) > 0:
    try:
      connected = socket.create_connection(place, timeout=min(_TRY, left))
    except OSError as error:
      reason = str(error.strerror or error)
      time.sleep(_PAUSE)
      continue
    # The system may connect a port of this host with itself while nobody listens there.
    if connected.getsockname() == connected.getpeername():
      connected.close()
      continue
    connection = _Connection(connected)
    with suppress(OSError):
      connection.send(hello)
      # The first process names who is missing, so it is waited for a little longer.
      answer = connection.receive_one(left + _INTRODUCTION)
      if answer is not None and 'refused' in answer:
        raise UserError(str(answer['refused']))
      if answer is not None and 'ready' in answer:
        return Rendezvous(process, answer['hosts'], answer['ready'], {0: connection})
    connected.close()
    reason = 'it closed the connection'
    time.sleep(_PAUSE)
  raise UserError(
    f'process {process} of {processes} on {hello["host"]} did not reach process 0 at {address} '
    f'within {patience:g} s ({reason}); {_way_out(place[0])}'
  )


def _way_out(host: str) -> str:
  if is_loopback(host):
    return (
      f'{host} is every host itself: if the processes are on several hosts, set '
      'JAX_COORDINATOR_ADDRESS to a name of the host of process 0 that the others reach'
    )
  return (
    'start process 0 on that host, let its port through the firewall, or wait longer with '
    '--join_timeout=SECONDS'
  )


def is_loopback(host: str) -> bool:
  """Whether a host is this one by its own network alone: localhost, 127.*, ::1."""
  return host == 'localhost' or host.startswith('127.') or host == '::1'
