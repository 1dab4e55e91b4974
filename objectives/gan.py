"""Generative adversarial network: a discriminator and a generator, each lowering its own loss."""

import dataclasses
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from errors import UserError
from losses import adversarial, penalties
from objectives.base import (
  Aux,
  Batch,
  Drawing,
  Player,
  Variables,
  apply_training,
  example_keys,
  pick,
)
from sampling import latent_walks


@dataclasses.dataclass(frozen=True)
class GAN:
  """Modules `generator` (latents, train) -> images and `discriminator` (images, train) -> logits.

  Attributes:
    modules: the two modules, built.
    loss: a name in `losses.adversarial`.
    penalties: weight by name in `losses.penalties`; a weight of 0 costs nothing.
    n_critic: discriminator updates per step, each on a slice of its own.
    latent_size: length of the generator's input, standard normal.
  """

  modules: Mapping[str, nn.Module]
  loss: str
  penalties: Mapping[str, float]
  n_critic: int
  latent_size: int

  def __post_init__(self):
    pick(adversarial, self.loss, 'adversarial loss')
    for name, weight in self.penalties.items():
      pick(penalties, name, 'penalty')
      if weight < 0:
        raise UserError(f'the weight of penalty "{name}" is {weight}; it must be 0 or more')
    if self.n_critic < 1 or self.latent_size < 1:
      raise UserError(
        'config.objective.n_critic and config.objective.latent_size must be at least 1'
      )

  @property
  def players(self) -> tuple[Player, ...]:
    return (
      Player('discriminator', ('discriminator',), self._discriminator_loss, self.n_critic),
      Player('generator', ('generator',), self._generator_loss),
    )

  def init(self, key: jax.Array, batch: Batch) -> Variables:
    generator_key, discriminator_key = jax.random.split(key)
    latents = jnp.zeros((1, self.latent_size))
    return {
      'generator': self.modules['generator'].init(generator_key, latents, train=False),
      'discriminator': self.modules['discriminator'].init(
        discriminator_key, batch['image'][:1], train=False
      ),
    }

  def evaluate(self, variables: Variables, batch: Batch, key: jax.Array) -> dict[str, jax.Array]:
    """Losses and logits on real images and as many generated ones."""
    fake = self._generate(variables, example_keys(key, batch))
    discriminator = self.modules['discriminator']
    real_logits = discriminator.apply(variables['discriminator'], batch['image'], train=False)
    fake_logits = discriminator.apply(variables['discriminator'], fake, train=False)
    loss = pick(adversarial, self.loss, 'adversarial loss')
    return {
      'discriminator_loss': loss.discriminator(real_logits, fake_logits),
      'generator_loss': loss.generator(fake_logits),
      'real_logit': real_logits,
      'fake_logit': fake_logits,
    }

  def measure(self, variables: Variables, batch: Batch, key: jax.Array) -> dict[str, jax.Array]:
    """Nothing: a GAN has no likelihood to estimate."""
    del variables, batch, key
    return {}

  @property
  def drawings(self) -> Mapping[str, Drawing]:
    return {'interpolate': Drawing(self._interpolations, 8, 'pairs of latents')}

  def sample(self, variables: Variables, key: jax.Array, num: int) -> jax.Array:
    """Images float32 [num, H, W, C] in [0, 1]; the first k of them do not depend on `num`."""
    return self._generate(variables, example_keys(key, {'position': jnp.arange(num)}))

  def _interpolations(self, variables: Variables, batch: Batch, key: jax.Array, num: int):
    """The way between two random latents, in every row another."""
    del batch
    ends = self._latents(example_keys(key, {'position': jnp.arange(2 * num)}))

    def generate(latents: jax.Array) -> jax.Array:
      return self.modules['generator'].apply(variables['generator'], latents, train=False)

    return latent_walks.interpolate(generate, ends[::2], ends[1::2], steps=11)

  def _generate(self, variables: Variables, keys: jax.Array) -> jax.Array:
    return self.modules['generator'].apply(variables['generator'], self._latents(keys), train=False)

  def _latents(self, keys: jax.Array) -> jax.Array:
    return jax.vmap(lambda key: jax.random.normal(key, (self.latent_size,)))(keys)

  def _fake(self, params, mutable, batch: Batch, key: jax.Array):
    """Generated images for every example of `batch`, with batch statistics."""
    latent_key, dropout_key = jax.random.split(key)
    return apply_training(
      self.modules['generator'],
      params['generator'],
      mutable['generator'],
      self._latents(example_keys(latent_key, batch)),
      key=jax.random.fold_in(dropout_key, batch['position'][0]),
    )

  def _judge(self, params, mutable, images: jax.Array, key: jax.Array):
    """Logits [B] of the discriminator in training, and its changed collections."""
    return apply_training(
      self.modules['discriminator'],
      params['discriminator'],
      mutable['discriminator'],
      images,
      key=key,
    )

  def _discriminator_loss(self, params, mutable, batch: Batch, key: jax.Array):
    fake_key, real_key, judge_key, penalty_key = jax.random.split(key, 4)
    # The generator's statistics move in its own turn only.
    fake, _ = self._fake(params, mutable, batch, fake_key)
    fake = jax.lax.stop_gradient(fake)
    dropout_key = jax.random.fold_in(judge_key, batch['position'][0])
    real_logits, changed = self._judge(
      params, mutable, batch['image'], jax.random.fold_in(real_key, batch['position'][0])
    )
    after_real = {**mutable, 'discriminator': changed}
    fake_logits, changed = self._judge(params, after_real, fake, dropout_key)

    def discriminator(images):
      return self._judge(params, mutable, images, dropout_key)[0]

    pair = pick(adversarial, self.loss, 'adversarial loss')
    loss = pair.discriminator(real_logits, fake_logits).mean()
    metrics = {'real_logit': real_logits.mean(), 'fake_logit': fake_logits.mean()}
    for i, (name, weight) in enumerate(sorted(self.penalties.items())):
      if weight:
        penalty = pick(penalties, name, 'penalty')
        keys = example_keys(jax.random.fold_in(penalty_key, i), batch)
        value = penalty(keys, discriminator, batch['image'], fake).mean()
        metrics[name] = value
        loss += weight * value
    return loss, Aux(metrics, {'discriminator': changed})

  def _generator_loss(self, params, mutable, batch: Batch, key: jax.Array):
    fake_key, judge_key = jax.random.split(key)
    fake, changed = self._fake(params, mutable, batch, fake_key)
    dropout_key = jax.random.fold_in(judge_key, batch['position'][0])
    logits, _ = self._judge(params, mutable, fake, dropout_key)
    loss = pick(adversarial, self.loss, 'adversarial loss').generator(logits).mean()
    return loss, Aux({}, {'generator': changed})
