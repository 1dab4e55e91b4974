"""The transformer against its formulas in numpy, and what must hold whatever the parameters."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from errors import UserError
from losses.tokens import cross_entropy
from models.transformer import Transformer, stacked, unstacked
from tests.marks import slow_where
from tests.programs import once_per_options

KEY = jax.random.key(0)
V, C, L, T = 11, 16, 2, 6
GPT = dict(
  width=C, layers=L, heads=4, key_value_heads=0, hidden=0, context=8, causal=True, norm='layer',
  norm_place='pre', norm_epsilon=1e-5, positions='learned', mlp='gelu', biases=True, tied=True,
  types=0, embedding_norm=False, head='linear', dropout=0.0, scan=False, remat=False,
  vocabulary=V, outputs=V,
)  # fmt: skip
BERT = {
  **GPT, 'causal': False, 'norm_place': 'post', 'types': 2, 'embedding_norm': True,
  'head': 'transform', 'norm_epsilon': 1e-12,
}  # fmt: skip
LLAMA = {
  **GPT, 'key_value_heads': 2, 'norm': 'rms', 'positions': 'rotary', 'mlp': 'swiglu', 'hidden': 24,
  'biases': False, 'tied': False,
}  # fmt: skip
VASWANI = {**GPT, 'norm_place': 'post', 'positions': 'sinusoidal', 'mlp': 'relu', 'tied': False}
FAMILIES = {'gpt': GPT, 'bert': BERT, 'llama': LLAMA, 'vaswani': VASWANI}
families = pytest.mark.parametrize('options', FAMILIES.values(), ids=FAMILIES)
TOKENS = jnp.asarray(np.random.default_rng(1).permutation(V)[: 2 * (V // 2)].reshape(2, -1))[:, :T]
TOKENS = jnp.pad(TOKENS, ((0, 0), (0, T - TOKENS.shape[1])), constant_values=3)


@once_per_options
def shapes_of(options):
  model = Transformer(**options)
  return jax.eval_shape(lambda: model.init(KEY, TOKENS, train=False))['params']


@once_per_options
def program(options):
  model = Transformer(**options)
  return jax.jit(lambda p, *rows: model.apply({'params': p}, rows[0], False, *rows[1:]))


def random_params(options, scale=0.4, seed=0):
  """Parameters with nothing at its first value: large kernels, biases and scales that matter."""
  rng = np.random.default_rng(seed)
  draw = lambda s: jnp.asarray(scale * rng.standard_normal(s.shape), s.dtype)  # noqa: E731
  return jax.tree.map(draw, shapes_of(options))


def run(options, params, tokens=TOKENS, lengths=None, segments=None):
  return program(options)(params, tokens, lengths, segments)


def close(actual, expected, tolerance=2e-5):
  for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
    a, b = np.asarray(a), np.asarray(b)
    assert a.shape == b.shape
    np.testing.assert_allclose(a, b, rtol=0, atol=tolerance * max(1.0, np.abs(b).max(initial=0)))


# --- the formulas in numpy, float64 ---------------------------------------------------------------

ACTIVATIONS = {
  'gelu': lambda x: 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2))),
  'relu': lambda x: np.maximum(x, 0),
  'swiglu': lambda x: x / (1 + np.exp(-x)),
}


def np_dense(p, x):
  return x @ p['kernel'] + p.get('bias', 0)


def np_norm(o, p, x):
  if o['norm'] == 'layer':
    x = x - x.mean(-1, keepdims=True)
  scaled = x / np.sqrt((x**2).mean(-1, keepdims=True) + o['norm_epsilon'])
  return scaled * p['scale'] + p.get('bias', 0)


def np_turn(vector, position):
  half = len(vector) // 2
  angle = position * 10000.0 ** (-np.arange(half) / half)
  number = (vector[:half] + 1j * vector[half:]) * np.exp(1j * angle)
  return np.concatenate([number.real, number.imag])


def np_attention(o, p, x):
  """One row x [T, C], query by query."""
  d = C // o['heads']
  groups = o['key_value_heads'] or o['heads']
  shared = o['heads'] // groups
  made = np_dense(p['query_key_value'], x).reshape(len(x), groups, shared + 2, d)
  turn = np_turn if o['positions'] == 'rotary' else lambda vector, position: vector
  y = np.zeros((len(x), o['heads'], d))
  for head in range(o['heads']):
    group, place = divmod(head, shared)
    keys = np.stack([turn(made[s, group, shared], s) for s in range(len(x))])
    for t in range(len(x)):
      last = t + 1 if o['causal'] else len(x)
      weight = np.exp(keys[:last] @ turn(made[t, group, place], t) / math.sqrt(d))
      y[t, head] = weight @ made[:last, group, shared + 1] / weight.sum()
  return np_dense(p['output'], y.reshape(len(x), C))


def np_mlp(o, p, x):
  act, up = ACTIVATIONS[o['mlp']], np_dense(p['up'], x)
  return np_dense(p['down'], up * act(np_dense(p['gate'], x)) if 'gate' in p else act(up))


def np_transformer(o, params, tokens):
  p = jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), params)
  norm = functools.partial(np_norm, o)
  rows = []
  for row in np.asarray(tokens):
    x = p['embedding']['embedding'][row]
    if o['positions'] == 'learned':
      x = x + p['positions']['embedding'][: len(row)]
    if o['positions'] == 'sinusoidal':
      even = 10000.0 ** (-np.arange(0, C, 2) / C)
      x = x * math.sqrt(C)
      x[:, 0::2] += np.sin(np.arange(len(row))[:, None] * even)
      x[:, 1::2] += np.cos(np.arange(len(row))[:, None] * even)
    if o['types']:
      x = x + p['types']['embedding'][0]
    if o['embedding_norm']:
      x = norm(p['embedding_norm'], x)
    for i in range(o['layers']):
      b = p[f'block_{i}']
      attend, dense = functools.partial(np_attention, o), functools.partial(np_mlp, o)
      if o['norm_place'] == 'pre':
        x = x + attend(b['attention'], norm(b['attention_norm'], x))
        x = x + dense(b['mlp'], norm(b['mlp_norm'], x))
      else:
        x = norm(b['attention_norm'], x + attend(b['attention'], x))
        x = norm(b['mlp_norm'], x + dense(b['mlp'], x))
    if o['norm_place'] == 'pre':
      x = norm(p['norm'], x)
    if o['head'] == 'transform':
      x = norm(p['transform_norm'], ACTIVATIONS[o['mlp']](np_dense(p['transform'], x)))
    if o['head'] == 'pooler':
      x = np.tanh(np_dense(p['transform'], x))
    kernel = p['embedding']['embedding'].T if o['tied'] else p['output']['kernel']
    rows.append(x @ kernel + p.get('output', {}).get('bias', 0))
  return np.stack(rows)


@pytest.mark.parametrize(
  'options',
  [*FAMILIES.values(), {**GPT, 'tied': False, 'head': 'pooler', 'causal': False, 'hidden': 20}],
  ids=[*FAMILIES, 'pooler'],
)
def test_equals_the_formulas(options):
  params = random_params(options)
  got = run(options, params)
  assert got.dtype == jnp.float32
  close(got, np_transformer(options, params, TOKENS), 1e-4)


def test_activations_of_the_dense_net():
  params = random_params(GPT)
  exact, approximate = run(GPT, params), run({**GPT, 'mlp': 'gelu_tanh'}, params)
  difference = float(jnp.abs(exact - approximate).max())
  assert 1e-6 < difference < 0.02 * float(jnp.abs(exact).max())


# --- parameters -----------------------------------------------------------------------------------


def paths(options):
  flat = jax.tree_util.tree_leaves_with_path(shapes_of(options))
  return {'/'.join(k.key for k in path): leaf.shape for path, leaf in flat}


def test_names_and_shapes_of_the_parameters():
  block = {
    'attention_norm/scale': (C,), 'attention_norm/bias': (C,),
    'attention/query_key_value/kernel': (C, 3 * C), 'attention/query_key_value/bias': (3 * C,),
    'attention/output/kernel': (C, C), 'attention/output/bias': (C,),
    'mlp_norm/scale': (C,), 'mlp_norm/bias': (C,),
    'mlp/up/kernel': (C, 4 * C), 'mlp/up/bias': (4 * C,),
    'mlp/down/kernel': (4 * C, C), 'mlp/down/bias': (C,),
  }  # fmt: skip
  around = {'embedding/embedding': (V, C), 'positions/embedding': (8, C)}
  blocks = {f'block_{i}/{name}': shape for i in range(L) for name, shape in block.items()}
  final = {'norm/scale': (C,), 'norm/bias': (C,)}
  assert paths(GPT) == around | blocks | final
  whole = {f'blocks/{name}': (L, *shape) for name, shape in block.items()}
  assert paths({**GPT, 'scan': True}) == around | whole | final
  head = {
    'types/embedding': (2, C), 'embedding_norm/scale': (C,), 'embedding_norm/bias': (C,),
    'transform/kernel': (C, C), 'transform/bias': (C,), 'transform_norm/scale': (C,),
    'transform_norm/bias': (C,), 'output/bias': (V,),
  }  # fmt: skip
  assert paths(BERT) == around | blocks | head
  found = paths(LLAMA)
  assert found['block_0/attention/query_key_value/kernel'] == (C, 2 * (2 + 2) * 4)
  assert found['block_1/mlp/gate/kernel'] == (C, 24) and found['output/kernel'] == (C, V)
  assert not any(name.endswith('bias') for name in found)


def test_first_values_are_those_of_gpt_2():
  model = Transformer(**{**GPT, 'width': 64, 'tied': False, 'scan': True})
  params = jax.jit(lambda: model.init(KEY, TOKENS, train=False))()['params']
  blocks = params['blocks']
  small = 0.02 / math.sqrt(2 * L)
  for leaf, deviation in [
    (blocks['attention']['query_key_value']['kernel'], 0.02),
    (blocks['mlp']['up']['kernel'], 0.02),
    (blocks['attention']['output']['kernel'], small),
    (blocks['mlp']['down']['kernel'], small),
    (params['output']['kernel'], 0.02),
    (params['embedding']['embedding'], 0.02),
    (params['positions']['embedding'], 0.02),
  ]:
    np.testing.assert_allclose(np.std(leaf), deviation, rtol=0.1)
  kernel = blocks['mlp']['up']['kernel']
  assert not np.array_equal(kernel[0], kernel[1])
  assert (blocks['mlp_norm']['scale'] == 1).all() and (blocks['mlp']['up']['bias'] == 0).all()


# --- what a token sees ----------------------------------------------------------------------------


@pytest.mark.parametrize('options', [GPT, LLAMA, BERT], ids=['gpt', 'llama', 'bert'])
def test_causality_by_gradients(options):
  """Row t of the sensitivity: how much token s moves the outputs at t."""
  options = {**options, 'tied': False, 'head': 'linear'}
  tokens = jnp.arange(T)[None]
  model, params = Transformer(**options), random_params(options)

  def outputs(embedding):
    changed = {**params, 'embedding': {'embedding': embedding}}
    return model.apply({'params': changed}, tokens, train=False)[0].sum(axis=-1)

  sensitivity = jax.jit(jax.jacrev(outputs))(params['embedding']['embedding'])
  moved = np.abs(np.asarray(sensitivity)).max(axis=-1)[:, :T] > 1e-6
  wanted = np.tril(np.ones((T, T), bool)) if options['causal'] else np.ones((T, T), bool)
  np.testing.assert_array_equal(moved, wanted)


def test_padding_changes_nothing():
  params = random_params(BERT)
  lengths = jnp.array([4, 6])
  got = run(BERT, params, lengths=lengths)
  other = run(BERT, params, TOKENS.at[0, 4:].set(9), lengths=lengths)
  alone = run(BERT, params, TOKENS[:1, :4])
  close(other[0, :4], got[0, :4], 1e-6)
  close(alone[0], got[0, :4])
  close(got[1], run(BERT, params)[1])
  assert float(jnp.abs(got[0, :4] - run(BERT, params)[0, :4]).max()) > 1e-2


@pytest.mark.parametrize('train', [False, True], ids=['evaluation', 'training'])
def test_an_empty_row_is_finite_with_finite_gradients(train):
  options = {**BERT, 'layers': 1, 'tied': False, 'pool': 'mean', 'dropout': 0.1}
  model, params = Transformer(**options), random_params(options)
  given = dict(train=train, lengths=jnp.array([0, 3]), rngs={'dropout': KEY})
  total = lambda p: jnp.square(model.apply({'params': p}, TOKENS, **given)).sum()  # noqa: E731
  for leaf in jax.tree.leaves(jax.jit(jax.value_and_grad(total))(params)):
    assert bool(jnp.isfinite(leaf).all())


def test_tokens_of_an_empty_row_see_the_first():
  """Kernels may make anything of a row that sees nothing."""
  params = random_params(BERT)
  empty, one = (run(BERT, params, lengths=jnp.array([n, n])) for n in (0, 1))
  assert (empty == one).all()


@families
def test_segments_are_rows_of_their_own(options):
  params = random_params(options)
  segments = jnp.array([[0, 0, 1, 1, 1, 1], [2, 2, 2, 2, 5, 5]])
  got = run(options, params, segments=segments)
  for row, cut in ((0, 2), (1, 4)):
    for piece in (slice(0, cut), slice(cut, T)):
      close(got[row, piece], run(options, params, TOKENS[row : row + 1, piece])[0])


def test_segments_go_with_lengths():
  params = random_params(BERT)
  segments, lengths = jnp.array([[0, 0, 1, 1, 1, 1]]), jnp.array([4])
  got = run(BERT, params, TOKENS[:1], segments=segments, lengths=lengths)
  close(got[0, 2:4], run(BERT, params, TOKENS[:1, 2:4])[0])


# --- the same map computed otherwise --------------------------------------------------------------


def gradients(options, params, rngs=None, train=False, **given):
  model = Transformer(**options)

  def total(params):
    y = model.apply({'params': params}, TOKENS, train=train, rngs=rngs, **given)
    return jnp.sin(y).sum()

  return jax.jit(jax.value_and_grad(total))(params)


def test_scanned_equals_unrolled():
  options = {**LLAMA, 'biases': True}
  params = random_params(options)
  value, gradient = gradients(options, params)
  scanned = {**options, 'scan': True}
  assert jax.tree.map(jnp.shape, stacked(params)) == jax.tree.map(
    lambda s: s.shape, shapes_of(scanned)
  )
  scanned_value, scanned_gradient = gradients(scanned, stacked(params))
  close(scanned_value, value)
  assert jax.tree.structure(unstacked(scanned_gradient)) == jax.tree.structure(gradient)
  close(unstacked(scanned_gradient), gradient)
  close(unstacked(stacked(params)), params, 0)


def test_stacked_keeps_the_order_of_more_than_ten_layers():
  params = {f'block_{i}': {'kernel': jnp.full((2,), i)} for i in range(12)}
  wanted = np.repeat(np.arange(12), 2).reshape(12, 2)
  np.testing.assert_array_equal(stacked(params)['blocks']['kernel'], wanted)
  np.testing.assert_array_equal(unstacked(stacked(params))['block_11']['kernel'], [11, 11])


@pytest.mark.parametrize('scan', [pytest.param(False, marks=pytest.mark.slow), True])
def test_remat_changes_memory_only(scan):
  options = {**GPT, 'scan': scan, 'dropout': 0.3}
  params = random_params(options)
  rngs = {'dropout': KEY}
  given = dict(rngs=rngs, train=True, segments=jnp.array([[0, 0, 0, 1, 1, 1]] * 2))
  close(gradients({**options, 'remat': True}, params, **given), gradients(options, params, **given))
  for remat in (False, True):
    model = Transformer(**{**options, 'remat': remat})
    apply = lambda p, model=model: model.apply({'params': p}, TOKENS, train=True, rngs=rngs)  # noqa: E731
    assert ('remat' in str(jax.make_jaxpr(apply)(params))) == remat


@pytest.mark.parametrize('unroll', [2, 3, 5])
def test_a_scan_of_several_blocks_an_iteration_is_the_scan(unroll):
  """Also where the number of blocks is no multiple, and where one iteration has all of them."""
  options = {**GPT, 'layers': 5, 'scan': True, 'remat': True, 'dropout': 0.3}
  params = random_params(options, scale=0.2)
  given = dict(rngs={'dropout': KEY}, train=True)
  grouped = {**options, 'unroll': unroll}
  assert jax.tree.map(jnp.shape, shapes_of(grouped)) == jax.tree.map(jnp.shape, params)
  close(gradients(grouped, params, **given), gradients(options, params, **given))


# How many products of each kind a policy lets the gradient make again: dense layers', whose last
# one's result no gradient needs, and attention's.
POLICIES = {
  'nothing_saveable': (3, 2),
  'dots_with_no_batch_dims_saveable': (0, 2),
  'dots_saveable': (0, 0),
}


def compiled_products(options, params):
  """How many products the gradient's program makes, before anything is optimised."""
  model = Transformer(**options)
  total = lambda p: jnp.sin(model.apply({'params': p}, TOKENS, train=False)).sum()  # noqa: E731
  text = jax.jit(jax.grad(total)).lower(params).as_text()
  dots = [line for line in text.splitlines() if 'stablehlo.dot_general' in line]
  batched = sum('batching_dims' in line for line in dots)
  return len(dots) - batched, batched


