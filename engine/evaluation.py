"""The evaluators: per-example figures of the objective, and metrics that compare samples."""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from data import arrays
from data.in_order import in_order
from data.source import Source, open_source
from data.transforms import prepare
from engine.build import build, call, to_plain
from engine.session import Session
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

    def sums(variables, key, i, batch):
      key = jax.random.fold_in(stream_key(key, 'evaluate'), i)
      mask = batch.pop('mask')
      batch = prepare(batch, key, augment_off)
      batch['position'] = jnp.arange(mask.shape[0])
      values = objective.evaluate(variables, batch, key)
      return {name: jnp.sum(jnp.where(mask, x, 0)) for name, x in values.items()}, mask.sum()

    size = self._batch_size
    everywhere = NamedSharding(mesh, PartitionSpec())
    self._sums = jax.jit(sums, out_shardings=everywhere)

    def sample(variables, key, i):
      key = jax.random.fold_in(stream_key(key, 'evaluate/samples'), i)
      return objective.sample(variables, key, size)

    self._sample = jax.jit(sample, out_shardings=everywhere)

  def __call__(self, variables: Variables, key: jax.Array) -> dict[str, float]:
    """Returns `{'eval/NAME': value}`: means over the split, and the sample metrics.

    Args:
      variables: `{module: variables}`.
      key: the state's. The same noise is drawn at every evaluation, so that figures compare.
    """
    totals: dict[str, float] = {}
    count = 0.0
    for i, batch in enumerate(self._batches(jax.process_index(), jax.process_count())):
      sums, number = jax.device_get(self._sums(variables, key, i, self._put(batch)))
      count += float(number)
      for name, value in sums.items():
        totals[name] = totals.get(name, 0.0) + float(value)
    values = {name: total / count for name, total in totals.items()}
    if self._metrics:
      values.update(self._compare_samples(variables, key))
    return {f'eval/{name}': value for name, value in values.items()}

  def _compare_samples(self, variables: Variables, key: jax.Array) -> dict[str, float]:
    """On the host, by every process alike: all real images, and all samples."""
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


def make_evaluator(session: Session) -> Evaluator:
  """The evaluator of a session on its test split; nothing is read before it is called."""
  data = session.data
  return Evaluator(
    session.objective,
    session.config.evaluate,
    open_source(data.name, data.test_split, data.data_dir),
    data.resident_mb,
    {name: type(value)(0) for name, value in data.augment.items()},
    session.mesh,
  )
