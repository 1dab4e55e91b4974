"""Lanes are the runs of their seeds or folds, stop one by one, and resume to the bit."""

import itertools
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from commands import cli
from data.resident import Resident
from data.section import ALL_FOLDS
from data.selection import Fold
from data.spec import Spec
from engine import lanes, loop, program, report
from engine.checkpoint import Checkpoints
from engine.feeds import open_feed
from engine.program import make_program
from engine.restore import restore_run
from engine.session import open_session
from engine.state import State
from errors import UserError
from tests import runs
from tests.conftest import ROOT

STEPS = 12


def small_mlp(steps: int = STEPS):
  config = cli.load(f'{ROOT}/configs/mlp.py')
  config.modules.model.widths = (8,)
  config.optimizer.model.schedule.name = 'constant'
  config.data.split, config.data.test_split = 'train[:200]', 'test[:40]'
  config.data.batch_size = 16
  config.train.update(epochs=0.0, steps=steps, log_every=5, seed=3)
  config.evaluators.test.update(every=1000, metrics={})
  return config


def all_on(**changes):
  """A model with all on that could differ between lanes: noise, statistics, averages."""
  config = small_mlp()
  config.modules.model.update(normalise=True, dropout=0.2)
  config.ema.model = dict(module='model', decay=0.9, half_life=0.0)
  config.data.augment.flip = True
  for path, value in changes.items():
    section, _, name = path.rpartition('__')
    (config[section] if section else config)[name] = value
  return config


def trained(config, active=None) -> tuple[State, np.ndarray]:
  """State and metrics [L, STEPS, M, 2] of a run, by train.py's own program."""
  session = open_session(config)
  made = make_program(session, open_feed(session, 0))
  _, taken = open_feed(session, 0).take(0, STEPS)
  active = np.ones(session.lanes.number, bool) if active is None else np.array(active)
  ok, steps, active = (
    jax.device_put(value, session.replicated) for value in (True, np.int32(STEPS), active)
  )
  state, _, rows = made.dispatch(session.init(), ok, taken, steps, active)
  return state, np.asarray(rows)[:, :STEPS]


def assert_same(found: State, expected: State, exactly: bool = False) -> None:
  assert found.step == expected.step
  assert (jax.random.key_data(found.key) == jax.random.key_data(expected.key)).all()
  tolerance = dict(rtol=0, atol=0) if exactly else dict(rtol=1e-4, atol=1e-5)
  for name in ('params', 'mutable', 'opt_state', 'ema'):
    jax.tree.map(
      lambda a, b: np.testing.assert_allclose(a, b, **tolerance),
      getattr(found, name),
      getattr(expected, name),
    )


def lane(state: State, number: int) -> State:
  held = jax.tree.map(lambda leaf: leaf[number], state.replace(step=None))
  return held.replace(step=state.step)


SEEDS = dict(seeds=3)
FOLDS = dict(data__folds=3, data__fold=ALL_FOLDS)
ALONE = {
  'seeds': [dict(train__seed=3 + i) for i in range(3)],
  'folds': [dict(data__folds=3, data__fold=i) for i in range(3)],
}


@pytest.fixture(scope='module')
def alone():
  """The runs of three seeds, and of three folds: 200 examples leave 133 to train on."""
  return {kind: [trained(all_on(**each)) for each in changes] for kind, changes in ALONE.items()}


@pytest.mark.parametrize('backend', ['cpu', 'gpu'])
@pytest.mark.parametrize(('kind', 'changes'), [('seeds', SEEDS), ('folds', FOLDS)])
def test_lanes_are_the_runs_of_their_seeds_and_folds(alone, kind, changes, backend, monkeypatch):
  """Lanes in turn, as on a CPU, and all at once, as elsewhere."""
  monkeypatch.setattr(program.jax, 'default_backend', lambda: backend)
  state, rows = trained(all_on(**changes))
  monkeypatch.undo()
  for number, (expected, metrics) in enumerate(alone[kind]):
    # All but the accuracy, which comes first by name and jumps where two logits are about equal.
    np.testing.assert_allclose(rows[number][:, 1:], metrics[0][:, 1:], rtol=1e-4, atol=1e-5)
    assert_same(lane(state, number), expected)
  # Other lanes are other models: what agrees above does not agree by itself.
  first, second = (state.params['model']['output']['kernel'][i] for i in (0, 1))
  assert np.abs(first - second).max() > 1e-2


def test_one_seed_has_no_axis_of_lanes(alone):
  state, _ = trained(all_on(seeds=1))
  assert state.params['model']['output']['kernel'].ndim == 2
  assert_same(state, alone['seeds'][0][0], exactly=True)


