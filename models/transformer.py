"""One transformer for GPT and BERT: embeddings, blocks of attention and a dense net, a head.

Parameters, all float32, of vocabulary V, width C, hidden F, heads H in G groups (d = C/H):

    embedding/embedding                          [V, C]
    positions/embedding                          [context, C]        positions='learned'
    types/embedding                              [types, C]          types > 0
    embedding_norm/{scale,bias}                  [C]                 embedding_norm
    block_0/ … or blocks/ with a leading axis of layers (scan):
      attention_norm/{scale,bias}                [C]
      attention/query_key_value/{kernel,bias}    [C, G·(H/G + 2)·d]
      attention/output/{kernel,bias}             [C, C]
      mlp_norm/{scale,bias}                      [C]
      mlp/up/{kernel,bias}                       [C, F]
      mlp/gate/{kernel,bias}                     [C, F]              mlp='swiglu'
      mlp/down/{kernel,bias}                     [F, C]
    norm/{scale,bias}                            [C]                 norm_place='pre'
    transform/{kernel,bias}                      [C, C]              head='transform' or 'pooler'
    transform_norm/{scale,bias}                  [C]                 head='transform'
    output/kernel                                [C, outputs]        not tied
    output/bias                                  [outputs]           see `Transformer.head`

Biases are there where `biases` is set; an RMS norm never has one. Kernels are [in, out]. The
columns of `query_key_value` are ordered by group: for each of the G groups its H/G queries, its
key, its value, d columns each. With G = H (GPT-2, BERT) that is [q₀ k₀ v₀ q₁ k₁ v₁ …], so from
separate q, k, v [C, H·d] it is `stack([q, k, v], 1)` as [C, 3, H, d] → [C, H, 3, d] → [C, 3·C];
the bias likewise. Heads' outputs are concatenated, d rows of `attention/output/kernel` each.

Initial values are GPT-2's (Radford et al. 2019): N(0, 0.02²), the kernels that write to the
residual stream divided by √(2·layers); biases 0, scales 1.
"""

import functools
import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn
from jax.sharding import NamedSharding

from errors import UserError, choose
from models import positions
from models.attention import Attention, Cache, Factory
from models.kernels.activations import gelu
from models.layers import MOST_LAYERS, PRODUCT, Dense, Embed, Output, per_token
from models.mlp import ACTIVATIONS
from models.norms import Norm
from models.pooling import POOLS
from options import option

_WHERE = 'config.modules.model'
_DEVIATION = 0.02
_initial = nn.initializers.normal(_DEVIATION)

_GATED = 'swiglu'
# The activation of the dense net, or of its gate, by the name that `mlp` gives.
_MLPS = {
  **ACTIVATIONS,
  'gelu': gelu,
  'gelu_tanh': functools.partial(jax.nn.gelu, approximate=True),
  _GATED: jax.nn.silu,
}
_PLACES = {'pre': True, 'post': False}
_CENTRED = {'layer': True, 'rms': False}
_KINDS = positions.KINDS
# Whether the residual stream is float32, by the value of `residual`.
_WIDE = {'float32': True, 'precision': False}


def _policies() -> Mapping[str, Callable]:
  """Policies of `jax.checkpoint` under jax's own names.

  Dense layers' products are found by the name that they are given.
  """
  jaxs = jax.checkpoint_policies
  dense = jaxs.save_only_these_names(PRODUCT)
  return {
    'nothing_saveable': jaxs.nothing_saveable,
    'dots_with_no_batch_dims_saveable': jaxs.save_from_both_policies(
      jaxs.dots_with_no_batch_dims_saveable, dense
    ),
    'dots_saveable': jaxs.save_from_both_policies(jaxs.dots_saveable, dense),
    'offload_dot_with_no_batch_dims': jaxs.save_and_offload_only_these_names(
      names_which_can_be_saved=(),
      names_which_can_be_offloaded=(PRODUCT,),
      offload_src='device',
      offload_dst='pinned_host',
    ),
  }


