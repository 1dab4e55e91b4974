"""Next-token prediction: losses by hand, documents kept apart, texts as the model has them."""

import functools
import math
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from errors import UserError
from models.rnn import RNN
from objectives.base import Variables, numbered_keys
from objectives.causal_lm import CausalLM
from options import complete
from tests.marks import slow_where
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

GREEDY = dict(temperature=0.0, top_k=0, top_p=1.0)
SAMPLED = dict(temperature=0.8, top_k=5, top_p=0.9)
ways = pytest.mark.parametrize('options', [GREEDY, SAMPLED], ids=['greedy', 'sampled'])


class Model(NamedTuple):
  """An objective with variables that make a difference, and what it does with them, jitted."""

  objective: CausalLM
  given: Variables
  start: Callable
  advance: Callable
  forward: Callable


def lively(given):
  """Random numbers for all variables, large enough that a text does not repeat one token."""
  rng = np.random.default_rng(4)
  return jax.tree.map(lambda x: jnp.asarray(0.7 * rng.standard_normal(x.shape), x.dtype), given)


def described(module):
  objective = build(module)
  sampler = objective.sampler
  return Model(
    objective,
    lively(variables(objective, batch(some(2, 8)))),
    jax.jit(sampler.start, static_argnums=4),
    jax.jit(sampler.advance),
    jax.jit(lambda given, rows: objective.modules['model'].apply(given, rows, train=False)),
  )


SMALL_RNN = dict(width=8, embedding=0, layers=2, tied=False, dropout=0.0, vocabulary=V)
MODULES = {
  **{
    f'{positions}{", scanned" if scan else ""}': functools.partial(
      transformer, positions=positions, scan=scan, layers=2, key_value_heads=1
    )
    for positions in ('learned', 'rotary', 'sinusoidal')
    for scan in (False, True)
  },
  **{cell: functools.partial(RNN, cell=cell, **SMALL_RNN) for cell in ('tanh', 'lstm', 'gru')},
}


@pytest.mark.parametrize('name', ['learned', 'tanh'])
@pytest.mark.parametrize('chunks', [1, 3])
def test_a_loss_of_chunks_is_the_loss(name, chunks):
  """With documents kept apart and rows that end in padding."""
  data = batch(some(3, 9), [9, 4, 1])
  whole, cut = (
    build(MODULES[name](), separate_documents=True, loss_chunks=number) for number in (0, chunks)
  )
  given = variables(whole, data)

  def gradient(objective):
    loss = training(objective)
    return jax.value_and_grad(lambda given: loss(given, data, KEY)[0])(given)

  wanted, got = gradient(whole), gradient(cut)
  assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(wanted[1])) > 1e-2
  jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=2e-6), got, wanted)


@pytest.fixture(scope='module')
def models():
  """name -> the objective of a model and variables."""
  return functools.cache(lambda name: described(MODULES[name]()))


@pytest.fixture(scope='module')
def recurrent(models):
  """A recurrent network, the quicker one to compile, and parameters of it."""
  return models('tanh')


def generated(model, prompts, length, options, numbers=None, stride=None):
  """Tokens int32 [B, length] of prompts of any lengths, by `start` and `advance`."""
  lengths = np.array([len(prompt) for prompt in prompts])
  # Padding is another token than those of the prompts' ends.
  padded = np.full((len(prompts), lengths.max()), 7, np.int32)
  for row, prompt in zip(padded, prompts):
    row[: len(prompt)] = prompt
  keys = numbered_keys(KEY, jnp.arange(len(prompts)) if numbers is None else jnp.asarray(numbers))
  state = model.start(model.given, jnp.asarray(padded), jnp.asarray(lengths), keys, length)
  while (np.asarray(state.positions) < length).any():
    state = model.advance(model.given, state, jnp.int32(stride or length), **options)
  return np.asarray(state.tokens)


def sampled(model, num, prompt=(), length=None, **options):
  objective, given = model[:2]
  numbers = jnp.arange(num)
  # The prompt of `sample.py` is a text, so it is not among the options that are checked.
  options = complete(objective.sampler.options, {'length': length, **options}, 'the sampler')

  def sample(given):
    keys = numbered_keys(KEY, numbers)
    return objective.sampler.sample(given, keys, numbers, **{**options, 'prompt': prompt})

  return np.asarray(jax.jit(sample)(given))


def greedy_by_hand(model, prompt, length):
  """The likeliest text, every token from a pass over the last `context` tokens alone."""
  tokens, size = list(prompt), model.objective.sampler.context or length
  while len(tokens) < length:
    seen = tokens[-size:]
    # Padded on the right, which a causal model does not see: one program for all lengths.
    row = jnp.asarray([seen + [0] * (size - len(seen))], jnp.int32)
    logits = model.forward(model.given['model'], row)
    tokens.append(int(logits[0, len(seen) - 1].argmax()))
  return tokens


