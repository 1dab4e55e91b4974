"""Small modules that read tokens, for the tests of objectives."""

import functools

import flax.linen as nn
import jax

from models.transformer import Transformer
from tests.objectives import calls

V = 11


class Table(nn.Module):
  """Logits that only the token itself decides, so that losses can be worked out by hand."""

  vocabulary: int = V
  outputs: int = 1
  pool: str = 'none'
  causal: bool = True
  context: int = 0

  @nn.compact
  def __call__(self, tokens, train, lengths=None, segments=None):
    del train, lengths, segments
    table = self.param('table', nn.initializers.normal(2.0), (self.vocabulary, self.outputs))
    return table[tokens]


def transformer(**options) -> Transformer:
  """One block, eight wide."""
  small = dict(
    width=8, layers=1, heads=2, key_value_heads=0, hidden=16, context=12, causal=True, norm='layer',
    norm_place='pre', norm_epsilon=1e-5, positions='learned', mlp='gelu', biases=True, tied=False,
    types=0, embedding_norm=False, head='linear', dropout=0.0, scan=False, remat=False,
    vocabulary=V,
  )  # fmt: skip
  return Transformer(**{**small, **options})


def variables(objective, batch):
  """Those of the objective, scaled up so that tokens and places make a difference."""
  made = jax.jit(objective.init)(jax.random.key(1), batch)
  return jax.tree.map(lambda x: x * 8 if x.ndim > 1 else x, made)


def evaluation(objective):
  """(variables, batch, key) -> the per-example figures of a batch; jitted."""
  return jax.jit(functools.partial(calls.evaluate, objective))


def training(objective):
  """(variables, batch, key) -> the training loss and what it reports; jitted."""
  (player,) = objective.players

  @jax.jit
  def loss(variables, batch, key):
    params = {'model': variables['model']['params']}
    return player.loss(params, {'model': {}}, *calls.given(batch, key))

  return loss
