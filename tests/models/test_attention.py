"""The attention module: dropout, groups, and when cuDNN's kernel is used."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from models.attention import Attention
from models.layers import Dense

KEY = jax.random.key(0)
B, T, D = 2, 5, 3
X = jnp.asarray(np.random.default_rng(0).standard_normal((B, T, 12)), jnp.float32)


def module(**changed):
  dense = functools.partial(Dense, dtype=changed.pop('dtype', jnp.float32))
  fields = dict(width=12, heads=4, groups=2, causal=True, fused=False, dropout=0.5)
  return Attention(**{**fields, **changed}, dense=dense, output=dense)


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
