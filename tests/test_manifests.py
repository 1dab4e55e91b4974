"""The manifests of docs/manifests: right by their schemas, and run with pretended schedulers."""

import copy
import json
import os
import re
import shlex
import subprocess
import sys

import jsonschema
import pytest
import yaml

from tests.conftest import ROOT

MANIFESTS = ROOT / 'docs' / 'manifests'
SCHEMAS = {'jobset_gpu': 'jobset', 'jobset_tpu': 'jobset', 'skypilot': 'skypilot'}
# Of `sbatch --help`, Slurm 24.05, those that a script of ours may use.
SBATCH = {
  'account', 'constraint', 'cpus-per-task', 'error', 'exclusive', 'gpus-per-node', 'gpus-per-task',
  'gres', 'job-name', 'mem', 'nodes', 'ntasks', 'ntasks-per-node', 'open-mode', 'output',
  'partition', 'qos', 'requeue', 'signal', 'time',
}  # fmt: skip


def manifest(name):
  return yaml.safe_load((MANIFESTS / f'{name}.yaml').read_text())


def validator(name):
  schema = json.loads((ROOT / 'tests' / 'manifests' / f'{SCHEMAS[name]}.schema.json').read_text())
  jsonschema.Draft202012Validator.check_schema(schema)
  return jsonschema.Draft202012Validator(schema)


def test_every_manifest_is_tested():
  found = {path.stem for path in MANIFESTS.glob('*.yaml')}
  assert found == {*SCHEMAS}
  assert {path.name for path in MANIFESTS.iterdir()} == {
    *(f'{name}.yaml' for name in found), 'slurm.sh', 'Dockerfile',
  }  # fmt: skip


@pytest.mark.parametrize('name', SCHEMAS)
def test_a_manifest_follows_its_schema(name):
  validator(name).validate(manifest(name))


def _misspelt(tree):
  tree['spec']['failurePolicy']['maxRestart'] = 3


def _text_for_a_number(tree):
  tree['spec']['replicatedJobs'][0]['template']['spec']['parallelism'] = '4'


def _number_in_the_environment(tree):
  pod = tree['spec']['replicatedJobs'][0]['template']['spec']['template']['spec']
  pod['containers'][0].setdefault('env', []).append({'name': 'JAX_NUM_PROCESSES', 'value': 4})


def _another_action(tree):
  tree['spec']['failurePolicy']['rules'][0]['action'] = 'Fail'


@pytest.mark.parametrize('name', ['jobset_gpu', 'jobset_tpu'])
@pytest.mark.parametrize(
  'spoil', [_misspelt, _text_for_a_number, _number_in_the_environment, _another_action]
)
def test_a_spoilt_job_set_is_noticed(name, spoil):
  tree = copy.deepcopy(manifest(name))
  spoil(tree)
  assert not validator(name).is_valid(tree)


@pytest.mark.parametrize(
  'change', [{'num_node': 4}, {'resources': {'use_spots': True}}, {'envs': {'CONFIG': 3}}]
)
def test_a_spoilt_sky_pilot_task_is_noticed(change):
  assert not validator('skypilot').is_valid({**manifest('skypilot'), **change})


@pytest.mark.parametrize('name', ['jobset_gpu', 'jobset_tpu'])
def test_a_job_set_starts_as_many_processes_as_it_tells_them(name):
  spec = manifest(name)['spec']
  (group,) = spec['replicatedJobs']
  job = group['template']['spec']
  pod = job['template']['spec']
  (container,) = pod['containers']
  assert job['parallelism'] == job['completions'] and job['backoffLimit'] == 0
  # A mistake ends it, whatever else starts it again; there is time for a checkpoint.
  (rule,) = job['podFailurePolicy']['rules']
  assert rule['onExitCodes'] == {
    'containerName': container['name'], 'operator': 'In', 'values': [2],
  }  # fmt: skip
  assert spec['failurePolicy']['maxRestarts'] > 0
  assert pod['terminationGracePeriodSeconds'] >= 120 and pod['restartPolicy'] == 'Never'
  assert {mount['name'] for mount in container.get('volumeMounts', ())} == {
    volume['name'] for volume in pod.get('volumes', ())
  }
  told = {each['name']: each.get('value') for each in container.get('env', ())}
  if name == 'jobset_gpu':
    first = f'{manifest(name)["metadata"]["name"]}-{group["name"]}-0-0'
    port = container['ports'][0]['containerPort']
    assert told['JAX_COORDINATOR_ADDRESS'] == f'{first}.{manifest(name)["metadata"]["name"]}:{port}'
    assert told['JAX_NUM_PROCESSES'] == str(job['parallelism'] * group['replicas'])


