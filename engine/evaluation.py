"""The evaluators: per-example figures of the objective, and metrics that compare samples."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh

from engine.build import build, call, to_plain
from engine.sharding import batch_sharding
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
    batches: makes an iterator over host batches of a given size, in order, with `mask`.
    prepare: the pure transform from stored to trained-on examples, without augmentation.
    mesh: where batches go.
    key: of everything random here; the same at every evaluation, so that figures compare.
  """

  def __init__(
    self,
    objective: Objective,
    section: Mapping[str, Any],
    batches: Callable[[int], Iterator[dict[str, np.ndarray]]],
    prepare: Callable,
    mesh: Mesh,
    key: jax.Array,
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
    self._batches, self._mesh, self._key = batches, mesh, key
    self._reference: dict[str, Any] = {}

    @jax.jit
    def sums(variables, key, batch):
      mask = batch.pop('mask')
      batch = prepare(batch)
      batch['position'] = jnp.arange(mask.shape[0])
      values = objective.evaluate(variables, batch, key)
      return {name: jnp.sum(jnp.where(mask, x, 0)) for name, x in values.items()}, mask.sum()

    self._sums = sums
    self._prepare = jax.jit(lambda batch: prepare(batch)['image'])
    self._sample = jax.jit(
      lambda variables, key: objective.sample(variables, key, self._batch_size)
    )

  def __call__(self, variables: Variables) -> dict[str, float]:
    """Returns `{'eval/NAME': value}`: means over the split, and the sample metrics."""
    totals: dict[str, float] = {}
    count = 0.0
    for i, batch in enumerate(self._batches(self._batch_size)):
      key = jax.random.fold_in(self._key, i)
      sums, number = jax.device_get(self._sums(variables, key, self._put(batch)))
      count += float(number)
      for name, value in sums.items():
        totals[name] = totals.get(name, 0.0) + float(value)
    values = {name: total / count for name, total in totals.items()}
    values.update(self._compare_samples(variables))
    return {f'eval/{name}': value for name, value in values.items()}

  def _compare_samples(self, variables: Variables) -> dict[str, float]:
    if not self._metrics:
      return {}
    if not self._reference:
      self._reference = {name: metric.empty() for name, metric in self._metrics.items()}
      for batch in self._batches(self._batch_size):
        images = np.asarray(self._prepare(self._put(batch)))[batch['mask']]
        self._reference = self._updated(self._reference, images)
    drawn = {name: metric.empty() for name, metric in self._metrics.items()}
    left = self._options.samples
    while left > 0:
      key = jax.random.fold_in(jax.random.fold_in(self._key, 0), left)
      images = np.asarray(self._sample(variables, key))[:left]
      drawn = self._updated(drawn, images)
      left -= len(images)
    return {
      name: metric.compare(self._reference[name], drawn[name])
      for name, metric in self._metrics.items()
    }

  def _updated(self, states: Mapping[str, Any], images: np.ndarray) -> dict[str, Any]:
    return {name: metric.update(states[name], images) for name, metric in self._metrics.items()}

  def _put(self, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
    place = batch_sharding(self._mesh)
    return {
      name: jax.make_array_from_process_local_data(place, rows) for name, rows in batch.items()
    }
