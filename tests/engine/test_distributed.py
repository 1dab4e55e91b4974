"""Where a process stands in its job, by the environments of schedulers."""

import pytest

from engine import distributed
from errors import UserError

SLURM = {
  'SLURM_JOB_ID': '4711', 'SLURM_STEP_NODELIST': 'gpu[003-006]', 'SLURM_NTASKS': '8',
  'SLURM_PROCID': '5', 'SLURM_LOCALID': '1', 'SLURM_STEP_NUM_NODES': '4',
}  # fmt: skip
OPEN_MPI = {
  'OMPI_MCA_orte_hnp_uri': '1531576320.0;tcp://10.96.0.1,10.148.0.1:34911',
  'OMPI_COMM_WORLD_SIZE': '4', 'OMPI_COMM_WORLD_RANK': '3', 'OMPI_COMM_WORLD_LOCAL_RANK': '1',
  'OMPI_COMM_WORLD_LOCAL_SIZE': '2',
}  # fmt: skip
BY_HAND = {
  'JAX_COORDINATOR_ADDRESS': 'node1:8476', 'JAX_NUM_PROCESSES': '3', 'JAX_PROCESS_ID': '2',
}  # fmt: skip
GKE = {'TPU_WORKER_HOSTNAMES': 'localhost,slice-1,slice-2,slice-3', 'TPU_WORKER_ID': '2'}


@pytest.fixture(autouse=True)
def empty(monkeypatch):
  for name in (*SLURM, *OPEN_MPI, *BY_HAND, *GKE, 'SLURM_JOB_NUM_NODES', 'SLURM_NNODES'):
    monkeypatch.delenv(name, raising=False)


def place(monkeypatch, environment):
  for name, value in environment.items():
    monkeypatch.setenv(name, value)
  return distributed.find_place(1)


def test_by_hand(monkeypatch):
  assert place(monkeypatch, BY_HAND) == ('node1:8476', 3, 2, False)


def test_slurm(monkeypatch):
  found = place(monkeypatch, SLURM)
  assert found.address.startswith('gpu003:') and found[1:] == (8, 5, True)


def test_open_mpi_4(monkeypatch):
  found = place(monkeypatch, OPEN_MPI)
  assert found.address.startswith('10.96.0.1:') and found[1:] == (4, 3, True)


def test_open_mpi_5_needs_the_address_alone(monkeypatch):
  """It no longer sets the variable by which jax recognises Open MPI."""
  version_5 = {name: value for name, value in OPEN_MPI.items() if 'orte' not in name}
  with pytest.raises(UserError, match=r'\(JAX_COORDINATOR_ADDRESS not set\)'):
    place(monkeypatch, version_5)
  found = place(monkeypatch, {'JAX_COORDINATOR_ADDRESS': 'node1:8476'})
  assert found == ('node1:8476', 4, 3, True)


def test_gke(monkeypatch):
  from jax._src.clusters import cloud_tpu_cluster

  monkeypatch.setattr(cloud_tpu_cluster, 'running_in_cloud_tpu_vm', True)
  # What the metadata server of Google's cloud would say of one slice.
  monkeypatch.setattr(cloud_tpu_cluster, 'get_tpu_env_value_from_metadata', lambda key: None)
  assert place(monkeypatch, GKE) == ('localhost:8482', 4, 2, True)


def test_what_is_given_by_hand_wins(monkeypatch):
  found = place(monkeypatch, {**SLURM, **BY_HAND})
  assert found == ('node1:8476', 3, 2, False)


@pytest.mark.parametrize(
  'changed, sentence',
  [
    ({'JAX_PROCESS_ID': '3'}, 'JAX_PROCESS_ID=3 must be from 0 to 2'),
    ({'JAX_NUM_PROCESSES': 'two'}, 'JAX_NUM_PROCESSES=two must be a whole number'),
  ],
)
def test_a_wrong_number(monkeypatch, changed, sentence):
  with pytest.raises(UserError, match=sentence):
    place(monkeypatch, {**BY_HAND, **changed})


def test_nothing_tells_anything():
  with pytest.raises(UserError) as caught:
    distributed.find_place(1)
  for name in (*BY_HAND, 'tools.launch', 'srun', 'mpirun'):
    assert name in str(caught.value)


@pytest.mark.parametrize('host', ['localhost', '127.0.0.1', '[::1]'])
@pytest.mark.parametrize(
  'several',
  [
    {'SLURM_JOB_NUM_NODES': '2'},
    {'OMPI_COMM_WORLD_SIZE': '4', 'OMPI_COMM_WORLD_LOCAL_SIZE': '2'},
    {'TPU_WORKER_HOSTNAMES': 'a,b'},
  ],
)
def test_several_hosts_cannot_meet_at_their_own_address(monkeypatch, host, several):
  for name, value in several.items():
    monkeypatch.setenv(name, value)
  with pytest.raises(UserError, match='is every host itself'):
    distributed._check_address(distributed.Place(f'{host}:8476', 4, 1, True))
  distributed._check_address(distributed.Place('node1:8476', 4, 1, True))


def test_one_host_can(monkeypatch):
  monkeypatch.setenv('SLURM_JOB_NUM_NODES', '1')
  distributed._check_address(distributed.Place('localhost:8476', 4, 1, True))


def test_what_differs_is_named():
  a = {'code': {'commit': 'x'}, 'config': {'train': {'seed': 0, 'steps': 5}}}
  b = {'code': {'commit': 'x'}, 'config': {'train': {'seed': 1, 'steps': 5}}, 'workdir': '/r'}
  assert distributed._differences(a, b) == ['config.train.seed (0, 1)', 'workdir (None, /r)']
  same = {'config': {'data': {'name': 'a'}}}
  moved = {'config': {'data': {'name': 'a', 'data_dir': '/x', 'workers': 4}}}
  assert distributed._without(moved, distributed.PER_HOST) == same


def test_the_digest_of_the_code_sees_every_file(monkeypatch, tmp_path):
  (tmp_path / 'engine').mkdir()
  for name in ('train.py', 'engine/__init__.py', 'engine/a.py', 'notes.txt'):
    (tmp_path / name).write_text('x')
  monkeypatch.setattr(distributed, 'ROOT', tmp_path)
  before = distributed._sources()
  (tmp_path / 'notes.txt').write_text('y')
  assert distributed._sources() == before
  (tmp_path / 'engine' / 'a.py').write_text('y')
  changed = distributed._sources()
  assert changed != before
  (tmp_path / 'engine' / 'a.py').rename(tmp_path / 'engine' / 'b.py')
  assert distributed._sources() != changed