def train_commands():
  """The words after `train.py` of every manifest."""
  for name in ('jobset_gpu', 'jobset_tpu'):
    pod = manifest(name)['spec']['replicatedJobs'][0]['template']['spec']['template']['spec']
    command = pod['containers'][0]['command']
    assert command[:4] == ['tini', '--', 'python', 'train.py']
    yield name, command[4:]
  usage = re.search(r'sbatch docs/manifests/slurm.sh (.*)', (MANIFESTS / 'slurm.sh').read_text())
  yield 'slurm', ['--distributed', *shlex.split(usage[1])]


@pytest.mark.parametrize('name, words', train_commands())
def test_the_config_of_a_manifest_is_one(name, words):
  assert words[0] == '--distributed'
  config = next(word for word in words if word.startswith('--config='))
  from commands import cli

  assert cli.load(config.removeprefix('--config=')).modules


def run(script, tmp_path, fakes, **environment):
  """Runs a text with stand-ins for programs; returns its code, what they got, and its errors."""
  for name, body in fakes.items():
    path = tmp_path / name
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(f'#!/bin/bash\n{body}\n')
    path.chmod(0o755)
  done = subprocess.run(
    ['bash', '-c', script, 'script', '--config=configs/gan.py'],
    cwd=tmp_path,
    env={'PATH': f'{tmp_path}:{os.environ["PATH"]}', 'OUT': str(tmp_path / 'got'), **environment},
    capture_output=True,
    text=True,
  )
  got = tmp_path / 'got'
  return done.returncode, got.read_text() if got.exists() else '', done.stderr


@pytest.mark.parametrize(
  'code, again', [(0, False), (2, False), (75, True), (134, True), (143, True)]
)
def test_slurm_starts_again_after_everything_but_a_mistake(tmp_path, code, again):
  fakes = {'srun': f'echo "srun $*" >> $OUT; exit {code}', 'scontrol': 'echo "scontrol $*" >> $OUT'}
  text = (MANIFESTS / 'slurm.sh').read_text()
  ended, got, _ = run(text, tmp_path, fakes, SLURM_JOB_ID='17')
  assert ended == code
  assert 'train.py --distributed --config=configs/gan.py' in got.splitlines()[0]
  assert ('scontrol requeue 17' in got) == again
  (tmp_path / 'got').unlink()
  _, got, _ = run(text, tmp_path, fakes, SLURM_JOB_ID='17', SLURM_RESTART_COUNT='100')
  assert 'scontrol' not in got


def test_the_slurm_script_has_options_of_sbatch():
  text = (MANIFESTS / 'slurm.sh').read_text()
  assert subprocess.run(['bash', '-n', MANIFESTS / 'slurm.sh'], capture_output=True).returncode == 0
  given = re.findall(r'^#SBATCH --([\w-]+)(?:=(\S+))?$', text, re.M)
  assert len(given) == text.count('#SBATCH') >= 8
  assert {name for name, _ in given} <= SBATCH
  values = dict(given)
  assert values['ntasks-per-node'] == values['gpus-per-node'], 'a process for each GPU'
  # To the processes, not the script ('B:'), and with time for a checkpoint.
  assert re.fullmatch(r'TERM@\d{3}', values['signal'])


@pytest.mark.parametrize('part', ['setup', 'run'])
def test_the_parts_of_the_sky_pilot_task_are_scripts(part):
  text = manifest('skypilot')[part]
  assert subprocess.run(['bash', '-n'], input=text, text=True).returncode == 0


def test_sky_pilot_tells_each_node_its_place(tmp_path):
  task = manifest('skypilot')
  place = '$JAX_COORDINATOR_ADDRESS $JAX_NUM_PROCESSES $JAX_PROCESS_ID'
  fakes = {'.venv/bin/python': f'echo "{place} $*" > $OUT'}
  code, got, said = run(
    task['run'], tmp_path, fakes, **task['envs'],
    SKYPILOT_NODE_IPS='10.0.0.5\n10.0.0.6', SKYPILOT_NUM_NODES='2', SKYPILOT_NODE_RANK='1',
  )  # fmt: skip
  assert code == 0, said
  assert got.startswith('10.0.0.5:8476 2 1 train.py --distributed --config=configs/gpt2.py:124m')
  assert '--workdir=gs://' in got


def test_sky_pilot_takes_the_task():
  """By SkyPilot's own code, where it is installed."""
  pytest.importorskip('sky')
  code = 'import sky, sys; print(sky.Task.from_yaml(sys.argv[1]).num_nodes)'
  done = subprocess.run(
    [sys.executable, '-c', code, MANIFESTS / 'skypilot.yaml'],
    cwd=ROOT,
    capture_output=True,
    text=True,
  )
  assert done.stdout.strip() == '4', done.stderr
