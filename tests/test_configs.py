"""Every config builds and takes one step; every key of it is read; typos are named."""

import functools
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from commands import cli
from data.spec import Spec
from data.text import tokenization
from data.transforms import prepare
from engine import run, session
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
LABEL = {'label': ((), 'int32')}
# What the data sets look like, and how many classes they have.
LOOKS = {
  'mnist5k': ({'image': ((28, 28, 1), 'uint8'), **LABEL}, 10),
  'cifar10': ({'image': ((32, 32, 3), 'uint8'), **LABEL}, 10),
  'breast_cancer': ({'inputs': ((30,), 'float32'), **LABEL}, 2),
  'diabetes': ({'inputs': ((10,), 'float32'), 'target': ((), 'float32')}, 0),
}
# The argument of a config that takes other words than the name of a set of images.
ARGUMENTS = {
  'tabular': ('breast_cancer', 'diabetes'),
  'synthetic': ('both',),
}
# Configs of text, and the argument each is built with; `finetune` wants a run and has a test of its
# own in tests/test_text_runs.py.
TEXT = {
  'gpt': 'python_stdlib',
  'gpt2': '124m',
  'gpt_shakespeare': 'tiny_shakespeare',
  'gpt_shakespeare_cpu': 'tiny_shakespeare',
  'rnn': 'python_stdlib',
  'bert': 'python_stdlib',
  'bert_tag': '',
  'bert_classify': '',
}
CONFIGS.remove('finetune')


@functools.cache
def tokenizer(specials: tuple[str, ...]) -> str:
  return tokenization.train('byte', (), 0, specials).to_json()


def spec_of_text(config: ConfigDict) -> Spec:
  """As `data.text.options.open_text` would describe it, of bytes."""
  text = config.data.text
  row = ((text.length + text.next_token,), 'int32')
  features = {'tokens': row, 'length': ((), 'int32')}
  features.update({'kind': row} if text.kinds else LABEL if text.rows == 'documents' else {})
  classes = 2 if len(features) > 2 else 0
  json = tokenizer(tuple(text.specials))
  return Spec('text', 'train', 100, features, classes, 'identity', (), json)


def spec(data: str, classes: int | None = None) -> Spec:
  features, known = LOOKS.get(data, LOOKS['mnist5k'])
  return Spec(data, 'train', 100, features, known if classes is None else classes, 'identity')


# Variants whose modules are those of another config: one set of images says enough.
VARIANTS = ('cdcgan', 'cgan', 'cnn_binary', 'cvae', 'gan_plain', 'iwae', 'vae_nll', 'vampprior')


def cases() -> list[tuple[str, str]]:
  images = {name: ('mnist5k',) if name in VARIANTS else ('mnist5k', 'cifar10') for name in CONFIGS}
  pictures = [name for name in CONFIGS if name not in TEXT]
  pairs = [(name, data) for name in pictures for data in ARGUMENTS.get(name, images[name])]
  return [*pairs, *TEXT.items()]


def config_for(name: str) -> ConfigDict:
  return config_of(name, TEXT.get(name, ARGUMENTS.get(name, ('mnist5k',))[0]))


def config_of(name: str, data: str = 'mnist5k') -> ConfigDict:
  config = cli.load(f'{ROOT}/configs/{name}.py:{data}')
  config.data.batch_size = 4
  if name in TEXT:
    # As deep and wide as it is, a step would take a minute.
    small = dict(width=16, layers=1, heads=4, hidden=16, context=8, embedding=4)
    model = config.modules.model
    model.update({key: value for key, value in small.items() if key in model})
    config.data.text.length = 8
    config.train.accumulate = 1
  return config


def batch_of(description: Spec, rows: int) -> dict[str, jax.Array]:
  rng = np.random.default_rng(0)

  def integers(shape: tuple[int, ...]) -> np.ndarray:
    places = np.arange(math.prod(shape), dtype=np.int32).reshape(shape)
    return places % max(description.num_classes, 2)

  values = {
    'uint8': lambda shape: rng.integers(0, 256, shape, np.uint8),
    'float32': lambda shape: rng.random(shape, np.float32),
    'int32': integers,
  }
  columns = {
    name: jnp.asarray(values[dtype]((rows, *shape)))
    for name, (shape, dtype) in description.features.items()
  }
  if 'length' in columns:
    columns['length'] = jnp.full(rows, description.features['tokens'][0][0], jnp.int32)
  return {
    **columns,
    'index': jnp.arange(rows, dtype=jnp.int32),
    'epoch': jnp.zeros(rows, jnp.uint32),
  }


@pytest.mark.parametrize(('name', 'data'), cases())
def test_one_step_moves_every_player(name, data):
  config = config_of(name, data)
  description = spec(data, len(config.data.classes) or None)
  if name in TEXT:
    description = spec_of_text(config)
  for section in config.optimizer.values():
    section.schedule.warmup = 0  # it starts at a rate of 0
  session.check_sections(config)
  objective = session.build_objective(config, description)
  state = jax.jit(session.open_session(config, description).make_state)()
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
  if objective.sample is None:
    return
  variables = {m: {'params': p, **after.mutable[m]} for m, p in after.params.items()}
  draw = jax.jit(lambda v, key: objective.sample(v, key, 3))
  images = draw(variables, state.key)
  if name in TEXT:
    assert images.shape[0] == 3 and images.dtype == jnp.int32
    return
  assert images.shape == (3, *description.features['image'][0])
  assert float(images.min()) >= 0 and float(images.max()) <= 1


@pytest.mark.parametrize('name', CONFIGS)
def test_the_engine_sections_are_complete(name, tmp_path):
  config = config_for(name)
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
