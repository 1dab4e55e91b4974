"""Next-token prediction: losses by hand, documents kept apart, texts as the model has them."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from errors import UserError
from models.rnn import RNN
from objectives.base import numbered_keys
from objectives.causal_lm import CausalLM
from tests.objectives import calls
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
  return np.asarray(
    jax.jit(lambda given: calls.sample(objective, given, KEY, num, **conditions))(given)
  )


def grown(model, prompts, length, stride, **options):
  """Texts int32 [B, length] of prompts of different lengths, some tokens at a time."""
  objective, given = model
  lengths = jnp.array([len(prompt) for prompt in prompts])
  padded = np.full((len(prompts), max(map(len, prompts))), 9, np.int32)
  for row, prompt in zip(padded, prompts):
    row[: len(prompt)] = prompt
  sampler, keys = objective.sampler, numbered_keys(KEY, jnp.arange(len(prompts)))
  options = {'temperature': 0.8, 'top_k': 5, 'top_p': 0.9, **options}
  state = jax.jit(sampler.start, static_argnums=4)(given, padded, lengths, keys, length)
  advance = jax.jit(sampler.advance, donate_argnums=1)
  while (np.asarray(state.positions) < length).any():
    before = np.asarray(state.positions)
    state = advance(given, state, jnp.int32(stride), **options)
    np.testing.assert_array_equal(state.positions, np.minimum(before + stride, length))
  return np.asarray(state.tokens)


def followed(model, texts, first):
  """The likeliest token after each of the first tokens of texts, by whole passes.

  Past the context, the model sees the last tokens alone.
  """
  objective, given = model
  module = objective.modules['model']
  context = module.context or texts.shape[1]
  columns = [
    jax.jit(lambda seen: module.apply(given['model'], seen, train=False))(
      texts[:, max(0, at - context) : at]
    )[:, -1].argmax(-1)
    for at in range(first, texts.shape[1])
  ]
  return np.stack(columns, axis=1)


@pytest.mark.parametrize('model', ['trained', 'recurrent'])
def test_greedy_text_is_what_the_whole_forward_pass_says(model, request):
  model = request.getfixturevalue(model)
  texts = grown(model, [[3, 1, 4]] * 2, 12, 5, temperature=0.0)
  np.testing.assert_array_equal(texts[:, :3], [[3, 1, 4]] * 2)
  np.testing.assert_array_equal(texts[:, 3:], followed(model, texts, 3))
  assert len(np.unique(texts[0, 3:])) > 1


@pytest.mark.parametrize('prompt', [3, 14], ids=['short', 'longer than the context'])
def test_past_the_context_the_window_slides(trained, prompt):
  """The model sees 12 tokens: from there on each is what those last ones alone lead to."""
  prompts = np.asarray(some(2, prompt))
  texts = grown(trained, [*prompts], 20, 4, temperature=0.0)
  np.testing.assert_array_equal(texts[:, :prompt], prompts)
  np.testing.assert_array_equal(texts[:, prompt:], followed(trained, texts, prompt))


@pytest.mark.parametrize('model', ['trained', 'recurrent'])
@pytest.mark.parametrize('length', [11, 17])
def test_rows_of_different_prompts_are_what_each_is_alone(model, length, request):
  model = request.getfixturevalue(model)
  prompts = [[3], [1, 2, 5, 6], [7, 8]]
  together = grown(model, prompts, length, 3)
  for row, prompt in enumerate(prompts[:1]):
    alone = grown(model, [prompt], length, 100)
    np.testing.assert_array_equal(alone[0], together[row])
  np.testing.assert_array_equal(grown(model, prompts[:2], length, 1), together[:2])


def test_texts_differ_and_do_not_depend_on_their_number(recurrent):
  texts = sampled(recurrent, 4, length=9)
  np.testing.assert_array_equal(sampled(recurrent, 2, length=9), texts[:2])
  assert len({tuple(row) for row in texts.tolist()}) > 2


def test_a_text_without_a_prompt_begins_as_a_document_does(recurrent):
  texts = sampled(recurrent, 3, length=5)
  assert (texts[:, 0] == END).all()
  plain = build(recurrent[0].modules['model'], specials={})
  assert (sampled((plain, recurrent[1]), 1, length=4)[:, 0] == 0).all()


def test_a_text_is_as_long_as_the_model_can_see(trained, recurrent):
  for (objective, given), context, length in ((trained, 12, 12), (recurrent, 0, 256)):
    assert objective.sampler.context == context
    texts = jax.eval_shape(lambda given, o=objective: calls.sample(o, given, KEY, 3), given)
    assert texts.shape == (3, length)


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
    (dict(length=1), '--length=1 must be at least 2'),
    (dict(temperature=-1.0), '--temperature=-1.0'),
    (dict(top_k=-1), '--top_k=-1'),
    (dict(top_p=0.0), '--top_p=0.0'),
    (dict(guidance=2.0), '--guidance is no option of the sampler'),
  ],
)
def test_conditions_that_cannot_be(trained, conditions, message):
  objective, given = trained
  with pytest.raises(UserError, match=message):
    calls.sample(objective, given, KEY, 1, **conditions)
