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
from options import complete
from tests.objectives.models_of_text import (
  Table,
  V,
  evaluation,
  training,
  transformer,
  variables,
)
from tests.steps import keys_of

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
  said = evaluation(objective)(given, data)
  np.testing.assert_allclose(said['loss'], [np.mean(wanted[0]), np.mean(wanted[1]), 0], rtol=1e-5)
  np.testing.assert_allclose(said['accuracy'], [np.mean(hits[0]), np.mean(hits[1]), 0])
  np.testing.assert_allclose(said['bytes'], [(2 + 3 + 0 + 4) / 4, (6 + 7) / 2, 0])
  np.testing.assert_array_equal(said['weight'], [4, 2, 0])
  # In training over all targets of the batch, not over its rows; their number is its weight.
  loss, aux = training(objective)(given, data)
  np.testing.assert_allclose(loss, np.mean(wanted[0] + wanted[1]), rtol=1e-5)
  assert not aux.metrics and aux.weight == 6


def test_accuracy_counts_the_likeliest():
  objective = build(Table())
  given = {'model': {'params': {'table': 9 * jnp.roll(jnp.eye(V), 1, axis=1)}}}
  said = evaluation(objective)(given, batch([[3, 4, 5, 5, 0], [9, END, 0, 1, 2]], [4, 5]))
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
  assert 'bytes' not in evaluation(objective)(variables(objective, data), data)


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
  said, again = evaluate(data), evaluate(other)
  for name, column in said.items():
    np.testing.assert_allclose(again[name], column, rtol=1e-6)
  np.testing.assert_allclose(loss(data)[0], loss(other)[0], rtol=1e-6)


def test_dropout_is_for_training_and_drawn_from_the_context(dropping):
  evaluate, loss = dropping
  data = batch(some(2, 8))
  losses = [float(loss(data, seed)[0]) for seed in (0, 5, 0)]
  assert losses[0] == losses[2] != losses[1]
  said = [evaluate(data, seed)['loss'] for seed in (0, 5)]
  np.testing.assert_array_equal(said[0], said[1])


def test_a_row_holds_one_token_more_than_the_model_sees():
  objective = build(transformer(context=7))
  jax.eval_shape(objective.init, jax.random.key(0), batch(some(1, 8)))
  with pytest.raises(UserError, match='context'):
    jax.eval_shape(objective.init, jax.random.key(0), batch(some(1, 9)))


def test_separate_documents_are_as_if_each_stood_alone(trained):
  rows = [[1, 2, 3, END, 4, 5], [1, 2, 3, END, 0, 0], [END, 4, 5, 0, 0, 0]]
  data = batch(rows, [6, 4, 3])
  apart, (joined, given) = build(separate_documents=True), trained
  split, whole = (evaluation(objective)(given, data) for objective in (apart, joined))
  np.testing.assert_array_equal(split['weight'], [5, 3, 2])
  wanted = (3 * whole['loss'][1] + 2 * whole['loss'][2]) / 5
  np.testing.assert_allclose(split['loss'][0], wanted, rtol=1e-5)
  assert abs(whole['loss'][0] - wanted) > 1e-3


def test_full_microbatches_average_to_the_whole():
  objective, tokens = build(Table()), some(4, 6)
  data = batch(tokens)
  given = variables(objective, data)
  halves = [training(objective)(given, batch(tokens[i::2]))[0] for i in (0, 1)]
  whole, _ = training(objective)(given, data)
  np.testing.assert_allclose(np.mean(halves), whole, rtol=1e-6)


# --- texts


@pytest.fixture(scope='module')
def recurrent():
  """A recurrent network, the quicker one to compile, and parameters of it."""
  small = dict(cell='tanh', width=8, embedding=0, layers=1, tied=False, dropout=0.0)
  objective = build(RNN(**small, vocabulary=V))
  return objective, variables(objective, batch(some(2, 8)))


def sample(objective, given, num, **options):
  sampler = objective.sampler
  # The prompt has been made tokens by then.
  tokens = {'prompt': options.pop('prompt', ())}
  options = {**complete(sampler.options, options, 'sample.py'), **tokens}
  return sampler.sample(given, keys_of(num), jnp.arange(num), **options)


def sampled(model, num, **options):
  objective, given = model
  return np.asarray(jax.jit(lambda given: sample(objective, given, num, **options))(given))


@pytest.mark.parametrize('model', ['trained', 'recurrent'])
def test_greedy_text_is_what_the_whole_forward_pass_says(model, request):
  objective, given = model = request.getfixturevalue(model)
  texts = sampled(model, 2, prompt=(3, 1, 4), length=12, temperature=0.0)
  assert texts.shape == (2, 12) and texts.dtype == np.int32
  np.testing.assert_array_equal(texts[:, :3], [[3, 1, 4]] * 2)
  forward = jax.jit(lambda given: objective.modules['model'].apply(given, texts, train=False))
  likeliest = np.argmax(forward(given['model']), axis=-1)
  np.testing.assert_array_equal(texts[:, 3:], likeliest[:, 2:-1])
  assert len(np.unique(texts[0, 3:])) > 1


def test_texts_differ_and_do_not_depend_on_their_number(recurrent):
  texts = sampled(recurrent, 4, prompt=(3,), length=9)
  np.testing.assert_array_equal(sampled(recurrent, 2, prompt=(3,), length=9), texts[:2])
  assert len({tuple(row) for row in texts.tolist()}) == 4


def test_a_text_without_a_prompt_begins_as_a_document_does(recurrent):
  texts = sampled(recurrent, 3, length=5)
  assert (texts[:, 0] == END).all()
  assert recurrent[0].document_start == (END,)
  plain = build(recurrent[0].modules['model'], specials={})
  assert (sampled((plain, recurrent[1]), 1, length=4)[:, 0] == 0).all()


def test_a_text_is_as_long_as_the_model_can_see(trained, recurrent):
  for (objective, given), context, length in ((trained, 12, 12), (recurrent, 0, 256)):
    assert objective.sampler.context == context and objective.sampler.feature == 'tokens'
    texts = jax.eval_shape(lambda given, o=objective: sample(o, given, 3), given)
    assert texts.shape == (3, length)


def test_streaming_gives_the_same_text(recurrent):
  objective, given = recurrent
  options = dict(temperature=0.8, top_k=5, top_p=0.9)
  wanted = sampled(recurrent, 2, prompt=(1, 2), length=10, **options)
  prompts, lengths = jnp.array([[1, 2], [1, 2]]), jnp.array([2, 2])
  start = jax.jit(objective.sampler.start, static_argnums=4)
  state = start(given, prompts, lengths, keys_of(2), 10)
  advance = jax.jit(objective.sampler.advance, donate_argnums=1)
  for position in (5, 8, 10):
    state = advance(given, state, jnp.int32(3), **options)
    np.testing.assert_array_equal(state.positions, [position] * 2)
    np.testing.assert_array_equal(state.tokens[:, :position], wanted[:, :position])


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
    build().init(jax.random.key(0), {'image': jnp.zeros((1, 2, 2, 1)), 'label': jnp.zeros(1)})


@pytest.mark.parametrize(
  ('options', 'message'),
  [
    (dict(length=1), 'length=1 must be at least 2'),
    (dict(temperature=-1.0), 'temperature=-1.0 must be'),
    (dict(top_k=-1), 'top_k=-1 must be'),
    (dict(top_p=0.0), 'top_p=0.0 must be'),
  ],
)
def test_options_that_cannot_be(trained, options, message):
  objective, given = trained
  with pytest.raises(UserError, match=message):
    sample(objective, given, 1, **options)
