"""VQ-VAE (van den Oord et al. 2017): an autoencoder through a codebook, one player.

The prior over codes is the product of their marginals, one for each place of the map: it knows
which code is common where, but nothing of how neighbours go together. So samples are locally
plausible and globally not, and `rate` is an upper bound on what a better prior needs; a transformer
prior is to come.
"""

import dataclasses
import math
from collections.abc import Mapping

import flax.linen as nn
import jax
import jax.numpy as jnp

from errors import UserError
from losses import likelihood, quantization
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


@dataclasses.dataclass(frozen=True)
class VQVAE:
  """Modules `encoder` (images, train) -> features [B, h, w, D], `decoder` (codes [B, h, w, D],
  train) -> [B, H, W, C, outputs], and `codebook`, whose collection `codebook` holds the fields of
  `losses.quantization.Codebook`.

  The decoder's field `outputs` is set from here; the codebook has the field `codes` and no
  parameters, so no optimizer moves it: the loss returns it changed. With microbatches it is
  updated after each of them.

  Attributes:
    modules: the three modules, built.
    reconstruction: a name in `losses.likelihood`.
    variance: σ² of `gaussian`; 0 learns it.
    commitment_weight: β, of the pull of the features towards their codes.
    decay: γ of the codebook's averages.
    restart_below: a code chosen less often than this share of the mean is replaced by a feature of
      the batch; 0 never restarts.
  """

  modules: Mapping[str, nn.Module]
  reconstruction: str
  variance: float
  commitment_weight: float
  decay: float
  restart_below: float

  def __post_init__(self):
    where = 'config.objective'
    for name in ('commitment_weight', 'variance'):
      if getattr(self, name) < 0:
        raise UserError(f'{where}.{name}={getattr(self, name)} must be 0 or more')
    for name in ('decay', 'restart_below'):
      if not 0 <= getattr(self, name) < 1:
        raise UserError(f'{where}.{name}={getattr(self, name)} must be at least 0 and below 1')
    codes = self.modules['codebook'].codes
    if codes < 2:
      raise UserError(f'config.modules.codebook.codes={codes} must be at least 2')
    decoder = self.modules['decoder'].clone(outputs=self._likelihood.outputs)
    object.__setattr__(self, 'modules', {**self.modules, 'decoder': decoder})

  # --- what the engine asks for

  @property
  def players(self) -> tuple[Player, ...]:
    return (Player('vqvae', ('encoder', 'decoder'), self._loss),)

  def init(self, key: jax.Array, batch: Batch) -> Variables:
    encoder_key, codebook_key, decoder_key = jax.random.split(key, 3)
    encoder = self.modules['encoder']
    features, encoder_variables = encoder.init_with_output(
      encoder_key, batch['image'][:1], train=False
    )
    return {
      'encoder': encoder_variables,
      'codebook': {
        'params': {},
        **self.modules['codebook'].init(codebook_key, features, train=False),
      },
      'decoder': self.modules['decoder'].init(decoder_key, features, train=False),
    }

  def evaluate(self, variables: Variables, batch: Batch, key: jax.Array) -> dict[str, jax.Array]:
    """The bound's parts, nothing being drawn, and how evenly the codes have been used of late."""
    del key
    images, book = batch['image'], _book(variables['codebook'])
    features = self._encode(variables, images)
    chosen = quantization.nearest(features, book.embedding)
    quantized = book.embedding[chosen]
    outputs = self._decode(variables, quantized)
    reconstruction = -self._likelihood.log_prob(images, outputs)
    rate = quantization.rate(quantization.marginals(book.positions), chosen)
    bound = -(reconstruction + rate)
    pixels = math.prod(images.shape[1:])
    return {
      'reconstruction': reconstruction,
      'rate': rate,
      'elbo': bound,
      'bits_per_dim': -bound / (pixels * math.log(2)),
      'mse': jnp.square(images - self._likelihood.mean(outputs)).mean(axis=(1, 2, 3)),
      'commitment': quantization.commitment(features, quantized),
      'codebook_perplexity': jnp.full(images.shape[0], quantization.perplexity(book.counts)),
    }

  def measure(self, variables: Variables, batch: Batch, key: jax.Array) -> dict[str, jax.Array]:
    """Nothing: `evaluate` has all there is."""
    del variables, batch, key
    return {}

  def sample(self, variables: Variables, key: jax.Array, num: int) -> jax.Array:
    """Expected images float32 [num, H, W, C] of codes drawn place by place from their marginals."""
    book = _book(variables['codebook'])
    log_marginals = quantization.marginals(book.positions)
    keys = example_keys(key, {'position': jnp.arange(num)})
    chosen = jax.vmap(lambda k: jax.random.categorical(k, log_marginals))(keys)
    return self._likelihood.mean(self._decode(variables, book.embedding[chosen]))

  @property
  def drawings(self) -> Mapping[str, Drawing]:
    return {'reconstruct': Drawing(self._reconstructions, 32, 'test images')}

  # --- training

  def _loss(self, params, mutable, batch: Batch, key: jax.Array):
    # Folded: microbatches share the key, and must not restart codes with the same draws.
    keys = jax.random.split(jax.random.fold_in(key, batch['position'][0]), 3)
    features, encoder_state = apply_training(
      self.modules['encoder'], params['encoder'], mutable['encoder'], batch['image'], key=keys[0]
    )
    book = _book(mutable['codebook'])
    chosen = quantization.nearest(features, book.embedding)
    quantized = book.embedding[chosen]
    outputs, decoder_state = apply_training(
      self.modules['decoder'],
      params['decoder'],
      mutable['decoder'],
      quantization.straight_through(features, quantized),
      key=keys[1],
    )
    reconstruction = -self._likelihood.log_prob(batch['image'], outputs).mean()
    commitment = quantization.commitment(features, quantized).mean()
    counts = jnp.bincount(chosen.reshape(-1), length=book.counts.shape[0])
    seen = jax.lax.stop_gradient(features)
    book = quantization.followed(book, seen, chosen, self.decay)
    book, dead = quantization.restarted(book, seen, self.restart_below, keys[2])
    metrics = {
      'reconstruction': reconstruction,
      'commitment': commitment,
      'codebook_perplexity': quantization.perplexity(counts.astype(jnp.float32)),
      'codebook_used': (counts > 0).mean(),
      'codebook_restarted': dead.mean(),
    }
    changed = {
      'encoder': encoder_state,
      'decoder': decoder_state,
      'codebook': {'codebook': book._asdict()},
    }
    return reconstruction + self.commitment_weight * commitment, Aux(metrics, changed)

  # --- small parts

  @property
  def _likelihood(self) -> likelihood.Likelihood:
    return pick(likelihood, self.reconstruction, 'reconstruction')(self.variance)

  def _encode(self, variables: Variables, images: jax.Array) -> jax.Array:
    return self.modules['encoder'].apply(variables['encoder'], images, train=False)

  def _decode(self, variables: Variables, codes: jax.Array) -> jax.Array:
    return self.modules['decoder'].apply(variables['decoder'], codes, train=False)

  def _reconstructions(self, variables: Variables, batch: Batch, key: jax.Array, num: int):
    """Rows of originals, each over the row of its reconstructions, eight to a row."""
    del key
    images, book = batch['image'][:num], _book(variables['codebook'])
    chosen = quantization.nearest(self._encode(variables, images), book.embedding)
    rebuilt = self._likelihood.mean(self._decode(variables, book.embedding[chosen]))
    return over_each_other(images, rebuilt, columns=8)


def _book(variables: Mapping) -> quantization.Codebook:
  """The codebook of its module's variables or mutable collections."""
  return quantization.Codebook(**variables['codebook'])
