"""Next-token prediction: losses by hand, documents kept apart, texts as the model has them."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from errors import UserError
from models.rnn import RNN
from objectives.causal_lm import CausalLM
from tests.objectives.models_of_text import (
  Table,
  V,
  evaluation,
  training,
  transformer,
  variables,
)

KEY = jax.random.key(0)
END = 10
# Token t is t bytes, but the end none.
BYTES = (*range(END), 0)


def build(module=None, **options):
  given = dict(
    vocabulary=V, specials={'end': END}, token_bytes=BYTES, separate_documents=False
  )  # fmt: skip
  return CausalLM(modules={'model': module or transformer()}, **{**given, **options})


def batch(tokens, lengths=None):
  tokens = jnp.asarray(tokens, jnp.int32)
  rows, size = tokens.shape
  lengths = [size] * rows if lengths is None else lengths
  return {
    'tokens': tokens,
    'length': jnp.asarray(lengths, jnp.int32),
    'position': jnp.arange(rows),
    'step': jnp.zeros(rows, jnp.int32),
  }


def some(rows, size, seed=0):
  return np.random.default_rng(seed).integers(0, END, (rows, size))


def test_figures_by_hand():
  objective = build(Table())
  data = batch([[1, 2, 3, END, 4], [5, 6, 7, 0, 0], [8, 0, 0, 0, 0]], [5, 3, 1])
  given = variables(objective, data)
  table = np.asarray(given['model']['params']['table'], np.float64)
  assert table.shape == (V, V)
  nats = np.log(np.exp(table).sum(-1, keepdims=True)) - table
  pairs = [[(1, 2), (2, 3), (3, END), (END, 4)], [(5, 6), (6, 7)]]
  wanted = [[nats[pair] for pair in row] for row in pairs]
  hits = [[table[a].argmax() == b for a, b in row] for row in pairs]
  said = evaluation(objective)(given, data, KEY)
  np.testing.assert_allclose(said['loss'], [np.mean(wanted[0]), np.mean(wanted[1]), 0], rtol=1e-5)
  np.testing.assert_allclose(said['accuracy'], [np.mean(hits[0]), np.mean(hits[1]), 0])
  np.testing.assert_allclose(said['bytes'], [(2 + 3 + 0 + 4) / 4, (6 + 7) / 2, 0])
  np.testing.assert_array_equal(said['weight'], [4, 2, 0])
  # In training over all targets of the batch, not over its rows.
  loss, aux = training(objective)(given, data, KEY)
  np.testing.assert_allclose(loss, np.mean(wanted[0] + wanted[1]), rtol=1e-5)
  assert not aux.metrics


def test_accuracy_counts_the_likeliest():
  objective = build(Table())
  given = {'model': {'params': {'table': 9 * jnp.roll(jnp.eye(V), 1, axis=1)}}}
  said = evaluation(objective)(given, batch([[3, 4, 5, 5, 0], [9, END, 0, 1, 2]], [4, 5]), KEY)
  np.testing.assert_allclose(said['accuracy'], [2 / 3, 1])


def test_derived_figures():
  figures = {'loss': math.log(8), 'accuracy': 0.5, 'bytes': 1.5}
  derived = build().derive(figures)
  assert derived == pytest.approx(
    {'loss': math.log(8), 'accuracy': 0.5, 'perplexity': 8, 'bits_per_byte': 2}
  )
  assert build().derive({'loss': 1e4})['perplexity'] == math.inf
  assert math.isnan(build().derive({'loss': math.nan, 'bytes': 1.0})['perplexity'])
  assert 'bits_per_byte' not in build().derive({'loss': 1.0, 'bytes': 0.0})


def test_no_bytes_where_they_are_not_known():
  objective = build(Table(), token_bytes=None)
  data = batch(some(2, 4))
  assert 'bytes' not in evaluation(objective)(variables(objective, data), data, KEY)


@pytest.fixture(scope='module')
def trained():
  """A transformer and parameters of it."""
  objective = build()
  return objective, variables(objective, batch(some(2, 8)))


@pytest.fixture(scope='module')
def dropping(trained):
  """The same parameters where half of the units are dropped: evaluation and training loss."""
  objective = build(transformer(dropout=0.5))
  evaluate, loss = evaluation(objective), training(objective)
  return functools.partial(evaluate, trained[1]), functools.partial(loss, trained[1])


def test_padding_changes_nothing(dropping):
  evaluate, loss = dropping
  tokens = some(2, 8)
  padded = tokens.copy()
  padded[1, 5:] = [9, 9, END]
  data, other = batch(tokens, [8, 5]), batch(padded, [8, 5])
  said, again = evaluate(data, KEY), evaluate(other, KEY)
  for name, column in said.items():
    np.testing.assert_allclose(again[name], column, rtol=1e-6)
  np.testing.assert_allclose(loss(data, KEY)[0], loss(other, KEY)[0], rtol=1e-6)


def test_dropout_is_for_training_and_differs_by_microbatch(dropping):
  evaluate, loss = dropping
  data = batch(some(2, 8))
  moved = {**data, 'position': data['position'] + 2}
  rows = ((data, KEY), (data, jax.random.key(5)), (moved, KEY), (data, KEY))
  losses = [float(loss(*given)[0]) for given in rows]
  assert losses[0] == losses[3] and len(set(losses)) == 3
  said = [evaluate(*given)['loss'] for given in rows]
  np.testing.assert_array_equal(said[0], said[1])


def test_a_row_holds_one_token_more_than_the_model_sees():
  objective = build(transformer(context=7))
  jax.eval_shape(objective.init, KEY, batch(some(1, 8)))
  with pytest.raises(UserError, match='context'):
    jax.eval_shape(objective.init, KEY, batch(some(1, 9)))


def test_separate_documents_are_as_if_each_stood_alone(trained):
  rows = [[1, 2, 3, END, 4, 5], [1, 2, 3, END, 0, 0], [END, 4, 5, 0, 0, 0]]
  data = batch(rows, [6, 4, 3])
  apart, (joined, given) = build(separate_documents=True), trained
  split, whole = (evaluation(objective)(given, data, KEY) for objective in (apart, joined))
  np.testing.assert_array_equal(split['weight'], [5, 3, 2])
  wanted = (3 * whole['loss'][1] + 2 * whole['loss'][2]) / 5
  np.testing.assert_allclose(split['loss'][0], wanted, rtol=1e-5)
  assert abs(whole['loss'][0] - wanted) > 1e-3


def test_full_microbatches_average_to_the_whole():
  objective, tokens = build(Table()), some(4, 6)
  data = batch(tokens)
  given = variables(objective, data)
  halves = [training(objective)(given, batch(tokens[i::2]), KEY)[0] for i in (0, 1)]
  whole, _ = training(objective)(given, data, KEY)
  np.testing.assert_allclose(np.mean(halves), whole, rtol=1e-6)


# --- texts


@pytest.fixture(scope='module')
def recurrent():
  """A recurrent network, the quicker one to compile, and parameters of it."""
  small = dict(cell='tanh', width=8, embedding=0, layers=1, tied=False, dropout=0.0)
  objective = build(RNN(**small, vocabulary=V))
  return objective, variables(objective, batch(some(2, 8)))


def sampled(model, num, **conditions):
  objective, given = model
  return np.asarray(jax.jit(lambda given: objective.sample(given, KEY, num, **conditions))(given))


@pytest.mark.parametrize('model', ['trained', 'recurrent'])
def test_greedy_text_is_what_the_whole_forward_pass_says(model, request):
  objective, given = model = request.getfixturevalue(model)
  texts = sampled(model, 2, prompt=np.array([3, 1, 4]), length=12, temperature=0.0)
  assert texts.shape == (2, 12) and texts.dtype == np.int32
  np.testing.assert_array_equal(texts[:, :3], [[3, 1, 4]] * 2)
  forward = jax.jit(lambda given: objective.modules['model'].apply(given, texts, train=False))
  likeliest = np.argmax(forward(given['model']), axis=-1)
  np.testing.assert_array_equal(texts[:, 3:], likeliest[:, 2:-1])
  assert len(np.unique(texts[0, 3:])) > 1


def test_texts_differ_and_do_not_depend_on_their_number(recurrent):
  texts = sampled(recurrent, 4, prompt=np.array([3]), length=9)
  np.testing.assert_array_equal(sampled(recurrent, 2, prompt=np.array([3]), length=9), texts[:2])
  assert len({tuple(row) for row in texts.tolist()}) == 4


def test_a_text_without_a_prompt_begins_as_a_document_does(recurrent):
  texts = sampled(recurrent, 3, length=5)
  assert (texts[:, 0] == END).all()
  nothing = np.zeros(0, np.int32)
  np.testing.assert_array_equal(sampled(recurrent, 3, prompt=nothing, length=5), texts)
  plain = build(recurrent[0].modules['model'], specials={})
  assert (sampled((plain, recurrent[1]), 1, length=4)[:, 0] == 0).all()


def test_a_text_is_as_long_as_the_model_can_see(trained, recurrent):
  for (objective, given), context, length in ((trained, 12, 12), (recurrent, 0, 256)):
    assert objective.writing.context == context
    texts = jax.eval_shape(lambda given, o=objective: o.sample(given, KEY, 3), given)
    assert texts.shape == (3, length)


def test_streaming_says_the_same(recurrent):
  objective, given = recurrent
  options = dict(temperature=0.8, top_k=5, top_p=0.9)
  wanted = sampled(recurrent, 2, prompt=np.array([1, 2]), length=10, **options)
  prompts = jnp.array([[1, 2], [1, 2]])
  loop = jax.jit(objective.writing.begin, static_argnums=3)(given, prompts, KEY, 10)
  advance = jax.jit(objective.writing.advance, donate_argnums=1)
  for position in (4, 7, 10):
    loop = advance(given, loop, jnp.int32(3), 0.8, 5, 0.9)
    assert int(loop.position) == position
    np.testing.assert_array_equal(loop.tokens[:, :position], wanted[:, :position])


def test_what_writing_refuses():
  objective = build()
  objective.writing.check(np.array([1]), 12, 1.0, 0, 1.0)
  with pytest.raises(UserError, match='top_p=2'):
    objective.writing.check(np.array([1]), 12, 1.0, 0, 2.0)


# --- what cannot be


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    (dict(vocabulary=0), 'name=causal_lm reads text'),
    (dict(separate_documents=True, specials={}), 'add "end" to config.data.text.specials'),
    (dict(module=transformer(causal=False)), 'causal=False lets the model see'),
  ],
)
def test_what_cannot_be(options, message):
  with pytest.raises(UserError, match=message):
    build(**options)


def test_data_without_text():
  with pytest.raises(UserError, match='has only image, label; choose a data set with text'):
    build().init(KEY, {'image': jnp.zeros((1, 2, 2, 1)), 'label': jnp.zeros(1)})


@pytest.mark.parametrize(
  ('conditions', 'message'),
  [
    (dict(length=13), '--length=13 is past the context of this model, 12 tokens'),
    (dict(length=0), '--length=0 counts them too'),
    (dict(prompt=np.array([1, 2, 3]), length=3), 'the prompt has 3 tokens'),
    (dict(prompt=np.array([V])), f'token {V} of the prompt'),
    (dict(temperature=-1.0), '--temperature=-1.0'),
    (dict(top_k=-1), '--top_k=-1'),
    (dict(top_p=0.0), '--top_p=0.0'),
  ],
)
def test_conditions_that_cannot_be(trained, conditions, message):
  objective, given = trained
  with pytest.raises(UserError, match=message):
    objective.sample(given, KEY, 1, **conditions)