_POLICIES = _policies()
_NOTHING = 'nothing_saveable'


def _linear(model: 'Transformer', norm: Factory, dense: Factory) -> Sequence[Callable]:
  del model, norm, dense
  return ()


def _transform(model: 'Transformer', norm: Factory, dense: Factory) -> Sequence[Callable]:
  return (
    dense(model.width, name='transform'),
    _activation(model.mlp),
    norm(name='transform_norm'),
  )


def _pooler(model: 'Transformer', norm: Factory, dense: Factory) -> Sequence[Callable]:
  del norm
  return dense(model.width, name='transform'), jnp.tanh


_HEADS = {'linear': _linear, 'transform': _transform, 'pooler': _pooler}


class Decoded(NamedTuple):
  """The cache of rows that are generated token by token.

  Attributes:
    blocks: keys and values [layers, B, G, S, d] where blocks are scanned, else a list of [B, G, S,
      d]. Prompts of P tokens end at entry P − 1 in every row.
    filled: bool [B, S], which entries hold tokens of the row.
    slot: int32 scalar, the entry of the next token of every row.
  """

  blocks: Cache | list[Cache]
  filled: jax.Array
  slot: jax.Array


class Transformer(nn.Module):
  """Transformer on tokens int32 [B, T]: float32 [B, T, outputs], pooled [B, outputs].

  `dtype` is that of products and attention. Statistics of norms, softmax and logits are float32,
  and the residual stream and what norms return where `residual` says so.

  Attributes:
    vocabulary: V, given by the data.
    outputs: how many numbers per token or row, set by the objective.
    pool: 'none', 'first', 'last' or 'mean' of the real tokens, set by the objective.
    fused: whether attention may use cuDNN's kernel, set by the engine; see `Attention.fused`.
    batch_sharding: of the axis B over devices, set by the engine where parameters are split over
      the same devices; None leaves it to the compiler.
    dtype: of products and attention.
  """

  width: int = option('C, units of the residual stream; a multiple of the heads.', low=1)
  layers: int = option('How many blocks there are.', low=1, high=MOST_LAYERS)
  heads: int = option('H, queries of each block.', low=1)
  key_value_heads: int = option('G, how many keys and values the H queries share; 0 for H.', low=0)
  hidden: int = option('F, units of the dense net; 0 for 4·C.', low=0)
  context: int = option(
    'Positions that `learned` has vectors for, and most tokens that sampling sees at once.', low=1
  )
  causal: bool = option('Whether a token sees only itself and those before it.')
  norm: str = option('Layer norm or RMS norm.', choices=tuple(_CENTRED))
  norm_place: str = option(
    '`pre` is x + f(norm(x)), and a norm after the last block; `post` is norm(x + f(x)).',
    choices=tuple(_PLACES),
  )
  norm_epsilon: float = option('Added to the variance in a norm.', above=0)
  positions: str = option('Encoding of the positions.', choices=tuple(_KINDS))
  mlp: str = option(
    'Activation of the dense net: `gelu` is the exact one, `gelu_tanh` its approximation, `swiglu` '
    'silu(gate) · up (Shazeer 2020).',
    choices=tuple(_MLPS),
  )
  biases: bool = option('Whether dense layers and layer norms have a bias.')
  tied: bool = option('Whether the logits are products with the embedding (Press and Wolf 2017).')
  types: int = option(
    "Rows of BERT's embedding of token types, every token being of type 0; 0 for none.", low=0
  )
  embedding_norm: bool = option('Whether the embeddings are normalised.')
  head: str = option(
    'Layers before the logits: none (`linear`), dense → activation → norm (`transform`, of BERT as '
    'a masked language model), dense → tanh (`pooler`, of BERT as a classifier). The logits have a '
    'bias with `transform`, and with the others where `biases` is set and they are not tied.',
    choices=tuple(_HEADS),
  )
  dropout: float = option(
    'Fraction dropped in training of the embeddings, of the attention weights, and of what '
    'attention and dense net add to the residual stream.',
    low=0,
    below=1,
  )
  scan: bool = option('Whether the blocks are one `nn.scan`: compiles in the time of one block.')
  remat: bool = option(
    'Whether a block is computed again for its gradient instead of kept in memory.'
  )
  unroll: int = option(
    'With `scan`, blocks of each of its iterations; parameters keep their layout.',
    low=1,
    high=MOST_LAYERS,
    default=1,
  )
  remat_policy: str = option(
    'With `remat`, what is kept of a block, one of `jax.checkpoint_policies`: nothing, the '
    "products of dense layers, those of attention's weights too, or those of dense layers in the "
    "host's memory.",
    choices=tuple(_POLICIES),
    default=_NOTHING,
  )
  residual: str = option(
    'Type of the residual stream and of what norms return: `float32`, or `precision` for that of '
    'config.train.precision.',
    choices=tuple(_WIDE),
    default='float32',
  )
  vocabulary: int = 0
  outputs: int = 1
  pool: str = 'none'
  fused: bool = False
  batch_sharding: NamedSharding | None = None
  dtype: Any = jnp.float32

  def setup(self):
    self._check()
    norm, dense = self._factories()
    pre = choose(_PLACES, self.norm_place, f'{_WHERE}.norm_place')
    self.embed = Embed(self.vocabulary, self.width, _initial, name='embedding')
    self.place = choose(_KINDS, self.positions, f'{_WHERE}.positions')(
      self.context, self.width, self.width // self.heads, _initial, name='positions'
    )
    self.type = Embed(self.types, self.width, _initial, name='types') if self.types else None
    self.embed_norm = norm(name='embedding_norm') if self.embedding_norm else None
    self.stack = self._stack(norm, dense, pre)
    self.last_norm = norm(name='norm') if pre else None
    self.head_layers = choose(_HEADS, self.head, f'{_WHERE}.head')(self, norm, dense)
    has_bias = self.head == 'transform' or (self.biases and not self.tied)
    self.logits = Output(self.outputs, has_bias, _initial, self.dtype, name='output')
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
      train: whether dropout is applied.
      lengths: int32 [B], how many tokens of each row are real and can be attended to; None for T.
      segments: int32 [B, T]. Tokens of different segments do not see each other, and positions
        start anew in each, which must be in one piece; None for one segment.

    Returns:
      float32 [B, T, outputs], or [B, outputs] where `pool` is not 'none'. Outputs of tokens that
      are not real are finite and have no meaning.

    Raises:
      UserError: T is more than the number of learned positions.
    """
    pool = choose(POOLS, self.pool, f'{_WHERE}.pool')
    x = self._read_rows(tokens, train, lengths, segments)
    return self._outputs(x if self.pool == 'none' else pool(x.astype(jnp.float32), lengths))

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
    """Reads whole rows and returns the loss of each token, without float32 logits of all of them.

    Args:
      tokens: int32 [B, T].
      targets: int32 [B, T], the class at each token; below 0 there is none.
      loss: (logits [B, t, outputs] in `dtype`, targets [B, t]) -> float32 [B, t], of each token
        alone, and 0 where there is no target.
      chunks: into how many the T tokens are cut, to need the memory of one chunk's logits; with
        more than one, logits are computed again for the gradient.
      train: as in `__call__`, like the others.
      lengths: see `train`.
      segments: see `train`.

    Returns:
      float32 [B, T].
    """
    x = self._read_rows(tokens, train, lengths, segments)

    def of(model: 'Transformer', x: jax.Array, targets: jax.Array) -> jax.Array:
      return loss(model._outputs(x, wide=False), targets)

    return per_token(self, of, x, targets, chunks)

  def _read_rows(
    self,
    tokens: jax.Array,
    train: bool,
    lengths: jax.Array | None,
    segments: jax.Array | None,
  ) -> jax.Array:
    """tokens [B, T] → [B, T, C] before the head; the arguments are those of `__call__`."""
    self._check_length(tokens.shape[1])
    places, mask = jnp.arange(tokens.shape[1]), None
    if segments is not None:
      places = positions.restarting(segments)
      mask = (segments[:, :, None] == segments[:, None, :])[:, None]
    # Padding comes after the real tokens, where a causal token does not look anyway. Every row has
    # at least one token to attend to: a kernel may return anything for none.
    seen = None if lengths is None or self.causal else jnp.maximum(lengths, 1)
    x = self.drop(self._embedded(tokens, places), deterministic=not train)
    x = self._through(x, self.place.angles(places), mask, seen, train)
    return x if self.last_norm is None else self.last_norm(x)

  def read(self, tokens: jax.Array, lengths: jax.Array, length: int) -> tuple[Decoded, jax.Array]:
    """Reads prompts in one pass, to go on from them token by token.

    Args:
      tokens: int32 [B, P], padded on the right.
      lengths: int32 [B], from 1 to P, tokens of each row.
      length: most tokens of a row, its prompt included, at least P; the capacity of the cache.

    Returns:
      The cache with the prompts in it, and the logits float32 [B, outputs] of the next tokens.

    Raises:
      UserError: the model is not causal, or `length` is more than the number of learned positions.
    """
    if not self.causal:
      raise UserError(
        f'a model with {_WHERE}.causal=False sees the tokens after each token and cannot generate '
        'them one by one; sample from a causal one'
      )
    self._check_length(length)
    size = tokens.shape[1]
    # Aligned on the right, so that every row's next token goes to the same entry of the cache.
    missing = size - lengths[:, None]
    places = jnp.arange(size) - missing
    tokens = jnp.take_along_axis(tokens, jnp.maximum(places, 0), axis=1)
    filled, places = places >= 0, jnp.maximum(places, 0)
    context = self.place.angles(places), filled[:, None, None], None, False
    x, caches = self._embedded(tokens, places), []
    if self.scan:
      advance = _scanned(lambda block, x, _: block.read(x, *context), self.layers)
      x, caches = advance(self.stack, x, None)
    else:
      for block in self.stack:
        x, cache = block.read(x, *context)
        caches.append(cache)
    room = length - size
    caches = jax.tree.map(
      lambda c: jnp.pad(c, [*[(0, 0)] * (c.ndim - 2), (0, room), (0, 0)]), caches
    )
    decoded = Decoded(caches, jnp.pad(filled, ((0, 0), (0, room))), jnp.int32(size % length))
    x = x[:, -1] if self.last_norm is None else self.last_norm(x[:, -1])
    return decoded, self._outputs(x)

  def step(
    self, carry: Decoded, tokens: jax.Array, positions: jax.Array
  ) -> tuple[Decoded, jax.Array]:
    """Reads the next token of each row.

    Args:
      carry: the cache with the tokens before.
      tokens: int32 [B].
      positions: int32 [B], the position of each, below the cache's capacity. A row that is complete
        may be given any: what it says of other rows does not change.

    Returns:
      The cache with these tokens added, and the logits float32 [B, outputs] of the next ones.
    """
    x, angles = self._embedded(tokens, positions), self.place.angles(positions)
    if self.scan:
      advance = _scanned(
        lambda block, x, cache: block.step(x, angles, cache, carry.filled), self.layers
      )
      x, new = advance(self.stack, x, carry.blocks)
    else:
      new = []
      for block, cache in zip(self.stack, carry.blocks, strict=True):
        x, entry = block.step(x, angles, cache, carry.filled)
        new.append(entry)
    # The same number, but known only when all blocks are done: so the cache is written after its
    # last reading, in place. Otherwise XLA copies it for every token.
    slot = jnp.minimum(carry.slot, carry.slot + (x.ravel()[0] > 0))
    x = x if self.last_norm is None else self.last_norm(x)
    put = functools.partial(jax.lax.dynamic_update_slice_in_dim, start_index=slot, axis=-2)
    filled = carry.filled.at[:, slot].set(True)
    # Past its end the cache begins again: there a row that is not complete has no token, since its
    # prompt was shorter than the longest by at least as many.
    after = (carry.slot + 1) % filled.shape[1]
    return Decoded(jax.tree.map(put, carry.blocks, new), filled, after), self._outputs(x)

  # --- parts

  @property
  def _groups(self) -> int:
    return self.key_value_heads or self.heads

  @property
  def _stream(self) -> Any:
    """The dtype of the residual stream."""
    wide = choose(_WIDE, self.residual, f'{_WHERE}.residual')
    return jnp.float32 if wide else self.dtype

  def _factories(self) -> tuple[Factory, Factory]:
    """Returns what makes a norm, and what makes a dense layer."""
    centred = choose(_CENTRED, self.norm, f'{_WHERE}.norm')
    norm = functools.partial(
      Norm, self.norm_epsilon, centred, self.biases and centred, self._stream
    )
    dense = functools.partial(Dense, use_bias=self.biases, dtype=self.dtype, kernel_init=_initial)
    return norm, dense

  def _stack(self, norm: Factory, dense: Factory, pre: bool) -> nn.Module | list[nn.Module]:
    """Makes the blocks; a single module for all of them where they are scanned."""
    deviation = _DEVIATION / (2 * self.layers) ** 0.5
    residual = functools.partial(dense, kernel_init=nn.initializers.normal(deviation))
    attention = functools.partial(
      Attention,
      self.width,
      self.heads,
      self._groups,
      self.causal,
      self.fused,
      self.dropout,
      dense,
      residual,
    )
    gated = self.mlp == _GATED
    mlp = functools.partial(
      MLP, self.hidden or 4 * self.width, self.width, _activation(self.mlp), gated, dense, residual
    )
    kind = Block
    if self.remat:
      # In a loop XLA cannot merge the second computation with the first anyway.
      loops = self.scan and self.unroll < self.layers
      policy = choose(_POLICIES, self.remat_policy, f'{_WHERE}.remat_policy')
      kind = nn.remat(Block, static_argnums=(5,), prevent_cse=not loops, policy=policy)
    make = functools.partial(kind, attention, mlp, norm, pre, self.dropout)
    if self.scan:
      return make(name='blocks')
    return [make(name=f'block_{i}') for i in range(self.layers)]

  def _embedded(self, tokens: jax.Array, places: jax.Array) -> jax.Array:
    """tokens [...] → [..., C], the residual stream before the blocks."""
    x = self.place.add(self.embed(tokens), places)
    if self.type is not None:
      x += self.type.embedding[0]
    return x.astype(self._stream) if self.embed_norm is None else self.embed_norm(x)

  def _through(self, x: jax.Array, *context) -> jax.Array:
    """x [B, T, C] through the blocks."""
    split = functools.partial(_split_batch, place=self.batch_sharding)
    if self.scan:
      advance = _scanned(
        lambda block, x, _: (block(split(x), *context), None), self.layers, self.unroll
      )
      return split(advance(self.stack, x, None)[0])
    for block in self.stack:
      x = block(split(x), *context)
    return split(x)

  def _outputs(self, x: jax.Array, wide: bool = True) -> jax.Array:
    """x [..., C] → [..., outputs], float32 where `wide`, else in `dtype`."""
    for layer in self.head_layers:
      x = layer(x)
    return self.logits(x, self.embed.embedding if self.tied else None, wide)

  # --- what cannot be

  def _check(self) -> None:
    if self.width % self.heads:
      raise UserError(
        f'{_WHERE}.width={self.width} is not divisible by {_WHERE}.heads={self.heads}; make it a '
        'multiple'
      )
    if self.heads % self._groups:
      raise UserError(
        f'{_WHERE}.heads={self.heads} is not divisible by '
        f'{_WHERE}.key_value_heads={self.key_value_heads}; make it a multiple'
      )
    if self.positions == 'rotary' and self.width // self.heads % 2:
      raise UserError(
        f'{_WHERE}.positions=rotary turns pairs of numbers, and a head has '
        f'{self.width // self.heads}; make {_WHERE}.width / {_WHERE}.heads even'
      )
    if self.mlp == 'glu' and self.head == 'transform':
      raise UserError(
        f'{_WHERE}.mlp=glu halves the width, which {_WHERE}.head=transform keeps; set mlp=swiglu, '
        'or another head'
      )
    if self.tied and self.outputs != self.vocabulary:
      raise UserError(
        f'{_WHERE}.tied=True gives a logit for each of the {self.vocabulary} tokens, and the '
        f'objective reads {self.outputs} outputs; set {_WHERE}.tied=False'
      )
    if self.unroll > 1 and not self.scan:
      raise UserError(
        f'{_WHERE}.unroll={self.unroll} has no effect without {_WHERE}.scan, which runs the blocks '
        'in a loop; set scan=True, or unroll=1'
      )
    if self.unroll > self.layers:
      raise UserError(
        f'{_WHERE}.unroll={self.unroll} is more than {_WHERE}.layers={self.layers}; make it '
        'smaller, or set scan=False'
      )
    if self.remat_policy != _NOTHING and not self.remat:
      raise UserError(
        f'{_WHERE}.remat_policy={self.remat_policy} has no effect without {_WHERE}.remat; set '
        f'remat=True, or remat_policy={_NOTHING}'
      )

  def _check_length(self, length: int) -> None:
    if self.positions == 'learned' and length > self.context:
      raise UserError(
        f'{length} tokens are more than the {_WHERE}.context={self.context} positions that the '
        'model learns; make rows shorter (config.data.text.length), or the context longer'
      )


class Block(nn.Module):
  """Transformer block: attention, then a dense net, each added to the residual stream x [B, T, C].

  Attributes:
    attention: (name=) -> the attention module.
    mlp: (name=) -> the dense net.
    norm: (name=) -> a norm.
    pre: whether norms are applied before both, or after their sums with the stream.
    dropout: fraction of both's outputs dropped in training.
  """

  attention: Factory
  mlp: Factory
  norm: Factory
  pre: bool
  dropout: float

  def setup(self):
    self.attend = self.attention(name='attention')
    self.attend_norm = self.norm(name='attention_norm')
    self.dense = self.mlp(name='mlp')
    self.dense_norm = self.norm(name='mlp_norm')
    self.drop = nn.Dropout(self.dropout)

  def __call__(
    self,
    x: jax.Array,
    angles: positions.Angles,
    mask: jax.Array | None,
    lengths: jax.Array | None,
    train: bool,
  ) -> jax.Array:
    """Returns x [B, T, C] → [B, T, C]; the other arguments are those of `Attention`."""
    return self.read(x, angles, mask, lengths, train)[0]

  def read(
    self,
    x: jax.Array,
    angles: positions.Angles,
    mask: jax.Array | None,
    lengths: jax.Array | None,
    train: bool,
  ) -> tuple[jax.Array, Cache]:
    """Returns the keys and values of each row too; the arguments are those of `Attention.read`."""
    drop = functools.partial(self.drop, deterministic=not train)
    y, cache = self.attend.read(self._before(self.attend_norm, x), angles, mask, lengths, train)
    x = self._after(self.attend_norm, x + drop(y))
    y = self.dense(self._before(self.dense_norm, x))
    return self._after(self.dense_norm, x + drop(y)), cache

  def step(
    self, x: jax.Array, angles: positions.Angles, cache: Cache, filled: jax.Array
  ) -> tuple[jax.Array, Cache]:
    """Returns x [B, C] → [B, C] and new entries; the arguments are those of `Attention.step`."""
    y, new = self.attend.step(self._before(self.attend_norm, x), angles, cache, filled)
    x = self._after(self.attend_norm, x + y)
    y = self.dense(self._before(self.dense_norm, x))
    return self._after(self.dense_norm, x + y), new

  def _before(self, norm: nn.Module, x: jax.Array) -> jax.Array:
    return norm(x) if self.pre else x

  def _after(self, norm: nn.Module, x: jax.Array) -> jax.Array:
    return x if self.pre else norm(x)


class MLP(nn.Module):
  """Dense net of a block: down(activation(up(x))), or gated down(activation(gate(x)) · up(x)).

  Attributes:
    hidden: units of `up` and `gate`.
    width: C, of input and output [..., C].
    activation: of `up`, or of `gate` where there is one.
    gated: whether there is a gate.
    dense: (features, name=) -> the layers `up` and `gate`.
    output: (features, name=) -> the layer `down`.
  """

  hidden: int
  width: int
  activation: Callable[[jax.Array], jax.Array]
  gated: bool
  dense: Factory
  output: Factory

  @nn.compact
  def __call__(self, x: jax.Array) -> jax.Array:
    y = self.dense(self.hidden, name='up')(x)
    if self.gated:
      y *= self.activation(self.dense(self.hidden, name='gate')(x))
    else:
      y = self.activation(y)
    return self.output(self.width, name='down')(y)


def _split_batch(x: jax.Array, place: NamedSharding | None) -> jax.Array:
  """Splits the rows of x [B, …] over the devices as `place` says, if they divide evenly.

  Without it the compiler may split x by its features, as it finds the kernels split, and then every
  device attends in all rows.
  """
  if place is None or len(x) % math.prod(place.mesh.shape[axis] for axis in place.spec[0]):
    return x
  return jax.lax.with_sharding_constraint(x, place)


def _scanned(function: Callable, layers: int, unroll: int = 1) -> Callable:
  """Makes a scan of `function(block, x, entry) -> (x, entry)` over the stacked parameters.

  Each of its iterations runs `unroll` blocks.
  """
  return nn.scan(
    function,
    variable_axes={'params': 0},
    split_rngs={'params': True, 'dropout': True},
    length=layers,
    unroll=unroll,
  )


def _activation(name: str) -> Callable[[jax.Array], jax.Array]:
  return choose(_MLPS, name, f'{_WHERE}.mlp')


# --- parameters with and without scan -------------------------------------------------------------


def stacked(
  params: Mapping[str, Any], stack: Callable[[Sequence[Any]], Any] = jnp.stack
) -> dict[str, Any]:
  """Returns the parameters of a model with `scan` from those of one without it.

  Args:
    params: with `block_0`, `block_1`, …
    stack: makes one leaf from those of all blocks, in order.
  """
  layers = sum(bool(re.fullmatch(r'block_\d+', name)) for name in params)
  blocks = [params[f'block_{i}'] for i in range(layers)]
  rest = {name: value for name, value in params.items() if not name.startswith('block_')}
  return {**rest, 'blocks': jax.tree.map(lambda *leaves: stack(leaves), *blocks)}


def unstacked(params: Mapping[str, Any]) -> dict[str, Any]:
  """Returns the parameters of a model without `scan` from those of one with it.

  Where they are numpy's, the result are views of them.
  """
  blocks = params['blocks']
  layers = len(jax.tree.leaves(blocks)[0])
  split = {f'block_{i}': jax.tree.map(lambda leaf, i=i: leaf[i], blocks) for i in range(layers)}
  return {**{name: value for name, value in params.items() if name != 'blocks'}, **split}
