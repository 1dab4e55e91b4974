"""Variational autoencoder (Kingma and Welling 2014): one player, the ELBO."""

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from errors import UserError
from losses import elbo, gaussian, likelihood
from losses.gaussian import Gaussian
from objectives.base import (
  Aux,
  Batch,
  Captions,
  Context,
  Measurement,
  Objective,
  Picture,
  Player,
  Sampler,
  Variables,
  merge_variables,
  stream_keys,
)
from objectives.names import check_variance, entries, pick
from options import Option, option
from sampling import latent_walks
from sampling.picture_pairs import stack_pairs

# Decoder rows at once while a likelihood is estimated: bounds the memory whatever K is.
_ROWS = 4096
# Places along a row of an interpolation or a traversal.
_STEPS = 11
# What a coordinate is set to in a traversal.
_VALUES = tuple(6 * step / (_STEPS - 1) - 3 for step in range(_STEPS))


@dataclasses.dataclass(frozen=True)
class VAE(Objective):
  """Modules `encoder` (images, condition, train) -> (mean, log-variance) [B, Z], `decoder`
  (latents, condition, train) -> [B, H, W, C, outputs].

  The encoder has the field `latent_size`; the decoder's field `outputs` is set from here.
  """

  reconstruction: str = option(
    'Likelihood of the images given their latents.', choices=tuple(entries(likelihood))
  )
  variance: float = option('σ² of `gaussian`; 0 learns it.', low=0)
  kl_weight: float = option(
    'λ in reconstruction + λ·KL; 1 makes the loss the negative ELBO.', low=0
  )
  kl_warmup: int = option('Steps over which λ grows from 0; 0 is off.', low=0)
  free_bits: float = option('Nats per latent dimension that cost nothing; 0 is off.', low=0)
  binarise: bool = option(
    'Whether pixels are drawn as coin flips of their grey level, anew each time they are seen '
    '(dynamic binarisation).'
  )

  def __post_init__(self):
    where = 'config.objective'
    if self.binarise and self._likelihood_factory is not likelihood.bernoulli:
      raise UserError(
        f'{where}.binarise makes pixels 0 or 1, which {where}.reconstruction='
        f'{self.reconstruction} does not model; set it to bernoulli, or binarise to False'
      )
    check_variance(self.reconstruction, self.variance)
    self._configure('decoder', outputs=self._likelihood.outputs)

  # --- what the engine asks for

  @property
  def players(self) -> tuple[Player, ...]:
    return (Player('vae', tuple(self.modules), self._loss),)

  def init(self, key: jax.Array, batch: Batch) -> Variables:
    first = {name: value[:1] for name, value in batch.items()}
    condition = self._condition(first)
    inputs = {
      'encoder': (first['image'], condition),
      'decoder': (jnp.zeros((1, self.latent_size)), condition),
    }
    keys = dict(zip(self.modules, jax.random.split(key, len(self.modules))))
    decoded = (*first['image'].shape, self._likelihood.outputs)
    return {
      module_name: self._initialised(
        module_name, keys[module_name], *inputs[module_name], outputs=decoded
      )
      if module_name == 'decoder'
      else module.init(keys[module_name], *inputs.get(module_name, ()), train=False)
      for module_name, module in self.modules.items()
    }

  def evaluate(self, variables: Variables, batch: Batch, keys: jax.Array) -> dict[str, jax.Array]:
    """The ELBO's parts by one draw each, and the squared error of the posterior mean's decoding."""
    images, condition = self._observe(batch, keys), self._condition(batch)
    posterior = self._encode(variables, images, condition)
    latents = gaussian.sample(posterior, stream_keys(keys, 'posterior'))
    outputs = self._decode(variables, latents, condition)
    reconstruction = -self._likelihood.log_prob(images, outputs)
    kl = self._divergence(variables, posterior, latents).sum(axis=-1)
    at_mean = self._likelihood.mean(self._decode(variables, posterior.mean, condition))
    bound = -(reconstruction + kl)
    return {
      'reconstruction': reconstruction,
      'kl': kl,
      'elbo': bound,
      'bits_per_dim': -bound / (_pixels(images) * math.log(2)),
      'mse': jnp.square(images - at_mean).mean(axis=(1, 2, 3)),
    }

  @property
  def measurements(self) -> Mapping[str, Measurement]:
    doc = 'Importance samples of each −log p(x); more of them give a tighter bound.'
    options = {'samples': Option(int, 5000, doc, low=1, high=10_000_000)}
    return {'likelihood': Measurement(self._measure_likelihood, options)}

  def _measure_likelihood(
    self, variables: Variables, batch: Batch, keys: jax.Array, samples: int
  ) -> dict[str, jax.Array]:
    """−log p(x) by importance sampling from the posterior, on the pixels that `evaluate` sees."""
    images, condition = self._observe(batch, keys), self._condition(batch)
    posterior = self._encode(variables, images, condition)
    chunk = max(1, min(samples, _ROWS // images.shape[0]))
    log_prior = self._log_prior(variables)

    def log_weights(keys: jax.Array) -> jax.Array:
      latents = jax.vmap(lambda row: gaussian.sample(posterior, row))(keys)
      outputs = self._decode(variables, *flat(latents, condition))
      return self._log_weights(images, outputs, log_prior, posterior, latents)

    log_likelihood, effective = elbo.importance_sampled(
      log_weights, stream_keys(keys, 'importance'), samples, chunk
    )
    return {
      'nll': -log_likelihood,
      'nll_bits_per_dim': -log_likelihood / (_pixels(images) * math.log(2)),
      'effective_samples': effective,
    }

  @property
  def sampler(self) -> Sampler:
    return Sampler('image', self._sample)

  @property
  def remedies(self) -> Mapping[str, Any]:
    """Remedies for samples that are all the same: the decoder has learned to ignore the latents."""
    off = {'objective.kl_warmup': 5000, 'objective.free_bits': 0.1}
    held = {'objective.kl_warmup': self.kl_warmup, 'objective.free_bits': self.free_bits}
    return {place: value for place, value in off.items() if not held[place]}

  def _sample(self, variables: Variables, keys: jax.Array, numbers: jax.Array) -> jax.Array:
    """Expected images float32 [B, H, W, C] of draws from the prior."""
    latents = self._prior_latents(variables, keys)
    return self._images(variables, latents, self._no_condition(numbers.shape[0]))

  @property
  def pictures(self) -> Mapping[str, Picture]:
    return {
      'reconstruct': Picture(self._reconstructions, 32, 'test images', examples=1),
      'interpolate': Picture(
        self._interpolations,
        8,
        'pairs of test images',
        examples=2,
        captions=Captions(
          ('first', *latent_walks.shares(_STEPS), 'second'), self._labels_of_pairs, _name_pair
        ),
      ),
      'traverse': Picture(
        self._traversals,
        10,
        'latent dimensions, the most used first',
        captions=Captions(
          tuple(f'{value:.1f}' for value in _VALUES), self._used_dimensions, _name_dimension
        ),
      ),
      'manifold': Picture(
        self._manifold,
        20,
        'points along a side',
        reads_examples=self._is_conditioned,
        is_random=self._is_conditioned,
      ),
    }

  # --- what a variant changes

  @property
  def _is_conditioned(self) -> bool:
    """Whether the condition depends on the examples."""
    return False

  def _condition(self, batch: Batch) -> jax.Array:
    """The condition [B, D] that encoder and decoder read beside their input; here D = 0."""
    return self._no_condition(batch['image'].shape[0])

  def _divergence(self, variables: Variables, posterior: Gaussian, latents: jax.Array) -> jax.Array:
    """KL of the posterior to the prior in nats, [B, parts], parts adding up."""
    del variables, latents
    return gaussian.kl_to_standard_normal(posterior)

  def _log_prior(self, variables: Variables) -> Callable[[jax.Array], jax.Array]:
    """The prior's log density, latents [..., Z] -> [...], with its parameters computed once."""
    del variables
    return gaussian.standard_log_prob

  def _prior_latents(self, variables: Variables, keys: jax.Array) -> jax.Array:
    """Draws [B, Z] of the prior, one from each of `keys` [B]."""
    del variables
    return jax.vmap(lambda key: jax.random.normal(key, (self.latent_size,)))(keys)

  # --- training

  def _loss(self, params, mutable, batch: Batch, context: Context):
    images, condition = self._observe(batch, context.keys), self._condition(batch)
    posterior, encoder_state = self._apply_training(
      'encoder', params, mutable, images, condition, rngs=context.rngs_for('encoder')
    )
    posterior = Gaussian(*posterior)
    latents = gaussian.sample(posterior, context.fold('posterior'))
    outputs, decoder_state = self._apply_training(
      'decoder', params, mutable, latents, condition, rngs=context.rngs_for('decoder')
    )
    reconstruction = -self._likelihood.log_prob(images, outputs).mean()
    parts = self._divergence(merge_variables(params, mutable), posterior, latents)
    weight = elbo.warmed_up(self.kl_weight, self.kl_warmup, context.step)
    loss = reconstruction + weight * elbo.with_free_bits(parts, self.free_bits)
    metrics = {'reconstruction': reconstruction, 'kl': parts.sum(axis=-1).mean()}
    if self.kl_warmup:
      metrics['kl_weight'] = weight
    return loss, Aux(metrics, {'encoder': encoder_state, 'decoder': decoder_state})

  def _log_weights(self, images, outputs, log_prior, posterior, latents) -> jax.Array:
    """log p(x, z) − log q(z | x) for latents [S, B, Z] of images [B, H, W, C]: [S, B].

    `outputs` [S·B, …] are the decoder's.
    """
    outputs = outputs.reshape(*latents.shape[:2], *outputs.shape[1:])
    return (
      self._likelihood.log_prob(images[None], outputs)
      + log_prior(latents)
      - gaussian.log_prob(posterior, latents)
    )

  # --- small parts

  @property
  def latent_size(self) -> int:
    return self.modules['encoder'].latent_size

  @property
  def _likelihood(self) -> likelihood.Likelihood:
    return self._likelihood_factory(self.variance)

  @property
  def _likelihood_factory(self) -> Callable[[float], likelihood.Likelihood]:
    return pick(likelihood, self.reconstruction, 'config.objective.reconstruction')

  def _observe(self, batch: Batch, keys: jax.Array) -> jax.Array:
    """The images whose likelihood is modelled: as they are, or with pixels from `keys` [B]."""
    images = batch['image']
    if not self.binarise:
      return images
    pixel_keys = stream_keys(keys, 'pixels')
    return jax.vmap(jax.random.bernoulli)(pixel_keys, images).astype(jnp.float32)

  def _encode(self, variables: Variables, images: jax.Array, condition: jax.Array) -> Gaussian:
    return Gaussian(*self._outputs('encoder', variables, images, condition))

  def _decode(self, variables: Variables, latents: jax.Array, condition: jax.Array) -> jax.Array:
    return self._outputs('decoder', variables, latents, condition)

  def _images(self, variables: Variables, latents: jax.Array, condition: jax.Array) -> jax.Array:
    return self._likelihood.mean(self._decode(variables, latents, condition))

  def _no_condition(self, number: int) -> jax.Array:
    return jnp.zeros((number, 0))

  # --- pictures of test images

  def _reconstructions(self, variables: Variables, batch: Batch, keys: jax.Array, num: int):
    """Rows of originals, each over the row of its reconstructions, eight to a row."""
    batch = _first(batch, num)
    images, condition = self._observe(batch, keys[:num]), self._condition(batch)
    posterior = self._encode(variables, images, condition)
    rebuilt = self._images(variables, posterior.mean, condition)
    return stack_pairs(images, rebuilt, columns=8)

  def _interpolations(self, variables: Variables, batch: Batch, keys: jax.Array, num: int):
    """For each pair of test images: the first, images between their codes, the second."""
    batch = _first(batch, 2 * num)
    images, condition = self._observe(batch, keys[: 2 * num]), self._condition(batch)
    mean = self._encode(variables, images, condition).mean
    pairs = images.shape[0] // 2
    # All images between keep the condition of the image they start from.
    beside = jnp.repeat(condition[0 : 2 * pairs : 2], _STEPS, axis=0)
    between = latent_walks.interpolate(
      lambda z: self._images(variables, z, beside), mean[0 : 2 * pairs : 2], mean[1::2], _STEPS
    )
    ends = images[: 2 * pairs].reshape(pairs, 2, 1, *images.shape[1:])
    return jnp.concatenate([ends[:, 0], between, ends[:, 1]], axis=1)

  def _traversals(self, variables: Variables, batch: Batch, keys: jax.Array, num: int):
    """The first test image's code with one coordinate from −3 to 3, a row for each of the `num`
    dimensions that carry most information about the test images (largest mean KL)."""
    images, condition = self._observe(batch, keys), self._condition(batch)
    centre = self._encode(variables, images, condition).mean[0]
    dimensions = self._used_dimensions(variables, batch, keys, num)['dimension']
    beside = jnp.repeat(condition[:1], dimensions.shape[0] * _STEPS, axis=0)
    return latent_walks.traverse(
      lambda z: self._images(variables, z, beside), centre, dimensions, jnp.array(_VALUES)
    )

  def _used_dimensions(self, variables: Variables, batch: Batch, keys: jax.Array, num: int):
    """The `num` dimensions of largest mean KL over the test images, and that KL in nats."""
    images, condition = self._observe(batch, keys), self._condition(batch)
    posterior = self._encode(variables, images, condition)
    used = gaussian.kl_to_standard_normal(posterior).mean(axis=0)
    dimensions = jnp.argsort(-used)[:num]
    return {'dimension': dimensions, 'kl': used[dimensions]}

  def _labels_of_pairs(self, variables: Variables, batch: Batch, keys: jax.Array, num: int):
    """The classes of both images of each pair; nothing where the data has none."""
    del variables, keys
    if 'label' not in batch:
      return {}
    pairs = batch['label'][: 2 * num].shape[0] // 2
    first, second = batch['label'][: 2 * pairs].reshape(pairs, 2).T
    return {'first': first, 'second': second}

  def _manifold(self, variables: Variables, batch: Batch, keys: jax.Array, num: int):
    del keys
    if self.latent_size != 2:
      raise UserError(
        f'--kind=manifold needs 2 latent dimensions and this model has {self.latent_size}; train '
        'one with --config.modules.encoder.latent_size=2'
      )
    one = self._condition(_first(batch, 1)) if self._is_conditioned else self._no_condition(1)
    beside = jnp.repeat(one, num * num, axis=0)
    return latent_walks.manifold(lambda z: self._images(variables, z, beside), num)


def flat(latents: jax.Array, condition: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Flattens latents [S, B, Z] and conditions [B, D] to a decoder's [S·B, Z] and [S·B, D]."""
  samples = latents.shape[0]
  return latents.reshape(-1, latents.shape[-1]), jnp.tile(condition, (samples, 1))


def _name_pair(values: Mapping[str, Any], class_names: Sequence[str]) -> str:
  if not values:
    return ''
  return f'{class_names[values["first"]]} to {class_names[values["second"]]}'


def _name_dimension(values: Mapping[str, Any], class_names: Sequence[str]) -> str:
  del class_names
  return f'z[{values["dimension"]}]\nKL {values["kl"]:.2f} nats'


def _first(batch: Batch, number: int) -> Batch:
  return {name: value[:number] for name, value in batch.items()}


def _pixels(images: jax.Array) -> int:
  return math.prod(images.shape[1:])
