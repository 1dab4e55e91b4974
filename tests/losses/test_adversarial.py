import math

import jax.numpy as jnp
import numpy as np
import pytest

from losses import adversarial

REAL, FAKE = 0.7, -1.3


def sigmoid(x):
  return 1 / (1 + math.exp(-x))


CLOSED_FORMS = {
  'minimax': (
    -math.log(sigmoid(REAL)) - math.log(1 - sigmoid(FAKE)),
    math.log(1 - sigmoid(FAKE)),
  ),
  'non_saturating': (
    -math.log(sigmoid(REAL)) - math.log(1 - sigmoid(FAKE)),
    -math.log(sigmoid(FAKE)),
  ),
  'least_squares': (0.5 * (REAL - 1) ** 2 + 0.5 * FAKE**2, 0.5 * (FAKE - 1) ** 2),
  'hinge': (max(0, 1 - REAL) + max(0, 1 + FAKE), -FAKE),
  'wasserstein': (FAKE - REAL, -FAKE),
  'relativistic': (-math.log(sigmoid(REAL - FAKE)), -math.log(sigmoid(FAKE - REAL))),
}


@pytest.mark.parametrize('name', CLOSED_FORMS)
def test_closed_form_per_example(name):
  pair = getattr(adversarial, name)
  real, fake = jnp.array([REAL, REAL, 2.0]), jnp.array([FAKE, 2.0, FAKE])
  discriminator, generator = CLOSED_FORMS[name]
  assert pair.discriminator(real, fake).shape == (3,)
  np.testing.assert_allclose(pair.discriminator(real, fake)[0], discriminator, rtol=1e-6)
  np.testing.assert_allclose(pair.generator(real, fake)[0], generator, rtol=1e-6)
  # The logit of the real image changes the loss of a relativistic generator alone.
  assert (pair.generator(real, fake)[2] == pair.generator(real, fake)[0]) == (
    name != 'relativistic'
  )


def test_every_loss_has_a_closed_form_here():
  names = {n for n, v in vars(adversarial).items() if isinstance(v, adversarial.Adversarial)}
  assert names == set(CLOSED_FORMS)


@pytest.mark.parametrize('name', ['minimax', 'non_saturating', 'relativistic'])
def test_finite_at_extreme_logits(name):
  pair = getattr(adversarial, name)
  extreme = jnp.array([-1e4, 1e4])
  assert np.isfinite(pair.discriminator(extreme, extreme)).all()
  assert np.isfinite(pair.generator(extreme, extreme[::-1])).all()
