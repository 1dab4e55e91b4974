"""The evaluators: per-example figures of the objective, and metrics that compare samples."""

import math
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from data import arrays
from data.eval_batches import in_order
from data.source import Examples
from data.transforms import prepare
from engine import runtime
from engine.build import build, call, parameters, to_plain
from engine.session import Data, Session, open_testing
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
    timed_calls: calls of the model that evaluate.py times; 0 times none.
  """

  batch_size: int
  samples: int
  metrics: Mapping[str, Any]
  timed_calls: int


class Figure(NamedTuple):
  """A figure, and how sure it is.

  Attributes:
    mean: of the examples, or the figure itself.
    standard_error: of a mean over examples; None where the figure is no such mean.
    interval: (low, high) with 95 % confidence, where the metric gives one.
  """

  mean: float
  standard_error: float | None
  interval: tuple[float, float] | None = None


class Evaluation(NamedTuple):
  """What a split comes to: figures by name, tables for JSON, pictures uint8 [H, W, 3]."""

  figures: dict[str, Figure]
  tables: dict[str, Any]
  pictures: dict[str, np.ndarray]


# Features that a model sees; the others are said of an example.
_INPUTS = ('image', 'inputs', 'tokens', 'length', 'kind')

# Images float32 [N, H, W, C] in [0, 1] and their labels [N], if they have any.
Labelled = tuple[np.ndarray, np.ndarray | None]

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
    source: Examples,
    resident_mb: int,
    augment_off: Mapping[str, Any],
    mesh: Mesh,
  ):
    self._options = call(Evaluate, to_plain(section), 'config.evaluate')
    if self._options.batch_size < 1 or self._options.samples < 1:
      raise UserError('config.evaluate.batch_size and config.evaluate.samples must be at least 1')
    ways = mesh.shape['data'] * mesh.shape['fsdp']
    self._batch_size = -(-self._options.batch_size // ways) * ways
    metrics = {
      name: build(spec, 'metrics', f'config.evaluate.metrics.{name}')
      for name, spec in self._options.metrics.items()
    }
    self._of_predictions = {n: m for n, m in metrics.items() if hasattr(m, 'summarise')}
    self._of_samples = {n: m for n, m in metrics.items() if n not in self._of_predictions}
    self._ways = ways
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
        columns = {name: batch[name] for name in source.spec.features if name not in _INPUTS}
        return function(variables, batch, key), columns, batch['mask']

      options = dict(runtime.compiler_options())
      return jax.jit(values, out_shardings=everywhere, compiler_options=options)

    self._evaluate = on_examples(objective.evaluate)
    self._measure = on_examples(objective.measure)
    size = self._batch_size

    def sample(variables, key, i, labels):
      key = jax.random.fold_in(stream_key(key, 'evaluate/samples'), i)
      conditions = {} if labels is None else {'label': labels}
      return objective.sample(variables, key, size, **conditions)

    self._sample = jax.jit(sample, out_shardings=everywhere)
    if objective.sample is None and self._of_samples:
      raise UserError(
        f'config.evaluate.metrics.{next(iter(self._of_samples))} compares samples, and this '
        'objective draws none; remove it'
      )
    told = self._of_samples and 'label' in parameters(objective.sample)
    self._derive = getattr(objective, 'derive', None)
    self._told_classes = source.spec.num_classes if told else 0

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
    figures = self.evaluate(variables, key, details=False).figures
    values = {name: figure.mean for name, figure in figures.items()}
    values.update(self.compare_samples(variables, key, costly=False))
    return {f'eval/{name}': value for name, value in values.items()}

  def evaluate(
    self, variables: Variables, key: jax.Array, details: bool, progress: Progress | None = None
  ) -> Evaluation:
    """The objective's figures over the split, every example once, and the metrics of predictions.

    Args:
      variables: `{module: variables}`.
      key: the state's.
      details: whether tables, pictures and figures per class are wanted too.
      progress: called after every batch.
    """
    columns = self._over_the_split(self._evaluate, variables, key, progress)
    figures = self._figures(columns)
    said = {name: column for name, column in columns.items() if not _is_figure(column)}
    tables: dict[str, Any] = {}
    pictures: dict[str, np.ndarray] = {}
    for metric in self._of_predictions.values():
      summary = metric.summarise(said, self._source.spec.class_names, details)
      figures.update({n: Figure(v.value, None, v.interval) for n, v in summary.figures.items()})
      tables.update(summary.tables)
      pictures.update(summary.pictures)
    return Evaluation(figures, tables, pictures)

  def measure(
    self, variables: Variables, key: jax.Array, progress: Progress | None = None
  ) -> dict[str, Figure]:
    """The costly ones likewise, under the same noise of the data; empty where there are none."""
    first = next(self._batches(0, 1))
    if not jax.eval_shape(self._measure, variables, key, 0, first)[0]:
      return {}
    columns = self._over_the_split(self._measure, variables, key, progress)
    return _averaged(columns)

  def time(self, variables: Variables, key: jax.Array) -> dict[str, Figure]:
    """Latency of one example (on a mesh, of one per device), and examples/s of whole batches.

    Wall time of `evaluate` with its batch already on the devices, after a call that compiles.
    """
    if not self._options.timed_calls:
      return {}
    calls = self._options.timed_calls
    one = np.sort(self._seconds(variables, key, self._ways, calls)) * 1000
    many = self._seconds(variables, key, self._batch_size, max(3, calls // 10))
    figures = {f'latency_ms/p{p}': float(np.percentile(one, p)) for p in (50, 95, 99)}
    figures['examples_per_second'] = self._batch_size / float(np.median(many))
    return {name: Figure(value, None) for name, value in figures.items()}

  def _seconds(self, variables: Variables, key: jax.Array, rows: int, calls: int) -> np.ndarray:
    share = rows // jax.process_count()
    first = next(in_order(self._loaded(), rows, jax.process_index(), jax.process_count()))
    batch = self._put({name: values[:share] for name, values in first.items()})
    taken = []
    for _ in range(calls + 1):
      started = time.perf_counter()
      jax.block_until_ready(self._evaluate(variables, key, 0, batch))
      taken.append(time.perf_counter() - started)
    return np.array(taken[1:])

  def _figures(self, columns: Mapping[str, np.ndarray]) -> dict[str, Figure]:
    """The averages to report: as they are, or as the objective derives them."""
    averages = _averaged(columns)
    if not self._derive:
      return averages
    derived = self._derive({name: figure.mean for name, figure in averages.items()})
    return {name: averages.get(name, Figure(value, None)) for name, value in derived.items()}

  def _over_the_split(
    self, function: Callable, variables: Variables, key: jax.Array, progress: Progress | None
  ) -> dict[str, np.ndarray]:
    """What the function and the data say of each example once: integers, or float64."""
    columns: dict[str, list[np.ndarray]] = {}
    done = 0
    for i, batch in enumerate(self._batches(jax.process_index(), jax.process_count())):
      values, given, mask = jax.device_get(function(variables, key, i, self._put(batch)))
      for name, value in {**_as_columns(given), **values}.items():
        whole = np.issubdtype(value.dtype, np.integer)
        value = np.asarray(value, np.int64 if whole else np.float64)
        columns.setdefault(name, []).append(value[mask])
      done += int(mask.sum())
      if progress is not None:
        so_far = {name: np.concatenate(parts) for name, parts in columns.items()}
        progress(done, {n: figure.mean for n, figure in _averaged(so_far).items()})
    return {name: np.concatenate(parts) for name, parts in columns.items()}

  def compare_samples(
    self, variables: Variables, key: jax.Array, costly: bool = True
  ) -> dict[str, float]:
    """The metrics that compare samples with the split; on the host, by every process alike.

    Args:
      variables: `{module: variables}`.
      key: the state's.
      costly: whether those are wanted too that evaluate.py alone shows.
    """
    wanted = {
      name: metric
      for name, metric in self._of_samples.items()
      if costly or not getattr(metric, 'costly', False)
    }
    if not wanted:
      return {}
    new = {name: metric for name, metric in wanted.items() if name not in self._reference}
    if new:
      self._reference.update(_collected(new, self._originals()))
    drawn = _collected(wanted, self._samples(variables, key))
    return {
      name: metric.compare(self._reference[name], drawn[name]) for name, metric in wanted.items()
    }

  def _originals(self) -> Iterator[Labelled]:
    for batch in self._batches(0, 1):
      images = batch['image'][batch['mask']].astype(np.float32) / 255
      yield images, batch['label'][batch['mask']] if self._source.spec.num_classes else None

  def _samples(self, variables: Variables, key: jax.Array) -> Iterator[Labelled]:
    """Images drawn, every class in turn where the objective is told one."""
    for start in range(0, self._options.samples, self._batch_size):
      labels = None
      if self._told_classes:
        labels = np.int32((start + np.arange(self._batch_size)) % self._told_classes)
      images = np.asarray(jax.device_get(self._sample(variables, key, start, labels)))
      left = self._options.samples - start
      yield images[:left], None if labels is None else labels[:left]

  def _batches(self, process: int, processes: int) -> Iterator[dict[str, np.ndarray]]:
    return in_order(self._loaded(), self._batch_size, process, processes)

  def _loaded(self) -> Any:
    if self._examples is None:
      # Rows of text are cut from arrays that are mapped into memory already.
      is_text = bool(self._source.spec.tokenizer)
      fits = not is_text and arrays.size_bytes(self._source) <= self._resident_mb * 2**20
      self._examples = arrays.load_arrays(self._source) if fits else self._source
    return self._examples

  def _put(self, batch: Mapping[str, np.ndarray]) -> dict[str, jax.Array]:
    place = batch_sharding(self._mesh)
    return {
      name: jax.make_array_from_process_local_data(place, rows) for name, rows in batch.items()
    }


def _collected(metrics: Mapping[str, Any], batches: Iterable[Labelled]) -> dict[str, Any]:
  """Every metric's state of all the batches."""
  states = {name: metric.empty() for name, metric in metrics.items()}
  for images, labels in batches:
    states = {name: m.update(states[name], images, labels) for name, m in metrics.items()}
  return states


