"""The same training in several processes: equal to one, stopped together, resumed exactly."""

import shlex
import shutil
import signal
import subprocess
import sys
import time

import numpy as np
import pytest

from data import order
from tests import processes, runs
from tests.conftest import ROOT, environment

SMALL = (*runs.SMALL_GAN, *runs.every(5, 10, 20))
# Nothing is due but lines of the log.
ENDLESS = (
  '--config.train.steps=1000000', '--config.checkpoint.every=500000',
  '--config.train.sample_every=500000', '--config.evaluators.test.every=500000',
  '--config.evaluators.samples.every=500000',
)  # fmt: skip


def arguments(workdir, *more):
  return ('train.py', *SMALL, f'--workdir={workdir}', *more)


def assert_close(a, b, tolerance=1e-5):
  first, second = runs.leaves(a), runs.leaves(b)
  assert first.keys() == second.keys()
  for name in first:
    if first[name].dtype.kind == 'f':
      np.testing.assert_allclose(first[name], second[name], atol=tolerance, err_msg=name)
    else:
      assert (first[name] == second[name]).all(), name


@pytest.fixture(scope='module')
def one(tmp_path_factory):
  """A run of 20 steps in one process with one device, and its checkpoint of step 10."""
  workdir = tmp_path_factory.mktemp('one') / 'run'
  runs.train(*arguments(workdir, '--config.train.steps=20', '--config.checkpoint.keep=2')[1:])
  return workdir


@pytest.mark.parametrize('number', [2, pytest.param(4, marks=pytest.mark.slow)])
def test_launched_processes_equal_one(one, tmp_path, script, number):
  done = script(
    '-m', 'tools.launch', f'--processes={number}', '--',
    *arguments(tmp_path / 'run', '--config.train.steps=20'),
  )  # fmt: skip
  assert done.returncode == 0, done.stdout + done.stderr
  assert f'[0] devices  {number} × cpu' in done.stdout
  assert '[1] step' not in done.stdout, 'only the first process speaks'
  assert_close(one, tmp_path / 'run')


@pytest.mark.parametrize('killed', [1, pytest.param(0, marks=pytest.mark.slow)])
def test_a_killed_process_makes_the_others_stop(tmp_path, killed):
  """And the same command goes on from the last checkpoint, to the same bits."""
  workdir = tmp_path / 'run'
  started = processes.start(2, *arguments(workdir, *ENDLESS, '--config.checkpoint.every=10'))
  with processes.ended_at_last(started):
    processes.wait_until(lambda: (workdir / 'checkpoints' / '10').is_dir(), started)
    started[killed].send_signal(signal.SIGKILL)
    begun = time.monotonic()
    said = started[1 - killed].communicate(timeout=60)[0]
  assert time.monotonic() - begun < 30
  assert started[1 - killed].returncode == 75, said
  last = said.strip().splitlines()[-1]
  assert f'error: process {killed} on ' in last and 'was killed, or its host is gone' in last
  assert 'start the same command on all hosts again' in last


@pytest.mark.slow
def test_a_restart_resumes_exactly(tmp_path):
  """Killed in two processes and started again in two, a run ends with the bits of a whole one."""
  whole, killed = tmp_path / 'whole', tmp_path / 'killed'
  steps = '--config.train.steps=40'
  found = processes.outputs(processes.start(2, *arguments(whole, steps)))
  assert 'finished step 40' in found[0], found
  started = processes.start(2, *arguments(killed, steps))
  with processes.ended_at_last(started):
    processes.wait_until(lambda: (killed / 'checkpoints' / '20').is_dir(), started)
    started[0].send_signal(signal.SIGKILL)
    processes.outputs(started)
  found = processes.outputs(processes.start(2, *arguments(killed, steps)))
  assert 'resumed  from step' in found[0] and 'finished step 40' in found[0], found
  runs.assert_same_bits(whole, killed)


