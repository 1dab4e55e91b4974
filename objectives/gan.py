"""Generative adversarial network: a discriminator and a generator, each lowering its own loss."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp

from errors import UserError, nearest
from losses import adversarial, penalties
from objectives.base import (
  Aux,
  Batch,
  Captions,
  Contest,
  Context,
  Objective,
  Picture,
  Player,
  Sampler,
  Variables,
  numbered_keys,
  stream_keys,
)
from objectives.names import entries, pick
from options import option
from sampling import latent_walks

# Images along a row of an interpolation.
_STEPS = 11


@dataclasses.dataclass(frozen=True)
class GAN(Objective):
  """Modules `generator` (latents, labels, train) -> images and `discriminator` (images, labels,
  train) -> logits. `labels` are int32 [B], or None where the modules are not conditioned on them.
  """

  loss: str = option('The adversarial loss of both players.', choices=tuple(entries(adversarial)))
  penalties: Mapping[str, float] = option(
    "Weights of the discriminator's penalties by name: "
    f'{", ".join(entries(penalties))}. A weight of 0 costs nothing.',
    low=0,
  )
  penalty_every: int = option(
    'Steps between updates by the penalties. Above 1 they are a player of their own, `penalty`, '
    'whose weights are multiplied by this number (lazy regularisation, Karras et al. 2020, '
    'appendix B).',
    low=1,
  )
  n_critic: int = option(
    'Discriminator updates per step, each on a slice of its own.', low=1, high=1000
  )
  latent_size: int = option("Length of the generator's input, standard normal.", low=1)

  def __post_init__(self):
    for name in self.penalties:
      if name not in entries(penalties):
        raise UserError(
          f'config.objective.penalties.{name} is no penalty{nearest(name, entries(penalties))}; '
          f'there are: {", ".join(entries(penalties))}'
        )
    if self.penalty_every > 1 and not any(self.penalties.values()):
      raise UserError(
        f'config.objective.penalty_every={self.penalty_every} has no effect without a penalty; '
        'give one a weight in config.objective.penalties, or set it to 1'
      )

  @property
  def players(self) -> tuple[Player, ...]:
    discriminator = Player(
      'discriminator', ('discriminator',), self._discriminator_loss, self.n_critic
    )
    penalty = Player(
      'penalty',
      ('discriminator',),
      self._penalty_loss,
      every=self.penalty_every,
      optimizer='discriminator',
    )
    generator = Player('generator', ('generator',), self._generator_loss)
    if self.penalty_every > 1:
      return (discriminator, penalty, generator)
    return (discriminator, generator)

  def init(self, key: jax.Array, batch: Batch) -> Variables:
    generator_key, discriminator_key = jax.random.split(key)
    first = {name: value[:1] for name, value in batch.items()}
    latents, labels = jnp.zeros((1, self.latent_size)), self.labels(first)
    return {
      'generator': self._initialised(
        'generator', generator_key, latents, labels, outputs=first['image'].shape
      ),
      'discriminator': self._initialised(
        'discriminator', discriminator_key, first['image'], labels, outputs=(1,)
      ),
    }

  def evaluate(self, variables: Variables, batch: Batch, keys: jax.Array) -> dict[str, jax.Array]:
    """Losses and logits on real images and as many generated ones."""
    labels = self.labels(batch)
    fake = self.generate(variables, self.latents(keys), labels)
    real_logits, fake_logits = (
      self._outputs('discriminator', variables, images, labels) for images in (batch['image'], fake)
    )
    return {
      'discriminator_loss': self._pair.discriminator(real_logits, fake_logits),
      'generator_loss': self._pair.generator(real_logits, fake_logits),
      'real_logit': real_logits,
      'fake_logit': fake_logits,
    }

  @property
  def pictures(self) -> Mapping[str, Picture]:
    of_latents = Picture(
      self._interpolations,
      8,
      'pairs of latents',
      reads_examples=False,
      captions=Captions(latent_walks.shares(_STEPS)),
    )
    return {'interpolate': of_latents}

  @property
  def sampler(self) -> Sampler:
    return Sampler('image', self._sample)

  @property
  def contest(self) -> Contest:
    chance = float(self._pair.discriminator(jnp.zeros(()), jnp.zeros(())))
    return Contest('discriminator', 'generator', chance, ('real_logit', 'fake_logit'))

  @property
  def remedies(self) -> Mapping[str, Any]:
    """A gradient penalty keeps the discriminator from being sure (Mescheder et al. 2018)."""
    given = {name: weight for name, weight in self.penalties.items() if weight}
    weights = {name: 3 * weight for name, weight in given.items()} or {'r1': 1.0}
    penalised = {f'objective.penalties.{name}': weight for name, weight in weights.items()}
    return {'objective.n_critic': 1, **penalised} if self.n_critic > 1 else penalised

  # --- what a variant changes

  def labels(self, batch: Batch) -> jax.Array | None:
    """The labels [B] of `batch` that the modules are conditioned on; here none."""
    del batch
    return None

  def sample_labels(self, numbers: jax.Array, label: int | None = None) -> jax.Array | None:
    """The labels [B] of samples with these numbers; here none."""
    del numbers, label
    return None

  # --- small parts

  def generate(
    self, variables: Variables, latents: jax.Array, labels: jax.Array | None
  ) -> jax.Array:
    """Images float32 [B, H, W, C] of latents [B, Z]."""
    return self._outputs('generator', variables, latents, labels)

  def latents(self, keys: jax.Array) -> jax.Array:
    """Draws [B, Z] of the standard normal prior, one from each of `keys` [B]."""
    return jax.vmap(lambda key: jax.random.normal(key, (self.latent_size,)))(keys)

  def _sample(self, variables: Variables, keys: jax.Array, numbers: jax.Array, **options: Any):
    return self.generate(variables, self.latents(keys), self.sample_labels(numbers, **options))

  @property
  def _pair(self) -> adversarial.Adversarial:
    return pick(adversarial, self.loss, 'config.objective.loss')

  def _interpolations(self, variables: Variables, batch: Batch, keys: jax.Array, num: int):
    """Images on the line between two random latents, one pair and one label in every row."""
    del batch
    numbers = jnp.arange(num)
    starts, ends = (
      self.latents(stream_keys(numbered_keys(keys[0], numbers), name)) for name in ('start', 'end')
    )
    labels = self.sample_labels(jnp.repeat(numbers, _STEPS))
    return latent_walks.interpolate(
      lambda z: self.generate(variables, z, labels), starts, ends, _STEPS
    )

  def _fake(self, params, mutable, batch: Batch, context: Context):
    """Generated images for every example of `batch`, with batch statistics."""
    return self._apply_training(
      'generator',
      params,
      mutable,
      self.latents(context.fold('latents')),
      self.labels(batch),
      rngs=context.rngs_for('generator'),
    )

  def _logits(self, params, mutable, images: jax.Array, batch: Batch, rngs: Mapping[str, Any]):
    """Logits [B] of the discriminator in training, and its changed collections."""
    return self._apply_training(
      'discriminator', params, mutable, images, self.labels(batch), rngs=rngs
    )

  def _discriminator_loss(self, params, mutable, batch: Batch, context: Context):
    # The generator's statistics move in its own turn only.
    fake = jax.lax.stop_gradient(self._fake(params, mutable, batch, context)[0])
    real_logits, changed = self._logits(
      params, mutable, batch['image'], batch, context.rngs_for('real')
    )
    after_real = {**mutable, 'discriminator': changed}
    fake_logits, changed = self._logits(params, after_real, fake, batch, context.rngs_for('fake'))
    loss = self._pair.discriminator(real_logits, fake_logits).mean()
    metrics = {'real_logit': real_logits.mean(), 'fake_logit': fake_logits.mean()}
    if self.penalty_every == 1:
      penalty, values = self._penalties(params, mutable, batch, context, fake)
      loss, metrics = loss + penalty, {**metrics, **values}
    return loss, Aux(metrics, {'discriminator': changed})

  def _penalty_loss(self, params, mutable, batch: Batch, context: Context):
    """The penalties alone, for a player that acts every `penalty_every` steps."""
    fake = jax.lax.stop_gradient(self._fake(params, mutable, batch, context)[0])
    penalty, values = self._penalties(params, mutable, batch, context, fake)
    return self.penalty_every * penalty, Aux(values, {})

  def _penalties(self, params, mutable, batch: Batch, context: Context, fake: jax.Array):
    """The weighted sum of the penalties, and each of them, unweighted, by name."""
    rngs = context.rngs_for('fake')

    def discriminator(images: jax.Array) -> jax.Array:
      # A penalty may mix the real and the generated image of an example: both have its label.
      return self._logits(params, mutable, images, batch, rngs)[0]

    values = {
      name: pick(penalties, name, 'config.objective.penalties')(
        context.fold(name), discriminator, batch['image'], fake
      ).mean()
      for name, weight in sorted(self.penalties.items())
      if weight
    }
    return sum(self.penalties[name] * value for name, value in values.items()), values

  def _generator_loss(self, params, mutable, batch: Batch, context: Context):
    fake, changed = self._fake(params, mutable, batch, context)
    fake_logits, _ = self._logits(params, mutable, fake, batch, context.rngs_for('fake'))
    # Only a relativistic loss reads them; of any other nothing of this is compiled.
    real_logits, _ = self._logits(params, mutable, batch['image'], batch, context.rngs_for('real'))
    loss = self._pair.generator(real_logits, fake_logits).mean()
    return loss, Aux({}, {'generator': changed})
