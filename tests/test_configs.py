"""Every config builds and takes one step; every key of it is read; typos are named."""

from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from data.spec import Spec
from data.transforms import prepare
from engine import cli, run, session
from engine.build import to_plain
from engine.checkpoint import Checkpoints
from engine.evaluation import Evaluate
from engine.sharding import make_mesh
from engine.step import examples_per_step, make_step
from errors import UserError

ROOT = Path(__file__).parents[1]
CONFIGS = sorted(
  p.stem for p in (ROOT / 'configs').glob('*.py') if p.stem not in ('__init__', 'defaults')
)
SHAPES = {'mnist5k': (28, 28, 1), 'cifar10': (32, 32, 3)}


def spec(data: str) -> Spec:
  features = {'image': (SHAPES[data], 'uint8'), 'label': ((), 'int32')}
  return Spec(data, 'train', 100, features, 10, 'identity')


def config_of(name: str, data: str = 'mnist5k') -> ConfigDict:
  config = cli.load(f'{ROOT}/configs/{name}.py:{data}')
  config.data.batch_size = 4
  return config


def batch_of(description: Spec, rows: int) -> dict[str, jax.Array]:
  rng = np.random.default_rng(0)
  return {
    'image': jnp.asarray(rng.integers(0, 256, (rows, *description.features['image'][0]), np.uint8)),
    'label': jnp.arange(rows, dtype=jnp.int32) % 10,
    'index': jnp.arange(rows, dtype=jnp.int32),
    'epoch': jnp.zeros(rows, jnp.uint32),
  }


@pytest.mark.parametrize('data', SHAPES)
@pytest.mark.parametrize('name', CONFIGS)
def test_one_step_moves_every_player(name, data):
  config, description = config_of(name, data), spec(data)
  session.check_sections(config)
  objective = session.build_objective(config, description)
  state = session.open_session(config, description).make_state()
  step = make_step(
    objective, session.build_optimizers(config, objective, 10), to_plain(config.ema), 1, 4
  )
  rows = examples_per_step(objective, 4)
  batch = prepare(batch_of(description, rows), state.key, to_plain(config.data.augment))
  after, metrics = jax.jit(step)(state, batch)
  for player in objective.players:
    assert np.isfinite(metrics[f'{player.name}/loss'])
    for module in player.moves:
      before, now = jax.tree.leaves(state.params[module]), jax.tree.leaves(after.params[module])
      assert any((a != b).any() for a, b in zip(before, now)), module
  images = objective.sample(
    {m: {'params': p, **after.mutable[m]} for m, p in after.params.items()}, state.key, 3
  )
  assert images.shape == (3, *SHAPES[data])
  assert float(images.min()) >= 0 and float(images.max()) <= 1


@pytest.mark.parametrize('name', CONFIGS)
def test_the_engine_sections_are_complete(name, tmp_path):
  config = config_of(name)
  session.train_options(config), session.data_options(config)
  Evaluate(**to_plain(config.evaluate))
  Checkpoints(str(tmp_path), **to_plain(config.checkpoint))
  make_mesh(**to_plain(config.mesh))


@pytest.mark.parametrize('name', CONFIGS)
def test_a_variant_says_what_it_is(name):
  text = (ROOT / 'configs' / f'{name}.py').read_text()
  assert f'python train.py --config=configs/{name}.py' in text.split('"""')[1]


@pytest.mark.parametrize(
  'path',
  ['objective.los', 'modules.generator.width', 'optimizer.generator.beta1', 'data.batchsize',
   'train.step', 'evaluate.sample', 'checkpoint.evry', 'mesh.dat'],
)  # fmt: skip
def test_an_unknown_key_fails_wherever_it_is(path, tmp_path):
  config = config_of('gan')
  node = config
  *parents, key = path.split('.')
  for part in parents:
    node = node[part]
  with config.unlocked():
    node[key] = 1
  with pytest.raises(UserError, match=key):
    session.train_options(config), session.data_options(config)
    objective = session.build_objective(config, spec('mnist5k'))
    session.build_optimizers(config, objective, 10)
    from engine.build import call

    call(Evaluate, to_plain(config.evaluate), 'config.evaluate')
    call(Checkpoints, to_plain(config.checkpoint), 'config.checkpoint', str(tmp_path))
    call(make_mesh, to_plain(config.mesh), 'config.mesh')