@pytest.mark.parametrize('backend', ['cpu', 'gpu'])
def test_a_lane_that_has_ended_stays_as_it_was(backend, monkeypatch):
  monkeypatch.setattr(program.jax, 'default_backend', lambda: backend)
  state, rows = trained(all_on(**SEEDS), active=[True, False, True])
  monkeypatch.undo()
  start = open_session(all_on(**SEEDS)).init()
  ended, fresh = lane(state, 1), lane(start, 1)
  assert_same(ended.replace(step=fresh.step), fresh, exactly=True)
  assert (rows[1, :, :, 1] == 0).all() and (rows[0, :, :, 1] == 1).all()
  moved = lane(state, 0).params['model']['output']['kernel']
  assert (moved != lane(start, 0).params['model']['output']['kernel']).any()


@pytest.mark.slow
def test_eight_devices_share_the_lanes_and_equal_one(tmp_path, script):
  """Four seeds on a mesh of two devices for lanes and four for data."""
  flags = (
    '--config=configs/mlp.py', '--config.modules.model.widths=8', '--config.data.batch_size=16',
    '--config.train.epochs=0', '--config.train.steps=6', '--config.seeds=4',
    '--config.data.split=train[:64]', '--config.data.test_split=test[:32]',
  )  # fmt: skip
  for devices, mesh in ((8, ('--config.mesh.lane=2',)), (1, ())):
    done = script('train.py', *flags, *mesh, f'--workdir={tmp_path}/{devices}', devices=devices)
    assert done.returncode == 0, done.stderr
  assert 'mesh lane 2 × data 4' in runs_devices(tmp_path / '8')
  first, second = runs.leaves(tmp_path / '8'), runs.leaves(tmp_path / '1')
  for name in first:
    if first[name].dtype.kind == 'f':
      np.testing.assert_allclose(first[name], second[name], atol=2e-4, err_msg=name)


def runs_devices(workdir) -> str:
  """The mesh that a run's config asks for, in the words of the first line."""
  from engine import run

  mesh = run.read_config(str(workdir))['mesh']
  return f'mesh lane {mesh["lane"]} × data {8 // mesh["lane"]}'


def test_stopped_by_a_signal_and_resumed_to_the_bit(tmp_path, monkeypatch, capsys):
  def config():
    config = all_on(**SEEDS)
    config.train.steps = 20
    return config

  loop.train(config(), str(tmp_path / 'whole'))
  progress, sent = report.Report.progress, []

  def interrupted(self, step, *more):
    progress(self, step, *more)
    if step >= 6 and not sent:
      sent.append(step)
      signal.raise_signal(signal.SIGTERM)

  with monkeypatch.context() as patch:
    patch.setattr(report.Report, 'progress', interrupted)
    with pytest.raises(SystemExit) as left:
      loop.train(config(), str(tmp_path / 'cut'))
  assert left.value.code == 128 + signal.SIGTERM
  assert 'run the same command to go on' in capsys.readouterr().out
  loop.train(config(), str(tmp_path / 'cut'))
  assert 'resumed  from step' in capsys.readouterr().out
  runs.assert_same_bits(tmp_path / 'whole', tmp_path / 'cut')
  last = runs.metrics(tmp_path / 'whole')[-1]
  values = [last[f'test/loss/seed_{seed}'] for seed in (3, 4, 5)]
  assert last['test/loss'] == pytest.approx(np.mean(values))
  assert last['test/loss/sd'] == pytest.approx(np.std(values, ddof=1))
  assert len(set(values)) == 3


def test_every_lane_stops_by_its_own_patience_and_keeps_its_best(tmp_path):
  config = all_on(**SEEDS)
  config.optimizer.model.learning_rate = 1.0
  config.train.update(steps=40, patience=2)
  config.evaluators.test.every = 2
  config.checkpoint.update(best='test/loss', best_mode='min', every=2, keep=1)
  loop.train(config, str(tmp_path))
  lines = [line for line in runs.metrics(tmp_path) if 'test/loss' in line]
  restored = restore_run(str(tmp_path), 'latest')
  section = {'every': 2, 'keep': 1, 'best': 'test/loss', 'best_mode': 'min', 'lanes': 3}
  kept = Checkpoints(str(tmp_path), **section, read_only=True)
  for number, seed in enumerate((3, 4, 5)):
    losses = [line[f'test/loss/seed_{seed}'] for line in lines]
    lowest, waited, ended = np.inf, 0, None
    for i, loss in enumerate(losses):
      waited, lowest = (0, loss) if loss < lowest else (waited + 1, lowest)
      if waited == 2 and ended is None:
        ended = i
    if ended is not None:
      # Once ended, its figures are those of the same parameters.
      assert losses[ended:] == [losses[ended]] * len(losses[ended:])
    best = int(np.argmin(losses[: (ended or len(losses)) + 1]))
    assert kept.best_step(number) == lines[best]['step']
    assert restore_run(str(tmp_path), 'best', number).step == lines[best]['step']
  assert restored.step == lines[-1]['step']


