"""Importance-weighted autoencoder (Burda et al. 2016): a tighter bound from k draws."""

import dataclasses

import jax
import jax.numpy as jnp

from errors import UserError
from losses import elbo, gaussian
from losses.gaussian import Gaussian
from objectives.base import Aux, Batch, Context, Variables, merge_variables, stream_keys
from objectives.vae import VAE, flat
from options import option


@dataclasses.dataclass(frozen=True)
class IWAE(VAE):
  """A VAE that lowers −log (1/k) Σ p(x, zᵢ)/q(zᵢ | x) (eq. 8).

  The bound has no separate KL to weigh: `kl_weight` must be 1, `kl_warmup` and `free_bits` 0.
  """

  importance_samples: int = option(
    'k, draws from each posterior; with 1 it is the ELBO, estimated with one draw throughout.',
    low=1,
  )

  def __post_init__(self):
    super().__post_init__()
    if self.kl_weight != 1 or self.kl_warmup or self.free_bits:
      raise UserError(
        'the bound of config.objective.name=iwae has no KL to weigh: leave kl_weight at 1, '
        'kl_warmup and free_bits at 0, or use vae'
      )

  def evaluate(self, variables: Variables, batch: Batch, keys: jax.Array) -> dict[str, jax.Array]:
    """The VAE's figures and `iwae_bound`, the k-sample bound in nats."""
    values = super().evaluate(variables, batch, keys)
    # The same pixels as the ELBO's where they are drawn.
    images, condition = self._observe(batch, keys), self._condition(batch)
    posterior = self._encode(variables, images, condition)
    latents = self._draws(posterior, stream_keys(keys, 'importance'))
    outputs = self._decode(variables, *flat(latents, condition))
    prior = self._log_prior(variables)
    weights = self._log_weights(images, outputs, prior, posterior, latents)
    return {**values, 'iwae_bound': elbo.log_mean_exp(weights)}

  def _loss(self, params, mutable, batch: Batch, context: Context):
    images, condition = self._observe(batch, context.keys), self._condition(batch)
    posterior, encoder_state = self._apply_training(
      'encoder', params, mutable, images, condition, rngs=context.rngs_for('encoder')
    )
    posterior = Gaussian(*posterior)
    latents = self._draws(posterior, context.fold('importance'))
    outputs, decoder_state = self._apply_training(
      'decoder', params, mutable, *flat(latents, condition), rngs=context.rngs_for('decoder')
    )
    prior = self._log_prior(merge_variables(params, mutable))
    weights = self._log_weights(images, outputs, prior, posterior, latents)
    loss = -elbo.log_mean_exp(weights).mean()
    changed = {'encoder': encoder_state, 'decoder': decoder_state}
    return loss, Aux({'elbo': weights.mean()}, changed)

  def _draws(self, posterior: Gaussian, keys: jax.Array) -> jax.Array:
    """k independent draws of each posterior, [k, B, Z], from keys [B]."""

    def draw(number: jax.Array) -> jax.Array:
      return gaussian.sample(posterior, jax.vmap(jax.random.fold_in, (0, None))(keys, number))

    return jax.vmap(draw)(jnp.arange(self.importance_samples))