@pytest.mark.parametrize(
  'number, to, codes',
  [
    (signal.SIGTERM, 1, [143, 143]),
    pytest.param(signal.SIGTERM, 0, [143, 143], marks=pytest.mark.slow),
    pytest.param(signal.SIGINT, 1, [143, 130], marks=pytest.mark.slow),
  ],
)
def test_a_signal_to_one_process_saves_in_all(tmp_path, number, to, codes):
  workdir = tmp_path / 'run'
  started = processes.start(2, *arguments(workdir, *ENDLESS))
  with processes.ended_at_last(started):
    processes.wait_until(lambda: len(processes.lines(workdir / 'metrics.jsonl')) >= 2, started)
    started[to].send_signal(number)
    said = processes.outputs(started)
  assert [process.returncode for process in started] == codes, said
  assert 'Traceback' not in ''.join(said)
  saved = [int(folder.name) for folder in (workdir / 'checkpoints').iterdir()]
  assert len(saved) == 1 and 0 < saved[0] < 1000000 and f'at step {saved[0]} of' in said[0]
  assert runs.leaves(workdir)['.step'] == saved[0]


@pytest.mark.slow
@pytest.mark.parametrize('number, code', [(signal.SIGTERM, 143), (signal.SIGINT, 130)])
def test_a_signal_to_the_launcher_saves_in_all(tmp_path, number, code):
  workdir = tmp_path / 'run'
  launcher = subprocess.Popen(
    [sys.executable, '-m', 'tools.launch', '--processes=2', '--', *arguments(workdir, *ENDLESS)],
    cwd=ROOT, env=environment(), stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
  )  # fmt: skip
  with processes.ended_at_last([launcher]):
    log = workdir / 'metrics.jsonl'
    processes.wait_until(lambda: len(processes.lines(log)) >= 2, [launcher])
    launcher.send_signal(number)
    said = launcher.communicate(timeout=120)[0]
  assert launcher.returncode == code, said
  assert f'process 0 ended with exit code {code}' in said or 'process 1 ended with' in said
  assert len([*(workdir / 'checkpoints').iterdir()]) == 1


RECORDED = ('-m', 'tests.train_recorded')


@pytest.mark.slow
@pytest.mark.parametrize('resident_mb', [2048, 0], ids=['resident', 'streamed'])
def test_other_numbers_of_processes_see_the_same_examples(tmp_path, script, resident_mb):
  """Each example once an epoch, in the same order, whoever trains; the losses agree."""
  small = (
    *runs.SMALL_VAE, *runs.every(1, 100, 100), '--config.data.split=train[:100]',
    f'--config.data.resident_mb={resident_mb}',
  )  # fmt: skip

  def flags(name, steps):
    own = (f'--record={tmp_path / name}.jsonl', f'--workdir={tmp_path / name}')
    return (*RECORDED, *small, *own, f'--config.train.steps={steps}')

  done = script(*flags('one', 12))
  assert done.returncode == 0, done.stderr
  for number, devices, steps in ((2, 1, 4), (4, 1, 8), (1, 2, 10), (2, 2, 12)):
    if number == 1:
      done = script(*flags('several', steps), devices=devices)
      assert done.returncode == 0, done.stderr
      continue
    started = processes.start(number, *flags('several', steps), devices=devices)
    said = processes.outputs(started)
    assert [process.returncode for process in started] == [0] * number, said
  one, several = (processes.lines(tmp_path / f'{name}.jsonl') for name in ('one', 'several'))
  assert one == several
  # What the order of examples says by itself: nothing repeated, nothing skipped.
  for used, indices in several:
    assert indices == order.indices(0, used, 16, 100)[1].tolist()
  assert [used for used, _ in several] == [16 * step for step in range(12)]
  first_epoch = [i for _, indices in several for i in indices][:100]
  assert sorted(first_epoch) == list(range(100))
  losses = [
    [line['vae/loss'] for line in runs.metrics(tmp_path / name) if 'vae/loss' in line]
    for name in ('one', 'several')
  ]
  assert len(losses[0]) == 12
  np.testing.assert_allclose(losses[1], losses[0], rtol=1e-5)