@pytest.mark.parametrize('policy', POLICIES)
def test_a_policy_says_what_is_computed_again(policy):
  plain = {**GPT, 'layers': 1}
  params = random_params(plain)
  options = {**plain, 'remat': True, 'remat_policy': policy}
  close(gradients(options, params), gradients(plain, params))
  once, again = compiled_products(plain, params), compiled_products(options, params)
  assert tuple(b - a for a, b in zip(once, again, strict=True)) == POLICIES[policy]


def test_products_can_be_kept_in_the_host_s_memory():
  options = {**GPT, 'layers': 1, 'remat': True, 'remat_policy': 'offload_dot_with_no_batch_dims'}
  params = random_params(options)
  close(gradients(options, params), gradients({**GPT, 'layers': 1}, params))
  model = Transformer(**options)
  total = lambda p: jnp.sin(model.apply({'params': p}, TOKENS, train=False)).sum()  # noqa: E731
  # To the host after the products of the forward pass, and back.
  assert str(jax.make_jaxpr(jax.grad(total))(params)).count('device_put') >= 3


@pytest.mark.parametrize('chunks', [1, 2, 4, 50])
@pytest.mark.parametrize('options', [GPT, {**LLAMA, 'dtype': jnp.bfloat16}], ids=['gpt', 'llama'])
def test_losses_of_chunks_are_those_of_all_logits(options, chunks):
  params = random_params(options, scale=0.2)
  model = Transformer(**options)
  targets = TOKENS.at[0, 3:].set(-1)
  slopes = jnp.cos(jnp.arange(2 * T)).reshape(2, T)

  def plain(p):
    logits = model.apply({'params': p}, TOKENS, train=True)
    return (slopes * cross_entropy(logits, targets)).sum()

  def chunked(p):
    given = (TOKENS, targets, cross_entropy, chunks)
    found = model.apply({'params': p}, *given, train=True, method='losses')
    assert found.dtype == jnp.float32 and found.shape == (2, T)
    return (slopes * found).sum()

  tolerance = 2e-2 if 'dtype' in options else 2e-5
  value, gradient = jax.jit(jax.value_and_grad(plain))(params)
  got, got_gradient = jax.jit(jax.value_and_grad(chunked))(params)
  close(got, value, tolerance / 10 if 'dtype' in options else 1e-5)
  close(got_gradient, gradient, tolerance)
  text = jax.jit(jax.grad(chunked)).lower(params).as_text()
  assert ('while' in text) == (chunks > 1)


