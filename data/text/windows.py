"""Rows of tokens as windows of one long text: the documents of a split, concatenated."""

import hashlib
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

import errors
from data import order
from data.examples import Examples, Indices
from data.spec import Spec
from data.text.encoded import EncodedText

Array = Any  # numpy.ndarray or jax.Array


class Windows(Examples):
  """Windows of a text as rows of tokens; they are sliced when they are read, never stored.

  Window i has the tokens from i * stride on. Windows overlap by row - stride tokens: with
  row = stride + 1 the last token of a window is the first of the next, so every token except the
  very first is a target exactly once.

  Args:
    encoded: the text.
    spec: the description of its documents.
    row: R, tokens in a window.
    stride: tokens between the starts of windows.
    drop_remainder: whether tokens at the end that do not fill a window are dropped. Else the last
      window may be shorter, so that no token is missed.
    next_token: whether each token is the target of the one before it: then a window of one token
      has no target, and is left out.
    pad: the id after the end of a short window.
    stamp: the stamp of the documents.

  Raises:
    UserError: the text is shorter than a window (with `drop_remainder`), has no target, or has more
      windows than the order of examples can count.
  """

  def __init__(
    self,
    encoded: EncodedText,
    spec: Spec,
    *,
    row: int,
    stride: int,
    drop_remainder: bool,
    next_token: bool,
    pad: int,
    stamp: str,
  ):
    self._encoded = encoded
    self._row, self._stride, self._pad = row, stride, pad
    self._size = len(encoded.tokens)
    self.stamp = stamp
    n = self._count(drop_remainder, next_token)
    if n < 1:
      least = row if drop_remainder else 2
      raise errors.UserError(
        f'{spec.name} {spec.split} has {self._size:,} tokens, fewer than the {least:,} of one '
        'window; choose a smaller config.data.text.length, or a longer split'
      )
    if n > order.MOST_EXAMPLES:
      raise errors.UserError(
        f'{spec.name} {spec.split} has {n:,} windows with config.data.text.stride={stride}, more '
        f'than {order.MOST_EXAMPLES:,}; choose a larger stride'
      )
    self._fills = {'tokens': pad}
    if encoded.kind is None:  # the classes are those of the documents, which windows do not have
      spec = spec._replace(num_classes=0, class_names=())
    else:
      self._fills['kind'] = -1
    parts = (spec.identity, spec.tokenizer_key, 'windows', row, stride, n, pad, [*self._fills])
    features = {name: ((row,), 'int32') for name in self._fills}
    self.spec = spec._replace(
      n=n,
      features={**features, 'length': ((), 'int32')},
      identity=hashlib.sha256(repr(parts).encode()).hexdigest()[:16],
    )

  @property
  def nbytes(self) -> int:
    """Bytes of memory that the arrays of `load` take: those of the text, not of all its windows."""
    flat = self._flat()
    return sum((len(array) + self._row) * array.dtype.itemsize for array in flat.values())

  def read(self, indices: Indices) -> dict[str, np.ndarray]:
    """Reads `tokens` and, if requested, `kind` int32 [B, R], and `length` int32 [B].

    After the `length` real tokens of a row, tokens are `pad` and kinds are -1.
    """
    positions = np.asarray(indices, np.int64)[:, None] * self._stride + np.arange(self._row)
    inside = positions < self._size
    positions = np.minimum(positions, self._size - 1)
    rows = {
      name: np.where(inside, array[positions], self._fills[name]).astype(np.int32)
      for name, array in self._flat().items()
    }
    return {**rows, 'length': inside.sum(1, dtype=np.int32)}

  def load(self) -> dict[str, np.ndarray]:
    """Reads the whole text, `tokens` and `kind` [L + R]: L tokens and R entries of padding.

    Raises:
      UserError: it is too long for the devices to index.
    """
    if self._size + self._row > np.iinfo(np.int32).max:
      raise errors.UserError(
        f'{self.spec.name} {self.spec.split} has {self._size:,} tokens, too many for one array on '
        'a device; choose a smaller config.data.resident_mb, so that the text is streamed'
      )
    return {
      name: np.concatenate([array, np.full(self._row, self._fills[name], array.dtype)])
      for name, array in self._flat().items()
    }

  def rows(self, arrays: Mapping[str, Array], index: Array) -> dict[str, Array]:
    """Slices windows from the arrays of `load`; NumPy arrays give NumPy arrays, JAX gives JAX.

    Args:
      arrays: returned by `load`.
      index: int32 [B], the numbers of the windows.

    Returns:
      The same as `read`.
    """
    start = index * np.int32(self._stride)
    xp = jnp if isinstance(start, jax.Array) else np
    length = xp.minimum(np.int32(self._size) - start, np.int32(self._row))
    rows = {name: _slice(array, start, self._row) for name, array in arrays.items()}
    return {**rows, 'length': length.astype(np.int32)}

  def _count(self, drop_remainder: bool, next_token: bool) -> int:
    """Returns the number of windows."""
    if drop_remainder:
      return (self._size - self._row) // self._stride + 1
    return -(-(self._size - next_token) // self._stride)

  def _flat(self) -> dict[str, np.ndarray]:
    flat = {'tokens': self._encoded.tokens, 'kind': self._encoded.kind}
    return {name: flat[name] for name in self._fills}


def _slice(flat: Array, starts: Array, row: int) -> Array:
  """Returns int32 [B, row], the slices of `flat` [L] that start at `starts` int32 [B]."""
  if isinstance(flat, np.ndarray):
    return flat[starts[:, None] + np.arange(row)].astype(np.int32)
  rows = jax.vmap(lambda start: jax.lax.dynamic_slice(flat, (start,), (row,)))(starts)
  return rows.astype(jnp.int32)
