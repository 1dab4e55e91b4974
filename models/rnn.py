"""Recurrent network: stacked Elman, GRU or LSTM layers.

Parameters, all float32, of vocabulary V, embedding E, units W, gates G (1 of an Elman cell, 3 of a
GRU: reset, update, new; 4 of an LSTM: input, forget, cell, output):

    embedding/embedding         [V, E]        embedding > 0
    layer_0/input/kernel        [E, G·W]      [V, G·W] without an embedding; [W, G·W] higher up
    layer_0/input/bias          [G·W]
    layer_0/recurrent/kernel    [W, G·W]
    layer_0/recurrent/bias      [W]           GRU: added to the new gate's h·U, before r multiplies
    output/kernel               [W, outputs]  not tied
    output/bias                 [outputs]

Gates, their order and equations are those of torch.nn.RNN, GRU and LSTM, whose weights are these
kernels transposed, and whose two biases are summed here (except the GRU's of the new gate).
Kernels start uniform in ±1/√W, as torch's; biases 0, that of the forget gate 1.
"""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from errors import UserError, choose
from models.kernels.dense import product
from models.kernels.lookup import lookup
from models.kernels.recurrence import CELLS, Cell, States, recur, recurrent, zeros
from models.layers import MOST_LAYERS, Embed, Initializer, Output, per_token
from models.pooling import POOLS
from models.positions import changes
from options import option

_WHERE = 'config.modules.model'


class RNN(nn.Module):
  """Recurrent network on tokens int32 [B, T]: float32 [B, T, outputs], pooled [B, outputs].

  Attributes:
    vocabulary: V, given by the data.
    outputs: how many numbers per token or row, set by the objective.
    pool: 'none', 'first', 'last' or 'mean' of the real tokens, set by the objective.
    dtype: of products; states and gates are float32.
  """

  cell: str = option(
    'Equations of a step; `tanh` and `sigmoid` are an Elman cell.', choices=tuple(CELLS)
  )
  width: int = option('W, units of each layer.', low=1)
  embedding: int = option(
    "E, length of an embedding; 0 for one-hot input, which selects a row of the first layer's "
    'kernel.',
    low=0,
  )
  layers: int = option('How many layers are stacked.', low=1, high=MOST_LAYERS)
  tied: bool = option('Whether the logits are products with the embedding, so E = W.')
  dropout: float = option(
    "Fraction of each layer's outputs dropped in training (Zaremba et al. 2014).", low=0, below=1
  )
  vocabulary: int = 0
  outputs: int = 1
  pool: str = 'none'
  dtype: Any = jnp.float32

  def setup(self):
    self._check()
    self.kind = choose(CELLS, self.cell, f'{_WHERE}.cell')
    init = _uniform(self.width)
    self.embed = None
    if self.embedding:
      # Vectors of length 1, whatever their size.
      deviation = self.embedding**-0.5
      self.embed = Embed(
        self.vocabulary, self.embedding, nn.initializers.normal(deviation), name='embedding'
      )
    sizes = [self.embedding or self.vocabulary, *[self.width] * (self.layers - 1)]
    self.stack = [
      Layer(self.kind, size, self.width, self.dtype, name=f'layer_{i}')
      for i, size in enumerate(sizes)
    ]
    self.logits = Output(self.outputs, True, init, self.dtype, name='output')
    self.drop = nn.Dropout(self.dropout)

  def __call__(
    self,
    tokens: jax.Array,
    train: bool,
    lengths: jax.Array | None = None,
    segments: jax.Array | None = None,
  ) -> jax.Array:
    """Reads whole rows.

    Args:
      tokens: int32 [B, T].
      train: whether units are dropped.
      lengths: int32 [B], real tokens of each row, for `pool`; None for T.
      segments: int32 [B, T]; the states start anew where the segment changes; None for one.

    Returns:
      float32 [B, T, outputs], or [B, outputs] where `pool` is not 'none'.
    """
    pool = choose(POOLS, self.pool, f'{_WHERE}.pool')
    return self._outputs(pool(self._read_rows(tokens, train, segments), lengths))

  def losses(
    self,
    tokens: jax.Array,
    targets: jax.Array,
    loss: Callable[[jax.Array, jax.Array], jax.Array],
    chunks: int,
    train: bool,
    lengths: jax.Array | None = None,
    segments: jax.Array | None = None,
  ) -> jax.Array:
    """Reads whole rows and returns the loss of each token; as `Transformer.losses`."""
    del lengths
    x = self._read_rows(tokens, train, segments)

    def of(model: 'RNN', x: jax.Array, targets: jax.Array) -> jax.Array:
      return loss(model._outputs(x, wide=False), targets)

    return per_token(self, of, x, targets, chunks)

  def _read_rows(self, tokens: jax.Array, train: bool, segments: jax.Array | None) -> jax.Array:
    """tokens [B, T] → [B, T, W] before the head; the arguments are those of `__call__`."""
    keep = None
    if segments is not None:
      keep = 1 - changes(segments).T[..., None].astype(jnp.float32)
    # Time first, so that a step of the recurrence reads contiguous memory.
    x = tokens.T if self.embed is None else self.embed(tokens.T)
    for layer in self.stack:
      x = self.drop(layer(x, keep), deterministic=not train)
    return x.swapaxes(0, 1)

  @property
  def context(self) -> int:
    """Most tokens that the model sees at once; 0, for a state has no bound."""
    return 0

  @property
  def causal(self) -> bool:
    """Whether a token sees only itself and those before it."""
    return True

  def read(
    self, tokens: jax.Array, lengths: jax.Array, length: int
  ) -> tuple[tuple[States, ...], jax.Array]:
    """Reads prompts in one pass, to go on from them token by token.

    Args:
      tokens: int32 [B, P], padded on the right.
      lengths: int32 [B], from 1 to P, tokens of each row.
      length: not used.

    Returns:
      The states of each layer after the prompts, and logits float32 [B, outputs] of the next
      tokens.
    """
    del length

    def one(model: 'RNN', carry: tuple[States, ...], entry: tuple[jax.Array, jax.Array]):
      token, place = entry
      after = model._advance(carry, token)
      real = (place < lengths)[:, None]
      return jax.tree.map(lambda new, old: jnp.where(real, new, old), after, carry), None

    rows, size = tokens.shape
    first = (zeros(self.kind, rows, self.width),) * self.layers
    over_time = nn.scan(one, variable_broadcast='params', split_rngs={'params': False})
    carry, _ = over_time(self, first, (tokens.T, jnp.arange(size)))
    return carry, self._outputs(carry[-1][0])

  def step(
    self, carry: tuple[States, ...], tokens: jax.Array, positions: jax.Array
  ) -> tuple[tuple[States, ...], jax.Array]:
    """Reads one token of each row, int32 [B]; `positions` are not used.

    Returns:
      The states after these tokens, and logits float32 [B, outputs].
    """
    del positions
    after = self._advance(carry, tokens)
    return after, self._outputs(after[-1][0])

  def _advance(self, carry: tuple[States, ...], tokens: jax.Array) -> tuple[States, ...]:
    """The states of each layer after one token of each row, int32 [B]."""
    x = tokens if self.embed is None else self.embed(tokens)
    after = []
    for layer, states in zip(self.stack, carry):
      states = layer.step(x, states)
      after.append(states)
      x = states[0]
    return tuple(after)

  def _outputs(self, x: jax.Array, wide: bool = True) -> jax.Array:
    return self.logits(x, self.embed.embedding if self.tied else None, wide)

  def _check(self) -> None:
    if self.tied and self.embedding != self.width:
      raise UserError(
        f'{_WHERE}.tied=True multiplies units with the embedding, so {_WHERE}.embedding='
        f'{self.embedding} must be {_WHERE}.width={self.width}'
      )
    if self.tied and self.outputs != self.vocabulary:
      raise UserError(
        f'{_WHERE}.tied=True gives a logit for each of the {self.vocabulary} tokens, and the '
        f'objective reads {self.outputs} outputs; set {_WHERE}.tied=False'
      )


