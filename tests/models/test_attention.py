"""Attention against jax's own, whole and from a cache; when which is asked for."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from models.attention import Attention, Cache, attend, cached_attention, visible
from models.layers import Dense

KEY = jax.random.key(0)
B, T, H, G, D = 2, 5, 4, 2, 3
RNG = np.random.default_rng(0)
QUERY = jnp.asarray(RNG.standard_normal((B, T, H, D)), jnp.float32)
ENTRIES = jnp.asarray(RNG.standard_normal((2, B, T, G, D)), jnp.float32)


def with_gradients(function):
  energy = lambda *operands: jnp.sin(3 * function(*operands)).sum()  # noqa: E731
  return jax.jit(lambda *a: (function(*a), jax.grad(energy, argnums=(0, 1, 2))(*a)))(
    QUERY, *ENTRIES
  )


def close(actual, expected, tolerance=1e-5):
  for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
    assert a.shape == b.shape and a.dtype == b.dtype
    np.testing.assert_allclose(a, b, atol=tolerance)


@pytest.mark.parametrize('causal', [False, True], ids=['both ways', 'causal'])
@pytest.mark.parametrize('masked', [False, True], ids=['', 'masked'])
@pytest.mark.parametrize('lengths', [None, (3, 5)], ids=['', 'lengths'])
def test_values_and_gradients_are_those_of_jaxs_attention(causal, masked, lengths):
  mask = None
  if masked:  # and no row of it sees nothing
    mask = jnp.asarray(RNG.random((B, 1, T, T)) < 0.5) | (jnp.arange(T) == 0)
  lengths = lengths and jnp.array(lengths)
  seen = visible(T, causal, mask, lengths)
  assert (seen is None) == (not causal and not masked and lengths is None)
  wanted = functools.partial(
    jax.nn.dot_product_attention, mask=mask, is_causal=causal, key_value_seq_lengths=lengths
  )
  close(with_gradients(lambda *a: attend(*a, seen, None)), with_gradients(wanted))


def plain(query, key, value, seen, factor):
  """The formula, differentiated by jax."""
  key, value = (jnp.repeat(entry, H // G, axis=2) for entry in (key, value))
  logits = jnp.einsum('bthd,bshd->bhts', query, key) / D**0.5
  weights = jax.nn.softmax(jnp.where(seen, logits, -jnp.inf), axis=-1)
  return jnp.einsum('bhts,bshd->bthd', weights * factor, value)


def test_weights_are_dropped_behind_the_softmax():
  factor = jnp.asarray(RNG.integers(0, 2, (B, H, T, T)) * 2.0, jnp.float32)
  seen = visible(T, True, None, None)
  close(*(with_gradients(lambda *a, f=f: f(*a, seen, factor)) for f in (attend, plain)))


def test_a_query_that_sees_nothing_gets_the_mean():
  seen = jnp.zeros((1, 1, T, T), bool)
  got, gradients = with_gradients(lambda *a: attend(*a, seen, None))
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


def test_cached_attention_is_the_last_row_of_the_whole():
  wanted = jax.nn.dot_product_attention(QUERY, *ENTRIES, is_causal=True)[:, 3]
  # Behind the third place the cache holds what must not be seen.
  cache = Cache(*(e.swapaxes(1, 2).at[:, :, 3:].set(50.0) for e in ENTRIES))
  new = Cache(*(e[:, 3][:, :, None] for e in ENTRIES))
  got = jax.jit(cached_attention)(QUERY[:, 3], new, cache, 3)
  np.testing.assert_allclose(got, wanted, atol=1e-6)


def module(**changed):
  dense = functools.partial(Dense, dtype=changed.pop('dtype', jnp.float32))
  fields = dict(width=12, heads=4, groups=2, causal=True, fused=False, dropout=0.5)
  return Attention(**{**fields, **changed}, dense=dense, output=dense)


X = jnp.asarray(RNG.standard_normal((B, T, 12)), jnp.float32)


def test_dropout_of_weights_in_training_only():
  attention = module()
  variables = attention.init(KEY, X, None, None, None, False)
  run = lambda train, key: attention.apply(  # noqa: E731
    variables, X, None, None, None, train, rngs={'dropout': key}
  )
  assert (run(False, KEY) == run(False, jax.random.key(1))).all()
  assert (run(True, KEY) == run(True, KEY)).all()
  assert (run(True, KEY) != run(True, jax.random.key(1))).any()


@pytest.mark.parametrize(
  ('changed', 'train', 'wanted'),
  [
    ({'fused': True, 'dtype': jnp.bfloat16}, False, 'cudnn'),
    ({'fused': True, 'dtype': jnp.bfloat16, 'dropout': 0.0}, True, 'cudnn'),
    ({'fused': True}, False, None),
    ({'dtype': jnp.bfloat16}, False, None),
    ({'fused': True, 'dtype': jnp.bfloat16}, True, None),
  ],
)
def test_the_fused_kernel_is_asked_for_where_it_can_run(monkeypatch, changed, train, wanted):
  """There is no GPU here: what is looked at is what jax is asked for."""
  asked = []

  def attention(query, key, value, *, implementation, **given):
    asked.append(implementation)
    return query

  attention_module = module(**changed)
  variables = jax.eval_shape(lambda: module().init(KEY, X, None, None, None, False))
  monkeypatch.setattr(jax.nn, 'dot_product_attention', attention)
  jax.eval_shape(
    lambda v: attention_module.apply(v, X, None, None, None, train, rngs={'dropout': KEY}),
    variables,
  )
  assert asked == ([] if wanted is None else [wanted])


def test_groups_are_columns_side_by_side():
  """Changing the columns of one group moves the outputs of its heads alone."""
  identity = lambda features, name: _Identity(name=name)  # noqa: E731
  attention = module().clone(output=identity)
  variables = attention.init(KEY, X, None, None, None, False)
  kernel = variables['params']['query_key_value']['kernel']
  changed = jax.tree.map(lambda p: p, variables)
  changed['params']['query_key_value']['kernel'] = kernel.at[:, 4 * D :].multiply(2.0)
  moved = attention.apply(changed, X, None, None, None, False) != attention.apply(
    variables, X, None, None, None, False
  )
  assert not moved[..., : 2 * D].any() and moved[..., 2 * D :].any(axis=(0, 1)).all()


class _Identity(nn.Module):
  def __call__(self, x):
    return x
