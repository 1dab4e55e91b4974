"""Images with three colours, for networks that were trained on photographs."""

import jax


def colours(images: jax.Array, where: str) -> jax.Array:
  """Returns images [N, H, W, 1 or 3] with three channels; a gray one is repeated.

  Raises:
    ValueError: they have another number of channels; begins with `where`.
  """
  channels = images.shape[-1]
  if channels not in (1, 3):
    raise ValueError(
      f'{where} takes gray or colour images, of 1 or 3 channels, and these have {channels}; choose '
      'pixels.BlockMeans, which takes any'
    )
  return images.repeat(3 // channels, axis=-1)