class Layer(nn.Module):
  """One recurrent layer: [T, B, inputs], or tokens int32 [T, B], to [T, B, width] float32.

  Attributes:
    cell: the equations of a step.
    inputs: length of an input vector; for tokens the size of the vocabulary.
    width: W.
    dtype: of products.
  """

  cell: Cell
  inputs: int
  width: int
  dtype: Any

  def setup(self):
    self.input = Input(self.cell, self.inputs, self.width, self.dtype)
    self.recurrent = Recurrent(self.cell, self.width, self.dtype)

  def __call__(self, x: jax.Array, keep: jax.Array | None) -> jax.Array:
    """Runs over all steps; `keep` float32 [T, B, 1] is 0 where the states start anew, or None."""
    return recur(self.cell, self.input(x), *self.recurrent(), keep)

  def step(self, x: jax.Array, states: States) -> States:
    """Returns the states after one step of x [B, inputs], or of tokens int32 [B]."""
    r = recurrent(states[0], *self.recurrent())
    return self.cell.forward(self.input(x).astype(jnp.float32), r, states)[0]


class Input(nn.Module):
  """Input's part of all gates: [..., inputs], or tokens int32 [...], to [..., G·W].

  Attributes: as of `Layer`.
  """

  cell: Cell
  inputs: int
  width: int
  dtype: Any

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    features = self.cell.gates * self.width
    kernel = self.param('kernel', _uniform(self.width), (self.inputs, features), jnp.float32)
    bias = self.param('bias', self._first_bias, (features,), jnp.float32)
    if jnp.issubdtype(x.dtype, jnp.integer):
      # The bias once per row of the table, not once per token.
      return lookup((kernel + bias).astype(self.dtype), x)
    rows = x.reshape(-1, self.inputs).astype(self.dtype)
    y = product(rows, kernel.astype(self.dtype)) + bias.astype(self.dtype)
    return y.reshape(*x.shape[:-1], features)

  def _first_bias(self, key: jax.Array, shape: tuple[int], dtype: Any) -> jax.Array:
    del key, shape
    return jnp.repeat(jnp.asarray(self.cell.biases, dtype), self.width)


class Recurrent(nn.Module):
  """Parameters of h·U: the kernel [W, G·W] in `dtype`, and the bias [G·W] float32 or None.

  Attributes: as of `Layer`.
  """

  cell: Cell
  width: int
  dtype: Any

  @nn.compact
  def __call__(self) -> tuple[jax.Array, jax.Array | None]:
    features = self.cell.gates * self.width
    kernel = self.param('kernel', _uniform(self.width), (self.width, features), jnp.float32)
    bias = None
    if self.cell.inner:
      bias = self.param('bias', nn.initializers.zeros_init(), (self.width,), jnp.float32)
      bias = jnp.pad(bias, (features - self.width, 0))
    return kernel.astype(self.dtype), bias


def _uniform(width: int) -> Initializer:
  """Makes an initialiser, uniform in ±1/√width."""

  def init(key: jax.Array, shape: tuple[int, ...], dtype: Any) -> jax.Array:
    return jax.random.uniform(key, shape, dtype, -(width**-0.5), width**-0.5)

  return init