def test_grouped_queries_equal_full_heads_that_repeat_keys_and_values():
  grouped = {**GPT, 'key_value_heads': 2}
  params = random_params(grouped)

  def repeated(made):
    """[..., 2·(2 + 2)·4], q q k v of each group → [..., 4·3·4], q k v of each head."""
    made = made.reshape(*made.shape[:-1], 2, 4, 4)
    keys_values = made[..., 2:, :]
    heads = [jnp.concatenate([made[..., i : i + 1, :], keys_values], axis=-2) for i in range(2)]
    return jnp.stack(heads, axis=-3).reshape(*made.shape[:-3], -1)

  full = {}
  for name, value in params.items():
    full[name] = value
    if name.startswith('block'):
      attention = value['attention']
      made = jax.tree.map(repeated, attention['query_key_value'])
      full[name] = {**value, 'attention': {**attention, 'query_key_value': made}}
  close(run(GPT, full), run(grouped, params))


@pytest.mark.parametrize('scan', [False, pytest.param(True, marks=pytest.mark.slow)])
@pytest.mark.parametrize('options', [GPT, LLAMA, VASWANI], ids=['gpt', 'llama', 'vaswani'])
def test_token_by_token_equals_all_at_once(options, scan):
  params = random_params(options)
  model = Transformer(**{**options, 'scan': scan})
  variables = {'params': stacked(params) if scan else params}
  step = jax.jit(lambda *given: model.apply(variables, *given, method='step'))
  # Prompts of two lengths. The cache holds exactly the rows, so the shorter one, whose tokens come
  # after an empty entry, ends in the entry that the longer prompt left empty for it.
  lengths = jnp.array([1, 3])
  carry, first = model.apply(variables, TOKENS[:, :3], lengths, T, method='read')
  assert first.dtype == jnp.float32
  # What lies where no token is must not be seen.
  empty = ~carry.filled[:, None, :, None]
  carry = carry._replace(blocks=jax.tree.map(lambda c: c + 100.0 * empty, carry.blocks))
  whole, logits = run(options, params), first
  for t in range(T):
    close(logits[0], whole[0, t])
    if t + 2 < T:
      close(logits[1], whole[1, t + 2])
    # The longer row is complete sooner; what it is given then must not change the shorter.
    places = jnp.minimum(lengths + t, T - 1)
    before = carry
    carry, logits = step(carry, TOKENS[jnp.arange(2), places], places)
    assert jax.tree.map(jnp.shape, carry) == jax.tree.map(jnp.shape, before)
    assert logits.dtype == jnp.float32