def _as_columns(given: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
  """The data's own scalars; floats [B] as [B, 1], for they are no figures."""
  return {n: v[:, None] if np.issubdtype(v.dtype, np.floating) else v for n, v in given.items()}


def _is_figure(column: np.ndarray) -> bool:
  return column.ndim == 1 and np.issubdtype(column.dtype, np.floating)


def _averaged(columns: Mapping[str, np.ndarray]) -> dict[str, Figure]:
  """The mean of every column that is a figure, weighted by `weight` where there is one."""
  figures = {name: column for name, column in columns.items() if _is_figure(column)}
  weights = figures.pop('weight', None)
  return {name: _figure(column, weights) for name, column in figures.items()}


def _figure(values: np.ndarray, weights: np.ndarray | None) -> Figure:
  """Σwx/Σw; its standard error is that of a ratio of sums (Cochran 1977, equation 6.13)."""
  weights = np.ones_like(values) if weights is None else weights
  total, n = weights.sum(), len(values)
  if not total:
    return Figure(math.nan, None)
  # Rows of no weight may hold anything.
  mean = float(np.sum(weights * np.where(weights > 0, values, 0)) / total)
  deviations = weights * np.where(weights > 0, values - mean, 0)
  error = math.sqrt(n / (n - 1) * float(np.sum(deviations**2))) / total if n > 1 else None
  return Figure(mean, error)


def augment_off(data: Data) -> dict[str, Any]:
  """Every augmentation, switched off."""
  return {name: type(value)(0) for name, value in data.augment.items()}


def make_evaluator(session: Session, source: Examples | None = None) -> Evaluator:
  """The evaluator of a session on its test split; nothing is read before it is called.

  Args:
    session: whose objective and options it takes.
    source: another split.
  """
  data = session.data
  return Evaluator(
    session.objective,
    session.config.evaluate,
    source or open_testing(data, session.spec.tokenizer),
    data.resident_mb,
    augment_off(data),
    session.mesh,
  )
