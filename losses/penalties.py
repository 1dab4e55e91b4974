"""Gradient penalties on a discriminator, each a pure function with per-example results.

All have one signature, `penalty(keys, discriminator, real, fake) -> [B]`: `keys` are PRNG keys
`[B]`, one per example, `discriminator` maps images `[B, H, W, C]` to logits `[B]`, `real` and
`fake` are images in [0, 1]. The results are float32; the weight of the config is not applied.
"""

from collections.abc import Callable

import jax
import jax.numpy as jnp

Discriminator = Callable[[jax.Array], jax.Array]


def _uniform(keys: jax.Array, shape: tuple[int, ...]) -> jax.Array:
  """Samples U[0, 1) of `shape` for each key: `[B, *shape]`."""
  return jax.vmap(lambda key: jax.random.uniform(key, shape))(keys)


def _gradient(discriminator: Discriminator, images: jax.Array) -> jax.Array:
  """Returns ∇ₓ D(x) for each image, flattened to `[B, H·W·C]` float32."""
  gradient = jax.grad(lambda x: discriminator(x).sum())(images)
  return gradient.reshape(gradient.shape[0], -1).astype(jnp.float32)


def _squared_norm(discriminator: Discriminator, images: jax.Array) -> jax.Array:
  return jnp.sum(_gradient(discriminator, images) ** 2, axis=-1)


def _distance_to_unit_norm(discriminator: Discriminator, images: jax.Array) -> jax.Array:
  """Returns (‖∇ₓ D(x)‖ − 1)². 1e-12 is added because the gradient of √x is infinite at 0."""
  return (jnp.sqrt(_squared_norm(discriminator, images) + 1e-12) - 1) ** 2


def r1(keys: jax.Array, discriminator: Discriminator, real: jax.Array, fake: jax.Array):
  """Returns ½‖∇ D‖² at real images (Mescheder et al. 2018, eq. 9); the weight is their γ."""
  del keys, fake
  return 0.5 * _squared_norm(discriminator, real)


def r2(keys: jax.Array, discriminator: Discriminator, real: jax.Array, fake: jax.Array):
  """Returns ½‖∇ D‖² at generated images (Mescheder et al. 2018, eq. 10); the weight is their γ."""
  del keys, real
  return 0.5 * _squared_norm(discriminator, fake)


def gradient_penalty(
  keys: jax.Array, discriminator: Discriminator, real: jax.Array, fake: jax.Array
):
  """Returns (‖∇ D(x̂)‖ − 1)² at x̂ = εx + (1 − ε)G(z), ε ~ U[0, 1].

  Gulrajani et al. 2017, eq. 3.
  """
  epsilon = _uniform(keys, (1, 1, 1))
  return _distance_to_unit_norm(discriminator, epsilon * real + (1 - epsilon) * fake)


def dragan(keys: jax.Array, discriminator: Discriminator, real: jax.Array, fake: jax.Array):
  """Returns (‖∇ D(x + δ)‖ − 1)², δ = ½ std(x) U[0, 1].

  Kodali et al. 2017, section 2.3 and their code.
  """
  del fake
  noise = 0.5 * jnp.std(real) * _uniform(keys, real.shape[1:])
  return _distance_to_unit_norm(discriminator, real + noise)
