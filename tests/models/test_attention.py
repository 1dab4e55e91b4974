"""Attention with dropped weights and from a cache against jax's own; when which is asked for."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from models.attention import Attention, Cache, cached_attention, dropped_attention
from models.layers import Dense

KEY = jax.random.key(0)
B, T, H, G, D = 2, 5, 4, 2, 3
RNG = np.random.default_rng(0)
QUERY = jnp.asarray(RNG.standard_normal((B, T, H, D)), jnp.float32)
ENTRIES = jnp.asarray(RNG.standard_normal((2, B, T, G, D)), jnp.float32)


@pytest.mark.parametrize('causal', [False, True])
@pytest.mark.parametrize('masked', [False, True])
@pytest.mark.parametrize('lengths', [None, (3, 5)])
def test_nothing_dropped_is_jaxs_attention(causal, masked, lengths):
  mask = jnp.asarray(RNG.random((B, 1, T, T)) < 0.5) | jnp.eye(T, dtype=bool) if masked else None
  lengths = lengths and jnp.array(lengths)
  got = dropped_attention(QUERY, *ENTRIES, causal, mask, lengths, lambda weights: weights)
  wanted = jax.nn.dot_product_attention(
    QUERY, *ENTRIES, mask=mask, is_causal=causal, key_value_seq_lengths=lengths
  )
  np.testing.assert_allclose(got, wanted, atol=1e-6)


def test_weights_are_dropped_behind_the_softmax():
  double = dropped_attention(QUERY, *ENTRIES, True, None, None, lambda weights: 2 * weights)
  once = dropped_attention(QUERY, *ENTRIES, True, None, None, lambda weights: weights)
  np.testing.assert_allclose(double, 2 * once, rtol=1e-6)


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
  # The mean over many draws is what is computed without dropout.
  keys = jax.random.split(KEY, 2000)
  mean = jax.jit(jax.vmap(functools.partial(run, True)))(keys).mean(0)
  np.testing.assert_allclose(mean, run(False, KEY), atol=0.1)


@pytest.mark.parametrize(
  ('changed', 'train', 'wanted'),
  [
    ({'fused': True, 'dtype': jnp.bfloat16}, False, 'cudnn'),
    ({'fused': True, 'dtype': jnp.bfloat16, 'dropout': 0.0}, True, 'cudnn'),
    ({'fused': True}, False, 'xla'),
    ({'dtype': jnp.bfloat16}, False, 'xla'),
    ({'fused': True, 'dtype': jnp.bfloat16}, True, None),
  ],
)
def test_the_fused_kernel_is_asked_for_where_it_can_run(monkeypatch, changed, train, wanted):
  """There is no GPU here: what is looked at is what jax is asked for."""
  asked = []

  def attention(query, key, value, *, implementation, **given):
    asked.append(implementation)
    return query

  attend = module(**changed)
  variables = jax.eval_shape(lambda: module().init(KEY, X, None, None, None, False))
  monkeypatch.setattr(jax.nn, 'dot_product_attention', attention)
  jax.eval_shape(
    lambda v: attend.apply(v, X, None, None, None, train, rngs={'dropout': KEY}), variables
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
