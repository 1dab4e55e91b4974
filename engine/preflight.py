"""Checks before the first step: whatever a run will need is tried without allocating anything."""

from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from ml_collections import ConfigDict

import files
from data.transforms import check_neighbours
from engine import run
from engine.build import to_plain
from engine.declarations import check_config
from engine.evaluation import Evaluators, check_best_mode, open_lane_evaluators
from engine.memory import check_memory, drawn_need, product_need, training_need
from engine.optimizers import check_schedules
from engine.program import Traced, trace_step
from engine.session import Session, open_session
from engine.state import Weights, averaged_variables, weights
from engine.tracking import check_trackers
from errors import UserError
from objectives.base import numbered_keys, stream_key
from options import complete


class LaneSampler(NamedTuple):
  """How the samples of a lane are drawn while it trains.

  Attributes:
    feature: as in `objectives.base.Sampler`.
    draw: `(weights, seed) -> samples` of one lane, jitted.
  """

  feature: str
  draw: Callable[[Weights, int], jax.Array]


class Preflight(NamedTuple):
  """The parts of a run, built and traced before anything is allocated.

  Attributes:
    session: everything that is built from the config.
    evaluators: those of each lane.
    best: the whole name of the figure of `config.checkpoint.best`; '' for none.
    traced: the training step of one lane.
    sampler: how samples are drawn in training; None if the objective has no sampler.
  """

  session: Session
  evaluators: list[Evaluators]
  best: str
  traced: Traced
  sampler: LaneSampler | None


def preflight(config: ConfigDict, workdir: str) -> Preflight:
  """Builds what training `config` in `workdir` needs, and traces all that it will compute.

  Nothing is written to `workdir`, and no parameter is allocated. The data set is opened, and
  prepared in the cache if it is not yet.

  Raises:
    UserError: the config, the data, the devices or the folder do not allow the run.
  """
  if jax.process_index() == 0:
    run.check_place(workdir)
  check_config(config)
  check_trackers(to_plain(config.report.trackers))
  # A run that has started keeps its tokenizer, wherever that came from.
  session = open_session(config, tokenizer=run.read_tokenizer(workdir))
  check_neighbours(session.data.augment, session.per_step)
  check_memory(training_need(session), 'the run')
  if not _has_begun(workdir):
    check_schedules(to_plain(config.optimizer))
    session.data.check_data_dir()
    session.data.check_folds()
    _check_sources(session)
  evaluators = open_lane_evaluators(session)
  best = evaluators[0].ranking_figure(config.checkpoint.best)
  check_best_mode(best, config.checkpoint.best_mode)
  traced = trace_step(session)
  check_memory(product_need(traced.largest, session), 'a step')
  return Preflight(session, evaluators, best, traced, lane_sampler(session))


def _has_begun(workdir: str) -> bool:
  """Whether the run has saved a checkpoint."""
  checkpoints = files.path(workdir) / 'checkpoints'
  return checkpoints.is_dir() and bool(files.entries(checkpoints))


def _check_sources(session: Session) -> None:
  """Raises UserError where a run to start from is none."""
  for module, source in session.sources.items():
    try:
      run.read_config(source.run)
    except UserError as error:
      raise UserError(f'config.init_from.{module}.run={source.run}: {error}') from error


def lane_sampler(session: Session) -> LaneSampler | None:
  """The sampler of the objective with its default options; None where it has none.

  Raises:
    UserError: the modules cannot be sampled from.
  """
  sampler = session.objective.sampler
  if sampler is None:
    return None
  options = complete(sampler.options, {}, 'the sampler')

  def sample(held: Weights, seed: jax.Array) -> jax.Array:
    numbers = jnp.arange(session.train.samples)
    keys = numbered_keys(stream_key(jax.random.key(seed), 'sample'), numbers)
    variables = averaged_variables(held, session.averages)
    return sampler.sample(variables, keys, numbers, **options)

  draw = jax.jit(
    sample, out_shardings=session.replicated, compiler_options=session.determinism_options
  )
  with session.module_errors():
    drawn = jax.eval_shape(draw, weights(session.lane_abstract), 0)
  check_memory(drawn_need(1, drawn, 'config.train.samples'), 'drawing samples')
  return LaneSampler(sampler.feature, draw)