@pytest.mark.parametrize('options', [GPT, LLAMA, VASWANI], ids=['gpt', 'llama', 'vaswani'])
def test_padding_of_prompts_is_not_read(options):
  params, lengths = random_params(options), jnp.array([1, 3])
  padding = jnp.arange(4) >= lengths[:, None]
  model = Transformer(**options)
  read = jax.jit(lambda t: model.apply({'params': params}, t, lengths, 8, method='read'))
  prompts = TOKENS[:, :4]
  one, other = read(prompts), read(jnp.where(padding, (prompts + 1) % V, prompts))
  np.testing.assert_array_equal(one[1], other[1])
  np.testing.assert_array_equal(one[0].filled[:, :4], ~padding[:, ::-1])
  assert not one[0].filled[:, 4:].any() and int(one[0].slot) == 4


# --- precision and dropout ------------------------------------------------------------------------


@pytest.mark.parametrize('options', slow_where(lambda options: options is GPT, [GPT, LLAMA]))
def test_bfloat16_is_of_the_products_alone(options):
  params = random_params(options, scale=0.2)
  half = {**options, 'dtype': jnp.bfloat16}
  got, wanted = run(half, params), run(options, params)
  assert got.dtype == jnp.float32
  difference = float(jnp.abs(got - wanted).max() / jnp.abs(wanted).max())
  assert 1e-5 < difference < 0.05
  text = str(
    jax.make_jaxpr(lambda p: Transformer(**half).apply({'params': p}, TOKENS, False))(params)
  )
  products = [line for line in text.splitlines() if 'dot_general' in line]
  assert len(products) >= 6 * L
  model = Transformer(**half)
  lengths = jnp.array([2, 2])
  carry, logits = model.apply({'params': params}, TOKENS[:, :2], lengths, T, method='read')
  assert {leaf.dtype.name for leaf in jax.tree.leaves(carry.blocks)} == {'bfloat16'}
  close(logits, got[:, 1], 0.02)
  step = jax.jit(lambda *given: model.apply({'params': params}, *given, method='step'))
  carry, logits = step(carry, TOKENS[:, 2], lengths)
  assert {leaf.dtype.name for leaf in jax.tree.leaves(carry.blocks)} == {'bfloat16'}
  close(logits, got[:, 2], 0.02)


