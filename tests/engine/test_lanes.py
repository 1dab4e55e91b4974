"""Lanes are the ordinary runs of their folds, skip what they hold out, and resume to the bit."""

import itertools
import signal

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from commands import cli
from data.selection import Fold
from data.spec import Spec
from engine import lanes
from engine.program import make_program
from engine.session import open_feed, open_session, open_training
from engine.state import State
from errors import UserError
from tests.conftest import ROOT


def small_mlp(folds: int, steps: int = 12):
  config = cli.load(f'{ROOT}/configs/mlp.py')
  config.modules.model.widths = (8,)
  config.optimizer.model.schedule.name = 'constant'
  config.data.split = 'train[:200]'
  config.data.update(batch_size=16, folds=folds)
  config.train.update(epochs=0.0, steps=steps, log_every=5, seed=3)
  return config


def all_on():
  """A model in three folds, with all on that could differ: noise, statistics, averages."""
  config = small_mlp(3)
  config.modules.model.normalise = True
  config.ema = dict(model=0.9)
  config.data.augment.flip = True
  return config


def open_folds(config) -> lanes.Lanes:
  session = open_session(config)
  return lanes.open_lanes(session, open_training(session.data._replace(folds=0)))


def bits(state: State) -> dict[str, bytes]:
  state = state.replace(key=jax.random.key_data(state.key))
  flat = jax.tree_util.tree_leaves_with_path(state)
  return {jax.tree_util.keystr(path): np.asarray(leaf).tobytes() for path, leaf in flat}


@pytest.fixture(scope='module')
def ordinary() -> list[tuple[State, np.ndarray]]:
  """State and metrics [12, M] of the run of each of three folds, by train.py's own program.

  It is compiled once: the runs of all folds are the same program on other data.
  """
  session = open_session(all_on())
  program = make_program(session, open_feed(session, 0))
  runs = []
  for fold in range(3):
    of_fold = session._replace(data=session.data._replace(fold=fold))
    _, taken = open_feed(of_fold, 0).take(0, 12)
    ok, steps = (jax.device_put(value, session.everywhere) for value in (True, np.int32(12)))
    state, _, rows = program.dispatch(session.init(), ok, taken, steps)
    runs.append((state, np.asarray(rows)[:12]))
  return runs


@pytest.mark.parametrize('backend', ['cpu', 'gpu'])
def test_lanes_are_the_ordinary_runs_of_their_folds(ordinary, backend, monkeypatch):
  """200 examples in 3 folds leave 133 to train on, so 12 batches of 16 cross the end of an epoch.

  Lanes in turn, as on a CPU, and all at once, as elsewhere.
  """
  of_folds = open_folds(all_on())
  start = lanes.stack(of_folds, of_folds.session.init())
  feed = lanes.LaneFeed(of_folds)
  monkeypatch.setattr(jax, 'default_backend', lambda: backend)
  program = lanes.make_program(of_folds, feed)
  _, taken = feed.take(0, 12)
  state, rows = program.dispatch(start, taken, jnp.int32(12))
  for fold, (wanted, metrics) in enumerate(ordinary):
    found = lanes.lane(state, fold)
    np.testing.assert_allclose(np.asarray(rows)[fold, :12], metrics, rtol=1e-4, atol=1e-5)
    assert found.step == wanted.step
    assert (jax.random.key_data(found.key) == jax.random.key_data(wanted.key)).all()
    for name in ('params', 'mutable', 'opt_state', 'ema'):
      jax.tree.map(
        lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5),
        getattr(found, name),
        getattr(wanted, name),
      )
  # Other folds are other models: what agrees above does not agree by itself.
  first, second = (state.params['model']['output']['kernel'][fold] for fold in (0, 1))
  assert np.abs(first - second).max() > 1e-2


def test_stopped_by_a_signal_and_resumed_to_the_bit(tmp_path, monkeypatch, capsys):
  make, made = lanes.make_program, []

  def made_once(*arguments):
    """The three trainings below are the same program, and compiling is most of their time."""
    made.append(made[0] if made else make(*arguments))
    return made[-1]

  monkeypatch.setattr(lanes, 'make_program', made_once)
  (tmp_path / 'whole').mkdir()
  (tmp_path / 'cut').mkdir()
  whole, step = lanes.train(open_folds(small_mlp(3, steps=20)), str(tmp_path / 'whole'))
  assert step == 20
  progress, sent = lanes.Report.progress, []

  def interrupted(self, step, *more):
    progress(self, step, *more)
    if step >= 6 and not sent:
      sent.append(step)
      signal.raise_signal(signal.SIGTERM)

  with monkeypatch.context() as patch:
    patch.setattr(lanes.Report, 'progress', interrupted)
    with pytest.raises(SystemExit) as left:
      lanes.train(open_folds(small_mlp(3, steps=20)), str(tmp_path / 'cut'))
  assert left.value.code == 128 + signal.SIGTERM
  assert 'run the same command to go on' in capsys.readouterr().out
  resumed, step = lanes.train(open_folds(small_mlp(3, steps=20)), str(tmp_path / 'cut'))
  assert step == 20 and 'resumed  from step' in capsys.readouterr().out
  assert bits(resumed) == bits(whole)
  assert len(made) == 3


