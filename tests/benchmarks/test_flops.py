"""Operations of a training step and the peaks that they are compared with."""

import jax
import jax.numpy as jnp
import pytest

from benchmarks import flops
from engine.planning.devices import known_peak
from errors import UserError
from models.transformer import Transformer


def params(**changes):
  """Shapes of nanoGPT's GPU setting: 65 characters, 256 positions, no biases; or changed."""
  fields = dict(
    width=384, layers=6, heads=6, key_value_heads=0, hidden=0, context=256, causal=True,
    norm='layer', norm_place='pre', norm_epsilon=1e-5, positions='learned', mlp='gelu',
    biases=False, tied=True, types=0, embedding_norm=False, head='linear', dropout=0.0, scan=True,
    remat=False, vocabulary=65, outputs=65,
  )  # fmt: skip
  module = Transformer(**{**fields, **changes})
  tokens = jnp.zeros((1, 2), jnp.int32)
  return jax.eval_shape(lambda: module.init(jax.random.key(0), tokens, train=False))['params']


def test_parameters_are_those_that_nanogpt_reports():
  """It says "number of parameters: 10.65M", which leaves out positions."""
  assert flops.multiplied_parameters(params(), tied=True) == 10_646_784


def test_tables_that_are_looked_up_do_not_count():
  assert flops.multiplied_parameters(params(types=2, context=99), tied=True) == 10_646_784


def test_of_two_tables_the_one_that_makes_logits_counts():
  untied = params(tied=False, vocabulary=99)
  assert flops.multiplied_parameters(untied, tied=False) == 10_646_784


def test_a_token_of_gpt2_by_hand():
  """123,653,376 parameters without positions: 0.742 GFLOP of products, 0.113 of attention."""
  products, attention = 741_920_256, 113_246_208
  assert flops.token_flops(123_653_376, 12, 12, 64, 1024) == products + attention


def test_the_formula_counts_the_products_of_a_model():
  """Those of a block's forward and backward pass, found in the program that XLA compiled."""
  length, heads, size = 64, 2, 32
  width = heads * size
  shapes = {
    'made': (width, 3 * width),
    'out': (width, width),
    'up': (width, 4 * width),
    'down': (4 * width, width),
  }
  kernels = {name: jnp.full(shape, 0.01) for name, shape in shapes.items()}

  def loss(kernels, x):
    query, key, value = jnp.split(x @ kernels['made'], 3, axis=-1)
    split = lambda part: part.reshape(length, heads, size).swapaxes(0, 1)  # noqa: E731
    scores = split(query) @ split(key).swapaxes(1, 2)
    mixed = (scores @ split(value)).swapaxes(0, 1).reshape(length, width)
    return jnp.square(mixed @ kernels['out'] @ kernels['up'] @ kernels['down']).sum()

  gradient = jax.jit(jax.grad(loss, argnums=(0, 1)))
  counted = gradient.lower(kernels, jnp.ones((length, width))).compile().cost_analysis()['flops']
  expected = length * flops.token_flops(12 * width**2, 1, heads, size, length)
  assert counted == pytest.approx(expected, rel=0.03)


@pytest.mark.parametrize(
  ('kind', 'peak'),
  [
    ('NVIDIA H100 80GB HBM3', 989e12),
    ('NVIDIA H100 PCIe', 756e12),
    ('NVIDIA A100-SXM4-40GB', 312e12),
    ('TPU v5 lite', 197e12),
    ('TPU v5', 459e12),
  ],
)
def test_the_longest_name_decides(kind, peak):
  assert known_peak(kind) == peak


def test_a_device_without_a_figure_is_named():
  with pytest.raises(UserError, match=r'"NVIDIA B17".*DEVICES'):
    known_peak('NVIDIA B17')


def test_a_cpu_is_measured(monkeypatch):
  """Somewhere between a slow core and the fastest server."""
  assert 1e8 < flops.measured_peak(size=256, repeats=3) < 1e14
  monkeypatch.setattr(flops, 'measured_peak', lambda: 5.0)
  assert flops.peak(jax.devices('cpu')[0]) == 5.0
