"""VQ-VAE (van den Oord et al. 2017): an autoencoder through a codebook, one player.

The prior over codes is the product of their marginals, one for each place of the map: it knows
which code is common where, but nothing of how neighbours go together. So samples are locally
plausible and globally not, and `rate` is an upper bound on what a better prior needs; a transformer
prior is to come.
"""

import dataclasses
import math
from collections.abc import Mapping

import jax
import jax.numpy as jnp

from errors import UserError
from losses import likelihood, quantization
from objectives.base import (
  Aux,
  Batch,
  Context,
  Objective,
  Picture,
  Player,
  Sampler,
  Variables,
)
from objectives.names import check_variance, entries, pick
from options import option
from sampling.picture_pairs import stack_pairs


@dataclasses.dataclass(frozen=True)
class VQVAE(Objective):
  """Modules `encoder` (images, train) -> features [B, h, w, D], `decoder` (codes [B, h, w, D],
  train) -> [B, H, W, C, outputs], and `codebook`, whose collection `codebook` holds the fields of
  `losses.quantization.Codebook`.

  The decoder's field `outputs` is set from here; the codebook has the field `codes` and no
  parameters, so no optimizer moves it: the loss returns it changed. With microbatches it is
  updated after each of them.
  """

  reconstruction: str = option(
    'Likelihood of the images given their codes.', choices=tuple(entries(likelihood))
  )
  variance: float = option('σ² of `gaussian`; 0 learns it.', low=0)
  commitment_weight: float = option(
    'β, weight of the pull of the features towards their codes.', low=0
  )
  decay: float = option("γ, decay of the codebook's averages.", low=0, below=1)
  restart_below: float = option(
    'A code chosen less often than this share of the mean is replaced by a feature of the batch; 0 '
    'never restarts.',
    low=0,
    below=1,
  )

  def __post_init__(self):
    check_variance(self.reconstruction, self.variance)
    self._configure('decoder', outputs=self._likelihood.outputs)

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
    codebook = self.modules['codebook'].init(codebook_key, features, train=False)
    if 'codebook' not in codebook:
      raise UserError(
        f'config.modules.codebook is {type(self.modules["codebook"]).__name__}, which holds no '
        'codes; name vqvae.Codebook, or a module with a collection "codebook"'
      )
    decoded = (*batch['image'][:1].shape, self._likelihood.outputs)
    return {
      'encoder': encoder_variables,
      'codebook': {'params': {}, **codebook},
      'decoder': self._initialised('decoder', decoder_key, features, outputs=decoded),
    }

  def evaluate(self, variables: Variables, batch: Batch, keys: jax.Array) -> dict[str, jax.Array]:
    """The bound's parts, without noise, and the perplexity of recent codebook usage."""
    del keys
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

  @property
  def sampler(self) -> Sampler:
    return Sampler('image', self._sample)

  def _sample(self, variables: Variables, keys: jax.Array, numbers: jax.Array) -> jax.Array:
    """Expected images float32 [B, H, W, C] of codes sampled place by place from their marginals."""
    del numbers
    book = _book(variables['codebook'])
    log_marginals = quantization.marginals(book.positions)
    chosen = jax.vmap(lambda key: jax.random.categorical(key, log_marginals))(keys)
    return self._likelihood.mean(self._decode(variables, book.embedding[chosen]))

  @property
  def pictures(self) -> Mapping[str, Picture]:
    return {'reconstruct': Picture(self._reconstructions, 32, 'test images', examples=1)}

  # --- training

  def _loss(self, params, mutable, batch: Batch, context: Context):
    features, encoder_state = self._apply_training(
      'encoder', params, mutable, batch['image'], rngs=context.rngs_for('encoder')
    )
    book = _book(mutable['codebook'])
    chosen = quantization.nearest(features, book.embedding)
    quantized = book.embedding[chosen]
    outputs, decoder_state = self._apply_training(
      'decoder',
      params,
      mutable,
      quantization.straight_through(features, quantized),
      rngs=context.rngs_for('decoder'),
    )
    reconstruction = -self._likelihood.log_prob(batch['image'], outputs).mean()
    commitment = quantization.commitment(features, quantized).mean()
    counts = jnp.bincount(chosen.reshape(-1), length=book.counts.shape[0])
    seen = jax.lax.stop_gradient(features)
    book = quantization.update_codebook(book, seen, chosen, self.decay)
    book, dead = quantization.restart_dead_codes(
      book, seen, self.restart_below, context.fold('restart')[0]
    )
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
    return pick(likelihood, self.reconstruction, 'config.objective.reconstruction')(self.variance)

  def _encode(self, variables: Variables, images: jax.Array) -> jax.Array:
    return self._outputs('encoder', variables, images)

  def _decode(self, variables: Variables, codes: jax.Array) -> jax.Array:
    return self._outputs('decoder', variables, codes)

  def _reconstructions(self, variables: Variables, batch: Batch, keys: jax.Array, num: int):
    """Rows of originals, each over the row of its reconstructions, eight to a row."""
    del keys
    images, book = batch['image'][:num], _book(variables['codebook'])
    chosen = quantization.nearest(self._encode(variables, images), book.embedding)
    rebuilt = self._likelihood.mean(self._decode(variables, book.embedding[chosen]))
    return stack_pairs(images, rebuilt, columns=8)


def _book(variables: Mapping) -> quantization.Codebook:
  """The codebook of its module's variables or mutable collections."""
  return quantization.Codebook(**variables['codebook'])
