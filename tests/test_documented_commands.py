"""Every command of README.md, CONTRIBUTING.md, docs/*.md and the docstrings of scripts and configs.

Each is parsed as its script parses it, with the options of its config checked, or stands in
`NOT_CHECKED` with the reason. tests/test_readme.py runs those of the README.
"""

import json
import subprocess
import sys

import pytest

from tests import documented_commands
from tests.conftest import ROOT, environment

# Those that are not even parsed, and why.
NOT_CHECKED = {
  '. .venv/bin/activate': 'a word of the shell',
  'cat names.txt': 'what a command reads from',
  'git worktree add /tmp/before HEAD~1': 'git',
  'git worktree add /tmp/before COMMIT': 'git',
  'python benchmarks/peers/torch_gpt.py train --text=…/input.txt': 'needs PyTorch, an extra',
}
# Schedulers; the scripts of ours that they start are checked.
SCHEDULERS = ('docker', 'gcloud', 'kubectl', 'mpirun', 'sbatch', 'sky', 'srun', 'xpk')
# What a reader puts in the place of `…` and names in capitals, and adds to a flag shown alone.
FILLED = {
  'python train.py --config=… --config.mesh.fsdp=4': (
    'python train.py --config=configs/gan.py --config.mesh.fsdp=4'
  ),
  'python train.py --config=… --distributed': (
    'python train.py --config=configs/gan.py --distributed'
  ),
  'python train.py --config=… --print_config': (
    'python train.py --config=configs/gan.py --print_config'
  ),
  'python train.py --dry_run': 'python train.py --config=configs/gan.py --dry_run',
  'python sample.py --kind=NAME': 'python sample.py --workdir=runs/vae --kind=traverse',
  'python sample.py --num=1000 --out=x.npz': (
    'python sample.py --workdir=runs/gan --num=1000 --out=x.npz'
  ),
  'python sample.py --lane=3': 'python sample.py --workdir=runs/gan --lane=3',
  'python sample.py --kind=explain': 'python sample.py --workdir=runs/cnn --kind=explain',
  'python sample.py --label=3': 'python sample.py --workdir=runs/cgan --label=3',
  (
    'python train.py --config=… --config.data.columns=sex '
    '--config.evaluators.test.metrics.groups.by=label,sex'
  ): (
    'python train.py --config=configs/mlp.py --config.data.columns=sex '
    '--config.evaluators.test.metrics.groups.by=label,sex'
  ),
  'python train.py --config=configs/NAME.py': 'python train.py --config=configs/vae.py',
  'python train.py --config=configs/NAME.py[:fashion_mnist]': (
    'python train.py --config=configs/cnn.py:fashion_mnist'
  ),
  'python sample.py --workdir=RUN --OPTION=VALUE': 'python sample.py --workdir=runs/cgan --label=3',
  'python predict.py --workdir=RUN --OPTION=VALUE': 'python predict.py --workdir=runs/cnn --top=3',
  'python train.py --workdir=…': 'python train.py --workdir=runs/gan',
  'python -m benchmarks.fuzz_runs --cases=N --seed=S': (
    'python -m benchmarks.fuzz_runs --cases=5 --seed=1'
  ),
  'python -m benchmarks.startup --repeats=3 [--config=configs/dcgan.py --repeats=1]': (
    'python -m benchmarks.startup --repeats=3 --config=configs/dcgan.py'
  ),
}
# Mistakes that a page could show.
WRONG = {
  'python train.py --config=configs/gan.py --dry_rum': 'there is no flag --dry_rum',
  'python train.py --config=configs/gan.py --join_timeout=x': 'must be a number',
  'python -m tools.launch --proceses=2 -- train.py': 'there is no flag --proceses',
  'python train.py --config=configs/gna.py': 'there is no config --config=configs/gna.py',
  'python train.py --config=configs/gan.py --config.train.step=3': 'config.train.step',
  'python train.py --config=configs/gan.py --config.train.steps=0': 'must be at least 1',
  'python train.py --config=configs/gpt2.py:125m': '125m',
  'python train.py config=configs/gan.py': 'unexpected argument "config=configs/gan.py"',
  'python sample.py --workdir=runs/gan --nmu=64': 'there is no flag --nmu',
  'python sample.py --workdir=runs/gan --temperature=0.8': 'there is no flag --temperature',
  'python evaluate.py --workdir=runs/vae --config.evaluators.likelihod.samples=5': 'likelihod',
  'python evaluate.py --workdir=runs/nothing': 'is no run',
  'python -m tools.runs runs --plott=test/loss': 'there is no flag --plott',
  'python -m tools.run runs': 'No module named tools.run',
  'python -m benchmarks.versions --befor=/tmp/before --cases=mlp_32 --rownds=3': '--rownds',
  'python nothing.py': 'nothing.py',
}
COMMANDS = documented_commands.collect()


