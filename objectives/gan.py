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

# Places along a row of an interpolation.
_STEPS = 11


@dataclasses.dataclass(frozen=True)
class GAN:
  """Modules `generator` (latents, labels, train) -> images and `discriminator` (images, labels,
  train) -> logits. `labels` are int32 [B], or None where the model is not told any.

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
    first = {name: value[:1] for name, value in batch.items()}
    latents, labels = jnp.zeros((1, self.latent_size)), self._labels(first)
    return {
      'generator': self.modules['generator'].init(generator_key, latents, labels, train=False),
      'discriminator': self.modules['discriminator'].init(
        discriminator_key, first['image'], labels, train=False
      ),
    }

  def evaluate(self, variables: Variables, batch: Batch, key: jax.Array) -> dict[str, jax.Array]:
    """Losses and logits on real images and as many generated ones."""
    labels = self._labels(batch)
    fake = self._generate(variables, self._latents(example_keys(key, batch)), labels)
    discriminator = self.modules['discriminator']
    real_logits, fake_logits = (
      discriminator.apply(variables['discriminator'], images, labels, train=False)
      for images in (batch['image'], fake)
    )
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
    return self._generate(variables, self._prior_latents(key, num), self._labels_in_turn(num))

  # --- what a variant changes

  def _labels(self, batch: Batch) -> jax.Array | None:
    """The labels [B] that the modules are told of `batch`; here none."""
    del batch

  def _labels_in_turn(self, num: int, times: int = 1) -> jax.Array | None:
    """Labels [num · times] where nobody gives any, each `times` on end; here none."""
    del num, times

  # --- small parts

  def _interpolations(self, variables: Variables, batch: Batch, key: jax.Array, num: int):
    """The way between two random latents, in every row another, under one label a row."""
    del batch
    ends = self._prior_latents(key, 2 * num)
    labels = self._labels_in_turn(num, times=_STEPS)
    return latent_walks.interpolate(
      lambda z: self._generate(variables, z, labels), ends[::2], ends[1::2], _STEPS
    )

  def _generate(self, variables: Variables, latents: jax.Array, labels: jax.Array | None):
    return self.modules['generator'].apply(variables['generator'], latents, labels, train=False)

  def _prior_latents(self, key: jax.Array, num: int) -> jax.Array:
    return self._latents(example_keys(key, {'position': jnp.arange(num)}))

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
      self._labels(batch),
      key=jax.random.fold_in(dropout_key, batch['position'][0]),
    )

  def _judge(self, params, mutable, images: jax.Array, labels: jax.Array | None, key: jax.Array):
    """Logits [B] of the discriminator in training, and its changed collections."""
    return apply_training(
      self.modules['discriminator'],
      params['discriminator'],
      mutable['discriminator'],
      images,
      labels,
      key=key,
    )

  def _discriminator_loss(self, params, mutable, batch: Batch, key: jax.Array):
    fake_key, real_key, judge_key, penalty_key = jax.random.split(key, 4)
    # The generator's statistics move in its own turn only.
    fake, _ = self._fake(params, mutable, batch, fake_key)
    fake, labels = jax.lax.stop_gradient(fake), self._labels(batch)
    dropout_key = jax.random.fold_in(judge_key, batch['position'][0])
    real_logits, changed = self._judge(
      params, mutable, batch['image'], labels, jax.random.fold_in(real_key, batch['position'][0])
    )
    after_real = {**mutable, 'discriminator': changed}
    fake_logits, changed = self._judge(params, after_real, fake, labels, dropout_key)

    def discriminator(images):
      # A penalty may mix the real and the generated image of an example: both have its label.
      return self._judge(params, mutable, images, labels, dropout_key)[0]

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
    logits, _ = self._judge(params, mutable, fake, self._labels(batch), dropout_key)
    loss = pick(adversarial, self.loss, 'adversarial loss').generator(logits).mean()
    return loss, Aux({}, {'generator': changed})
