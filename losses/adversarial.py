"""Adversarial losses of a discriminator and a generator, per example.

Every loss is a pair of functions on logits `[B]` float32 (a critic's scores for Wasserstein) with
results `[B]`. A discriminator's logit is the log-odds that an image is real.
"""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp


class Adversarial(NamedTuple):
  """An adversarial loss: one function for each of the two players.

  Attributes:
    discriminator: (logits of real images, logits of generated images) -> [B].
    generator: the same arguments, of which it may ignore the real images' -> [B].
  """

  discriminator: Callable[[jax.Array, jax.Array], jax.Array]
  generator: Callable[[jax.Array, jax.Array], jax.Array]


def _log_loss(real: jax.Array, fake: jax.Array) -> jax.Array:
  """Returns −log D(x) − log(1 − D(G(z))), D = sigmoid(logit) (Goodfellow et al. 2014, eq. 1)."""
  return jax.nn.softplus(-real) + jax.nn.softplus(fake)


# Goodfellow et al. 2014, eq. 1: the generator minimises log(1 − D(G(z))), which saturates.
minimax = Adversarial(_log_loss, lambda real, fake: -jax.nn.softplus(fake))

# Goodfellow et al. 2014, section 3: the generator minimises −log D(G(z)) instead.
non_saturating = Adversarial(_log_loss, lambda real, fake: jax.nn.softplus(-fake))

# Mao et al. 2017, eq. 9: targets b = c = 1 for real, a = 0 for fake, with the factor 1/2.
least_squares = Adversarial(
  lambda real, fake: 0.5 * ((real - 1) ** 2 + fake**2), lambda real, fake: 0.5 * (fake - 1) ** 2
)

# Lim and Ye 2017; Miyato et al. 2018, eq. 16 and 17.
hinge = Adversarial(
  lambda real, fake: jnp.maximum(0, 1 - real) + jnp.maximum(0, 1 + fake), lambda real, fake: -fake
)

# Arjovsky et al. 2017, eq. 3: needs a Lipschitz critic (gradient penalty, or clipped weights).
wasserstein = Adversarial(lambda real, fake: fake - real, lambda real, fake: -fake)

# Jolicoeur-Martineau 2019, eqs. 3 and 4 with the log loss: each image against one of the other
# kind. With penalties it covers modes that the others drop (Huang et al. 2024, R3GAN).
relativistic = Adversarial(
  lambda real, fake: jax.nn.softplus(fake - real), lambda real, fake: jax.nn.softplus(real - fake)
)
