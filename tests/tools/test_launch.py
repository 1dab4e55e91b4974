"""tools.launch with small scripts: prefixes, devices, exit codes, and who is stopped."""

import os
import signal
import subprocess
import sys
import time

import pytest

from commands import launch_processes
from errors import UserError
from tests.conftest import ROOT, environment
from tests.processes import ended_at_last


def launch(*words, processes=2, **more):
  return subprocess.Popen(
    [sys.executable, '-m', 'tools.launch', f'--processes={processes}', '--', *map(str, words)],
    cwd=ROOT,
    env=environment(**more),
    stdout=subprocess.PIPE,
    stderr=subprocess.PIPE,
    text=True,
  )


def hurried(path):
  """The exit code and the seconds of a job whose others have half a second to end."""
  code = (
    'import sys; from commands import launch_processes as launch; launch._GRACE = 0.5; '
    'sys.exit(launch.launch_processes(sys.argv[1:], 2))'
  )
  begun = time.monotonic()
  done = subprocess.run(
    [sys.executable, '-c', code, path], cwd=ROOT, env=environment(), capture_output=True, timeout=60
  )
  return done.returncode, time.monotonic() - begun


def finished(*words, processes=2, **more):
  with ended_at_last([child := launch(*words, processes=processes, **more)]):
    out, error = child.communicate(timeout=60)
  return child.returncode, out, error


@pytest.fixture
def program(tmp_path):
  """`program('text')` writes a script; RANK is the number of its process."""

  def write(text):
    path = tmp_path / 'program.py'
    path.write_text(
      f'import os, signal, sys, time\nRANK = int(os.environ["JAX_PROCESS_ID"])\n{text}\n'
    )
    return path

  return write


def test_each_line_has_the_number_of_its_process(program):
  path = program('print("out", RANK, *sys.argv[1:])\nprint("error", RANK, file=sys.stderr)')
  code, out, error = finished(path, '--a=1', processes=3)
  assert code == 0
  assert sorted(out.splitlines()) == [f'[{i}] out {i} --a=1 --distributed' for i in range(3)]
  assert sorted(error.splitlines()) == [f'[{i}] error {i}' for i in range(3)]


def test_each_has_its_place(program):
  names = ('JAX_COORDINATOR_ADDRESS', 'JAX_NUM_PROCESSES', 'JAX_NUM_CPU_DEVICES')
  path = program(f'print(*(os.environ[name] for name in {names}))')
  code, out, _ = finished(path, '--distributed', JAX_PLATFORMS='cpu')
  assert code == 0
  told = {line.split('] ')[1] for line in out.splitlines()}
  assert len(told) == 1 and told.pop().endswith(' 2 1'), 'they meet at one address'


@pytest.mark.parametrize('text, code', [('sys.exit(3)', 3), ('os.kill(os.getpid(), 9)', 137)])
def test_one_that_fails_ends_the_others(program, text, code):
  found, seconds = hurried(program(f'if RANK == 1:\n  {text}\ntime.sleep(600)'))
  assert found == code and seconds < 45


def test_the_first_failure_counts(program):
  path = program('time.sleep(0.5 + 2 * RANK)\nsys.exit(5 + RANK)')
  code, _, error = finished(path)
  assert code == 5 and 'process 0 ended with exit code 5' in error


def test_others_may_go_on_saving(program):
  """One that has saved is no failure: the others are not hurried."""
  code, seconds = hurried(program('time.sleep(3 * RANK)\nsys.exit(143 if RANK else 130)'))
  assert code == 130 and seconds > 3


@pytest.mark.parametrize('number', [signal.SIGTERM, signal.SIGINT])
def test_signals_reach_all(program, tmp_path, number):
  path = program(
    'def end(number, frame):\n  print("got", number, flush=True)\n  sys.exit(128 + number)\n'
    'signal.signal(signal.SIGTERM, end); signal.signal(signal.SIGINT, end)\n'
    f'open({str(tmp_path)!r} + f"/ready{{RANK}}", "w").close()\ntime.sleep(600)'
  )
  with ended_at_last([child := launch(path)]):
    last = time.monotonic() + 60
    while len([*tmp_path.glob('ready*')]) < 2:
      assert time.monotonic() < last and child.poll() is None
      time.sleep(0.05)
    child.send_signal(number)
    out, _ = child.communicate(timeout=60)
  assert child.returncode == 128 + number
  assert sorted(out.splitlines()) == [f'[{i}] got {int(number)}' for i in range(2)]


@pytest.mark.skipif(sys.platform != 'linux', reason='the signal of a dead parent is Linux')
def test_a_killed_launcher_leaves_nobody_behind(program, tmp_path):
  path = program(f'open({str(tmp_path)!r} + f"/{{os.getpid()}}.pid", "w").close()\ntime.sleep(600)')
  with ended_at_last([child := launch(path)]):
    last = time.monotonic() + 60
    while len(found := [*tmp_path.glob('*.pid')]) < 2:
      assert time.monotonic() < last and child.poll() is None
      time.sleep(0.05)
    child.kill()
  while any(os.path.exists(f'/proc/{each.stem}/exe') for each in found):
    assert time.monotonic() < last, 'a process outlived its launcher'
    time.sleep(0.05)


def shares(processes, **environment):
  return launch_processes._devices(processes, environment)


def test_devices_are_shared_out(monkeypatch):
  assert shares(2, CUDA_VISIBLE_DEVICES='0,1,2,5') == [
    {'CUDA_VISIBLE_DEVICES': '0,1'}, {'CUDA_VISIBLE_DEVICES': '2,5'},
  ]  # fmt: skip
  assert (
    shares(2, JAX_PLATFORMS='cpu', CUDA_VISIBLE_DEVICES='0,1') == [{'JAX_NUM_CPU_DEVICES': '1'}] * 2
  )
  assert shares(1, CUDA_VISIBLE_DEVICES='', JAX_NUM_CPU_DEVICES='4') == [
    {'JAX_NUM_CPU_DEVICES': '4'}
  ]
  with pytest.raises(UserError, match='cannot share out 4 GPUs'):
    shares(3, CUDA_VISIBLE_DEVICES='0,1,2,3')
  with pytest.raises(UserError, match='belong to one process'):
    shares(2, JAX_PLATFORMS='tpu')


def test_gpus_are_listed_by_the_driver(monkeypatch, tmp_path):
  fake = tmp_path / 'nvidia-smi'
  fake.write_text('#!/bin/sh\nprintf "0\\n1\\n"\n')
  fake.chmod(0o755)
  monkeypatch.setenv('PATH', f'{tmp_path}:{os.environ["PATH"]}')
  assert shares(2) == [{'CUDA_VISIBLE_DEVICES': '0'}, {'CUDA_VISIBLE_DEVICES': '1'}]


def test_a_command_line_without_a_script():
  code, _, error = finished()
  assert code == 2 and 'give the script after --' in error
  with pytest.raises(UserError, match='--processes=0'):
    launch_processes.launch_processes(['train.py'], 0)
