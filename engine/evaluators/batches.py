"""Running a per-example function over every example of a split, on a mesh."""

import functools
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple, TypeVar

import jax
import numpy as np
from jax.sharding import Mesh

from data import placement
from data.eval_batches import batches_in_order
from data.examples import Examples
from data.transforms import OFF, prepare
from engine import runtime
from engine.session import Session
from engine.sharding import batch_sharding
from objectives.base import Batch, Variables, numbered_keys, stream_key

Started = TypeVar('Started')

# `(variables, batch, keys [B]) -> {name: [B, …]}`, as the objective's `evaluate`.
Function = Callable[[Variables, Batch, jax.Array], Mapping[str, jax.Array]]

# Model inputs; every other feature is metadata of the example, given to metrics of predictions.
_INPUTS = ('image', 'inputs', 'tokens', 'length', 'kind')


def round_up(rows: int, mesh: Mesh) -> int:
  """Returns the smallest number of rows, at least `rows`, that splits evenly over the devices."""
  ways = mesh.shape['data'] * mesh.shape['fsdp']
  return -(-rows // ways) * ways


class Split:
  """A split that is opened when it is first needed, and decoded once.

  Args:
    open_examples: opens it.
    resident_mb: MiB up to which its arrays are kept in the host's memory.
  """

  def __init__(self, open_examples: Callable[[], Examples], resident_mb: int):
    self._open_examples, self._resident_mb = open_examples, resident_mb

  @functools.cached_property
  def examples(self) -> Examples:
    return self._open_examples()

  @functools.cached_property
  def _loaded(self) -> Examples | Mapping[str, np.ndarray]:
    # Rows of text are cut from arrays that are mapped into memory already.
    is_text = bool(self.examples.spec.tokenizer)
    fits = not is_text and self.examples.nbytes <= self._resident_mb * 2**20
    return self.examples.load() if fits else self.examples

  def batches(self, size: int, rows: range) -> Iterator[dict[str, np.ndarray]]:
    """Yields `rows` of every batch of `size` examples; see `data.eval_batches.batches_in_order`."""
    return batches_in_order(self._loaded, size, rows)


class Values(NamedTuple):
  """The results of a function of examples, row by row.

  Attributes:
    values: what the function returned.
    metadata: scalar features of the examples that are no input of a model; floats as [B, 1], since
      they are no figures.
  """

  values: Mapping[str, Any]
  metadata: Mapping[str, Any]


class PerExample:
  """A per-example function, compiled for batches on the mesh of a session.

  The noise of an example comes from its number in the split. Every process reads the rows of its
  own devices, and all of them get the results of the whole batch.

  Args:
    function: what is computed of each example.
    session: of the mesh.
  """

  def __init__(self, function: Function, session: Session):
    self._function, self._mesh = function, session.mesh
    self.call = jax.jit(
      self._call,
      out_shardings=session.replicated,
      compiler_options=runtime.compiler_options(
        session.platform, determinism=session.train.determinism
      ),
    )

  def _call(self, variables: Variables, key: jax.Array, batch: Batch) -> tuple[Values, jax.Array]:
    """The values of a batch as it was read, and which of its rows count."""
    batch = prepare(dict(batch), key, OFF)
    keys = numbered_keys(stream_key(key, 'evaluate'), batch['index'])
    metadata = {
      name: values[:, None] if np.issubdtype(values.dtype, np.floating) else values
      for name, values in batch.items()
      if name not in (*_INPUTS, 'index', 'mask')
    }
    return Values(self._function(variables, batch, keys), metadata), batch['mask']

  def shapes(self, variables: Variables, key: Any, split: Split, size: int) -> Values:
    """Returns the shapes and types of the values of a batch of `size` rows."""
    features = {**split.examples.spec.features, 'index': ((), 'int32'), 'mask': ((), 'bool')}
    # With the sharding of real batches, for which it is then not traced again.
    place = batch_sharding(self._mesh)
    batch = {
      name: jax.ShapeDtypeStruct((size, *shape), dtype, sharding=place)
      for name, (shape, dtype) in features.items()
    }
    return jax.eval_shape(self.call, variables, key, batch)[0]

  def first(self, split: Split, size: int) -> dict[str, jax.Array]:
    """Returns the first batch of `size` rows, on the devices."""
    return next(self._batches(split, size))

  def over(self, variables: Variables, key: jax.Array, split: Split, size: int) -> Iterator[Values]:
    """Yields the values of every example once, as NumPy arrays, batch after batch."""
    started = (self.call(variables, key, batch) for batch in self._batches(split, size))
    for computed in one_late(started):
      yield _counted(computed)

  def _batches(self, split: Split, size: int) -> Iterator[dict[str, jax.Array]]:
    sharding = batch_sharding(self._mesh)
    for batch in split.batches(size, placement.local_rows(self._mesh, size)):
      yield {
        name: jax.make_array_from_process_local_data(sharding, rows, (size, *rows.shape[1:]))
        for name, rows in batch.items()
      }


def one_late(started: Iterator[Started]) -> Iterator[Started]:
  """Yields items one later than they come: the next is computed while one is read.

  Args:
    started: at least one item.
  """
  waiting = next(started)
  for item in started:
    yield waiting
    waiting = item
  yield waiting


def _counted(computed: tuple[Values, jax.Array]) -> Values:
  # Without waiting, where memory runs out the process is aborted while it reads.
  values, mask = jax.device_get(jax.block_until_ready(computed))
  return jax.tree.map(lambda rows: rows[mask], values)
