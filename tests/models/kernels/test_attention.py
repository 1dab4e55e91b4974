"""Attention of whole rows and from a cache against jax's own."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from models.kernels.attention import Cache, attend, cached_attention, fused_attend, visible

B, T, H, G, D = 2, 5, 4, 2, 3
RNG = np.random.default_rng(0)
QUERY = jnp.asarray(RNG.standard_normal((B, T, H, D)), jnp.float32)
ENTRIES = jnp.asarray(RNG.standard_normal((2, B, T, G, D)), jnp.float32)


def with_derivatives(function):
  """The value, the gradients, and the forward derivative of both."""
  operands = (QUERY, *ENTRIES)
  energy = lambda *operands: jnp.sin(3 * function(*operands)).sum()  # noqa: E731
  both = lambda *a: (function(*a), jax.grad(energy, argnums=(0, 1, 2))(*a))  # noqa: E731
  towards = tuple(map(jnp.cos, operands))
  return jax.jit(lambda *a: jax.jvp(both, a, towards))(*operands)


def close(actual, expected, tolerance=1e-5):
  for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
    assert a.shape == b.shape and a.dtype == b.dtype
    np.testing.assert_allclose(a, b, rtol=1e-5, atol=tolerance * max(1.0, jnp.abs(b).max()))


@pytest.mark.parametrize('causal', [False, True], ids=['both ways', 'causal'])
@pytest.mark.parametrize('masked', [False, True], ids=['', 'masked'])
@pytest.mark.parametrize('lengths', [None, (3, 5)], ids=['', 'lengths'])
def test_values_and_derivatives_are_those_of_jaxs_attention(causal, masked, lengths):
  mask = None
  if masked:  # and no row of it sees nothing
    mask = jnp.asarray(RNG.random((B, 1, T, T)) < 0.5) | (jnp.arange(T) == 0)
  lengths = lengths and jnp.array(lengths)
  seen = visible(T, causal, mask, lengths)
  assert (seen is None) == (not causal and not masked and lengths is None)
  wanted = functools.partial(
    jax.nn.dot_product_attention, mask=mask, is_causal=causal, key_value_seq_lengths=lengths
  )
  close(with_derivatives(lambda *a: attend(*a, seen, None)), with_derivatives(wanted))


def plain(query, key, value, seen, factor):
  """The formula, differentiated by jax."""
  key, value = (jnp.repeat(entry, H // G, axis=2) for entry in (key, value))
  logits = jnp.einsum('bthd,bshd->bhts', query, key) / D**0.5
  weights = jax.nn.softmax(jnp.where(seen, logits, -jnp.inf), axis=-1)
  return jnp.einsum('bhts,bshd->bthd', weights * factor, value)


def test_weights_are_dropped_after_the_softmax():
  factor = jnp.asarray(RNG.integers(0, 2, (B, H, T, T)) * 2.0, jnp.float32)
  seen = visible(T, True, None, None)
  close(*(with_derivatives(lambda *a, f=f: f(*a, seen, factor)) for f in (attend, plain)))


def test_a_query_that_sees_nothing_gets_the_mean():
  seen = jnp.zeros((1, 1, T, T), bool)
  (got, gradients), _ = with_derivatives(lambda *a: attend(*a, seen, None))
  mean = jnp.repeat(ENTRIES[1].mean(axis=1, keepdims=True), H // G, axis=2)
  close(got, jnp.broadcast_to(mean, got.shape))
  assert all(bool(jnp.isfinite(g).all()) for g in gradients)


def test_half_precision_in_and_out():
  operands = [a.astype(jnp.bfloat16) for a in (QUERY, *ENTRIES)]
  seen = visible(T, True, None, None)
  energy = lambda *a: attend(*a, seen, None).astype(jnp.float32).sum()  # noqa: E731
  gradients = jax.jit(jax.grad(energy, argnums=(0, 1, 2)))(*operands)
  assert {g.dtype for g in gradients} == {jnp.bfloat16.dtype}
  got = attend(*operands, seen, None)
  assert got.dtype == jnp.bfloat16
  np.testing.assert_allclose(
    got.astype(jnp.float32), attend(QUERY, *ENTRIES, seen, None), atol=0.05
  )


def kernel_without_forward_mode(calls):
  """Stands for cuDNN's kernel, which has a gradient of its own and no other derivative."""

  @jax.custom_vjp
  def kernel(query, key, value):
    return attend(query, key, value, None, None)

  def backward(operands, g):
    calls.append('gradient')
    return jax.vjp(lambda *a: attend(*a, None, None), *operands)[1](g)

  kernel.defvjp(lambda *operands: (kernel(*operands), operands), backward)

  def attention(query, key, value, *, implementation, **given):
    calls.append(implementation)
    return kernel(query, key, value)

  return attention


def test_the_fused_kernel_gives_the_gradient_and_attend_the_forward_derivative(monkeypatch):
  calls = []
  monkeypatch.setattr(jax.nn, 'dot_product_attention', kernel_without_forward_mode(calls))
  operands = (QUERY, *ENTRIES)
  fused = lambda *a: fused_attend(*a, None, None, False)  # noqa: E731
  plain = lambda *a: attend(*a, None, None)  # noqa: E731
  towards = tuple(map(jnp.cos, operands))
  close(*(jax.jvp(f, operands, towards) for f in (fused, plain)))
  assert calls == ['cudnn']
  close(
    *(jax.grad(lambda *a, f=f: jnp.sin(f(*a)).sum(), (0, 1, 2))(*operands) for f in (fused, plain))
  )
  assert calls == ['cudnn', 'cudnn', 'gradient']


@pytest.mark.parametrize('lengths', [None, (3, 5)], ids=['', 'lengths'])
def test_the_forward_derivative_of_the_fused_kernel_sees_what_it_sees(monkeypatch, lengths):
  masks = dict(
    mask=jnp.tril(jnp.ones((1, 1, T, T), bool), 2) | (jnp.arange(T) == 0),
    lengths=lengths and jnp.array(lengths),
  )
  own = jax.nn.dot_product_attention
  monkeypatch.setattr(
    jax.nn, 'dot_product_attention', lambda *a, implementation, **given: own(*a, **given)
  )
  operands, seen = (QUERY, *ENTRIES), visible(T, False, *masks.values())
  towards = tuple(map(jnp.cos, operands))
  fused = lambda *a: fused_attend(*a, *masks.values(), False)  # noqa: E731
  wanted = jax.jvp(lambda *a: attend(*a, seen, None), operands, towards)
  close(jax.jvp(fused, operands, towards), wanted)


def test_cached_attention_is_the_last_row_of_the_whole():
  wanted = jax.nn.dot_product_attention(QUERY, *ENTRIES, is_causal=True)[:, 3]
  # After the third place the cache holds what must not be seen.
  cache = Cache(*(e.swapaxes(1, 2).at[:, :, 3:].set(50.0) for e in ENTRIES))
  new = Cache(*(e[:, 3][:, :, None] for e in ENTRIES))
  filled = jnp.broadcast_to(jnp.arange(cache.key.shape[2]) < 3, (len(QUERY), cache.key.shape[2]))
  got = jax.jit(cached_attention)(QUERY[:, 3], new, cache, filled)
  np.testing.assert_allclose(got, wanted, atol=1e-6)