# Two hosts with names, addresses and a cable; the first argument is a folder. What is on standard
# input replaces /etc/hosts, and COMMAND is run on both.
HOSTS = """
set -e
cat > $1/hosts && mount --bind $1/hosts /etc/hosts && hostname atelier-a && ip link set lo up
ip link add veth-a type veth peer name veth-b
mkfifo $1/go
unshare --net --uts bash -c 'hostname atelier-b; read _ < $0/go; ip link set lo up
  ip addr add 10.77.0.2/24 dev veth-b; ip link set veth-b up
  JAX_PROCESS_ID=1 exec $COMMAND' $1 > $1/b 2>&1 &
other=$!
until [ "$(readlink /proc/$other/ns/net)" != "$(readlink /proc/self/ns/net)" ]; do sleep 0.05; done
ip link set veth-b netns $other
ip addr add 10.77.0.1/24 dev veth-a; ip link set veth-a up
echo > $1/go
JAX_PROCESS_ID=0 $COMMAND > $1/a 2>&1 && a=0 || a=$?
wait $other && b=0 || b=$?
echo codes $a $b
"""
NAMES = '127.0.0.1 localhost\n10.77.0.1 atelier-a\n10.77.0.2 atelier-b\n'


@pytest.fixture
def two_hosts(tmp_path):
  """`two_hosts(arguments)` runs a script on two hosts, which are network namespaces here."""
  unshare = ['unshare', '--user', '--map-root-user', '--net', '--mount', '--uts']
  try:
    subprocess.run(
      [*unshare, 'sh', '-c', 'ip link add veth-a type veth peer name veth-b'],
      check=True,
      capture_output=True,
    )
  except (OSError, subprocess.CalledProcessError) as error:
    pytest.skip(f'this system gives no network namespaces with a cable between them: {error}')

  def run(*arguments, names=NAMES, address='atelier-a:8476'):
    folder = tmp_path / 'hosts'
    folder.mkdir()
    done = subprocess.run(
      [*unshare, 'bash', '-c', HOSTS, 'hosts', str(folder)],
      cwd=ROOT,
      env=environment(
        COMMAND=' '.join([sys.executable, *map(str, arguments), '--distributed']),
        JAX_COORDINATOR_ADDRESS=address,
        JAX_NUM_PROCESSES='2',
        JAX_PLATFORMS='cpu',
      ),
      input=names,
      capture_output=True,
      text=True,
      timeout=240,
    )
    said = [(folder / name).read_text() for name in 'ab' if (folder / name).exists()]
    assert done.stdout.startswith('codes '), done.stderr + ''.join(said)
    return [int(word) for word in done.stdout.split()[1:]], said

  return run


@pytest.mark.slow
def test_two_hosts_equal_one(one, tmp_path, two_hosts):
  codes, said = two_hosts(*arguments(tmp_path / 'run', '--config.train.steps=20'))
  assert codes == [0, 0], said
  assert_close(one, tmp_path / 'run')


@pytest.mark.slow
def test_two_hosts_that_cannot_meet(tmp_path, two_hosts):
  """127.0.0.1 is each of them: neither sees the other, and the second says why."""
  more = ('--join_timeout=3', '--config.train.steps=20')
  codes, said = two_hosts(*arguments(tmp_path / 'run', *more), address='127.0.0.1:8476')
  assert codes == [2, 2], said
  assert 'process 1 of 2 did not join at 127.0.0.1:8476 within 3 s (0 on atelier-a did)' in said[0]
  assert 'process 1 of 2 on atelier-b did not reach process 0' in said[1]
  assert '127.0.0.1 is every host itself' in said[1]
  assert not (tmp_path / 'run').exists()


