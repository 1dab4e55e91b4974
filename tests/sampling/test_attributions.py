import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from errors import UserError
from models import layers
from sampling import attributions, heat_maps

SHAPE = (3, 6, 5, 2)  # B, H, W, C: all different
overlay = jax.jit(heat_maps.overlay)


def random(seed, shape=SHAPE):
  return np.random.default_rng(seed).uniform(size=shape).astype(np.float32)


def quadratic(matrix, images):
  """½ xᵀA x with a symmetric A [D, D]."""
  flat = images.reshape(images.shape[0], -1)
  return 0.5 * jnp.einsum('bi,ij,bj->b', flat, matrix, flat, precision='highest')


@pytest.fixture(scope='module')
def matrix():
  size = int(np.prod(SHAPE[1:]))
  half = np.random.default_rng(9).normal(size=(size, size)).astype(np.float32)
  return half + half.T


def network(activation):
  """A score with labels of its own, through a convolution of ours, which knows no forward mode."""
  kernel = jnp.asarray(random(5, (3, 3, 2, 4)) - 0.5)
  head = jnp.asarray(random(6, (6 * 5 * 4, 7)) - 0.5)
  labels = jnp.array([4, 0, 6])

  def score(images):
    hidden = activation(layers.conv(images, kernel) - 0.2).reshape(images.shape[0], -1)
    return jnp.take_along_axis(hidden @ head, labels[:, None], axis=1)[:, 0]

  return jax.jit(score)


@jax.jit
def dense(images):
  """A score quick to compile."""
  return jnp.tanh(images.reshape(images.shape[0], -1) @ (random(7, (60, 8)) - 0.5)).sum(axis=1)


# --- saliency


def test_saliency_is_the_largest_gradient_over_the_channels(matrix):
  images = random(0)
  got = jax.jit(functools.partial(attributions.saliency, functools.partial(quadratic, matrix)))(
    images
  )
  gradient = (images.reshape(3, -1) @ matrix).reshape(SHAPE)
  assert got.shape == SHAPE[:3]
  np.testing.assert_allclose(got, np.abs(gradient).max(axis=-1), rtol=1e-4, atol=1e-4)


def test_saliency_of_a_network_is_the_slope_by_finite_differences():
  score, images = network(jnp.tanh), random(1)
  got = jax.jit(functools.partial(attributions.saliency, score))(images)
  slopes, step = [], 1e-2
  for channel in range(SHAPE[-1]):
    nudge = np.zeros(SHAPE, np.float32)
    nudge[:, 2, 3, channel] = step
    slopes.append((score(images + nudge) - score(images - nudge)) / (2 * step))
  np.testing.assert_allclose(got[:, 2, 3], np.abs(slopes).max(axis=0), rtol=2e-3, atol=1e-3)


# --- integrated gradients


@pytest.mark.parametrize('steps', [1, 4])
def test_integrated_gradients_of_a_quadratic_are_exact(matrix, steps):
  """(x − x′) ∘ A(x + x′)/2, which adds up to the difference of the scores."""
  images, baseline = random(0), random(2)
  score = functools.partial(quadratic, matrix)
  got = jax.jit(lambda x, b: attributions.integrated_gradients(score, x, b, steps))(
    images, baseline
  )
  middle = ((images + baseline) / 2).reshape(3, -1).astype(np.float64) @ matrix
  expected = (images - baseline) * middle.reshape(SHAPE)
  np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-4)
  np.testing.assert_allclose(
    got.sum(axis=(1, 2, 3)), score(images) - score(baseline), rtol=1e-4, atol=1e-3
  )


def test_integrated_gradients_are_exact_up_to_degree_twice_the_steps():
  """∂(Σxᵈ) from 0 gives xᵈ; the next degree is beyond the rule."""
  images, baseline = random(0), np.zeros(SHAPE[1:], np.float32)

  def error(degree):
    score = lambda x: (x**degree).sum(axis=(1, 2, 3))  # noqa: E731
    got = attributions.integrated_gradients(score, images, baseline, 3)
    return np.abs(got - images**degree).max()

  assert error(6) < 1e-6
  assert error(8) > 1e-4


@pytest.mark.parametrize(
  ('activation', 'steps', 'tolerance'), [(jnp.tanh, 8, 1e-5), (jax.nn.relu, 64, 0.01)]
)
def test_integrated_gradients_of_a_network_add_up_to_the_scores_difference(
  activation, steps, tolerance
):
  """Against a baseline for all the images, and far from what the gradient at the image gives."""
  score, images, baseline = network(activation), random(1), np.full((1, 1, 1, 2), 0.1, np.float32)
  got = jax.jit(lambda x: attributions.integrated_gradients(score, x, baseline, steps))(images)
  difference = score(images) - score(jnp.broadcast_to(baseline, SHAPE))
  assert got.shape == SHAPE
  np.testing.assert_allclose(got.sum(axis=(1, 2, 3)), difference, atol=tolerance)
  slope = jax.jit(jax.grad(lambda x: score(x).sum()))(images)
  at_image = (images - baseline) * slope
  assert np.abs(at_image.sum(axis=(1, 2, 3)) - difference).max() > 10 * tolerance


