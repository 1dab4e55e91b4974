"""Statistics of real examples that samples are compared with, kept in the cache."""

import hashlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.experimental import multihost_utils

from data import arrays
from data.examples import Examples
from data.folders import cache_dir
from metrics.base import FeatureExtractor, SampleMetric

_VERSION = 2  # of what is computed and how it is kept; a higher one makes old files unused


class Reference:
  """The state of every metric of the features of a split, computed once for all runs.

  Args:
    examples: the split.
    extractor: of the features.
    metrics: by name.
  """

  def __init__(
    self,
    examples: Examples,
    extractor: FeatureExtractor,
    metrics: Mapping[str, SampleMetric],
  ):
    self._metrics = metrics
    self._folders = {name: _folder(examples, extractor, metric) for name, metric in metrics.items()}

  def states(self, compute: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Returns the states by name: those kept in the cache, or else those computed.

    Args:
      compute: gives the states of all metrics; called by all processes of a job, or by none.
    """
    states = self._kept()
    if states is None:
      states = compute()
      self._keep(states)
    return states

  def _kept(self) -> dict[str, Any] | None:
    """The states in the cache, None unless all are there for all processes."""
    states = {name: _load(self._folders[name], m.empty()) for name, m in self._metrics.items()}
    found = all(state is not None for state in states.values())
    if jax.process_count() > 1:
      found = bool(multihost_utils.process_allgather(np.bool_(found)).all())
    return states if found else None

  def _keep(self, states: Mapping[str, Any]) -> None:
    """Writes states for `_kept`; a cache that cannot be written is a warning."""
    if jax.process_index() == 0:
      for name, state in states.items():
        fields = {field: np.asarray(value) for field, value in state._asdict().items()}
        arrays.write(self._folders[name], fields)


def _load(folder: Path, empty: Any) -> Any:
  kept = arrays.read(folder, empty._fields)
  return None if kept is None else type(empty)(**kept)


def _folder(examples: Examples, extractor: FeatureExtractor, metric: SampleMetric) -> Path:
  """Where the state of a metric lies: another place for other data, features or options."""
  spec = examples.spec
  parts = (spec.identity, examples.stamp, str(spec.n), _identity(extractor), _identity(metric))
  digest = hashlib.sha256(repr((_VERSION, *parts)).encode()).hexdigest()[:32]
  return cache_dir() / 'references' / digest


def _identity(made: FeatureExtractor | SampleMetric) -> str:
  """The class and the options of a frozen dataclass, and what identifies its parameters."""
  checksum = made.checksum if isinstance(made, FeatureExtractor) else ''
  return f'{type(made).__module__}.{made!r}{checksum}'
