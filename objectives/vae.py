"""Variational autoencoder (Kingma and Welling 2014): one player, the ELBO."""

import dataclasses
import math
from collections.abc import Callable, Mapping
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp

from errors import UserError
from losses import elbo, gaussian, likelihood
from losses.gaussian import Gaussian
from objectives.base import (
  Aux,
  Batch,
  Drawing,
  Player,
  Variables,
  apply_training,
  example_keys,
  over_each_other,
  pick,
)
from sampling import latent_walks

# Decoder rows at once while a likelihood is estimated: bounds the memory whatever K is.
_ROWS = 4096
# Places along a row of an interpolation or a traversal.
_STEPS = 11


@dataclasses.dataclass(frozen=True)
class VAE:
  """Modules `encoder` (images, condition, train) -> (mean, log-variance) [B, Z], `decoder`
  (latents, condition, train) -> [B, H, W, C, outputs].

  The encoder has the field `latent_size`; the decoder's field `outputs` is set from here.

  Attributes:
    modules: the two modules, built.
    reconstruction: a name in `losses.likelihood`.
    variance: σ² of `gaussian`; 0 learns it.
    kl_weight: λ in reconstruction + λ·KL; 1 makes the loss the negative ELBO.
    kl_warmup: steps over which λ grows from 0; 0 is off.
    free_bits: nats per latent dimension that cost nothing; 0 is off.
    binarise: whether pixels are drawn as coin flips of their grey level, anew each time they are
      seen (dynamic binarisation).
    likelihood_samples: K of the importance-sampled −log p(x) that evaluate.py measures; 0 for none.
  """

  modules: Mapping[str, nn.Module]
  reconstruction: str
  variance: float
  kl_weight: float
  kl_warmup: int
  free_bits: float
  binarise: bool
  likelihood_samples: int

  def __post_init__(self):
    where = 'config.objective'
    for name in ('kl_weight', 'kl_warmup', 'free_bits', 'variance', 'likelihood_samples'):
      if getattr(self, name) < 0:
        raise UserError(f'{where}.{name}={getattr(self, name)} must be 0 or more')
    if self.latent_size < 1:
      raise UserError(f'config.modules.encoder.latent_size={self.latent_size} must be at least 1')
    if self.binarise and pick(likelihood, self.reconstruction, 'reconstruction') is not (
      likelihood.bernoulli
    ):
      raise UserError(
        f'{where}.binarise makes pixels 0 or 1, which {where}.reconstruction='
        f'{self.reconstruction} does not model; set it to bernoulli, or binarise to False'
      )
    decoder = self.modules['decoder'].clone(outputs=self._likelihood.outputs)
    object.__setattr__(self, 'modules', {**self.modules, 'decoder': decoder})

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
    return {
      name: module.init(keys[name], *inputs.get(name, ()), train=False)
      for name, module in self.modules.items()
    }

  def evaluate(self, variables: Variables, batch: Batch, key: jax.Array) -> dict[str, jax.Array]:
    """The ELBO's parts by one draw each, and the squared error of the posterior mean's decoding."""
    data_key, draw_key = jax.random.split(key)
    images, condition = self._observe(batch, data_key), self._condition(batch)
    posterior = self._encode(variables, images, condition)
    latents = gaussian.draw(posterior, example_keys(draw_key, batch))
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

  def measure(self, variables: Variables, batch: Batch, key: jax.Array) -> dict[str, jax.Array]:
    """−log p(x) by importance sampling from the posterior, on the same draw of the data."""
    if not self.likelihood_samples:
      return {}
    data_key, draw_key = jax.random.split(key)
    images, condition = self._observe(batch, data_key), self._condition(batch)
    posterior = self._encode(variables, images, condition)
    number = images.shape[0]
    chunk = max(1, min(self.likelihood_samples, _ROWS // number))

    log_prior = self._log_prior(variables)

    def log_weights(keys: jax.Array) -> jax.Array:
      noise = jax.vmap(lambda k: jax.random.normal(k, posterior.mean.shape))(keys)
      latents = posterior.mean + jnp.exp(0.5 * posterior.log_variance) * noise
      outputs = self._decode(variables, *flat(latents, condition))
      return self._log_weights(images, outputs, log_prior, posterior, latents)

    log_likelihood, effective = elbo.importance_sampled(
      log_weights, draw_key, self.likelihood_samples, chunk
    )
    return {
      'nll': -log_likelihood,
      'nll_bits_per_dim': -log_likelihood / (_pixels(images) * math.log(2)),
      'effective_samples': effective,
    }

  def sample(self, variables: Variables, key: jax.Array, num: int) -> jax.Array:
    """Expected images float32 [num, H, W, C] of draws from the prior; a longer one begins alike."""
    return self._images(variables, self._prior_latents(variables, key, num), self._nothing(num))

  @property
  def drawings(self) -> Mapping[str, Drawing]:
    return {
      'reconstruct': Drawing(self._reconstructions, 32, 'test images'),
      'interpolate': Drawing(self._interpolations, 8, 'pairs of test images'),
      'traverse': Drawing(self._traversals, 10, 'latent dimensions, the most used first'),
      'manifold': Drawing(self._manifold, 20, 'points along a side'),
    }

  # --- what a variant changes

  def _condition(self, batch: Batch) -> jax.Array:
    """What stands beside the images, [B, D]; here nothing."""
    return self._nothing(batch['image'].shape[0])

  def _divergence(self, variables: Variables, posterior: Gaussian, latents: jax.Array) -> jax.Array:
    """KL of the posterior to the prior in nats, [B, parts], parts adding up."""
    del variables, latents
    return gaussian.kl_to_standard_normal(posterior)

  def _log_prior(self, variables: Variables) -> Callable[[jax.Array], jax.Array]:
    """The log density, latents [..., Z] -> [...]; what it is made of is computed once, here."""
    del variables
    return gaussian.standard_log_prob

  def _prior_latents(self, variables: Variables, key: jax.Array, num: int) -> jax.Array:
    """Draws [num, Z] of the prior."""
    del variables
    keys = example_keys(key, {'position': jnp.arange(num)})
    return jax.vmap(lambda k: jax.random.normal(k, (self.latent_size,)))(keys)

  # --- training

  def _loss(self, params, mutable, batch: Batch, key: jax.Array):
    posterior, images, condition, encoder_state, key = self._posterior(params, mutable, batch, key)
    draw_key, decoder_key = jax.random.split(key)
    latents = gaussian.draw(posterior, example_keys(draw_key, batch))
    outputs, decoder_state = self._train_decoder(
      params, mutable, latents, condition, batch, decoder_key
    )
    reconstruction = -self._likelihood.log_prob(images, outputs).mean()
    parts = self._divergence(together(params, mutable), posterior, latents)
    weight = elbo.warmed_up(self.kl_weight, self.kl_warmup, batch['step'][0])
    loss = reconstruction + weight * elbo.with_free_bits(parts, self.free_bits)
    metrics = {'reconstruction': reconstruction, 'kl': parts.sum(axis=-1).mean()}
    if self.kl_warmup:
      metrics['kl_weight'] = weight
    return loss, Aux(metrics, {'encoder': encoder_state, 'decoder': decoder_state})

  def _posterior(self, params, mutable, batch: Batch, key: jax.Array):
    """(posterior, observed images, condition, the encoder's changed collections, a fresh key)."""
    data_key, encoder_key, key = jax.random.split(key, 3)
    images, condition = self._observe(batch, data_key), self._condition(batch)
    posterior, changed = apply_training(
      self.modules['encoder'],
      params['encoder'],
      mutable['encoder'],
      images,
      condition,
      key=jax.random.fold_in(encoder_key, batch['position'][0]),
    )
    return Gaussian(*posterior), images, condition, changed, key

  def _train_decoder(self, params, mutable, latents, condition, batch: Batch, key: jax.Array):
    """(outputs, the decoder's changed collections) for latents [N, Z] and conditions [N, D]."""
    return apply_training(
      self.modules['decoder'],
      params['decoder'],
      mutable['decoder'],
      latents,
      condition,
      key=jax.random.fold_in(key, batch['position'][0]),
    )

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
    return pick(likelihood, self.reconstruction, 'reconstruction')(self.variance)

  def _observe(self, batch: Batch, key: jax.Array) -> jax.Array:
    """The images as the model is to explain them."""
    images = batch['image']
    if not self.binarise:
      return images
    keys = example_keys(key, batch)
    return jax.vmap(jax.random.bernoulli)(keys, images).astype(jnp.float32)

  def _encode(self, variables: Variables, images: jax.Array, condition: jax.Array) -> Gaussian:
    encoder = self.modules['encoder']
    return Gaussian(*encoder.apply(variables['encoder'], images, condition, train=False))

  def _decode(self, variables: Variables, latents: jax.Array, condition: jax.Array) -> jax.Array:
    return self.modules['decoder'].apply(variables['decoder'], latents, condition, train=False)

  def _images(self, variables: Variables, latents: jax.Array, condition: jax.Array) -> jax.Array:
    return self._likelihood.mean(self._decode(variables, latents, condition))

  def _nothing(self, number: int) -> jax.Array:
    return jnp.zeros((number, 0))

  # --- pictures of test images

  def _reconstructions(self, variables: Variables, batch: Batch, key: jax.Array, num: int):
    """Rows of originals, each over the row of its reconstructions, eight to a row."""
    batch = _first(batch, num)
    images, condition = self._observe(batch, key), self._condition(batch)
    posterior = self._encode(variables, images, condition)
    rebuilt = self._images(variables, posterior.mean, condition)
    return over_each_other(images, rebuilt, columns=8)

  def _interpolations(self, variables: Variables, batch: Batch, key: jax.Array, num: int):
    """For each pair of test images: the first, the way between their codes, the second."""
    batch = _first(batch, 2 * num)
    images, condition = self._observe(batch, key), self._condition(batch)
    mean = self._encode(variables, images, condition).mean
    pairs = images.shape[0] // 2
    # The way keeps the condition of the image it starts from.
    beside = jnp.repeat(condition[0 : 2 * pairs : 2], _STEPS, axis=0)
    way = latent_walks.interpolate(
      lambda z: self._images(variables, z, beside), mean[0 : 2 * pairs : 2], mean[1::2], _STEPS
    )
    ends = images[: 2 * pairs].reshape(pairs, 2, 1, *images.shape[1:])
    return jnp.concatenate([ends[:, 0], way, ends[:, 1]], axis=1)

  def _traversals(self, variables: Variables, batch: Batch, key: jax.Array, num: int):
    """The first test image's code with one coordinate from −3 to 3, a row for each of the `num`
    dimensions that carry most information about the test images (largest mean KL)."""
    images, condition = self._observe(batch, key), self._condition(batch)
    posterior = self._encode(variables, images, condition)
    used = gaussian.kl_to_standard_normal(posterior).mean(axis=0)
    dimensions = jnp.argsort(-used)[:num]
    beside = jnp.repeat(condition[:1], dimensions.shape[0] * _STEPS, axis=0)
    return latent_walks.traverse(
      lambda z: self._images(variables, z, beside),
      posterior.mean[0],
      dimensions,
      jnp.linspace(-3, 3, _STEPS),
    )

  def _manifold(self, variables: Variables, batch: Batch, key: jax.Array, num: int):
    del key
    if self.latent_size != 2:
      raise UserError(
        f'--kind=manifold needs 2 latent dimensions and this model has {self.latent_size}; train '
        'one with --config.modules.encoder.latent_size=2'
      )
    beside = jnp.repeat(self._condition(_first(batch, 1)), num * num, axis=0)
    return latent_walks.manifold(lambda z: self._images(variables, z, beside), num)


def together(params: Mapping[str, Any], mutable: Mapping[str, Any]) -> Variables:
  """`{module: variables}` of what training holds apart."""
  return {module: {'params': tree, **mutable[module]} for module, tree in params.items()}


def flat(latents: jax.Array, condition: jax.Array) -> tuple[jax.Array, jax.Array]:
  """Latents [S, B, Z] and conditions [B, D] as a decoder takes them: [S·B, Z], [S·B, D]."""
  samples = latents.shape[0]
  return latents.reshape(-1, latents.shape[-1]), jnp.tile(condition, (samples, 1))


def _first(batch: Batch, number: int) -> Batch:
  return {name: value[:number] for name, value in batch.items()}


def _pixels(images: jax.Array) -> int:
  return math.prod(images.shape[1:])
