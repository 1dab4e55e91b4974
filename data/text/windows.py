"""Windows of one long text: the documents of a split, joined and cut into stretches of tokens."""

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
from data.text.encoded import Encoded

Array = Any  # numpy.ndarray or jax.Array


class Windows(Examples):
  """Windows of a text as rows of tokens; they are cut when they are read, never stored.

  Window i holds the tokens from i * stride on. They overlap by what `row` exceeds `stride`: with
  row = stride + 1 a window's last token is the next one's first, so that as targets all tokens but
  the very first come up once.

  Args:
    encoded: the text.
    spec: of its documents.
    row: R, tokens in a window.
    stride: tokens between the starts of windows.
    whole: whether every window is full, and what is left at the end is dropped. Else the last one
      may be shorter, so that no token is missed.
    predicted: whether a token counts only where one before it predicts it: then a window of one
      token has no target, and is left out.
    pad: the id after the end of a short window.
    stamp: of the documents.

  Raises:
    UserError: the text is shorter than a window (with `whole`), holds nothing to predict, or has
      more windows than the order of examples can count.
  """

  def __init__(
    self,
    encoded: Encoded,
    spec: Spec,
    *,
    row: int,
    stride: int,
    whole: bool,
    predicted: bool,
    pad: int,
    stamp: str,
  ):
    self._encoded = encoded
    self._row, self._stride, self._pad = row, stride, pad
    self._size = len(encoded.tokens)
    self.stamp = stamp
    n = self._count(whole, predicted)
    if n < 1:
      least = row if whole else 2
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
    if encoded.kind is None:  # num_classes is of the documents' labels, or of kinds
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
    """Bytes of memory that the arrays of `load` take: those of the text, not of its windows."""
    flat = self._flat()
    return sum((len(array) + self._row) * array.dtype.itemsize for array in flat.values())

  def read(self, indices: Indices) -> dict[str, np.ndarray]:
    """Reads `tokens` and, if requested, `kind` int32 [B, R], and `length` int32 [B].

    After the `length` real tokens of a row come `pad` and -1.
    """
    places = np.asarray(indices, np.int64)[:, None] * self._stride + np.arange(self._row)
    inside = places < self._size
    places = np.minimum(places, self._size - 1)
    rows = {
      name: np.where(inside, array[places], self._fills[name]).astype(np.int32)
      for name, array in self._flat().items()
    }
    return {**rows, 'length': inside.sum(1, dtype=np.int32)}

  def load(self) -> dict[str, np.ndarray]:
    """Reads the whole text, `tokens` and `kind` [L + R]: L tokens, then the fill of a short row.

    Raises:
      UserError: it is too long for the devices to index.
    """
    if self._size + self._row > np.iinfo(np.int32).max:
      raise errors.UserError(
        f'{self.spec.name} {self.spec.split} has {self._size:,} tokens, more than fit on a device '
        'as one array; choose a smaller config.data.resident_mb, so that it is streamed'
      )
    return {
      name: np.concatenate([array, np.full(self._row, self._fills[name], array.dtype)])
      for name, array in self._flat().items()
    }

  def rows(self, arrays: Mapping[str, Array], index: Array) -> dict[str, Array]:
    """Cuts windows out of what `load` gave; NumPy in gives NumPy out, JAX in gives JAX out.

    Args:
      arrays: those of `load`.
      index: int32 [B].

    Returns:
      What `read` returns.
    """
    start = index * np.int32(self._stride)
    xp = jnp if isinstance(start, jax.Array) else np
    length = xp.minimum(np.int32(self._size) - start, np.int32(self._row))
    rows = {name: _cut(array, start, self._row) for name, array in arrays.items()}
    return {**rows, 'length': length.astype(np.int32)}

  def _count(self, whole: bool, predicted: bool) -> int:
    if whole:
      return (self._size - self._row) // self._stride + 1
    return -(-(self._size - predicted) // self._stride)

  def _flat(self) -> dict[str, np.ndarray]:
    flat = {'tokens': self._encoded.tokens, 'kind': self._encoded.kind}
    return {name: flat[name] for name in self._fills}


def _cut(flat: Array, start: Array, row: int) -> Array:
  if isinstance(flat, np.ndarray):
    return flat[start[:, None] + np.arange(row)].astype(np.int32)
  cut = jax.vmap(lambda place: jax.lax.dynamic_slice(flat, (place,), (row,)))(start)
  return cut.astype(jnp.int32)