# --- what each lane sees


class Numbers:
  """`n` examples, each with its own number as its input and, unless told otherwise, label 0."""

  stamp = 'numbers'

  def __init__(self, n: int, inputs=None, identity: str = 'numbers'):
    features = {'inputs': ((1,), 'float32'), 'label': ((), 'int32')}
    self.spec = Spec('numbers', 'train', n, features, 2, f'{identity}-{n}')
    self._inputs = np.arange(n, dtype=np.float32) if inputs is None else inputs

  def __len__(self):
    return self.spec.n

  def read(self, indices):
    chosen = np.asarray(indices)
    return {'inputs': self._inputs[chosen, None], 'label': np.zeros(len(chosen), np.int32)}


def of_numbers(numbers: Numbers, folds: int, batch_size: int) -> lanes.Lanes:
  config = small_mlp(folds)
  config.objective.input = 'inputs'
  config.data.batch_size = batch_size
  session = open_session(config, Fold(numbers, 0, folds, held_out=False).spec)
  return lanes.open_lanes(session, numbers)


# n, folds, the parts held out, and how many examples are trained on: the bounds are written out.
CUTS = [
  (12, 3, [(0, 4), (4, 8), (8, 12)], 8),
  (11, 3, [(0, 3), (3, 7), (7, 11)], 7),
  (5, 5, [(0, 1), (1, 2), (2, 3), (3, 4), (4, 5)], 4),
]


@pytest.mark.parametrize('n, folds, held_out, size', CUTS)
def test_a_lane_sees_all_but_its_own_fold(n, folds, held_out, size):
  of_folds = of_numbers(Numbers(n), folds, batch_size=size)
  assert of_folds.bounds.tolist() == [[start, stop - start] for start, stop in held_out]
  feed = lanes.LaneFeed(of_folds)
  _, taken = feed.take(0, 2)  # two epochs: a batch is as large as a training set
  batch = jax.jit(jax.vmap(feed.batch, (None, None, 0)))
  epochs = [batch(taken, i, jnp.asarray(of_folds.bounds)) for i in range(2)]
  for fold, (start, stop) in enumerate(held_out):
    training = [example for example in range(n) if not start <= example < stop][:size]
    for seen in epochs:
      examples = np.asarray(seen['inputs'])[fold, :, 0]
      assert sorted(examples) == training
      # `index` is counted within the training set, as an ordinary run of the fold counts.
      assert [training[place] for place in np.asarray(seen['index'])[fold]] == examples.tolist()


@pytest.mark.parametrize('n, folds, held_out, size', CUTS)
def test_every_example_is_held_out_once(n, folds, held_out, size):
  parts = [Fold(Numbers(n), fold, folds, held_out=True) for fold in range(folds)]
  numbers = [part.read(range(len(part)))['inputs'][:, 0].tolist() for part in parts]
  assert numbers == [list(range(start, stop)) for start, stop in held_out]
  assert [*itertools.chain(*numbers)] == [*range(n)]


def test_a_fold_that_is_not_finite_is_named(tmp_path):
  """The bad example is in fold 0 of two, so that fold 1 alone is trained on it."""
  inputs = np.ones(8, np.float32)
  inputs[2] = np.inf
  of_folds = of_numbers(Numbers(8, inputs, 'infinite'), 2, batch_size=4)
  with pytest.raises(UserError, match=r'stopped at step 1: in fold 1 of 2 .*model/loss is nan'):
    lanes.train(of_folds, str(tmp_path))
  assert not list((tmp_path).glob('checkpoints/*'))


def test_which_folds_fit_together():
  of_folds = open_folds(small_mlp(3))
  session, source = of_folds.session, of_folds.source
  assert lanes.fit_together(session, source)
  assert not lanes.fit_together(session._replace(train=session.train._replace(patience=2)), source)
  # 200 × 28 × 28 bytes are more than 0 MiB.
  streamed = session._replace(data=session.data._replace(resident_mb=0))
  assert not lanes.fit_together(streamed, source)