@pytest.mark.parametrize('options', [GPT, LLAMA, BERT], ids=['gpt', 'llama', 'bert'])
def test_a_narrow_residual_stream_is_near_the_wide_one(options):
  params = random_params(options, scale=0.2)
  wide = {**options, 'dtype': jnp.bfloat16}
  narrow = {**wide, 'residual': 'precision'}
  got, wanted = run(narrow, params), run(wide, params)
  assert got.dtype == jnp.float32
  difference = float(jnp.abs(got - wanted).max() / jnp.abs(wanted).max())
  assert 1e-5 < difference < 0.03
  _, gradient = gradients(narrow, params)
  assert {leaf.dtype.name for leaf in jax.tree.leaves(gradient)} == {'float32'}
  # In float32 the option changes nothing.
  np.testing.assert_array_equal(
    run({**options, 'residual': 'precision'}, params), run(options, params)
  )


def test_only_a_wide_residual_stream_is_added_up_in_float32():
  def sums(options):
    model, params = Transformer(**options), shapes_of(options)
    text = str(jax.make_jaxpr(lambda p: model.apply({'params': p}, TOKENS, False))(params))
    return {line.split(':')[1].split('[')[0] for line in text.splitlines() if STREAM in line}

  STREAM = f'[2,{T},{C}] = add '
  half = {**GPT, 'biases': False, 'dtype': jnp.bfloat16, 'positions': 'rotary'}
  assert sums(half) == {'f32'}
  assert sums({**half, 'residual': 'precision'}) == {'bf16'}


