"""Importance-weighted autoencoder (Burda et al. 2016): a tighter bound from k draws."""

import dataclasses

import jax

from errors import UserError
from losses import elbo, gaussian
from losses.gaussian import Gaussian
from objectives.base import Aux, Batch, Variables, example_keys
from objectives.vae import VAE, flat, together


@dataclasses.dataclass(frozen=True)
class IWAE(VAE):
  """A VAE that lowers −log (1/k) Σ p(x, zᵢ)/q(zᵢ | x) (eq. 8).

  The bound has no separate KL to weigh: `kl_weight` must be 1, `kl_warmup` and `free_bits` 0.

  Attributes:
    importance_samples: k; with 1 it is the ELBO, estimated with one draw throughout.
  """

  importance_samples: int

  def __post_init__(self):
    super().__post_init__()
    if self.importance_samples < 1:
      raise UserError(
        f'config.objective.importance_samples={self.importance_samples} must be at least 1'
      )
    if self.kl_weight != 1 or self.kl_warmup or self.free_bits:
      raise UserError(
        'the bound of config.objective.name=iwae has no KL to weigh: leave kl_weight at 1, '
        'kl_warmup and free_bits at 0, or use vae'
      )

  def evaluate(self, variables: Variables, batch: Batch, key: jax.Array) -> dict[str, jax.Array]:
    """The VAE's figures and `iwae_bound`, the k-sample bound in nats."""
    values = super().evaluate(variables, batch, key)
    data_key, _ = jax.random.split(key)  # The same draw of the data as the ELBO's.
    images, condition = self._observe(batch, data_key), self._condition(batch)
    posterior = self._encode(variables, images, condition)
    latents = self._draws(posterior, jax.random.fold_in(key, 1), batch)
    outputs = self._decode(variables, *flat(latents, condition))
    prior = self._log_prior(variables)
    weights = self._log_weights(images, outputs, prior, posterior, latents)
    return {**values, 'iwae_bound': elbo.log_mean_exp(weights)}

  def _loss(self, params, mutable, batch: Batch, key: jax.Array):
    posterior, images, condition, encoder_state, key = self._posterior(params, mutable, batch, key)
    draw_key, decoder_key = jax.random.split(key)
    latents = self._draws(posterior, draw_key, batch)
    outputs, decoder_state = self._train_decoder(
      params, mutable, *flat(latents, condition), batch, decoder_key
    )
    prior = self._log_prior(together(params, mutable))
    weights = self._log_weights(images, outputs, prior, posterior, latents)
    loss = -elbo.log_mean_exp(weights).mean()
    changed = {'encoder': encoder_state, 'decoder': decoder_state}
    return loss, Aux({'elbo': weights.mean()}, changed)

  def _draws(self, posterior: Gaussian, key: jax.Array, batch: Batch) -> jax.Array:
    """k independent draws of each posterior, [k, B, Z]."""
    keys = jax.random.split(key, self.importance_samples)
    return jax.vmap(lambda k: gaussian.draw(posterior, example_keys(k, batch)))(keys)