@pytest.mark.slow
def test_a_host_that_knows_itself_by_an_address_of_its_own(tmp_path, two_hosts):
  """As Debian's installer writes it into /etc/hosts."""
  names = NAMES.replace('10.77.0.2 ', '127.0.1.1 ')
  codes, said = two_hosts(*arguments(tmp_path / 'run'), names=names)
  assert codes == [2, 2], said
  for text in said:
    assert 'host atelier-b calls itself 127.0.1.1' in text and '/etc/hosts' in text


def test_processes_with_other_options_are_refused(tmp_path):
  """Before anything is compiled or written; the option is named."""
  started = processes.start_commands(
    [
      [sys.executable, *arguments(tmp_path / 'run', f'--config.train.seed={i}'), '--distributed']
      for i in range(2)
    ]
  )
  for text, process in zip(processes.outputs(started), started):
    assert process.returncode == 2, text
    assert 'differs from process 0' in text and 'config.train.seed (0, 1)' in text
    assert 'devices' not in text
  assert not (tmp_path / 'run').exists()


def test_a_mistake_that_only_the_first_process_sees_ends_all(one, tmp_path):
  """Such as a folder of another run: the others wait for it nowhere."""
  started = processes.start(2, *arguments(one, '--config.train.seed=7'))
  said = processes.outputs(started, timeout=100)
  assert [process.returncode for process in started] == [2, 2], said
  assert 'train.seed: 0 → 7' in said[0] and 'Traceback' not in ''.join(said)
  assert 'process 0 on' in said[1] and 'train.seed: 0 → 7' in said[1]


@pytest.mark.slow
def test_hosts_that_do_not_share_the_work_folder(tmp_path):
  """Each process writes to a folder that is called the same and is another one."""
  try:
    subprocess.run(['unshare', '-rm', 'true'], check=True, capture_output=True)
  except (OSError, subprocess.CalledProcessError) as error:
    pytest.skip(f'this system gives no mount namespaces: {error}')
  (tmp_path / 'shared').mkdir()
  words = shlex.join(
    [sys.executable, *map(str, arguments(tmp_path / 'shared' / 'run')), '--distributed']
  )
  hide = f'mount -t tmpfs none {tmp_path / "shared"} && exec {words}'
  commands = (['sh', '-c', f'exec {words}'], ['unshare', '-rm', 'sh', '-c', hide])
  started = processes.start_commands(commands)
  said = processes.outputs(started)
  assert [process.returncode for process in started] == [2, 2], said
  for text in said:
    assert 'process 1 on ' in text and 'does not see' in text and 'all hosts must share' in text


@pytest.mark.slow
def test_a_signal_is_heard_within_a_long_interval(tmp_path):
  """A dispatch of several processes takes about half a second, as one of a single process does."""
  workdir = tmp_path / 'run'
  more = (*ENDLESS, '--config.train.log_every=500000', '--config.train.dispatch=100000')
  started = processes.start(2, *arguments(workdir, *more))
  with processes.ended_at_last(started):
    processes.wait_until(lambda: (workdir / 'config.json').exists(), started)
    time.sleep(20)
    started[1].send_signal(signal.SIGTERM)
    said = processes.outputs(started, timeout=60)
  assert [process.returncode for process in started] == [143, 143], said


@pytest.mark.slow
def test_a_damaged_checkpoint_is_set_aside_once(one, tmp_path):
  """By the first process, and all go on from the one before."""
  workdir = tmp_path / 'run'
  shutil.copytree(one, workdir)
  files = [p for p in (workdir / 'checkpoints' / '20' / 'variables').rglob('*') if p.is_file()]
  largest = max(files, key=lambda p: p.stat().st_size)
  largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
  started = processes.start(2, *arguments(workdir, '--config.train.steps=20'))
  said = processes.outputs(started)
  assert [process.returncode for process in started] == [0, 0], said
  assert 'resumed  from step 10 of 20' in said[0]
  assert ''.join(said).count('set aside as') == 1
  assert [each.name for each in (workdir / 'damaged_checkpoints').iterdir()] == ['20']
  assert_close(one, workdir)