@pytest.mark.parametrize('scan', [pytest.param(False, marks=pytest.mark.slow), True])
def test_dropout_is_of_training_and_by_key(scan):
  options = {**GPT, 'scan': scan, 'dropout': 0.5}
  params = random_params(options)
  model = Transformer(**options)
  train = jax.jit(
    lambda key: model.apply({'params': params}, TOKENS, train=True, rngs={'dropout': key})
  )
  assert (run(options, params) == run({**options, 'dropout': 0.0}, params)).all()
  assert (train(KEY) == train(KEY)).all()
  assert (train(KEY) != train(jax.random.key(1))).any()


def test_dropout_is_where_it_is_said():
  dropped = []

  def note(call, args, kwargs, context):
    if isinstance(context.module, nn.Dropout):
      dropped.append(context.module.path)
    return call(*args, **kwargs)

  options = {**GPT, 'dropout': 0.5}
  model, shapes = Transformer(**options), shapes_of(options)
  with nn.intercept_methods(note):
    jax.eval_shape(
      lambda p: model.apply({'params': p}, TOKENS, train=True, rngs={'dropout': KEY}), shapes
    )
  blocks = [path[0] for path in dropped if path[0].startswith('block')]
  # Of each block the attention weights and both sums; before them the embeddings.
  assert blocks == ['block_0'] * 3 + ['block_1'] * 3 and len(dropped) == len(blocks) + 1


