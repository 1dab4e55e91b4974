"""Samples of a model compared with real examples, in a space of features."""

import dataclasses
import functools
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import numpy as np

from data import placement
from data.spec import Spec
from engine import runtime
from engine.build import build
from engine.evaluators import jackknife
from engine.evaluators.base import Evaluator, Figure, Progress, Results
from engine.evaluators.batches import PerExample, Split, one_late
from engine.evaluators.reference import Reference
from engine.memory import check_memory, drawn_need
from errors import UserError
from metrics.base import Extracted, FeatureBatch, FeatureExtractor, SampleMetric
from objectives.base import Batch, Sampler, Variables, numbered_keys, stream_key
from options import complete, option

# Groups of samples that are left out in turn for confidence intervals.
_GROUPS = 20

# The state of every metric, by name.
States = dict[str, Any]
Tree = TypeVar('Tree')


class Drawn(NamedTuple):
  """The features of a batch of samples.

  Attributes:
    extracted: of the extractor.
    labels: int [N], the classes that they were conditioned on; None if there are none.
  """

  extracted: Extracted
  labels: jax.Array | None


@dataclasses.dataclass(eq=False)
class Samples(Evaluator):
  """Metrics of samples, all of them on the same features of the same samples.

  A figure is called METRIC_EXTRACTOR_COUNT-REFERENCE, e.g. `fd_pixels14_1k-test`. Its confidence
  interval, which evaluate.py computes, is that of other samples of the same model.

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
  held_out: str = option(
    'The split that metrics of memorisation compare with too, no example of which the run was '
    "trained on; '' where no metric needs one."
  )

  def __post_init__(self):
    super().__post_init__()
    self._sampler = self._sampler_of_images()
    self._extractor: FeatureExtractor = build(
      self.features, 'metrics.features', f'{self.where}.features'
    )
    self._kept: tuple[States, States] | None = None
    self._metrics = {
      name: build_metric(spec, f'{self.where}.metrics.{name}')
      for name, spec in self.metrics.items()
    }

  @property
  def number(self) -> int:
    held_out = len(self._held_out.examples) if self._held_out else 0
    return len(self._reference.examples) + held_out + self.samples

  @property
  def repeated_number(self) -> int:
    return self.samples

  def fewer(self, number: int) -> str:
    return f'--{self.where}.samples={max(number, 1)}'

  @property
  def provenance(self) -> dict[str, Any]:
    splits = {'reference': self._reference}
    if self._held_out:
      splits['held_out'] = self._held_out
    counts = {name: len(split.examples) for name, split in splits.items()}
    return {
      'counts': {**counts, 'samples': self.samples},
      'data': {name: split.examples.spec.identity for name, split in splits.items()},
      'extractor': {
        'label': self._extractor.label,
        'identity': repr(self._extractor),
        'checksum': self._extractor.checksum,
      },
      'metrics': {name: repr(metric) for name, metric in self._metrics.items()},
    }

  @property
  def figure_names(self) -> tuple[str, ...]:
    suffix = f'{self._extractor.label}_{written_count(self.samples)}-{self.reference}'
    names = [name for key, metric in self._metrics.items() for name in metric.figures or (key,)]
    return tuple(f'{name}_{suffix}' for name in names)

  @property
  def spec(self) -> Spec:
    return self._reference.examples.spec

  def check_options(self) -> None:
    if not self.metrics:
      raise UserError(f'{self.where}.metrics holds none; name one, or remove {self.where}')
    self._check_names()
    self._check_held_out()
    try:
      extracted = jax.eval_shape(
        self._extractor.extract, self._extractor.parameters, self._abstract_image
      )
    except ValueError as error:
      raise UserError(f'{self.where}.features: {error}') from error
    for key, metric in self._metrics.items():
      if metric.needs_probabilities and extracted.probabilities is None:
        raise UserError(
          f'{self.where}.metrics.{key} needs the probabilities of a classifier, and '
          f'{self.where}.features.name={self.features["name"]} gives none; choose an extractor '
          'that is a classifier, or remove the metric'
        )
      self._check_numbers(key, metric, extracted.features.shape[1])

  def check(self) -> None:
    self.check_options()
    need = drawn_need(self._rows(self.samples), self._abstract_image, f'{self.where}.batch_size')
    check_memory(need, 'a batch of samples')
    drawn = jax.eval_shape(
      self._of_samples,
      self._parameters,
      self._abstract_variables,
      self._abstract_key,
      jax.ShapeDtypeStruct((), jnp.int32),
    )
    for key, metric in self._metrics.items():
      if metric.needs_labels and (drawn.labels is None or not self.spec.num_classes):
        raise UserError(
          f'{self.where}.metrics.{key} needs samples that are conditioned on classes, and data '
          'with classes; use such an objective, e.g. cgan, or remove the metric'
        )

  @property
  def _abstract_image(self) -> jax.ShapeDtypeStruct:
    """The shape of a batch of one image."""
    return jax.ShapeDtypeStruct((1, *self.spec.features['image'][0]), jnp.float32)

  def _check_names(self) -> None:
    """Raises UserError where two metrics have a figure of one name."""
    owners: dict[str, str] = {}
    for key, metric in self._metrics.items():
      for name in metric.figures or (key,):
        if name in owners:
          raise UserError(
            f'{self.where}.metrics.{key} and {self.where}.metrics.{owners[name]} have both a '
            f'figure "{name}"; put one of them into another evaluator'
          )
        owners[name] = key

  def _check_held_out(self) -> None:
    """Raises UserError where a split of held-out examples is missing, or has no effect."""
    needing = [key for key, metric in self._metrics.items() if metric.needs_held_out]
    if needing and not self.held_out:
      raise UserError(
        f'{self.where}.metrics.{needing[0]} needs examples that the run was not trained on; name '
        f'their split, e.g. {self.where}.held_out=test'
      )
    if self.held_out and not needing:
      raise UserError(
        f'{self.where}.held_out={self.held_out} has no effect, since none of its metrics needs it; '
        'leave it empty'
      )
    if self.held_out and self.held_out == self.reference:
      raise UserError(
        f'{self.where}.held_out={self.held_out} must differ from {self.where}.reference, the '
        "examples that samples may be copies of, such as 'train'"
      )

  def _check_numbers(self, key: str, metric: SampleMetric, dimension: int) -> None:
    """Raises UserError where there are too few samples or examples for a metric."""
    fewest = metric.fewest(dimension)
    what = f'{self.where}.metrics.{key} on {dimension:,} features'
    if self.samples < fewest.samples:
      raise UserError(
        f'{self.where}.samples={self.samples} must be at least {fewest.samples} for {what}'
      )
    splits = {'reference': self._reference}
    if metric.needs_held_out and self._held_out:
      splits['held_out'] = self._held_out
    for name, split in splits.items():
      if len(split.examples) < fewest.examples:
        raise UserError(
          f'{self.where}.{name}={getattr(self, name)} has {len(split.examples):,} examples, and '
          f'{what} needs {fewest.examples} at least; choose a larger split'
        )

  def evaluate(
    self, variables: Variables, key: jax.Array, details: bool, progress: Progress | None
  ) -> Results:
    real, held_out = self._known(progress)
    done = self.number - self.samples
    # Fewer samples than groups would leave groups empty.
    groups = _GROUPS if details and self.samples >= _GROUPS else 1
    states = self._collected(self._metrics, self._drawn(variables, key), groups, done, progress)
    figures: list[Figure] = []
    for name, metric in self._metrics.items():
      compare = metric.comparison(real[name], held_out.get(name))
      figures += _figures(metric, compare, [each[name] for each in states])
    return Results(dict(zip(self.figure_names, figures)))

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
  def _held_out(self) -> Split | None:
    return self.open_split(self.held_out) if self.held_out else None

  @functools.cached_property
  def _parameters(self) -> Any:
    """The extractor's parameters on the devices."""
    return jax.device_put(self._extractor.parameters, self.session.replicated)

  def _extract(self, parameters: Any, images: jax.Array) -> Extracted:
    """Features, and probabilities where a metric needs them."""
    extracted = self._extractor.extract(parameters, images)
    needed = any(metric.needs_probabilities for metric in self._metrics.values())
    return extracted if needed else extracted._replace(probabilities=None)

  @functools.cached_property
  def _of_examples(self) -> PerExample:
    def features(parameters: Any, batch: Batch, keys: jax.Array) -> dict[str, Any]:
      del keys
      return {'extracted': self._extract(parameters, batch['image']), 'number': batch['index']}

    return PerExample(features, self.session)

  def _originals(self, split: Split) -> Iterator[FeatureBatch]:
    """Features of the examples of a split, batch after batch."""
    size = self._rows(len(split.examples))
    # Features depend on no variables of the run, and nothing is drawn.
    for batch in self._of_examples.over(self._parameters, jax.random.key(0), split, size):
      labels = batch.metadata['label'] if self.spec.num_classes else None
      extracted, numbers = batch.values['extracted'], batch.values['number']
      yield FeatureBatch(extracted.features, numbers, extracted.probabilities, labels)

  def _known(self, progress: Progress | None) -> tuple[States, States]:
    """The states of metrics of the reference, and of held-out examples where they are needed."""
    if self._kept is None:
      real = self._states(self._reference, self._metrics, 0, progress)
      held_out: States = {}
      if self._held_out:
        needing = {name: each for name, each in self._metrics.items() if each.needs_held_out}
        done = len(self._reference.examples)
        held_out = self._states(self._held_out, needing, done, progress)
      self._kept = real, held_out
    return self._kept

  def _states(
    self,
    split: Split,
    metrics: Mapping[str, SampleMetric],
    done: int,
    progress: Progress | None,
  ) -> States:
    """The states of metrics of the examples of a split, from the cache or computed."""

    def compute() -> States:
      return self._collected(metrics, self._originals(split), 1, done, progress)[0]

    return Reference(split.examples, self._extractor, metrics).states(compute)

  # --- samples

  @functools.cached_property
  def _of_samples(self) -> jax.stages.Wrapped:
    return jax.jit(
      self._sample,
      out_shardings=self.session.replicated,
      compiler_options=runtime.compiler_options(
        self.session.platform, determinism=self.session.train.determinism
      ),
    )

  def _sample(
    self, parameters: Any, variables: Variables, key: jax.Array, start: jax.Array
  ) -> Drawn:
    """Features and classes of a batch of samples, numbered from `start`."""
    numbers = start + jnp.arange(self._rows(self.samples))
    numbers = placement.split_batch(numbers, self.session.mesh)
    keys = numbered_keys(stream_key(key, 'evaluate/samples'), numbers)
    options = complete(self._sampler.options, {}, 'the sampler')
    images = self._sampler.sample(variables, keys, numbers, **options)
    labels = self._sampler.labels(numbers, **options)
    return Drawn(self._extract(parameters, images), labels)

  def _drawn(self, variables: Variables, key: jax.Array) -> Iterator[FeatureBatch]:
    """Features and classes of the samples, batch after batch."""
    starts = range(0, self.samples, self._rows(self.samples))
    started = (
      self._of_samples(self._parameters, variables, key, np.int32(start)) for start in starts
    )
    for start, drawn in zip(starts, one_late(started)):
      # Without waiting, where memory runs out the process is aborted while it reads.
      (features, probabilities), labels = _first(
        jax.device_get(jax.block_until_ready(drawn)), self.samples - start
      )
      yield FeatureBatch(features, start + np.arange(len(features)), probabilities, labels)

  def _collected(
    self,
    metrics: Mapping[str, SampleMetric],
    batches: Iterator[FeatureBatch],
    groups: int,
    done: int,
    progress: Progress | None,
  ) -> list[States]:
    """The states of metrics of each of `groups` groups of rows; `done` counts what was done before.

    Rows belong to groups by their numbers, so that these do not depend on the size of batches.
    """
    states = [{name: metric.empty() for name, metric in metrics.items()} for _ in range(groups)]
    for batch in batches:
      for group, held in enumerate(states):
        rows = batch if groups == 1 else _chosen(batch, batch.numbers % groups == group)
        for name, metric in metrics.items():
          held[name] = metric.update(held[name], rows)
      done += len(batch.features)
      if progress is not None:
        progress(done, {})
    return states


def _first(rows: Tree, number: int) -> Tree:
  """The first rows of every array of a tree."""
  return jax.tree.map(lambda column: column[:number], rows)


def _chosen(rows: Tree, chosen: np.ndarray) -> Tree:
  """The rows of every array of a tree for which `chosen` holds."""
  return jax.tree.map(lambda column: column[chosen], rows)


def _figures(
  metric: SampleMetric, compare: Callable[[Any], tuple[float, ...]], states: Sequence[Any]
) -> list[Figure]:
  """The figures of a metric, with intervals where there are several groups of samples.

  Args:
    metric: the metric.
    compare: returns its figures from a state of samples.
    states: of the groups.
  """
  values = compare(functools.reduce(metric.merge, states))
  if len(states) == 1 or not metric.resampled:
    return [Figure(value) for value in values]
  without = np.array([compare(state) for state in jackknife.leave_one_out(states, metric.merge)])
  intervals = (jackknife.interval(value, column) for value, column in zip(values, without.T))
  return [Figure(value, interval=ends) for value, ends in zip(values, intervals)]


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