@pytest.mark.parametrize('name', ['learned', 'gru'])
def test_greedy_text_is_that_of_whole_forward_passes(name, models):
  texts = sampled(models(name), 2, prompt=(3, 1, 4), length=12, temperature=0.0)
  assert texts.shape == (2, 12) and texts.dtype == np.int32
  wanted = greedy_by_hand(models(name), (3, 1, 4), 12)
  assert texts.tolist() == [wanted] * 2 and len(set(wanted[3:])) > 1


PROMPTS = ([3, 1, 4], [2], [5, 9, 2, 6, 5, 3])


@pytest.mark.parametrize('name', slow_where(lambda name: name != 'gru', MODULES))
@ways
def test_prompts_of_different_lengths_are_each_as_alone(name, options, models):
  together = generated(models(name), PROMPTS, 12, options)
  for number, prompt in enumerate(PROMPTS):
    alone = generated(models(name), [prompt], 12, options, numbers=[number])[0]
    np.testing.assert_array_equal(together[number], alone)
    assert together[number, : len(prompt)].tolist() == prompt
  if options is GREEDY:
    assert together.tolist() == [greedy_by_hand(models(name), p, 12) for p in PROMPTS]


LONG = some(1, 17, seed=3)[0].tolist()


@pytest.mark.parametrize(
  'name', ['learned', *slow_where(lambda _: True, ['rotary', 'sinusoidal, scanned'])]
)
@pytest.mark.parametrize('size', [1, 11, 12, 13, 17])
def test_past_the_context_a_text_goes_on_from_the_last_tokens(name, size, models):
  assert models(name).objective.sampler.context == 12
  text = generated(models(name), [LONG[:size]], 30, GREEDY)[0].tolist()
  wanted = greedy_by_hand(models(name), LONG[:size], 30)
  assert text == wanted and len(set(wanted[size:])) > 1


@pytest.mark.parametrize(
  'sizes',
  [
    pytest.param((3, 12, 7), id='cached first'),
    pytest.param((3, 14, 12), id='never cached', marks=pytest.mark.slow),
  ],
)
@ways
def test_rows_past_the_context_and_before_it_stand_in_one_batch(sizes, options, models):
  prompts = [LONG[:size] for size in sizes]
  together = generated(models('rotary'), prompts, 20, options)
  for number, prompt in enumerate(prompts):
    alone = generated(models('rotary'), [prompt], 20, options, numbers=[number])[0]
    np.testing.assert_array_equal(together[number], alone)


@pytest.mark.parametrize(
  'name', slow_where(lambda name: name != 'gru', ['learned', 'rotary', 'gru'])
)
@pytest.mark.parametrize('length', [12, 20], ids=['within the context', 'past it'])
def test_a_text_depends_neither_on_their_number_nor_on_the_calls(name, length, models):
  prompts = [[3, 1]] * 4
  whole = generated(models(name), prompts, length, SAMPLED)
  assert len({tuple(row) for row in whole.tolist()}) == 4
  np.testing.assert_array_equal(generated(models(name), prompts[:2], length, SAMPLED), whole[:2])
  alone = generated(models(name), prompts[:1], length, SAMPLED, numbers=[3])
  np.testing.assert_array_equal(alone[0], whole[3])
  for stride in (1, 5):
    cut = generated(models(name), prompts, length, SAMPLED, stride=stride)
    np.testing.assert_array_equal(cut, whole)
  np.testing.assert_array_equal(
    sampled(models(name), 4, prompt=(3, 1), length=length, **SAMPLED), whole
  )


def test_a_text_without_a_prompt_begins_as_a_document_does(recurrent):
  assert (sampled(recurrent, 3, length=5)[:, 0] == END).all()
  plain = build(recurrent[0].modules['model'], specials={})
  assert (sampled((plain, recurrent[1]), 1, length=4)[:, 0] == 0).all()


def test_a_text_is_as_long_as_the_model_can_see(trained, recurrent):
  for (objective, given), context, length in ((trained, 12, 12), (recurrent[:2], 0, 256)):
    assert objective.sampler.context == context
    texts = jax.eval_shape(lambda given, o=objective: calls.sample(o, given, KEY, 3), given)
    assert texts.shape == (3, length)
    assert f'{length} if not given' in objective.sampler.options['length'].doc


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
  'values',
  [dict(length=1), dict(temperature=-1.0), dict(top_k=-1), dict(top_p=0.0)],
  ids=str,
)
def test_options_of_the_sampler_that_cannot_be(trained, values):
  ((name, value),) = values.items()
  with pytest.raises(UserError, match=f'--{name}={value} must be'):
    complete(trained[0].sampler.options, values, 'the sampler', '--')
