"""Recurrent networks against numpy, and their written-out gradients against automatic ones."""

import itertools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from errors import UserError
from models.kernels.recurrence import CELLS
from models.rnn import RNN
from tests.programs import once_per_options

KEY = jax.random.key(0)
V, W, T = 7, 5, 6
BASE = dict(
  cell='tanh', width=W, embedding=0, layers=2, tied=False, dropout=0.0, vocabulary=V, outputs=V
)  # fmt: skip
TOKENS = jnp.asarray(np.random.default_rng(0).integers(0, V, (3, T)), jnp.int32)
cells = pytest.mark.parametrize('cell', CELLS)


@once_per_options
def random_params(options):
  """Parameters with nothing at its first value."""
  rng = np.random.default_rng(1)
  model = RNN(**options)
  shapes = jax.eval_shape(lambda: model.init(KEY, TOKENS, train=False))['params']
  return jax.tree.map(lambda s: jnp.asarray(0.7 * rng.standard_normal(s.shape), s.dtype), shapes)


@once_per_options
def program(options):
  model = RNN(**options)
  return jax.jit(lambda p, *rows: model.apply({'params': p}, rows[0], False, *rows[1:]))


def run(options, params, tokens=TOKENS, lengths=None, segments=None):
  return program(options)(params, tokens, lengths, segments)


def close(actual, expected, tolerance=1e-5):
  for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
    assert a.shape == b.shape
    np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1.0, np.abs(b).max(initial=0)))


# --- the equations in numpy, float64 --------------------------------------------------------------


def sigmoid(x):
  return 1 / (1 + np.exp(-x))