def test_an_unknown_section_fails():
  config = config_of('gan')
  with config.unlocked():
    config.optimiser = {}
  with pytest.raises(UserError, match='did you mean "optimizer"'):
    session.check_sections(config)


def test_unknown_names_list_what_there_is():
  config = config_of('gan')
  config.modules.generator.name = 'mlp.Generatr'
  with pytest.raises(UserError, match=r'did you mean "mlp\.Generator"'):
    session.build_objective(config, spec('mnist5k'))
  config = config_of('gan')
  config.objective.loss = 'hing'
  with pytest.raises(UserError, match='did you mean "hinge"'):
    session.build_objective(config, spec('mnist5k'))


@pytest.mark.parametrize('loss', ['minimax', 'least_squares', 'hinge', 'wasserstein'])
def test_any_loss_with_any_penalty(loss):
  config, description = config_of('gan'), spec('mnist5k')
  config.objective.loss = loss
  config.objective.n_critic = 2
  config.objective.penalties = dict(r1=0.1, r2=0.2, gradient_penalty=10.0, dragan=1.0)
  config.optimizer.discriminator.clip_weights = 0.01
  for module in config.modules.values():
    module.widths = (8,)
  objective = session.build_objective(config, description)
  state = session.open_session(config, description).make_state()
  step = make_step(objective, session.build_optimizers(config, objective, 10), {}, 1, 4)
  batch = prepare(batch_of(description, 8), state.key, to_plain(config.data.augment))
  after, metrics = jax.jit(step)(state.replace(ema={}), batch)
  assert {f'discriminator/{name}' for name in config.objective.penalties} <= metrics.keys()
  assert all(np.isfinite(value) for value in metrics.values())
  largest = max(float(jnp.abs(w).max()) for w in jax.tree.leaves(after.params['discriminator']))
  assert largest <= 0.0101


def test_bfloat16_computes_in_bfloat16_and_keeps_float32_parameters():
  config, description = config_of('dcgan'), spec('mnist5k')
  config.train.precision = 'bfloat16'
  objective = session.build_objective(config, description)
  assert objective.modules['generator'].dtype == jnp.bfloat16
  make_state = session.open_session(config, description).make_state
  state = jax.eval_shape(make_state)
  dtypes = {leaf.dtype for leaf in jax.tree.leaves(state.params)}
  assert dtypes == {jnp.dtype('float32')}
  step = make_step(
    objective, session.build_optimizers(config, objective, 10), to_plain(config.ema), 1, 4
  )
  batch = jax.eval_shape(
    lambda: prepare(batch_of(description, 4), jax.random.key(0), to_plain(config.data.augment))
  )
  text = str(jax.make_jaxpr(step)(state, batch))
  assert 'bf16' in text


def test_config_of_a_run_survives_json(tmp_path):
  config = config_of('gan')
  assert run.claim(str(tmp_path), config, spec('mnist5k').to_json()) == []
  assert run.claim(str(tmp_path), config, spec('mnist5k').to_json()) == []
  config.train.steps += 1
  assert run.claim(str(tmp_path), config, spec('mnist5k').to_json()) == [
    f'train.steps: {config.train.steps - 1} → {config.train.steps}'
  ]
  config.objective.loss = 'hinge'
  config.train.seed = 3
  with pytest.raises(UserError, match=r'objective.loss: non_saturating → hinge; train.seed: 0 → 3'):
    run.claim(str(tmp_path), config, spec('mnist5k').to_json())
