"""Every module of models/ has a forward derivative, and it agrees with the reverse one.

A module that no case names fails the first test: add a case for it.
"""

import functools
import importlib
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from jax.flatten_util import ravel_pytree

import models
from models import (
  cnn,
  conv_vae,
  dcgan,
  efficientnet_lite,
  inception,
  layers,
  mlp,
  norms,
  positions,
  pseudo_inputs,
  resnet,
  rnn,
  transformer,
  vqvae,
)
from models.attention import Attention
from models.kernels.recurrence import CELLS
from tests.marks import slow_where

RNG = np.random.default_rng(0)
INIT = nn.initializers.normal(1.0)
B, T, V, Z, K = 2, 5, 7, 3, 4  # examples, tokens, vocabulary, latents, labels
SHAPE = (8, 8, 1)


def normal(*shape: int) -> jax.Array:
  return jnp.asarray(RNG.standard_normal(shape), jnp.float32)


def integers(below: int, *shape: int) -> jax.Array:
  return jnp.asarray(RNG.integers(0, below, shape), jnp.int32)


class Case(NamedTuple):
  """A module of few parameters and the inputs of its method."""

  module: nn.Module
  inputs: tuple
  method: str = '__call__'


IMAGES, LATENTS, TOKENS = normal(B, *SHAPE), normal(B, Z), integers(V, B, T)
LABELS, CONDITION = integers(K, B), normal(B, 2)
LENGTHS, SEGMENTS = jnp.array([T, 3]), jnp.array([[0, 0, 1, 1, 1], [4] * T])
DENSE = functools.partial(layers.Dense)
BLOCK = dict(
  attention=functools.partial(Attention, 8, 4, 2, True, False, 0.0, DENSE, DENSE),
  mlp=functools.partial(transformer.MLP, 6, 8, jnp.tanh, True, DENSE, DENSE),
  norm=functools.partial(norms.Norm, 1e-5, True, True),
  dropout=0.3,
)
GPT = dict(
  width=8, layers=2, heads=4, key_value_heads=2, hidden=6, context=T, causal=True, norm='layer',
  norm_place='pre', norm_epsilon=1e-5, positions='learned', mlp='gelu', biases=True, tied=True,
  types=0, embedding_norm=False, head='linear', dropout=0.3, scan=False, remat=False,
  vocabulary=V, outputs=V,
)  # fmt: skip
LLAMA = {**GPT, 'norm': 'rms', 'positions': 'rotary', 'mlp': 'swiglu', 'tied': False, 'scan': True}
BERT = {
  **GPT, 'causal': False, 'norm_place': 'post', 'types': 2, 'embedding_norm': True,
  'head': 'transform', 'positions': 'sinusoidal', 'pool': 'mean', 'remat': True,
}  # fmt: skip
RNN = dict(width=4, embedding=3, layers=2, tied=False, dropout=0.3, vocabulary=V, outputs=2)
LSTM = CELLS['lstm']

STAGES = (efficientnet_lite.Stage(2, 3, 1, 2, 4), efficientnet_lite.Stage(1, 5, 2, 1, 3))

