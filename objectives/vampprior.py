"""VAE whose prior is a mixture of its own posteriors (Tomczak and Welling 2018)."""

import dataclasses
from collections.abc import Callable

import jax

from losses import gaussian
from losses.gaussian import Gaussian
from objectives.base import Variables, stream_keys
from objectives.vae import VAE


@dataclasses.dataclass(frozen=True)
class VampPrior(VAE):
  """A VAE with a third module, `pseudo_inputs` (train) -> images [K, H, W, C] in [0, 1].

  p(z) is the even mixture of the K posteriors of these images (eq. 9). The KL has no closed form:
  it is log q(z | x) − log p(z) at the draw that is decoded, and has one part only.
  """

  def _divergence(self, variables: Variables, posterior: Gaussian, latents: jax.Array) -> jax.Array:
    log_ratio = gaussian.log_prob(posterior, latents) - self._log_prior(variables)(latents)
    return log_ratio[:, None]

  def _log_prior(self, variables: Variables) -> Callable[[jax.Array], jax.Array]:
    components = self._components(variables)
    return lambda latents: gaussian.mixture_log_prob(components, latents)

  def _prior_latents(self, variables: Variables, keys: jax.Array) -> jax.Array:
    components = self._components(variables)
    number = components.mean.shape[0]
    chosen = jax.vmap(lambda key: jax.random.randint(key, (), 0, number))(
      stream_keys(keys, 'component')
    )
    picked = Gaussian(components.mean[chosen], components.log_variance[chosen])
    return gaussian.sample(picked, stream_keys(keys, 'latents'))

  def _components(self, variables: Variables) -> Gaussian:
    """The posteriors [K, Z] of the pseudo-inputs."""
    images = self._outputs('pseudo_inputs', variables)
    return self._encode(variables, images, self._no_condition(images.shape[0]))
