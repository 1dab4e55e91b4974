"""What a module raises while it is built or traced is one sentence; other errors are bugs."""

import dataclasses

import flax.linen as nn
import jax
import jax.numpy as jnp
import pytest
from ml_collections import ConfigDict

from commands import cli
from data.spec import Spec
from engine import loop, module_errors
from engine.preflight import lane_sampler
from engine.program import trace_step
from engine.session import open_session
from errors import UserError
from tests.conftest import ROOT

FEATURES = {'image': ((28, 28, 1), 'uint8'), 'label': ((), 'int32')}
SPEC = Spec('some', 'train', 100, FEATURES, 10, 'abc', tuple('0123456789'))


def config_of(name, **changes):
  """A config with options set, `MODULE__OPTION`, or a module replaced, `MODULE`."""
  config = cli.load(f'{ROOT}/configs/{name}.py')
  with config.unlocked(), config.ignore_type():
    for path, value in changes.items():
      module, _, option = path.partition('__')
      if option:
        config.modules[module][option] = value
      else:
        config.modules[module] = ConfigDict(value)
  return config


def refusal(config):
  """The sentence that opening and tracing a run ends in."""
  with pytest.raises(UserError) as caught:
    session = open_session(config, SPEC)
    trace_step(session)
    lane_sampler(session)
  assert '\n' not in str(caught.value)
  return str(caught.value)


GENERATOR = dict(name='mlp.Generator', widths=(8,), activation='relu', embedding_size=0)
DISCRIMINATOR = dict(
  name='mlp.Discriminator', widths=(8,), activation='relu', dropout=0.0, embedding_size=0
)
DECODER = dict(name='mlp.Decoder', widths=(8,), activation='relu')
MLP = dict(name='mlp', widths=(8,), activation='relu', dropout=0.0)
ENCODER = dict(name='mlp.Encoder', widths=(8,), activation='relu', latent_size=4)


@pytest.mark.parametrize(
  'config, changes, parts',
  [
    ('mlp', {'model': GENERATOR}, ('config.modules.model is Generator', 'outputs')),
    ('vae', {'encoder': MLP}, ('config.modules.encoder is MLP', 'latent_size')),
    ('gan', {'generator': DISCRIMINATOR}, ('config.modules.generator (Discriminator) returns',)),
    (
      'gan',
      {'discriminator': GENERATOR},
      ('config.modules.discriminator (Generator) returns float32[784, 28, 28, 1]', 'needs [1]'),
    ),
    ('vae', {'decoder': MLP}, ('config.modules.decoder',)),
    ('mlp', {'model': DECODER}, ('config.modules.model',)),
    ('mlp', {'model': dict(name='layers.require_widths')}, ('config.modules.model',)),
    ('vae', {'decoder': ENCODER}, ('config.modules.decoder is Encoder',)),
    ('vae', {'encoder': GENERATOR}, ('config.modules.encoder is Generator',)),
    ('vqvae', {'codebook': MLP}, ('config.modules.codebook is MLP', 'codes')),
  ],
)
def test_a_module_of_another_kind_is_named(config, changes, parts):
  said = refusal(config_of(config, **changes))
  for part in parts:
    assert part in said, said


def test_a_module_that_is_missing_is_named():
  config = config_of('gan')
  with config.unlocked():
    config.modules.critic = config.modules.discriminator
    del config.modules.discriminator
  said = refusal(config)
  assert 'discriminator' in said and 'config.modules' in said, said


class Odd(nn.Module):
  """A classifier that does what it is told to."""

  how: str
  outputs: int = 0

  @nn.compact
  def __call__(self, images, train):
    x = images.reshape(len(images), -1)
    if self.how == 'size':
      x = nn.Dense(-7, name='narrow')(x)
    if self.how == 'word':
      raise ValueError(f'cannot make a map of how={self.how}\nand more')
    if self.how == 'bug':
      x = undefined_name(x)  # noqa: F821
    return nn.Dense(self.outputs)(x)[:, :, None] if self.how == 'axes' else nn.Dense(3)(x)


@dataclasses.dataclass(frozen=True)
class Session:
  """As much of a session as tracing a module needs."""

  module: nn.Module

  def trace(self):
    modules, sections = {'model': self.module}, {'model': {'name': 'odd', 'how': self.module.how}}
    with module_errors.module_errors(modules, sections):
      return jax.eval_shape(
        lambda key: self.module.init(key, jnp.zeros((1, 4, 4, 1)), train=False), jax.random.key(0)
      )


def test_an_error_inside_a_module_names_its_part_and_the_option():
  with pytest.raises(UserError, match=r'config\.modules\.model \(name=odd, how=size\) .*narrow'):
    Session(Odd('size')).trace()
  with pytest.raises(UserError, match=r'config\.modules\.model\.how=word .*ValueError') as caught:
    Session(Odd('word')).trace()
  assert 'test_module_errors.py, line' in str(caught.value) and 'and more' not in str(caught.value)
  assert isinstance(caught.value.__cause__, ValueError)


def test_a_bug_in_a_module_or_beside_it_keeps_its_traceback():
  with pytest.raises(NameError):
    Session(Odd('bug')).trace()
  module = Odd('none')
  for error in (KeyError('model'), ValueError('a sum'), TypeError('Odd is odd')):
    with pytest.raises(type(error)), module_errors.module_errors({'model': module}, {'model': {}}):
      raise error


def test_outputs_that_do_not_fit_are_shown_with_their_shapes(monkeypatch):
  from models import mlp

  Odd.__module__ = mlp.__name__
  monkeypatch.setattr(mlp, 'Odd', Odd, raising=False)
  said = refusal(config_of('mlp', model=dict(name='mlp.Odd', how='axes')))
  assert 'config.modules.model (Odd) returns float32[' in said, said
  assert 'of one example, and config.objective needs [1, 10]' in said, said


def test_nothing_is_made_where_a_step_cannot_be_traced(tmp_path, monkeypatch):
  """Found while the loss is traced, after the parameters could be made."""
  from objectives.classify import Classify

  def broken(self, *arguments, **options):
    raise UserError('the loss refuses')

  monkeypatch.setattr(Classify, '_apply', broken)
  with pytest.raises(UserError, match='the loss refuses'):
    loop.train(config_of('mlp', model__widths=(8,)), str(tmp_path / 'run'))
  assert not (tmp_path / 'run').exists()
