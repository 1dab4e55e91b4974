"""Operations counted from a program, against XLA's own count and by hand."""

import jax
import jax.numpy as jnp
import pytest

from engine.flops import count_flops, count_recomputed, largest_product
from models.kernels import dense
from models.kernels.attention import attend, fused_attend, visible


def counted(function, *arguments):
  return count_flops(jax.make_jaxpr(function)(*arguments).jaxpr)


def by_xla(function, *arguments):
  return jax.jit(function).lower(*arguments).cost_analysis()['flops']


@pytest.mark.parametrize(
  'options',
  [
    dict(window_strides=(1, 1), padding='VALID'),
    dict(window_strides=(2, 3), padding='SAME'),
    dict(window_strides=(1, 1), padding=((2, 1), (3, 0)), lhs_dilation=(2, 2)),
    dict(window_strides=(1, 2), padding='SAME', rhs_dilation=(2, 1)),
    dict(window_strides=(1, 1), padding='SAME', feature_group_count=2),
    dict(window_strides=(1, 1), padding='SAME', batch_group_count=2),
  ],
)
def test_a_convolution_counts_what_xla_counts(options):
  groups = options.get('feature_group_count', 1)
  image, kernel = jnp.ones((4, 6, 9, 11)), jnp.ones((8, 6 // groups, 3, 4))

  def convolve(image, kernel):
    return jax.lax.conv_general_dilated(image, kernel, **options)

  assert counted(convolve, image, kernel) == by_xla(convolve, image, kernel)


def test_products_of_batches_and_their_gradients():
  def loss(w, x):
    return jnp.einsum('bij,jk->bik', x, w).sum()

  w, x = jnp.ones((5, 7)), jnp.ones((2, 3, 5))
  assert counted(loss, w, x) == 2 * (2 * 3 * 7) * 5
  assert counted(jax.value_and_grad(loss, argnums=(0, 1)), w, x) == 3 * 2 * (2 * 3 * 7) * 5


def test_a_scan_counts_as_often_as_it_runs_and_the_dearer_branch_counts():
  w, x = jnp.ones((4, 4)), jnp.ones((4,))
  product = 2 * 4 * 4

  def scanned(w, x):
    return jax.lax.scan(lambda x, _: (w @ x, None), x, length=6)[0]

  def branched(w, x):
    return jax.lax.cond(x[0] > 0, lambda: w @ (w @ x), lambda: w @ x)

  def open_ended(w, x):
    return jax.lax.while_loop(lambda x: x[0] > 0, lambda x: w @ x, x)

  assert counted(scanned, w, x) == 6 * product
  assert counted(branched, w, x) == 2 * product
  assert counted(open_ended, w, x) == product


def test_of_forms_for_several_platforms_the_least_costly_counts():
  w, x = jnp.ones((4, 4)), jnp.ones((4,))
  product = 2 * 4 * 4

  def once(w, x):
    return jax.lax.platform_dependent(
      w, x, cpu=lambda w, x: w @ (w @ x), default=lambda w, x: w @ x
    )

  def scanned(w, x):
    return jax.lax.scan(lambda x, _: (jax.jit(once)(w, x), None), x, length=6)[0]

  def branched(w, x):
    return jax.lax.cond(x[0] > 0, lambda: w @ (w @ x), lambda: w @ x)

  assert counted(once, w, x) == counted(jax.jit(once), w, x) == product
  assert counted(scanned, w, x) == 6 * product
  assert counted(lambda w, x: once(w, branched(w, x)), w, x) == 3 * product
  gradient = jax.grad(lambda w, x: once(w, x).sum(), argnums=(0, 1))
  assert counted(jax.jit(gradient), w, x) <= 3 * product


def test_the_gradient_of_a_kernel_of_our_own_counts():
  x, w = jnp.ones((3, 5)), jnp.ones((5, 7))

  def loss(w, x):
    return dense.product(x, w).sum()

  assert counted(jax.value_and_grad(loss, argnums=(0, 1)), w, x) == 3 * 2 * 3 * 5 * 7
  # What is not returned is not computed: here the product itself.
  assert counted(jax.grad(loss, argnums=(0, 1)), w, x) == 2 * 2 * 3 * 5 * 7


def test_the_largest_product_is_found_within_loops():
  def function(x):
    small = jax.lax.scan(lambda carry, _: (carry @ carry, None), x[:4, :4], length=9)[0]
    return (x @ x.T).astype(jnp.bfloat16).sum() + small.sum() + jnp.ones(10**6).sum()

  def size(x):
    return largest_product(jax.make_jaxpr(function)(x).jaxpr)

  assert size(jnp.ones((5, 4))) == 5 * 5 * 4
  assert size(jnp.ones((4, 4))) == size(jnp.ones((3, 4)).repeat(2, 0)[:4]) == 4 * 4 * 4


@pytest.mark.parametrize('gradient', ['none', 'plain', 'recomputed'])
def test_attention_by_the_kernel_of_a_gpu_counts_as_that_by_products(gradient, monkeypatch):
  """Traced as on a GPU; scores that the kernel's gradient computes again count once."""
  from jax._src.cudnn import fused_attention_stablehlo as cudnn

  monkeypatch.setattr(cudnn, 'check_cudnn_version', lambda: 91000)
  monkeypatch.setattr(cudnn, 'check_compute_capability', lambda capability: True)
  monkeypatch.setattr(cudnn, 'is_cuda_compute_capability_equal', lambda capability: False)
  query, key = (jnp.ones((2, length, 4, 16), jnp.bfloat16) for length in (32, 64))
  seen = visible(64, False, None, None)

  def fused(*given):
    return fused_attend(*given, None, None, False).astype(jnp.float32).sum()

  def plain(*given):
    return attend(*given, seen, None).astype(jnp.float32).sum()

  def differentiated(function):
    function = jax.checkpoint(function) if gradient == 'recomputed' else function
    return function if gradient == 'none' else jax.value_and_grad(function, argnums=(0, 1, 2))

  jaxprs = [
    jax.make_jaxpr(differentiated(function))(query, key, key).jaxpr for function in (fused, plain)
  ]
  by_kernel, by_products = map(count_flops, jaxprs)
  forward = 2 * 2 * query.size * 64
  assert by_kernel == by_products == {'none': 1, 'plain': 3, 'recomputed': 4}[gradient] * forward
  assert count_recomputed(jaxprs[0]) == (forward if gradient == 'recomputed' else 0)
