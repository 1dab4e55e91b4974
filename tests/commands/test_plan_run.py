"""plan.py as a person meets it: the plan of a run, searches among meshes, and refusals."""

import importlib.util
import re
import time

import pytest

from commands import cli, plan_report, plan_run
from commands.config_flags import complete_init_from
from errors import UserError
from tests.conftest import ROOT

RULES = '(("kernel$", (None, "fsdp")),)'
MLP = (
  'plan.py', '--config=configs/mlp.py', '--config.modules.model.widths=512,256',
  '--config.data.batch_size=64', '--config.train.epochs=3',
)  # fmt: skip
# 512 × 256 and 784 × 512 divide by 8, and the logits' 10 by nothing but 2.
SPLIT = (*MLP, '--config.sharding=(("hidden_[01]/kernel$", (None, "fsdp")),)')


def number(pattern, text):
  return float(re.search(pattern, text)[1].replace(',', ''))


def test_a_plan_says_everything(script):
  done = script(
    *SPLIT, '--mesh=data:2,fsdp:4', '--device=h100', '--money', '--price=3.6', '--electricity=0',
    '--mfu=0.0001', TFDS_DATA_DIR='',
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
  said = done.stdout
  assert '8 × h100, mesh lane 1 × data 2 × fsdp 4 × tensor 1' in said
  assert 'estimates' in said and 'libtpu' not in said
  split, whole = 784 * 512 + 512 * 256, 512 + 256 + 256 * 10 + 10
  held = 4 * (split / 4 + whole) / 2**20
  assert number(r'parameters +([\d.,]+) MiB', said) == pytest.approx(held, abs=0.01)
  assert number(r'optimizer state +([\d.,]+) MiB', said) == pytest.approx(2 * held, abs=0.01)
  assert '(an estimate)' in said and '81,920.00 MiB: the run fits' in said
  assert re.search(r'sent by a device along (data × )?fsdp', said)
  assert 'examples/s at most' in said and 'kWh at 700 W a device' in said
  # 188 steps on 8 devices, at 3.6 an hour: 8 thousandths a second.
  operations = 2 * 64 * (3 * (split + 2560) - 784 * 512)
  seconds = 188 * operations / (8 * 494e12) / 0.0001
  paid = number(r'at an MFU of 0%: .*money ([\d.,]+)', said)
  assert paid == pytest.approx(8 * seconds * 3.6 / 3600, abs=0.01)


def test_a_table_of_meshes_names_what_does_not_divide(script):
  done = script(*SPLIT, '--sweep=data:4;data:1,fsdp:4;fsdp:16;data:3', '--device=b200')
  assert done.returncode == 0, done.stderr
  rows = {
    line.split()[0]: line for line in done.stdout.splitlines() if line[:4] in ('data', 'fsdp')
  }
  assert [*rows] == ['data:4', 'fsdp:4', 'fsdp:16', 'data:3']
  assert all(' yes ' in rows[mesh] and 'examples/s' in rows[mesh] for mesh in ('data:4', 'fsdp:4'))
  peaks = [number(r' ([\d,]+) ', rows[mesh]) for mesh in ('data:4', 'fsdp:4')]
  assert peaks[0] > peaks[1]
  assert (
    'cannot be split over 3 devices' in rows['data:3']
    and 'config.data.batch_size' in rows['data:3']
  )


def test_the_smallest_mesh_that_holds_a_run(script):
  """A layer of 3 · 2³⁰ parameters: with Adam's numbers 36 GiB and gradients of 12."""
  layer = (
    'plan.py', '--config=configs/mlp.py', '--config.modules.model.widths=65536,49152',
    '--config.data.batch_size=64', '--config.sharding=(("hidden_1/kernel$", (None, "fsdp")),)',
  )  # fmt: skip
  done = script(*layer, '--fit=fsdp', '--device=l4')
  assert done.returncode == 0, done.stderr
  rows = [line for line in done.stdout.splitlines() if re.match(r'(data:1|fsdp:\d+) ', line)]
  assert 'the state of the run alone takes' in rows[0]
  assert ' yes ' in rows[-1] and not any(' yes ' in row for row in rows[:-1])
  chosen = rows[-1].split()[0]
  assert f'the smallest of them is --mesh={chosen}\n' in done.stdout
  assert 'the run fits' in done.stdout and chosen in ('fsdp:4', 'fsdp:8')


REFUSED = {
  'unknown device': (('--device=h10',), '--device=h10 is unknown (did you mean "h100"?)'),
  'no device': ((), 'give --device'),
  'no price': (('--device=h100', '--money'), '--money needs --price'),
  'price alone': (('--device=h100', '--price=2'), '--price=2.0 has no effect without --money'),
  'electricity alone': (('--device=h100', '--electricity=0.1'), 'no effect without --money'),
  'a negative price': (('--device=h100', '--money', '--price=-1'), '--price'),
  'unknown topology': (('--device=tpu-v5e', '--topology=4x4x4'), 'which has 2 sizes, such as 8x8'),
  'topology of a GPU': (('--device=h100', '--topology=4x4'), 'which has none: leave it out'),
  'disagreeing': (('--device=tpu-v5e', '--topology=4x4', '--mesh=data:8'), 'make them agree'),
  'too many': (('--device=tpu-v5e', '--mesh=data:64,fsdp:8'), 'more than a slice of tpu-v5e has'),
  'unknown axis': (('--device=h100', '--mesh=dat:8'), 'did you mean "data"'),
  'two searches': (('--device=h100', '--fit=fsdp', '--sweep=8'), 'give one of them'),
  'no axis to grow': (('--device=h100', '--fit=layers'), '--fit=layers is no axis of a mesh'),
  'nothing to fit': (('--device=cpu', '--fit=fsdp'), 'choose another --device'),
  'topology of a search': (('--device=tpu-v5e', '--topology=4x4', '--sweep=16'), 'leave it out'),
  'a batch that does not split': (('--device=h100', '--mesh=data:3'), 'cannot be split over 3'),
}


@pytest.mark.parametrize('case', REFUSED)
def test_refusals_are_one_sentence(case, script):
  flags, said = REFUSED[case]
  done = script(*MLP, *flags)
  assert done.returncode == 2 and said in done.stderr, done.stderr
  assert done.stderr.count('\n') == 1 and 'Traceback' not in done.stderr


@pytest.mark.parametrize('search', [(), ('--sweep=data:1,fsdp:16',)])
def test_a_mesh_that_does_not_divide_the_model_names_the_parameter(search, script):
  flags = search or ('--mesh=fsdp:16',)
  done = script(*MLP, f'--config.sharding={RULES}', *flags, '--device=tpu-v6e')
  assert done.returncode == 2, done.stdout
  assert 'on parameter model/output/kernel (256, 10): 10 is not divisible by the 16' in done.stderr


def test_no_mesh_holds_a_run_whose_state_is_not_split(script):
  widths = '--config.modules.model.widths=65536,49152'
  replicated = '--config.sharding=((".*", ()),)'
  done = script(*MLP[:2], widths, replicated, '--fit=data', '--device=l4')
  assert done.returncode == 2 and 'the state of the run alone takes' in done.stderr


def test_the_mesh_of_the_config_counts_without_a_flag():
  config = cli.load(f'{ROOT}/configs/mlp.py')
  complete_init_from(config)
  config.mesh.fsdp = 4
  asked = dict(device='tpu-v5e', mesh=None, fit='', sweep='', prices=plan_report.Prices())
  question = plan_run.read_question(config, topology='4x4', **asked)
  assert question.mesh == dict(lane=1, data=4, fsdp=4, tensor=1) and question.devices == 16
  assert plan_run.read_question(config, topology='', **asked).devices == 4
  most = plan_run.read_question(config, topology='', **{**asked, 'fit': 'data'})
  assert most.devices == 256 and most.fit
  with pytest.raises(UserError, match='write AXIS:SIZE'):
    plan_run.read_question(config, topology='', **{**asked, 'sweep': 'data=3'})


@pytest.mark.skipif(
  importlib.util.find_spec('libtpu') is None, reason='libtpu is not installed: pip install libtpu'
)
@pytest.mark.slow
def test_libtpu_compiles_for_tpus(script):
  done = script(*SPLIT, '--mesh=data:2,fsdp:4', '--device=tpu-v5e')
  assert done.returncode == 0, done.stderr
  assert 'compiled for these devices' in done.stdout and 'estimate' not in done.stdout
  assert re.search(r'sent by a device along fsdp', done.stdout)
  large = script(*MLP, '--config.modules.model.widths=65536,49152', '--device=tpu-v5e')
  assert large.returncode == 2 and 'does not fit 1 × tpu-v5e: it needs' in large.stderr


@pytest.mark.slow
def test_gpt2_xl_on_256_chips_in_three_minutes(script):
  start = time.monotonic()
  done = script(
    'plan.py', '--config=configs/gpt2.py:1558m', '--config.data.batch_size=512',
    '--config.train.accumulate=1', '--mesh=data:16,fsdp:16', '--device=tpu-v5e',
    f'--config.sharding=(("embedding$", ("fsdp",)), {RULES[1:]}', timeout=400,
  )  # fmt: skip
  assert done.returncode == 0, done.stderr
  assert time.monotonic() - start < 180
  assert '256 × tpu-v5e in the topology 16x16' in done.stdout and 'the run fits' in done.stdout
  assert '1,556,840,000' in done.stdout and 'tokens/s at most' in done.stdout
