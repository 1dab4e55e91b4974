"""Every config builds and takes one step; every key of it is read; typos are named."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from commands.config_flags import complete_init_from
from configs import finetune
from data.transforms import prepare
from engine import run, session
from engine.build import call, to_plain
from engine.checkpoint import Checkpoints
from engine.declarations import check_config
from engine.evaluation import open_evaluators
from engine.objective import build_objective
from engine.sharding import make_mesh
from engine.train_options import train_options
from errors import UserError
from tests.golden.tiny import (
  CONFIGS,
  ROOT,
  TEXT,
  batch_of,
  config_for,
  config_of,
  five_steps,
  marked_cases,
  spec,
  spec_of_text,
  tokenizer,
)


@pytest.mark.parametrize(('name', 'data'), marked_cases())
def test_one_step_moves_every_player(name, data):
  """Of the five that tests/test_golden.py compares."""
  outcome = five_steps(name, data)
  for player, moves in outcome.players.items():
    assert np.isfinite(outcome.metrics[f'{player}/loss']).all()
    assert outcome.moved >= {*moves}
  images = outcome.sample
  if images is None:
    return
  if name in TEXT:
    assert images.shape[0] == 3 and images.dtype == jnp.int32
    return
  assert images.shape == (3, *outcome.description.features['image'][0])
  assert images.min() >= 0 and images.max() <= 1


@pytest.mark.parametrize('name', CONFIGS)
def test_the_engine_sections_are_complete(name, tmp_path):
  config = config_for(name)
  train_options(config), session.data_options(config)
  Checkpoints(str(tmp_path), **to_plain(config.checkpoint))
  make_mesh(**to_plain(config.mesh))


@pytest.mark.parametrize('name', CONFIGS)
def test_a_variant_says_what_it_is(name):
  text = (ROOT / 'configs' / f'{name}.py').read_text()
  assert f'python train.py --config=configs/{name}.py' in text.split('"""')[1]


@pytest.mark.parametrize(
  'path',
  ['objective.los', 'modules.generator.width', 'optimizer.generator.beta1', 'data.batchsize',
   'train.step', 'evaluators.samples.sample', 'evaluators.test.metric', 'ema.generator.decays',
   'checkpoint.evry', 'mesh.dat', 'init_from.generator.rule', 'train.gradient.clip'],
)  # fmt: skip
def test_an_unknown_key_fails_wherever_it_is(path, tmp_path):
  config = config_of('gan')
  complete_init_from(config)
  node = config
  *parents, key = path.split('.')
  for part in parents:
    node = node[part]
  with config.unlocked():
    node[key] = 1
  with pytest.raises(UserError, match=key):
    opened = session.open_session(config, spec('mnist5k'))
    open_evaluators(opened)
    call(Checkpoints, to_plain(config.checkpoint), 'config.checkpoint', str(tmp_path))


def test_an_unknown_section_fails():
  config = config_of('gan')
  with config.unlocked():
    config.optimiser = {}
  with pytest.raises(UserError, match='did you mean "optimizer"'):
    check_config(config)


def test_unknown_names_list_what_there_is():
  config = config_of('gan')
  config.modules.generator.name = 'mlp.Generatr'
  with pytest.raises(UserError, match=r'did you mean "mlp\.Generator"'):
    build_objective(config, spec('mnist5k'), 'float32')
  config = config_of('gan')
  config.objective.loss = 'hing'
  with pytest.raises(UserError, match='did you mean "hinge"'):
    build_objective(config, spec('mnist5k'), 'float32')


LOSSES = ('minimax', 'least_squares', 'hinge', 'wasserstein', 'relativistic')


@pytest.mark.parametrize('loss', LOSSES)
def test_any_loss_with_any_penalty(loss):
  config, description = config_of('gan'), spec('mnist5k')
  config.objective.loss = loss
  config.objective.n_critic = 2
  config.objective.penalty_every = 1
  config.objective.penalties = dict(r1=0.1, r2=0.2, gradient_penalty=10.0, dragan=1.0)
  config.optimizer.discriminator.clip_weights = 0.01
  for module in config.modules.values():
    module.widths = (8,)
  config.ema = {}
  opened = session.open_session(config, description)
  state = opened.make_state(0)
  batch = prepare(batch_of(description, 8), state.key, to_plain(config.data.augment))
  after, metrics = jax.jit(opened.train_step())(state, batch)
  assert {f'discriminator/{name}' for name in config.objective.penalties} <= metrics.keys()
  assert all(np.isfinite(mean.value) and mean.weight > 0 for mean in metrics.values())
  largest = max(float(jnp.abs(w).max()) for w in jax.tree.leaves(after.params['discriminator']))
  assert largest <= 0.0101


def test_bfloat16_computes_in_bfloat16_and_keeps_float32_parameters():
  config, description = config_of('dcgan'), spec('mnist5k')
  config.train.precision = 'bfloat16'
  opened = session.open_session(config, description)
  assert opened.objective.modules['generator'].dtype == jnp.bfloat16
  state = opened.lane_abstract
  dtypes = {leaf.dtype for leaf in jax.tree.leaves(state.params)}
  assert dtypes == {jnp.dtype('float32')}
  batch = jax.eval_shape(
    lambda: prepare(batch_of(description, 4), jax.random.key(0), to_plain(config.data.augment))
  )
  step = opened.train_step()
  text = str(jax.make_jaxpr(step)(state, batch))
  assert 'bf16' in text


def test_config_of_a_run_survives_json(tmp_path):
  config = config_of('gan')
  assert run.claim(str(tmp_path), config, spec('mnist5k')) == []
  assert run.claim(str(tmp_path), config, spec('mnist5k')) == []
  config.train.steps += 1
  assert run.claim(str(tmp_path), config, spec('mnist5k')) == [
    f'train.steps: {config.train.steps - 1} → {config.train.steps}'
  ]
  config.objective.loss = 'hinge'
  config.train.seed = 3
  with pytest.raises(UserError, match=r'objective.loss: non_saturating → hinge; train.seed: 0 → 3'):
    run.claim(str(tmp_path), config, spec('mnist5k'))


def test_a_run_keeps_its_tokenizer(tmp_path):
  config = config_for('gpt')
  description = spec_of_text(config)
  assert run.claim(str(tmp_path), config, description) == []
  assert run.claim(str(tmp_path), config, description) == []
  assert run.read_tokenizer(str(tmp_path)) == description.tokenizer
  assert 'tokenizer.json' not in (tmp_path / 'run.json').read_text()
  other = description._replace(tokenizer=tokenizer(('end', 'pad')))
  with pytest.raises(UserError, match='holds a run with another tokenizer than text makes now'):
    run.claim(str(tmp_path), config, other)


@pytest.mark.parametrize(
  ('text', 'part'),
  [('[]', 'is no config of a run'), ('{"data": {}}', 'is no config'), ('{', 'is damaged')],
)
def test_a_run_to_start_from_whose_config_is_none_is_named(text, part, tmp_path):
  (tmp_path / 'config.json').write_text(text)
  with pytest.raises(UserError, match=f'^{tmp_path}/config.json {part}.*give another run'):
    finetune.get_config(str(tmp_path))
