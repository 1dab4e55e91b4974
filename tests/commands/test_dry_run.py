"""What train.py says without training: the config as a file, and what the run would need."""

import json
import math

import numpy as np
import pytest

from commands import cli, print_config
from commands.config_flags import complete_init_from
from engine.build import to_plain
from engine.feeds import open_feed
from engine.planning.estimate import WORK, make_plan
from engine.program import trace_step
from engine.session import open_session
from tests import runs
from tests.conftest import ROOT
from tests.golden import tiny


def read_back(text, path):
  path.write_text(text)
  return cli.load(str(path))


@pytest.mark.parametrize('name', tiny.CONFIGS)
def test_every_config_is_read_back_as_it_was(name, tmp_path):
  config = cli.load(f'{ROOT}/configs/{name}.py')
  again = read_back(print_config.config_file(config), tmp_path / 'again.py')
  assert again == config and to_plain(again) == to_plain(config)
  assert json.dumps(to_plain(again)) == json.dumps(to_plain(config))


def test_what_a_user_may_write_is_read_back(tmp_path):
  config = cli.load(f'{ROOT}/configs/mlp.py')
  with config.unlocked():
    config.modules.model.name = 'it\'s "quoted" \\ ü\n'
    config.optimizer.model.clip = math.inf
    config.data.text = {'tokenizer': None, 'a-b': (1, (2.5, 'x'), ())}
  again = read_back(print_config.config_file(config), tmp_path / 'again.py')
  assert to_plain(again) == to_plain(config)


@pytest.mark.slow
def test_a_printed_config_holds_the_flags_and_trains_the_same(script, tmp_path):
  replaced = ('--config.optimizer.model.name=sgd', '--config.optimizer.model.momentum=0.5')
  flags = (*runs.SMALL_MLP, *replaced, '--config.train.steps=3')
  done = script('train.py', *flags, '--print_config')
  assert done.returncode == 0, done.stderr
  printed = tmp_path / 'printed.py'
  again = read_back(done.stdout, printed)
  assert (again.train.steps, again.optimizer.model.name) == (3, 'sgd')
  assert again.optimizer.model.momentum == 0.5 and again.init_from.model.run == ''
  runs.train(*flags, f'--workdir={tmp_path}/flags')
  runs.train(f'--config={printed}', f'--workdir={tmp_path}/printed')
  stored = json.loads((tmp_path / 'flags/config.json').read_text())
  assert json.loads(json.dumps(to_plain(again))) == stored
  runs.assert_same_bits(tmp_path / 'flags', tmp_path / 'printed')


def compiled(accumulate=1, seeds=1):
  config = runs.small(cli.load(f'{ROOT}/configs/mlp.py'))
  config.train.accumulate, config.seeds = accumulate, seeds
  complete_init_from(config)
  session = open_session(config)
  feed = open_feed(session, 0)
  try:
    return make_plan(session, feed, trace_step(session))
  finally:
    feed.close()


def test_memory_and_operations_are_those_of_the_program():
  program = compiled()
  weights = 784 * 16 + 16 * 10
  parameters = weights + 16 + 10
  assert program.memory['parameters'] == 4 * parameters
  # Adam has two numbers for each, and a counter.
  assert 0 <= program.memory['optimizer state'] - 8 * parameters <= 16
  # The split's images and labels, its seed and where it starts.
  assert program.memory['data'] == 4000 * (784 + 4) + 4 + 8
  # The forward pass, and backward to the kernels and to the hidden layer.
  assert program.flops == 2 * 32 * (2 * weights + 16 * 10)
  # The gradients at least; the images of a batch as floats.
  assert program.memory[WORK] > 4 * 32 * 784
  assert program.peak == sum(program.memory.values())


def test_microbatches_need_the_same_operations_and_lanes_need_their_own():
  one = compiled()
  assert compiled(accumulate=4).flops == one.flops
  lanes = compiled(seeds=3)
  assert lanes.flops == 3 * one.flops
  assert lanes.memory['parameters'] == 3 * one.memory['parameters']


def value_of(line, printed):
  (found,) = [words for words in printed.splitlines() if words.strip().startswith(line)]
  return float(found.split()[-2])


def test_a_dry_run_shows_everything_and_writes_nothing(script, tmp_path):
  workdir = tmp_path / 'run'
  rules = '(("hidden_0/kernel$", ("fsdp",)),)'
  flags = (*runs.SMALL_DCGAN, f'--workdir={workdir}', '--config.train.accumulate=2', '--dry_run')
  one = script('train.py', *flags)
  split = script(
    'train.py', '--config=configs/mlp.py', '--config.data.batch_size=64', f'--workdir={workdir}',
    '--config.modules.model.widths=1024', '--config.seeds=2', '--config.mesh.lane=2',
    '--config.mesh.data=1', '--config.mesh.fsdp=4', '--config.train.epochs=3',
    f'--config.sharding={rules}', '--dry_run', devices=8,
  )  # fmt: skip
  assert (one.returncode, split.returncode) == (0, 0), one.stderr + split.stderr
  assert not workdir.exists()
  assert '--config.modules.generator.widths=(8, 4)\n' in one.stdout
  assert 'length   2,000 steps of 16 examples, 8 epochs' in one.stdout
  assert 'down_1' in one.stdout and 'kernel 4 × 4 × 4 × 8' in one.stdout
  assert 'length   188 steps of 64 examples in each of 2 lanes, 3.008 epochs' in split.stdout
  # A lane a device of the axis `lane`, and a quarter of its large kernel.
  held = (784 * 1024 / 4 + 1024 + 1024 * 10 + 10) * 4 / 2**20
  assert abs(value_of('parameters  ', split.stdout) - held) < 0.01
  assert value_of('peak', split.stdout) > 3 * held + 3


def test_a_dry_run_is_refused_what_training_is(script, tmp_path):
  workdir = tmp_path / 'run'
  runs.train(*runs.SMALL_MLP, '--config.train.steps=2', f'--workdir={workdir}')
  before = {path: path.stat().st_mtime_ns for path in workdir.rglob('*')}
  longer = script('train.py', f'--workdir={workdir}', '--config.train.steps=4', '--dry_run')
  assert longer.returncode == 0 and 'changed  train.steps: 2 → 4' in longer.stdout, longer.stderr
  other = script('train.py', f'--workdir={workdir}', '--config.train.seed=4', '--dry_run')
  assert other.returncode == 2 and 'train.seed: 0 → 4' in other.stderr
  typo = script('train.py', *runs.SMALL_MLP, '--config.checkpoint.best=tset/accuracy', '--dry_run')
  assert typo.returncode == 2 and 'did you mean "test"' in typo.stderr
  both = script('train.py', *runs.SMALL_MLP, '--print_config', '--dry_run')
  assert both.returncode == 2 and 'leave out --print_config' in both.stderr
  assert {path: path.stat().st_mtime_ns for path in workdir.rglob('*')} == before
  assert np.isfinite(value_of('peak', longer.stdout))
