"""Processes meet, here threads: who is missing is named, and a lost one is noticed at once."""

import concurrent.futures
import contextlib
import socket
import threading
import time

import pytest

from engine import rendezvous
from errors import UserError
from tests.processes import free_port


@contextlib.contextmanager
def meeting(*numbers, of, patience=20.0, address=None):
  """What `meet` returns or raises for each of the numbers, all at once."""
  address = address or f'127.0.0.1:{free_port()}'

  def come(number):
    try:
      return rendezvous.meet(address, number, of, patience)
    except UserError as error:
      return str(error)

  with concurrent.futures.ThreadPoolExecutor(len(numbers)) as pool:
    found = list(pool.map(come, numbers))
  try:
    yield found
  finally:
    for each in found:
      if isinstance(each, rendezvous.Rendezvous):
        each.end()


def close(member):
  """What the system does for a process that is killed."""
  for connection in [*member._open.values()]:
    connection.socket.shutdown(socket.SHUT_RDWR)


def test_they_meet_and_know_what_all_said():
  with meeting(2, 0, 1, of=3) as found:
    first, *others = sorted(found, key=lambda each: each.process)
    assert len({each.port for each in found}) == 1 and first.hosts == others[1].hosts
    with concurrent.futures.ThreadPoolExecutor(3) as pool:
      for topic in ('a', 'b'):
        asked = [pool.submit(each.gather, topic, [topic, each.process]) for each in found]
        values = [each.result(10) for each in asked]
        assert values == [[[topic, 0], [topic, 1], [topic, 2]]] * 3


def test_one_alone_needs_nobody():
  with meeting(0, of=1) as (alone,):
    assert alone.gather('a', 5) == [5]


@pytest.mark.parametrize(
  'there, missing', [((0, 2), 'process 1 of 3'), ((0,), 'processes 1, 2 of 3')]
)
def test_all_that_came_hear_who_is_missing(there, missing):
  with meeting(*there, of=3, patience=1.0) as found:
    assert len({*found}) == 1, 'all say the same'
    assert found[0].startswith(f'{missing} did not join at 127.0.0.1:')
    assert '--join_timeout=SECONDS' in found[0] and f'(0 on {socket.gethostname()}' in found[0]


def test_the_first_is_missing():
  with meeting(1, 2, of=3, patience=1.0) as found:
    for number, text in enumerate(found, 1):
      assert f'process {number} of 3' in text and 'did not reach process 0 at 127.0.0.1' in text
      assert '127.0.0.1 is every host itself' in text


def test_two_of_one_number_and_two_counts():
  with meeting(0, 1, 1, of=3) as found:
    assert all('two processes are told to be process 1' in text for text in found[:1])
  address = f'127.0.0.1:{free_port()}'
  said = []
  other = threading.Thread(target=lambda: said.append(_error(address, 1, 3)))
  other.start()
  found = _error(address, 0, 2)
  other.join()
  assert found == said[0] and 'is told of 2 processes, and process 1' in found and 'of 3' in found


def _error(address, number, of):
  with pytest.raises(UserError) as caught:
    rendezvous.meet(address, number, of, 10.0)
  return str(caught.value)


def test_a_stranger_is_no_process():
  address = f'127.0.0.1:{(port := free_port())}'

  def knock():
    odd = b'{"hello": [], "processes": 2, "host": "x"}\n'
    for text in (b'GET / HTTP/1.1\r\n\r\n', b'{"hello": 1}\n', b'[1]\n', odd, b''):
      last = time.monotonic() + 10
      while time.monotonic() < last:
        with contextlib.suppress(OSError), socket.create_connection(('127.0.0.1', port), 1) as s:
          s.sendall(text)
          break

  threading.Thread(target=knock).start()
  time.sleep(0.5)
  with meeting(0, 1, of=2, address=address) as found:
    assert all(isinstance(each, rendezvous.Rendezvous) for each in found), found


def test_a_port_that_is_taken():
  with socket.create_server(('', port := free_port())):
    with meeting(0, of=2, address=f'127.0.0.1:{port}', patience=1) as (text,):
      assert f'process 0 cannot listen at 127.0.0.1:{port}' in text and 'another one' in text


@pytest.mark.parametrize('address', ['host', 'host:', ':12', 'host:x', 'host:0', 'host:70000'])
def test_an_address_that_is_none(address):
  with pytest.raises(UserError, match='must be HOST:PORT'):
    rendezvous.split_address(address)


def test_addresses():
  assert rendezvous.split_address('node1:8476') == ('node1', 8476)
  assert rendezvous.split_address('[fd00::1]:8476') == ('fd00::1', 8476)
  for host in ('localhost', '127.0.0.1', '127.0.1.1', '::1'):
    assert rendezvous.is_loopback(host)
  assert not rendezvous.is_loopback('node127') and not rendezvous.is_loopback('10.0.0.127')


@pytest.mark.parametrize('lost', [0, 2])
def test_all_others_notice_a_killed_process(lost):
  with meeting(0, 1, 2, of=3) as found:
    heard = {}
    event = threading.Event()

    def hear(number):
      def call(what):
        heard[number] = what
        if len(heard) == 2:
          event.set()

      return call

    for number, each in enumerate(found):
      if number != lost:
        each.on_lost(hear(number))
    found[lost]._broadcast = lambda message: None  # a killed one says nothing
    close(found[lost])
    assert event.wait(10)
    assert {(each.process, each.reason, each.code) for each in heard.values()} == {(lost, '', 0)}
    with pytest.raises(RuntimeError, match=f'process {lost} ended'):
      found[1].gather('a', 0)


@pytest.mark.parametrize('fails', [0, 1])
def test_a_failure_is_told_with_its_reason(fails):
  with meeting(0, 1, 2, of=3) as found:
    ends = threading.Thread(target=found[fails].end, args=('the disk is full', 2))
    ends.start()
    lost = [found[number].wait_for_loss(10) for number in range(3) if number != fails]
    assert {(each.process, each.reason, each.code) for each in lost} == {
      (fails, 'the disk is full', 2)
    }
    for number in range(3):
      if number != fails:
        close(found[number])
    ends.join(5)
    assert not ends.is_alive(), 'the first process leaves when the others have'


def test_one_that_is_through_is_not_lost():
  with meeting(0, 1, 2, of=3) as found:
    found[2].end()
    close(found[2])
    assert found[0].wait_for_loss(0.5) is None and found[1].lost is None