CASES = {
  'attention.Attention': Case(
    Attention(8, 4, 2, True, False, 0.3, DENSE, DENSE),
    (normal(B, T, 8), None, None, LENGTHS, True),
  ),
  'cnn.CNN': Case(cnn.CNN((4, 3), 3, (5,), 'tanh', 0.3, 2), (IMAGES, True)),
  'conv_vae.Encoder': Case(conv_vae.Encoder((4, 3), 5, Z), (IMAGES, CONDITION, True)),
  'conv_vae.Decoder': Case(conv_vae.Decoder((4, 3), 5, SHAPE), (LATENTS, CONDITION, True)),
  'dcgan.Generator': Case(dcgan.Generator((4, 3), SHAPE, K), (LATENTS, LABELS, True)),
  'dcgan.Discriminator': Case(dcgan.Discriminator((4, 3), 'batch', K), (IMAGES, LABELS, True)),
  'efficientnet_lite.EfficientNetLite': Case(
    efficientnet_lite.EfficientNetLite(STAGES, 3, 5, 2), (normal(B, 9, 9, 3),)
  ),
  'efficientnet_lite.Block': Case(efficientnet_lite.Block(STAGES[0]), (normal(B, 5, 5, 4),)),
  'efficientnet_lite.Depthwise': Case(efficientnet_lite.Depthwise(5, 2), (normal(B, 7, 6, 3),)),
  'inception.InceptionV3': Case(inception.InceptionV3(1 / 64, 2), (normal(1, 75, 75, 3),)),
  'layers.Conv': Case(layers.Conv(3, (3, 3), 2), (normal(B, 5, 5, 4),)),
  'layers.ConvTranspose': Case(layers.ConvTranspose(3, (3, 3), 2), (normal(B, 5, 5, 4),)),
  'layers.Dense': Case(layers.Dense(3), (normal(B, T, 4),)),
  'layers.Embed': Case(layers.Embed(V, 3, INIT), (TOKENS,)),
  'layers.Output': Case(layers.Output(V, True, INIT, jnp.float32), (normal(B, T, 4), None)),
  'layers.Output tied': Case(
    layers.Output(V, True, INIT, jnp.float32), (normal(B, T, 4), normal(V, 4))
  ),
  'mlp.Generator': Case(mlp.Generator((5,), 'tanh', SHAPE, K, 2), (LATENTS, LABELS, True)),
  'mlp.Discriminator': Case(mlp.Discriminator((5,), 'tanh', 0.3, K, 2), (IMAGES, LABELS, True)),
  'mlp.Encoder': Case(mlp.Encoder((6,), 'glu', Z), (IMAGES, CONDITION, True)),
  'mlp.Decoder': Case(mlp.Decoder((6,), 'silu', SHAPE), (LATENTS, CONDITION, True)),
  'mlp.MLP': Case(mlp.MLP((5,), 'tanh', 0.3, True, 2), (normal(4, 6), True)),
  'norms.Norm': Case(norms.Norm(1e-5, True, True), (normal(B, T, 4),)),
  'norms.Norm rms': Case(norms.Norm(1e-5, False, False), (normal(B, T, 4),)),
  'norms.FlatBatchNorm': Case(norms.FlatBatchNorm(jnp.float32), (normal(B, 3, 3, 4), True)),
  'norms.ConditionalBatchNorm': Case(
    norms.ConditionalBatchNorm(K), (normal(B, 3, 3, 4), LABELS, True)
  ),
  'positions.Learned': Case(
    positions.Learned(T, 4, 2, INIT), (normal(B, T, 4), jnp.arange(T)), 'add'
  ),
  'positions.Sinusoidal': Case(
    positions.Sinusoidal(T, 4, 2, INIT), (normal(B, T, 4), jnp.arange(T)), 'add'
  ),
  'positions.Rotary': Case(
    positions.Rotary(T, 4, 2, INIT), (normal(B, T, 4), jnp.arange(T)), 'add'
  ),
  'pseudo_inputs.PseudoInputs': Case(pseudo_inputs.PseudoInputs(3, SHAPE), (True,)),
  'resnet.ResNet': Case(resnet.ResNet(4, (4, 5), (1, 1), 'tanh', 0.3, 2), (IMAGES, True)),
  'resnet.Block': Case(resnet.Block(3, 2, 'silu', jnp.float32), (normal(B, 5, 5, 4), True)),
  **{
    f'rnn.RNN {cell}': Case(rnn.RNN(cell, **RNN), (TOKENS, True, LENGTHS, SEGMENTS))
    for cell in CELLS
  },
  'rnn.RNN one-hot': Case(rnn.RNN('lstm', **{**RNN, 'embedding': 0}), (TOKENS, True)),
  'rnn.Layer': Case(rnn.Layer(LSTM, 3, 4, jnp.float32), (normal(T, B, 3), None)),
  'rnn.Input': Case(rnn.Input(LSTM, 3, 4, jnp.float32), (normal(T, B, 3),)),
  'rnn.Recurrent': Case(rnn.Recurrent(CELLS['gru'], 4, jnp.float32), ()),
  'transformer.Transformer gpt': Case(transformer.Transformer(**GPT), (TOKENS, True)),
  'transformer.Transformer llama': Case(
    transformer.Transformer(**LLAMA), (TOKENS, True, None, SEGMENTS)
  ),
  'transformer.Transformer bert': Case(transformer.Transformer(**BERT), (TOKENS, True, LENGTHS)),
  'transformer.Block': Case(
    transformer.Block(**BLOCK, pre=True), (normal(B, T, 8), None, None, None, True)
  ),
  'transformer.MLP': Case(BLOCK['mlp'](), (normal(B, T, 8),)),
  'vqvae.Encoder': Case(vqvae.Encoder((4, 3), 1, 5, 2), (IMAGES, True)),
  'vqvae.Decoder': Case(vqvae.Decoder((4, 3), 1, 5, SHAPE), (normal(B, 2, 2, 4), True)),
  'vqvae.Residual': Case(vqvae.Residual(5), (normal(B, 3, 3, 4),)),
  'vqvae.Codebook': Case(vqvae.Codebook(K), (normal(B, 2, 2, 3), True)),
}