@pytest.mark.parametrize('steps', [0, -1])
def test_integrated_gradients_need_a_step(steps):
  with pytest.raises(UserError, match='at least 1'):
    attributions.integrated_gradients(dense, random(0), np.zeros(SHAPE), steps)


# --- occlusion


def occlusion_by_hand(score, images, window, stride, value):
  """Loops; windows at multiples of the stride and one at each far edge."""
  batch, height, width, _ = images.shape
  total, count = np.zeros((batch, height, width)), np.zeros((height, width))
  starts = [
    sorted({*range(0, size - window + 1, stride), size - window}) for size in (height, width)
  ]
  for top in starts[0]:
    for left in starts[1]:
      covered = images.copy()
      covered[:, top : top + window, left : left + window] = value
      drop = np.asarray(score(images) - score(covered))
      total[:, top : top + window, left : left + window] += drop[:, None, None]
      count[top : top + window, left : left + window] += 1
  assert count.min() > 0
  return total / count


@pytest.mark.parametrize(('window', 'stride'), [(2, 1), (3, 2), (4, 3), (5, 5)])
def test_occlusion_is_the_mean_drop_over_the_windows_that_cover_a_pixel(window, stride):
  images = random(3)
  got = jax.jit(lambda x: attributions.occlusion(dense, x, window, stride, 0.3))(images)
  expected = occlusion_by_hand(dense, images, window, stride, 0.3)
  assert got.shape == SHAPE[:3]
  np.testing.assert_allclose(got, expected, atol=1e-5)


def test_occlusion_of_one_pixel_of_a_linear_score_is_its_weight_times_what_is_lost():
  weights, images = random(4) - 0.5, random(3)
  score = lambda x: (weights * x).sum(axis=(1, 2, 3))  # noqa: E731
  got = attributions.occlusion(score, images, 1, 1, 0.25)
  np.testing.assert_allclose(got, (weights * (images - 0.25)).sum(axis=-1), atol=1e-5)


@pytest.mark.parametrize(
  ('window', 'stride', 'says'),
  [(0, 1, 'take 1 to 5'), (6, 1, '6×5'), (3, 0, 'take 1 to 3'), (3, 4, 'take 1 to 3')],
)
def test_occlusion_refuses_windows_that_do_not_cover_the_image(window, stride, says):
  with pytest.raises(UserError, match=says):
    attributions.occlusion(dense, random(0), window, stride, 0.5)


@pytest.mark.parametrize(
  'explain',
  [
    lambda score, x: attributions.saliency(score, x),
    lambda score, x: attributions.integrated_gradients(score, x, jnp.zeros_like(x), 2),
    lambda score, x: attributions.occlusion(score, x, 2, 1, 0.5),
  ],
)
def test_a_score_of_several_classes_is_an_error(explain):
  """Summed over the classes its gradient would look like an explanation."""
  with pytest.raises((TypeError, ValueError)):
    explain(lambda x: x.sum(axis=(1, 2)), random(0))


# --- heat maps


@pytest.mark.parametrize('channels', [1, 3])
def test_a_map_of_zeros_leaves_the_grey_image(channels):
  images = random(0, (2, 4, 5, channels))
  got = np.asarray(overlay(images, np.zeros((2, 4, 5), np.float32)))
  assert got.shape == (2, 4, 5, 3)
  grey = np.broadcast_to(images.mean(axis=-1, keepdims=True), got.shape)
  np.testing.assert_allclose(got, grey, atol=1e-6)


def test_positive_is_red_negative_is_blue_and_more_of_it_is_more_of_it():
  maps = np.linspace(-1, 1, 21, dtype=np.float32)[None, None, :]
  for level in (0.0, 0.5, 1.0):
    row = np.asarray(overlay(np.full((1, 1, 21, 1), level, np.float32), maps))[0, 0]
    assert row.min() >= 0 and row.max() <= 1
    warmth = row[:, 0] - row[:, 2]
    assert (np.diff(warmth[:-1]) > 0).all()  # the last may lie above the percentile
    np.testing.assert_allclose(warmth[10], 0, atol=1e-6)
    assert warmth[-1] > 0.5 and warmth[0] < -0.5


def test_neither_the_scale_of_a_map_nor_the_other_images_count():
  images, maps = random(0, (2, 10, 10, 1)), random(1, (2, 10, 10)) - 0.5
  alone = overlay(images, maps)
  scaled = overlay(images, maps * np.array([1e6, 1e-6], np.float32)[:, None, None])
  np.testing.assert_allclose(scaled, alone, atol=1e-4)


def test_one_hot_pixel_does_not_hide_the_rest():
  images, maps = random(0, (1, 20, 20, 1)), random(1, (1, 20, 20)) - 0.5
  hot = maps.copy()
  hot[0, 3, 4] = 1000
  shown = overlay(images, hot)
  assert shown.min() >= 0 and shown.max() <= 1
  change = np.abs(shown - overlay(images, maps))[0]
  assert np.sort(change.max(axis=-1).ravel())[-2] < 0.02


def test_a_map_of_one_pixel_shows_it_alone():
  images, maps = random(0, (1, 20, 20, 1)), np.zeros((1, 20, 20), np.float32)
  maps[0, 3, 4] = 1e-3
  change = np.abs(overlay(images, maps) - images)[0].max(axis=-1)
  assert change[3, 4] > 0.1 and (change > 1e-6).sum() == 1