def np_cell(cell, x, h, c, kernel, bias):
  """One row, one step: x [G·W], h and c [W] → h, c. The equations of torch.nn."""
  parts = lambda a: np.split(a, len(a) // W)  # noqa: E731
  if cell == 'gru':
    (xr, xz, xn), (hr, hz, hn) = parts(x), parts(h @ kernel)
    reset, update = sigmoid(xr + hr), sigmoid(xz + hz)
    new = np.tanh(xn + reset * (hn + bias))
    return (1 - update) * new + update * h, c
  a = x + h @ kernel
  if cell == 'lstm':
    i, f, g, o = parts(a)
    c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
    return sigmoid(o) * np.tanh(c), c
  return {'tanh': np.tanh, 'sigmoid': sigmoid}[cell](a), c


def np_rnn(options, params, tokens):
  p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
  rows = []
  for row in np.asarray(tokens):
    x = p['embedding']['embedding'][row] if options['embedding'] else np.eye(V)[row]
    for i in range(options['layers']):
      layer = p[f'layer_{i}']
      h, c, behind = np.zeros(W), np.zeros(W), []
      for inputs in x @ layer['input']['kernel'] + layer['input']['bias']:
        own = layer['recurrent']
        h, c = np_cell(options['cell'], inputs, h, c, own['kernel'], own.get('bias'))
        behind.append(h)
      x = np.stack(behind)
    kernel = p['embedding']['embedding'].T if options['tied'] else p['output']['kernel']
    rows.append(x @ kernel + p['output']['bias'])
  return np.stack(rows)


@cells
@pytest.mark.parametrize(('embedding', 'tied'), [(0, False), (W, True)], ids=['one-hot', 'tied'])
def test_equals_the_equations(cell, embedding, tied):
  options = {**BASE, 'cell': cell, 'embedding': embedding, 'tied': tied}
  params = random_params(options)
  got = run(options, params)
  assert got.dtype == jnp.float32
  close(got, np_rnn(options, params, TOKENS))


def test_names_and_first_values_of_the_parameters():
  options = {**BASE, 'cell': 'gru', 'embedding': 4, 'width': 64}
  params = jax.jit(lambda: RNN(**options).init(KEY, TOKENS, train=False))()['params']
  flat = jax.tree_util.tree_leaves_with_path(params)
  assert {'/'.join(k.key for k in path): leaf.shape for path, leaf in flat} == {
    'embedding/embedding': (V, 4),
    'layer_0/input/kernel': (4, 192), 'layer_0/input/bias': (192,),
    'layer_0/recurrent/kernel': (64, 192), 'layer_0/recurrent/bias': (64,),
    'layer_1/input/kernel': (64, 192), 'layer_1/input/bias': (192,),
    'layer_1/recurrent/kernel': (64, 192), 'layer_1/recurrent/bias': (64,),
    'output/kernel': (64, V), 'output/bias': (V,),
  }  # fmt: skip
  for kernel in (params['layer_1']['input']['kernel'], params['layer_0']['recurrent']['kernel']):
    np.testing.assert_allclose(jnp.abs(kernel).max(), 1 / 8, rtol=1e-2)
    np.testing.assert_allclose(kernel.std(), 1 / 8 / math.sqrt(3), rtol=0.05)
  other = RNN(**{**BASE, 'cell': 'lstm'})
  lstm = jax.jit(lambda: other.init(KEY, TOKENS, train=False))()['params']
  assert lstm['layer_0']['input']['kernel'].shape == (V, 4 * W)
  assert lstm['layer_1']['input']['bias'].tolist() == [0] * W + [1] * W + [0] * 2 * W
  assert 'bias' not in lstm['layer_0']['recurrent']


def test_the_gradient_of_a_whole_network():
  """Through embedding lookup, layers, pool and tied logits, against finite differences."""
  options = {**BASE, 'cell': 'gru', 'embedding': W, 'tied': True, 'pool': 'mean'}
  params, model = random_params(options), RNN(**options)
  lengths = jnp.array([6, 4, 1])

  def energy(params):
    return jnp.sin(model.apply({'params': params}, TOKENS, train=False, lengths=lengths)).sum()

  gradient = jax.jit(jax.grad(energy))(params)
  rng = np.random.default_rng(3)
  direction = jax.tree.map(lambda p: jnp.asarray(rng.standard_normal(p.shape), p.dtype), params)
  along = jax.jit(lambda t: energy(jax.tree.map(lambda p, d: p + t * d, params, direction)))
  wanted = (along(1e-2) - along(-1e-2)) / 2e-2
  got = sum(jnp.vdot(g, d) for g, d in zip(*map(jax.tree.leaves, (gradient, direction))))
  np.testing.assert_allclose(got, wanted, rtol=1e-2)


# --- rows -----------------------------------------------------------------------------------------


@cells
def test_token_by_token_equals_all_at_once(cell):
  options = {**BASE, 'cell': cell, 'embedding': 3}
  params = random_params(options)
  model = RNN(**options)
  step = jax.jit(lambda *given: model.apply({'params': params}, *given, method='step'))
  read = jax.jit(lambda *given: model.apply({'params': params}, *given, T, method='read'))
  whole, rows, lengths = run(options, params), jnp.arange(3), jnp.array([1, 2, 3])
  carry, logits = read(TOKENS[:, :3], lengths)
  close(logits, whole[rows, lengths - 1])
  for i in range(T - 3):
    carry, logits = step(carry, TOKENS[rows, lengths + i], lengths + i)
    close(logits, whole[rows, lengths + i])


@cells
def test_segments_are_rows_of_their_own(cell):
  options = {**BASE, 'cell': cell}
  params = random_params(options)
  segments = jnp.array([[0, 0, 1, 1, 1, 1], [0] * 6, [4, 4, 4, 4, 3, 3]])
  got = run(options, params, segments=segments)
  for row, cuts in enumerate([(0, 2, 6), (0, 6), (0, 4, 6)]):
    for start, end in itertools.pairwise(cuts):
      close(got[row, start:end], run(options, params, TOKENS[row : row + 1, start:end])[0])


def test_later_tokens_do_not_matter():
  params = random_params(BASE)
  got, changed = run(BASE, params), run(BASE, params, TOKENS.at[:, 3].add(1) % V)
  assert (got[:, :3] == changed[:, :3]).all() and (got[:, 3:] != changed[:, 3:]).any(-1).all()


def test_pools_read_real_tokens_only():
  params = random_params(BASE)
  lengths = jnp.array([6, 2, 0])
  every = run(BASE, params)
  last = run({**BASE, 'pool': 'last'}, params, lengths=lengths)
  close(last[:2], jnp.stack([every[0, 5], every[1, 1]]))
  mean = run({**BASE, 'pool': 'mean'}, params, lengths=lengths)
  close(mean[:2], jnp.stack([every[0].mean(0), every[1, :2].mean(0)]))
  # No real token: the mean is of nothing, so 0, and the logits are the bias.
  close(mean[2], params['output']['bias'])
  close(run({**BASE, 'pool': 'first'}, params), every[:, 0])
  close(run({**BASE, 'pool': 'last'}, params), every[:, -1])
  close(run({**BASE, 'pool': 'mean'}, params), every.mean(1))
  assert bool(jnp.isfinite(last).all())


# --- precision, dropout, errors -------------------------------------------------------------------


@cells
def test_bfloat16_is_of_the_products_alone(cell):
  options = {**BASE, 'cell': cell}
  params = random_params(options)
  half = {**options, 'dtype': jnp.bfloat16}
  got, wanted = run(half, params), run(options, params)
  assert got.dtype == jnp.float32
  assert 1e-6 < float(jnp.abs(got - wanted).max() / jnp.abs(wanted).max()) < 0.05
  model = RNN(**half)
  energy = lambda p: model.apply({'params': p}, TOKENS, train=False).sum()  # noqa: E731
  gradient = jax.jit(jax.grad(energy))(params)
  assert {leaf.dtype.name for leaf in jax.tree.leaves(gradient)} == {'float32'}


def test_dropout_is_of_training_and_by_key():
  options = {**BASE, 'dropout': 0.5}
  params, model = random_params(options), RNN(**options)
  train = jax.jit(
    lambda key: model.apply({'params': params}, TOKENS, train=True, rngs={'dropout': key})
  )
  assert (run(options, params) == run(BASE, params)).all()
  assert (train(KEY) == train(KEY)).all() and (train(KEY) != train(jax.random.key(1))).any()


@pytest.mark.parametrize(
  ('changed', 'message'),
  [
    ({'cell': 'ltsm'}, r'cell=ltsm is unknown \(did you mean "lstm"\?\)'),
    ({'pool': 'lst'}, r'pool=lst is unknown \(did you mean "last"\?\)'),
    ({'tied': True}, r'embedding=0 must be config.modules.model.width=5'),
    ({'tied': True, 'embedding': W, 'outputs': 3}, r'each of the 7 tokens, .* reads 3 outputs'),
  ],
)
def test_refuses(changed, message):
  model = RNN(**{**BASE, **changed})
  with pytest.raises(UserError, match=message):
    jax.eval_shape(lambda: model.init(KEY, TOKENS, train=False))