# --- what each lane sees


class Numbers:
  """`n` examples, each with its own number as its input, and label 0."""

  stamp = 'numbers'

  def __init__(self, n: int):
    features = {'inputs': ((1,), 'float32'), 'label': ((), 'int32')}
    self.spec = Spec('numbers', 'train', n, features, 2, f'numbers-{n}')

  def __len__(self):
    return self.spec.n

  def read(self, indices):
    chosen = np.asarray(indices)
    return {'inputs': np.float32(chosen)[:, None], 'label': np.zeros(len(chosen), np.int32)}


# n, folds, the parts held out, and how many examples are trained on: the bounds are written out.
CUTS = [
  (12, 3, [(0, 4), (4, 8), (8, 12)], 8),
  (11, 3, [(0, 3), (3, 7), (7, 11)], 7),
  (5, 5, [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)], 4),
]


@pytest.mark.parametrize('n, folds, held_out, size', CUTS)
def test_a_lane_sees_all_but_its_own_fold(n, folds, held_out, size):
  of_folds = lanes.lanes_of_folds(0, folds, n)
  assert of_folds.held_out.tolist() == [[start, stop - start] for start, stop in held_out]
  mesh = open_session(small_mlp()).mesh
  spec = Fold(Numbers(n), 0, folds, held_out=False).spec
  feed = Resident(Numbers(n).read(range(n)), spec, size, 0, mesh)
  _, taken = feed.take(0, 2)  # two epochs: a batch is as large as a training set
  batch = jax.jit(lambda i, own: feed.batch({**taken, **own}, i))
  for fold, (start, stop) in enumerate(held_out):
    own = {name: jnp.asarray(value[fold]) for name, value in of_folds.inputs.items()}
    training = [example for example in range(n) if not start <= example < stop][:size]
    for i in range(2):
      seen = batch(i, own)
      examples = np.asarray(seen['inputs'])[:, 0]
      assert sorted(examples) == training
      # `index` is counted within the training set, as the run of the fold alone counts.
      assert [training[place] for place in np.asarray(seen['index'])] == examples.tolist()


@pytest.mark.parametrize('n, folds, held_out, size', CUTS)
def test_every_example_is_held_out_once(n, folds, held_out, size):
  parts = [Fold(Numbers(n), fold, folds, held_out=True) for fold in range(folds)]
  numbers = [part.read(range(len(part)))['inputs'][:, 0].tolist() for part in parts]
  assert numbers == [list(range(start, stop)) for start, stop in held_out]
  assert [*itertools.chain(*numbers)] == [*range(n)]


def test_a_lane_that_is_not_finite_is_named(tmp_path, monkeypatch):
  read = loop._Trainer._read

  def spoiled(self, step, number, rows, started):
    rows = np.array(rows)
    rows[1, 0, :, 0] = np.nan
    read(self, step, number, rows, started)

  monkeypatch.setattr(loop._Trainer, '_read', spoiled)
  monkeypatch.setattr(loop.jax, 'device_get', lambda rows: rows)
  with pytest.raises(UserError, match=r'stopped at step 1 of lane 1 \(seed_4\): .* is nan'):
    loop.train(all_on(**SEEDS), str(tmp_path))


@pytest.mark.parametrize(
  ('changes', 'message'),
  [
    (dict(seeds=0), 'config.seeds=0 must be at least 1'),
    (dict(seeds=3, train__seed=2**32 - 2), 'choose a smaller seed'),
    (dict(data__fold=ALL_FOLDS), 'trains every fold as a lane: give config.data.folds'),
    (dict(data__folds=3, data__fold=ALL_FOLDS, seeds=2), 'leave config.seeds at 1'),
    (dict(seeds=2, data__resident_mb=0), 'lanes share a split that lives on the devices'),
  ],
)
def test_lanes_that_cannot_be(changes, message, tmp_path):
  with pytest.raises(UserError, match=message):
    loop.train(all_on(**changes), str(tmp_path))