# --- what cannot be -------------------------------------------------------------------------------


@pytest.mark.parametrize(
  ('changed', 'message'),
  [
    ({'heads': 3}, r'width=16 is not divisible by .*heads=3'),
    ({'key_value_heads': 3}, r'heads=4 is not divisible by .*key_value_heads=3'),
    ({'heads': 16, 'positions': 'rotary'}, r'a head has 1; make .* even'),
    ({'context': 4}, r'6 tokens are more than the config.modules.model.context=4'),
    ({'norm': 'layr'}, r'norm=layr is unknown \(did you mean "layer"\?\)'),
    ({'norm_place': 'prae'}, r'norm_place=prae is unknown \(did you mean "pre"\?\)'),
    ({'positions': 'rotatory'}, r'positions=rotatory is unknown \(did you mean "rotary"\?\)'),
    ({'head': 'linaer'}, r'head=linaer is unknown \(did you mean "linear"\?\)'),
    ({'pool': 'mena'}, r'pool=mena is unknown \(did you mean "mean"\?\)'),
    ({'mlp': 'gelo'}, r'config.modules.model.mlp=gelo is unknown \(did you mean "g?elu"\?\)'),
    ({'mlp': 'glu', 'head': 'transform'}, 'mlp=glu halves the width'),
    ({'outputs': 3}, r'tied=True gives a logit for each of the 11 tokens, .* reads 3 outputs'),
  ],
)
def test_refuses(changed, message):
  model = Transformer(**{**GPT, **changed})
  with pytest.raises(UserError, match=message):
    jax.eval_shape(lambda: model.init(KEY, TOKENS, train=False))


def reading(options, length):
  """Reads prompts into a cache of `length` entries, without computing anything."""
  prompts, lengths = TOKENS[:, :2], jnp.array([1, 2])
  model, params = Transformer(**options), shapes_of(options)
  return jax.eval_shape(
    lambda p: model.apply({'params': p}, prompts, lengths, length, method='read'), params
  )


def test_refuses_to_generate_with_a_model_that_sees_later_tokens():
  with pytest.raises(UserError, match='causal=False sees the tokens after each token'):
    reading(BERT, 4)


def test_refuses_a_cache_longer_than_the_learned_positions():
  with pytest.raises(UserError, match='9 tokens are more than'):
    reading(GPT, 9)
  assert reading(LLAMA, 9)[0].filled.shape == (2, 9)
