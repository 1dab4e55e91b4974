"""Named averages: their decay, which of them stands for a module, and what is refused."""

import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict

from configs.defaults import average
from engine.averages import Average, chosen_averages, named_averages
from errors import UserError

MODULES = dict.fromkeys(('generator', 'discriminator'))


def sections(**averages):
  return ConfigDict({'ema': averages})


def read(**averages):
  return named_averages(sections(**averages), MODULES)


def late(made: Average, examples: int) -> float:
  """What is left of an average of 1 after a step of parameters 0, long after the start."""
  return float(
    made.updated({'w': jnp.ones(())}, {'w': jnp.zeros(())}, jnp.int32(10**7), examples)['w']
  )


def test_a_decay_is_by_the_step_and_a_half_life_by_the_example():
  by_step = Average('generator', decay=0.9, half_life=0.0)
  np.testing.assert_allclose([late(by_step, 1), late(by_step, 64)], [0.9, 0.9], rtol=1e-5)
  by_example = Average('generator', decay=0.0, half_life=128.0)
  np.testing.assert_allclose(late(by_example, 128), 0.5, rtol=1e-5)
  np.testing.assert_allclose(late(by_example, 64), 0.5**0.5, rtol=1e-5)
  # Two steps of half as many examples leave as much as one.
  np.testing.assert_allclose(late(by_example, 64) ** 2, late(by_example, 128), rtol=1e-5)


def test_a_ramp_keeps_the_start_out():
  made = Average('generator', decay=0.99, half_life=0.0)
  left = [
    float(made.updated({'w': jnp.ones(())}, {'w': jnp.zeros(())}, jnp.int32(t), 1)['w'])
    for t in (0, 1, 8, 10_000)
  ]
  np.testing.assert_allclose(left, [1 / 10, 2 / 11, 9 / 18, 0.99], rtol=1e-5)


def test_two_averages_of_one_module():
  averages = read(
    fast=average('generator', decay=0.9),
    slow=average('generator', half_life=1000.0),
    other=average('discriminator', decay=0.5),
  )
  assert list(averages) == ['fast', 'other', 'slow']  # as a ConfigDict sorts them
  assert averages['slow'] == Average('generator', decay=0.0, half_life=1000.0)
  assert chosen_averages(averages, '') == {'generator': 'fast', 'discriminator': 'other'}
  assert chosen_averages(averages, 'slow') == {'generator': 'slow', 'discriminator': 'other'}
  assert chosen_averages(averages, 'none') == {}
  assert chosen_averages({}, '') == chosen_averages({}, 'none') == {}
  with pytest.raises(UserError, match=r'--average=slwo.*did you mean "slow"'):
    chosen_averages(averages, 'slwo')


@pytest.mark.parametrize(
  'name, section, part',
  [
    ('fast', average('generater', decay=0.9), 'config.ema.fast.module=generater.*"generator"'),
    ('fast', average('generator'), 'decay=0.0 and half_life=0.0; set one of them'),
    ('fast', average('generator', decay=0.9, half_life=5.0), 'set one of them, and the other to 0'),
    ('fast', average('generator', decay=1.0), 'config.ema.fast.decay=1.0 must be'),
    ('fast', average('generator', decay=-0.1), 'config.ema.fast.decay=-0.1 must be'),
    ('fast', average('generator', half_life=-1.0), 'config.ema.fast.half_life=-1.0 must be'),
    ('fast', dict(module='generator', decai=0.9), 'config.ema.fast has no option "decai"'),
    ('none', average('generator', decay=0.9), 'config.ema.none cannot be asked for.*rename it'),
  ],
)
def test_what_is_refused(name, section, part):
  with pytest.raises(UserError, match=part):
    read(**{name: section})
