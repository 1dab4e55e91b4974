"""Labels as what a classifier is to say."""

import jax


def smoothed(label: jax.Array, classes: int, smoothing: float) -> jax.Array:
  """Labels int32 [B] as distributions [B, K]: (1 − ε) on the label, ε spread over all K classes.

  Szegedy et al. 2016, section 7. ε from 0 to below 1.
  """
  return jax.nn.one_hot(label, classes) * (1 - smoothing) + smoothing / classes