def concrete(command):
  return FILLED.get(command, command)


@pytest.fixture(scope='module')
def found(tmp_path_factory):
  """What is wrong with each command, and with those of `WRONG`; all are parsed by one process."""
  parsed = {concrete(c) for c in COMMANDS if c not in NOT_CHECKED and c.startswith('python ')}
  done = subprocess.run(
    [sys.executable, '-m', 'tests.documented_commands', tmp_path_factory.mktemp('commands')],
    input=json.dumps(sorted({*parsed, *WRONG})),
    cwd=ROOT,
    env=environment(),
    capture_output=True,
    text=True,
    timeout=240,
  )
  assert done.returncode == 0, done.stderr
  return json.loads(done.stdout)


@pytest.mark.parametrize(
  'command', [c for c in COMMANDS if c not in NOT_CHECKED and c.split()[0] not in SCHEDULERS]
)
def test_a_command_is_right(command, found):
  if command.startswith('make '):
    made = subprocess.run(
      ['make', '-n', *command.split()[1:]], cwd=ROOT, capture_output=True, text=True
    )
    assert made.returncode == 0, f'{COMMANDS[command]}: {made.stderr}'
  else:
    assert command.startswith('python '), f'{COMMANDS[command]}: neither checked nor listed'
    assert found[concrete(command)] == '', f'{COMMANDS[command]}: {found[concrete(command)]}'


@pytest.mark.parametrize('command', WRONG)
def test_a_mistyped_command_is_noticed(command, found):
  assert WRONG[command] in found[command]


def test_the_lists_hold_nothing_old():
  assert {*NOT_CHECKED, *FILLED} <= {*COMMANDS}
  assert all(NOT_CHECKED.values())


def test_commands_are_found_wherever_they_stand():
  page = (
    'Then `python a.py --x=1\n--y`, `make b C=d`, `train.py --z > out.py`, `gan.py`, `train.py`.\n'
    "```sh\nmake one && . two   # three\npython four.py --five='a b' \\\n  --six | seven\nls\n```\n"
    "   ```sh\n   python indented.py --a='b|c'\n   ```\n```python\npython = 3\n```\n"
    'and `python last.py`'
  )
  assert documented_commands.of_page(page) == [
    'make one', '. two', "python four.py --five='a b' --six", 'seven', 'ls',
    "python indented.py --a='b|c'",
    'python a.py --x=1 --y', 'make b C=d', 'python train.py --z', 'python last.py',
  ]  # fmt: skip
  by_others = 'sky x --c="python train.py --a=1"\npython -m tools.launch -- evaluate.py --b'
  assert documented_commands.of_page(f'```sh\nA=1 {by_others}\n```') == [
    'A=1 sky x --c="python train.py --a=1"', 'python train.py --a=1',
    'python -m tools.launch -- evaluate.py --b', 'python evaluate.py --b',
  ]  # fmt: skip
  docstring = (
    '"""Does it: python -m x --y\n\n  python z.py  # so\n  python\n  make w \\\n    V=1\n"""'
  )
  assert documented_commands.of_docstring(docstring.replace('\\', '\\\\')) == [
    'python -m x --y', 'python z.py', 'make w V=1',
  ]  # fmt: skip


def test_there_are_many():
  assert len(COMMANDS) > 80
  pages = {page for places in COMMANDS.values() for page in places}
  assert {'README.md', 'CONTRIBUTING.md', 'docs/results.md', 'configs/gpt.py', 'sample.py'} <= pages
