"""Samples of a model compared with real examples, in a space of features."""

import dataclasses
import functools
from collections.abc import Iterator, Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from data import placement
from data.spec import Spec
from engine import runtime
from engine.build import build
from engine.evaluators.base import Evaluator, Figure, Progress, Results
from engine.evaluators.batches import PerExample, Split, one_late
from engine.evaluators.reference import Reference
from engine.memory import check_memory, drawn_need
from errors import UserError
from metrics.base import FeatureExtractor, SampleMetric
from objectives.base import Batch, Sampler, Variables, numbered_keys, stream_key
from options import complete, option

# Features float32 [N, D] and classes int [N], if there are any.
Labelled = tuple[np.ndarray, np.ndarray | None]


@dataclasses.dataclass(eq=False)
class Samples(Evaluator):
  """Metrics of samples, all of them on the same features of the same samples.

  A figure is called METRIC_EXTRACTOR_COUNT-REFERENCE, e.g. `fd_pixels14_1k-test`.

  Raises:
    UserError: an option is out of range, the objective samples no images, or a metric is none of
      samples.
  """

  features: Mapping[str, Any] = option(
    "`dict(name='FILE.Class', …)`, an extractor in `metrics/features/`."
  )
  metrics: Mapping[str, Mapping[str, Any]] = option(
    "`{METRIC: dict(name='FILE.Class', …)}`, metrics of samples in `metrics/`."
  )
  samples: int = option('How many samples are drawn.', low=1, high=10_000_000)
  reference: str = option("The split compared with: 'test', 'train' or a TFDS split.")

  def __post_init__(self):
    super().__post_init__()
    self._sampler = self._sampler_of_images()
    self._extractor: FeatureExtractor = build(
      self.features, 'metrics.features', f'{self.where}.features'
    )
    self._metrics = {
      name: build_metric(spec, f'{self.where}.metrics.{name}')
      for name, spec in self.metrics.items()
    }

  @property
  def number(self) -> int:
    return len(self._reference.examples) + self.samples

  @property
  def figure_names(self) -> tuple[str, ...]:
    suffix = f'{self._extractor.label}_{written_count(self.samples)}-{self.reference}'
    return tuple(f'{name}_{suffix}' for name in self.metrics)

  @property
  def spec(self) -> Spec:
    return self._reference.examples.spec

  def check(self) -> None:
    for key, metric in self._metrics.items():
      self._check_numbers(key, metric)
    images = jax.ShapeDtypeStruct((1, *self.spec.features['image'][0]), jnp.float32)
    try:
      jax.eval_shape(self._extractor.extract, images)
    except ValueError as error:
      raise UserError(f'{self.where}.features: {error}') from error
    check_memory(
      drawn_need(self._rows(self.samples), images, f'{self.where}.batch_size'), 'a batch of samples'
    )
    _, labels = jax.eval_shape(
      self._of_samples,
      self._abstract_variables,
      self._abstract_key,
      jax.ShapeDtypeStruct((), jnp.int32),
    )
    for key, metric in self._metrics.items():
      if metric.needs_labels and (labels is None or not self.spec.num_classes):
        raise UserError(
          f'{self.where}.metrics.{key} needs samples that are conditioned on classes, and data '
          'with classes; use such an objective, e.g. cgan, or remove the metric'
        )

  def _check_numbers(self, key: str, metric: SampleMetric) -> None:
    """Raises UserError where there are too few samples or examples for a metric."""
    if self.samples < metric.fewest_samples:
      raise UserError(
        f'{self.where}.samples={self.samples} must be at least {metric.fewest_samples} for '
        f'{self.where}.metrics.{key}'
      )
    examples = len(self._reference.examples)
    if examples < metric.fewest_examples:
      raise UserError(
        f'{self.where}.reference={self.reference} has {examples:,} examples, and '
        f'{self.where}.metrics.{key} needs {metric.fewest_examples} at least; choose a larger split'
      )

  def evaluate(
    self, variables: Variables, key: jax.Array, details: bool, progress: Progress | None
  ) -> Results:
    del details
    real = self._statistics.states(lambda: self._collected(self._originals(), 0, progress))
    known = len(self._reference.examples)
    fake = self._collected(self._drawn(variables, key), known, progress)
    values = (metric.compare(real[name], fake[name]) for name, metric in self._metrics.items())
    return Results(dict(zip(self.figure_names, map(Figure, values))))

  def _sampler_of_images(self) -> Sampler:
    sampler = self.session.objective.sampler
    if sampler is None or sampler.feature != 'image':
      found = 'has no sampler' if sampler is None else f'samples {sampler.feature}'
      raise UserError(f'{self.where} compares images, and this objective {found}; remove it')
    return sampler

  # --- real examples

  @functools.cached_property
  def _reference(self) -> Split:
    return self.open_split(self.reference)

  @functools.cached_property
  def _statistics(self) -> Reference:
    return Reference(self._reference.examples, self._extractor, self._metrics)

  @functools.cached_property
  def _of_examples(self) -> PerExample:
    def features(variables: Variables, batch: Batch, keys: jax.Array) -> dict[str, jax.Array]:
      del variables, keys
      return {'features': self._extractor.extract(batch['image'])}

    return PerExample(features, self.session)

  def _originals(self) -> Iterator[Labelled]:
    size = self._rows(len(self._reference.examples))
    # Features depend on no variables, and nothing is drawn.
    for batch in self._of_examples.over({}, jax.random.key(0), self._reference, size):
      labels = batch.metadata['label'] if self.spec.num_classes else None
      yield batch.values['features'], labels

  # --- samples

  @functools.cached_property
  def _of_samples(self) -> jax.stages.Wrapped:
    return jax.jit(
      self._sample,
      out_shardings=self.session.replicated,
      compiler_options=dict(runtime.compiler_options()),
    )

  def _sample(self, variables: Variables, key: jax.Array, start: jax.Array):
    """Features and classes of a batch of samples, numbered from `start`."""
    numbers = start + jnp.arange(self._rows(self.samples))
    numbers = placement.split_batch(numbers, self.session.mesh)
    keys = numbered_keys(stream_key(key, 'evaluate/samples'), numbers)
    options = complete(self._sampler.options, {}, 'the sampler')
    images = self._sampler.sample(variables, keys, numbers, **options)
    return self._extractor.extract(images), self._sampler.labels(numbers, **options)

  def _drawn(self, variables: Variables, key: jax.Array) -> Iterator[Labelled]:
    """Features and classes of the samples, batch after batch."""
    starts = range(0, self.samples, self._rows(self.samples))
    started = (self._of_samples(variables, key, np.int32(start)) for start in starts)
    for start, drawn in zip(starts, one_late(started)):
      # Without waiting, where memory runs out the process is aborted while it reads.
      yield self._counted(start, jax.device_get(jax.block_until_ready(drawn)))

  def _counted(self, start: int, drawn: Labelled) -> Labelled:
    """The rows of a batch that begins at `start` that are among those asked for."""
    return jax.tree.map(lambda rows: rows[: self.samples - start], drawn)

  def _collected(
    self, batches: Iterator[Labelled], done: int, progress: Progress | None
  ) -> dict[str, Any]:
    """Every metric's state of all the batches; `done` counts what was done before."""
    states = {name: metric.empty() for name, metric in self._metrics.items()}
    for features, labels in batches:
      states = {n: m.update(states[n], features, labels) for n, m in self._metrics.items()}
      done += len(features)
      if progress is not None:
        progress(done, {})
    return states


def build_metric(spec: Mapping[str, Any], where: str) -> SampleMetric:
  """Builds a metric of samples.

  Raises:
    UserError: there is none of that name, or it is of another kind.
  """
  metric = build(spec, 'metrics', where)
  if not isinstance(metric, SampleMetric):
    raise UserError(
      f'{where}.name={spec["name"]} is no metric of samples; one of predictions belongs into an '
      'evaluator with name=examples'
    )
  return metric


def written_count(number: int) -> str:
  """Returns '4k' for 4000; other numbers that are no thousands in full."""
  thousands, rest = divmod(number, 1000)
  return f'{thousands}k' if thousands and not rest else str(number)