def public_modules() -> set[str]:
  """`file.Class` of every public linen module that a file of models/ defines."""
  (root,) = models.__path__
  found = set()
  for path in sorted(Path(root).rglob('*.py')):
    dotted = '.'.join(path.relative_to(Path(root).parent).with_suffix('').parts)
    for name, value in vars(importlib.import_module(dotted)).items():
      is_module = isinstance(value, type) and issubclass(value, nn.Module)
      if is_module and value.__module__ == dotted and not name.startswith('_'):
        found.add(f'{dotted.removeprefix("models.")}.{name}')
  return found


def test_every_public_module_has_a_case():
  found = public_modules()
  assert len(found) > 20
  assert found == {name.split()[0] for name in CASES}


def is_float(leaf: Any) -> bool:
  return isinstance(leaf, jax.Array) and jnp.issubdtype(leaf.dtype, jnp.floating)


def flat_function(case: Case) -> tuple[Callable, jax.Array]:
  """The case as a function of one vector, its parameters and inputs, and where that starts."""
  rngs = dict(zip(('params', 'dropout'), jax.random.split(jax.random.key(0))))
  variables = case.module.init(rngs, *case.inputs, method=case.method)
  # Large random parameters: no norm, bias or gate is at its first value.
  params = jax.tree.map(lambda p: 0.6 * normal(*p.shape), variables.get('params', {}))
  leaves, tree = jax.tree.flatten(({**variables, 'params': params}, case.inputs))
  start, unravel = ravel_pytree([leaf for leaf in leaves if is_float(leaf)])

  def function(vector: jax.Array) -> jax.Array:
    given = iter(unravel(vector))
    variables, inputs = tree.unflatten([next(given) if is_float(x) else x for x in leaves])
    mutable = [name for name in variables if name != 'params']
    outputs, _ = case.module.apply(
      variables, *inputs, rngs=rngs, method=case.method, mutable=mutable
    )
    return ravel_pytree([leaf for leaf in jax.tree.leaves(outputs) if is_float(leaf)])[0]

  return function, start


def distance(a: jax.Array, b: jax.Array) -> float:
  """‖a − b‖ over ‖b‖."""
  return float(jnp.linalg.norm(a - b) / jnp.linalg.norm(b))


# Whole networks, of which the parts are tried as well.
SLOW = (
  'attention.Attention',
  'cnn.CNN',
  'conv_vae.Decoder',
  'conv_vae.Encoder',
  'dcgan.Discriminator',
  'dcgan.Generator',
  'efficientnet_lite.EfficientNetLite',
  'inception.InceptionV3',
  'mlp.Decoder',
  'mlp.Discriminator',
  'mlp.Encoder',
  'mlp.Generator',
  'mlp.MLP',
  'resnet.Block',
  'resnet.ResNet',
  'rnn.RNN gru',
  'rnn.RNN lstm',
  'rnn.RNN one-hot',
  'rnn.RNN sigmoid',
  'rnn.RNN tanh',
  'transformer.Block',
  'transformer.Transformer bert',
  'transformer.Transformer gpt',
  'transformer.Transformer llama',
  'vqvae.Decoder',
  'vqvae.Encoder',
)


@pytest.mark.parametrize('name', slow_where(lambda name: name in SLOW, CASES))
def test_forward_mode_agrees_with_differences_and_with_reverse_mode(name: str):
  case = CASES[name]
  function, start = flat_function(case)
  # Of the case alone, whichever ran before.
  towards = jax.random.normal(jax.random.key(zlib.crc32(name.encode())), start.shape)
  towards /= jnp.linalg.norm(towards)
  step = 3e-3

  @functools.partial(jax.jit, compiler_options={'xla_backend_optimization_level': 0})
  def everything(start, towards):
    value, moved = jax.jvp(function, (start,), (towards,))
    pulled = jax.vjp(function, start)[1](moved)[0]
    differences = function(start + step * towards) - function(start - step * towards)
    return value, moved, pulled, differences / (2 * step)

  value, moved, pulled, differences = everything(start, towards)
  np.testing.assert_allclose(value, jax.jit(function)(start), rtol=1e-5, atol=1e-5)
  assert jnp.linalg.norm(moved) > 0
  assert distance(moved, differences) < 0.02
  # ⟨Jv, Jv⟩ = ⟨JᵀJv, v⟩
  np.testing.assert_allclose(moved @ moved, pulled @ towards, rtol=1e-4)
