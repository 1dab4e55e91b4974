"""The evaluators: per-example figures of the objective, and metrics that compare samples."""

import math
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from data import arrays
from data.in_order import in_order
from data.source import Source, open_source
from data.transforms import prepare
from engine import runtime
from engine.build import build, call, to_plain
from engine.session import Data, Session
from engine.sharding import batch_sharding
from engine.state import stream_key
from errors import UserError
from objectives.base import Objective, Variables


class Evaluate(NamedTuple):
  """The section `config.evaluate`.

  Attributes:
    batch_size: examples per batch.
    samples: images drawn for the metrics that compare samples with the test split.
    metrics: `{name: dict(name='FILE.Class', …)}` of `metrics/`, logged as `eval/NAME`.
  """

  batch_size: int
  samples: int
  metrics: Mapping[str, Any]


class Figure(NamedTuple):
  """A mean over examples and its standard error; None where the figure is no such mean."""

  mean: float
  standard_error: float | None


# Called with the examples done and the figures so far.
Progress = Callable[[int, Mapping[str, float]], None]


class Evaluator:
  """Evaluates variables on one split.

  Args:
    objective: whose `evaluate` and `sample` are called.
    section: `config.evaluate`.
    source: the split.
    resident_mb: MiB up to which the split is decoded once and kept in the host's memory.
    augment_off: every augmentation, switched off.
    mesh: where batches go.
  """

  def __init__(
    self,
    objective: Objective,
    section: Mapping[str, Any],
    source: Source,
    resident_mb: int,
    augment_off: Mapping[str, Any],
    mesh: Mesh,
  ):
    self._options = call(Evaluate, to_plain(section), 'config.evaluate')
    if self._options.batch_size < 1 or self._options.samples < 1:
      raise UserError('config.evaluate.batch_size and config.evaluate.samples must be at least 1')
    ways = mesh.shape['data'] * mesh.shape['fsdp']
    self._batch_size = -(-self._options.batch_size // ways) * ways
    self._metrics = {
      name: build(spec, 'metrics', f'config.evaluate.metrics.{name}')
      for name, spec in self._options.metrics.items()
    }
    self._source, self._resident_mb = source, resident_mb
    self._mesh = mesh
    self._examples: Any = None
    self._reference: dict[str, Any] = {}

    everywhere = NamedSharding(mesh, PartitionSpec())

    def on_examples(function: Callable) -> Callable:
      """One of the objective's per-example functions, jitted, on a batch as it was read."""

      def values(variables, key, i, batch):
        key = jax.random.fold_in(stream_key(key, 'evaluate'), i)
        batch = prepare(batch, key, augment_off)
        batch['position'] = jnp.arange(batch['mask'].shape[0])
        return function(variables, batch, key), batch['mask']

      options = dict(runtime.compiler_options())
      return jax.jit(values, out_shardings=everywhere, compiler_options=options)

    self._evaluate = on_examples(objective.evaluate)
    self._measure = on_examples(objective.measure)
    size = self._batch_size

    def sample(variables, key, i):
      key = jax.random.fold_in(stream_key(key, 'evaluate/samples'), i)
      return objective.sample(variables, key, size)

    self._sample = jax.jit(sample, out_shardings=everywhere)

  @property
  def number(self) -> int:
    """Examples in the split."""
    return len(self._source)

  def __call__(self, variables: Variables, key: jax.Array) -> dict[str, float]:
    """Returns `{'eval/NAME': value}`: means over the split, and the sample metrics.

    Args:
      variables: `{module: variables}`.
      key: the state's. The same noise is drawn at every evaluation, so that figures compare.
    """
    values = {name: figure.mean for name, figure in self.evaluate(variables, key).items()}
    values.update(self.compare_samples(variables, key))
    return {f'eval/{name}': value for name, value in values.items()}

  def evaluate(
    self, variables: Variables, key: jax.Array, progress: Progress | None = None
  ) -> dict[str, Figure]:
    """The objective's figures over the split, every example once."""
    return self._over_the_split(self._evaluate, variables, key, progress)

  def measure(
    self, variables: Variables, key: jax.Array, progress: Progress | None = None
  ) -> dict[str, Figure]:
    """The costly ones likewise, under the same noise of the data; empty where there are none."""
    first = next(self._batches(0, 1))
    if not jax.eval_shape(self._measure, variables, key, 0, first)[0]:
      return {}
    return self._over_the_split(self._measure, variables, key, progress)

  def _over_the_split(
    self, function: Callable, variables: Variables, key: jax.Array, progress: Progress | None
  ) -> dict[str, Figure]:
    columns: dict[str, list[np.ndarray]] = {}
    done = 0
    for i, batch in enumerate(self._batches(jax.process_index(), jax.process_count())):
      values, mask = jax.device_get(function(variables, key, i, self._put(batch)))
      for name, value in values.items():
        columns.setdefault(name, []).append(np.asarray(value, np.float64)[mask])
      done += int(mask.sum())
      if progress is not None:
        progress(done, {name: np.concatenate(parts).mean() for name, parts in columns.items()})
    return {name: _figure(np.concatenate(parts)) for name, parts in columns.items()}

  def compare_samples(self, variables: Variables, key: jax.Array) -> dict[str, float]:
    """The metrics of `config.evaluate.metrics`; on the host, by every process alike."""
    if not self._metrics:
      return {}
    if not self._reference:
      images = (b['image'][b['mask']].astype(np.float32) / 255 for b in self._batches(0, 1))
      self._reference = self._collected(images)
    drawn = self._collected(self._samples(variables, key))
    return {
      name: metric.compare(self._reference[name], drawn[name])
      for name, metric in self._metrics.items()
    }

  def _samples(self, variables: Variables, key: jax.Array) -> Iterator[np.ndarray]:
    for start in range(0, self._options.samples, self._batch_size):
      images = np.asarray(jax.device_get(self._sample(variables, key, start)))
      yield images[: self._options.samples - start]

  def _collected(self, batches: Iterable[np.ndarray]) -> dict[str, Any]:
    states = {name: metric.empty() for name, metric in self._metrics.items()}
    for images in batches:
      states = {n: metric.update(states[n], images) for n, metric in self._metrics.items()}
    return states

  def _batches(self, process: int, processes: int) -> Iterator[dict[str, np.ndarray]]:
    if self._examples is None:
      fits = arrays.size_bytes(self._source.spec) <= self._resident_mb * 2**20
      self._examples = arrays.load_arrays(self._source) if fits else self._source
    return in_order(self._examples, self._batch_size, process, processes)

  def _put(self, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
    place = batch_sharding(self._mesh)
    return {
      name: jax.make_array_from_process_local_data(place, rows) for name, rows in batch.items()
    }


def _figure(values: np.ndarray) -> Figure:
  several = len(values) > 1
  error = float(values.std(ddof=1)) / math.sqrt(len(values)) if several else None
  return Figure(float(values.mean()), error)


def augment_off(data: Data) -> dict[str, Any]:
  """Every augmentation, switched off."""
  return {name: type(value)(0) for name, value in data.augment.items()}


def make_evaluator(session: Session, source: Source | None = None) -> Evaluator:
  """The evaluator of a session on its test split; nothing is read before it is called.

  Args:
    session: whose objective and options it takes.
    source: another split.
  """
  data = session.data
  return Evaluator(
    session.objective,
    session.config.evaluate,
    source or open_source(data.name, data.test_split, data.data_dir),
    data.resident_mb,
    augment_off(data),
    session.mesh,
  )
