"""Optimizers and schedules by name: optax, and the options of a config around it."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from engine.build import call, parameters
from engine.sharding import path_name
from errors import UserError, choose, nearest
from objectives.base import Objective

Schedule = Callable[[jax.Array], jax.Array]


class Optimizer(NamedTuple):
  """An optax chain whose learning rate is a function of the run's step.

  Attributes:
    init: `(parameters) -> state`.
    update: `(gradients, state, parameters, step) -> (updates, state)`.
    rate: `(step) -> learning rate`.
  """

  init: Callable[[Any], Any]
  update: Callable[[Any, Any, Any, jax.Array], tuple[Any, Any]]
  rate: Schedule


def momentum(learning_rate: Any, momentum: float) -> optax.GradientTransformation:
  """Stochastic gradient descent with heavy-ball momentum."""
  return optax.sgd(learning_rate, momentum)


def muon(
  learning_rate: jax.Array | float,
  *,
  beta: float = 0.95,
  weight_decay: float = 0.0,
  mask: Any = None,
  matrices: str = '',
  adam_factor: float = 1.0,
) -> optax.GradientTransformation:
  """Muon (Jordan et al. 2024): momentum, made orthogonal; convolutions as matrices too.

  Each kernel is the matrix from all its inputs to its outputs, `[h·w·C, O]` of a convolution; in a
  stack of layers `[layers, inputs, outputs]` each layer is one. Other parameters are Nadam's.

  Args:
    learning_rate: of the matrices.
    beta: of the momentum (Nesterov's).
    weight_decay: decoupled, of the matrices alone.
    mask: tree of bools, or function of the parameters that makes it: those that decay.
    matrices: a pattern of the paths `MODULE/…/NAME` of the matrices; '' is all that has two axes or
      more.
    adam_factor: Nadam's learning rate as a multiple of this one.
  """
  chosen = _paths_with(matrices, 'config.optimizer.PLAYER.matrices')

  def dimensions(params: Any) -> Any:
    return jax.tree.map(lambda w, yes: _as_matrix(w.ndim) if yes else None, params, chosen(params))

  return optax.contrib.muon(
    learning_rate,
    beta=beta,
    weight_decay=weight_decay,
    weight_decay_mask=mask,
    muon_weight_dimension_numbers=dimensions,
    adam_learning_rate=adam_factor * learning_rate,
  )


def _as_matrix(axes: int) -> optax.contrib.MuonDimensionNumbers | None:
  """Which axes of a kernel are the inputs and which the outputs; None where it is no matrix."""
  if axes < 2:
    return None
  inputs = (axes - 2,) if axes < 4 else tuple(range(axes - 1))
  return optax.contrib.MuonDimensionNumbers(inputs, axes - 1)


def make_optimizer(
  steps: int,
  where: str,
  *,
  name: str,
  learning_rate: float,
  schedule: Mapping[str, Any],
  clip: float,
  weight_decay: float,
  decay_only: str,
  l1: float,
  clip_weights: float,
  **options: Any,
) -> Optimizer:
  """Builds one optimizer: clip → L2 and L1 → the optimizer → weights kept in bounds.

  Args:
    steps: length of the run, which a decaying schedule spans.
    where: the section's place in the config, for messages.
    name: an optimizer of optax (`adam`, `rmsprop`, `sgd`, `lion`…), `momentum` or `muon`.
    learning_rate: the highest learning rate of the schedule.
    schedule: see `make_schedule`.
    clip: largest global norm of the gradient; 0 is off.
    weight_decay: λ of the L2 term ½λ‖w‖², whose gradient λw enters before the optimizer; 0 is off.
      The decoupled kind belongs to optimizers that have it, e.g. `adamw`, and takes this value.
    decay_only: a pattern (`re.search`) of the paths `MODULE/…/NAME` of the parameters that decay,
      e.g. 'kernel$|embedding$'; '' is all.
    l1: λ of λ‖w‖₁, likewise; 0 is off.
    clip_weights: every weight is kept in [−clip_weights, clip_weights] after each update (the
      Lipschitz bound of Arjovsky et al. 2017); 0 is off.
    **options: handed to the optimizer, e.g. `b1`.
  """
  factory = find(name, where)
  rate = call(
    make_schedule, schedule, f'{where}.schedule', learning_rate, steps, f'{where}.schedule'
  )
  mask = _paths_with(decay_only, f'{where}.decay_only') if decay_only else None
  decoupled = 'weight_decay' in parameters(factory)
  if decoupled:
    options['weight_decay'] = weight_decay
    if decay_only and 'mask' not in parameters(factory):
      raise UserError(
        f'{where}.decay_only={decay_only} has no effect: {name} decays all parameters; leave it '
        'empty, or use an optimizer such as adamw'
      )
    if decay_only:
      options['mask'] = mask
  before = []
  if clip:
    before.append(optax.clip_by_global_norm(clip))
  if weight_decay and not decoupled:
    before.append(optax.add_decayed_weights(weight_decay, mask))
  if l1:
    before.append(add_l1(l1))
  after = [keep_weights_within(clip_weights)] if clip_weights else []

  def chain(rate: jax.Array | float) -> optax.GradientTransformation:
    main = call(factory, {'learning_rate': rate, **options}, where)
    return optax.chain(*before, main, *after)

  def update(gradients: Any, state: Any, params: Any, step: jax.Array) -> tuple[Any, Any]:
    # Made anew in the traced step: so the rate follows the run's step, and not a count of updates
    # of its own, and an optimizer's state holds no schedule.
    return chain(rate(step)).update(gradients, state, params)

  return Optimizer(chain(learning_rate).init, update, rate)


def build_optimizers(
  sections: Mapping[str, Any], objective: Objective, steps: int
) -> dict[str, Optimizer]:
  """Builds every optimizer of a run of `steps` from the section `config.optimizer`.

  Raises:
    UserError: a section without a player or a player without a section, players that share an
      optimizer and move different modules, or an option that makes no sense.
  """
  moves: dict[str, tuple[str, ...]] = {}
  for player in objective.players:
    if moves.setdefault(player.optimizer_name, player.moves) != player.moves:
      raise ValueError(f'players that share optimizer "{player.optimizer_name}" move other modules')
  for name in sections:
    choose(moves, name, 'config.optimizer')
  for name in moves:
    if name not in sections:
      raise UserError(f'config.optimizer has no section for the player "{name}"; add one')
  return {
    name: call(
      make_optimizer, sections[name], f'config.optimizer.{name}', steps, f'config.optimizer.{name}'
    )
    for name in moves
  }


def _paths_with(pattern: str, where: str) -> Callable[[Any], Any]:
  """Returns the function `parameters -> tree of bools`, whether the pattern is in the path.

  Raises:
    UserError: it is no regular expression, or, when called, it is in no path.
  """
  try:
    compiled = re.compile(pattern)
  except re.error as error:
    raise UserError(f'{where}={pattern} is no regular expression: {error}') from error

  def mask(params: Any) -> Any:
    found = jax.tree_util.tree_map_with_path(
      lambda path, _: bool(compiled.search(path_name(path))), params
    )
    if not any(jax.tree.leaves(found)):
      raise UserError(f'{where}={pattern} is found in no parameter; leave it empty for all')
    return found

  return mask


def find(name: str, where: str) -> Callable:
  """Returns the optimizer `name` of this file, optax or optax.contrib, or raises UserError."""
  own = {'momentum': momentum, 'muon': muon}
  for home in (own, vars(optax), vars(optax.contrib)):
    factory = home.get(name)
    if callable(factory) and 'learning_rate' in parameters(factory):
      return factory
  known = sorted(own) + [
    key
    for home in (optax, optax.contrib)
    for key, value in vars(home).items()
    if key.islower() and callable(value) and _takes_learning_rate(value)
  ]
  raise UserError(
    f'{where}.name={name} is no optimizer{nearest(name, known)}; there are: '
    f'{", ".join(sorted(set(known)))}'
  )


def _takes_learning_rate(function: Callable) -> bool:
  try:
    return 'learning_rate' in parameters(function)
  except ValueError:
    return False


def make_schedule(
  learning_rate: float,
  steps: int,
  where: str,
  *,
  name: str,
  warmup: int,
  end: float,
  boundaries: Sequence[int],
  factors: Sequence[float],
) -> Schedule:
  """Builds a learning-rate schedule: a linear warm-up over `warmup` steps, then `name`.

  Args:
    learning_rate: the highest rate.
    steps: length of the whole run, warm-up included.
    where: the section's place in the config, for messages.
    name: `constant`; `cosine` or `exponential` decay to `end`; `piecewise`.
    warmup: steps from 0 to the highest rate; 0 is none.
    end: share of the highest rate that a decay ends at.
    boundaries: of `piecewise`: steps after the warm-up, ascending.
    factors: of `piecewise`: share of the highest rate from each boundary on.
  """
  if learning_rate < 0:
    raise UserError(f'{where}: the learning rate is {learning_rate}; it must be 0 or more')
  schedule = choose(SCHEDULES, name, f'{where}.name')
  if warmup and not 0 < warmup < steps:
    raise UserError(f'{where}.warmup={warmup} must be from 0 to below the {steps} steps of the run')
  if len(boundaries) != len(factors):
    raise UserError(f'{where}.boundaries and {where}.factors must have the same length')
  after = schedule(learning_rate, steps - warmup, end, boundaries, factors)
  if not warmup:
    return after
  return optax.join_schedules([optax.linear_schedule(0.0, learning_rate, warmup), after], [warmup])


def check_warmups(sections: Mapping[str, Any], steps: int) -> None:
  """Raises UserError for a warm-up that no run of at most `steps` can hold.

  The data, which says how long a run of epochs is, need not be known for it.

  Args:
    sections: `config.optimizer`, checked later.
    steps: the most that the run takes.
  """
  for name, section in sections.items():
    schedule = section.get('schedule') if isinstance(section, Mapping) else None
    warmup = schedule.get('warmup') if isinstance(schedule, Mapping) else None
    if type(warmup) is int and warmup >= max(steps, 1):
      raise UserError(
        f'config.optimizer.{name}.schedule.warmup={warmup} must be from 0 to below the {steps} '
        'steps of the run'
      )


class Changed(NamedTuple):
  """The learning rate of one optimizer at a step, before and after a change of its schedule."""

  optimizer: str
  before: float
  after: float


def changed_rates(
  before: Mapping[str, Optimizer], after: Mapping[str, Optimizer], step: int
) -> list[Changed]:
  """Returns the learning rates that differ at `step`, of optimizers that are in both."""
  at = jnp.int32(step)
  rates = [
    Changed(name, float(before[name].rate(at)), float(after[name].rate(at)))
    for name in after
    if name in before
  ]
  return [each for each in rates if not math.isclose(each.before, each.after, rel_tol=1e-4)]


def _exponential(rate: float, steps: int, end: float) -> Schedule:
  if end <= 0:
    raise ValueError(f'end={end} must be above 0 for an exponential decay')
  return optax.exponential_decay(rate, steps, end)


def _piecewise(rate: float, boundaries: Sequence[int], factors: Sequence[float]) -> Schedule:
  rates = [rate, *(rate * factor for factor in factors)]
  return optax.join_schedules([optax.constant_schedule(r) for r in rates], list(boundaries))


SCHEDULES = {
  'constant': lambda rate, steps, end, boundaries, factors: optax.constant_schedule(rate),
  'cosine': lambda rate, steps, end, *_: optax.cosine_decay_schedule(rate, steps, alpha=end),
  'exponential': lambda rate, steps, end, *_: _exponential(rate, steps, end),
  'piecewise': lambda rate, steps, end, boundaries, factors: _piecewise(rate, boundaries, factors),
}


def add_l1(strength: float) -> optax.GradientTransformation:
  """Adds the gradient of strength·‖w‖₁."""

  def update(updates, state, params=None):
    return jax.tree.map(lambda u, w: u + strength * jnp.sign(w), updates, params), state

  return optax.GradientTransformation(lambda params: optax.EmptyState(), update)


def keep_weights_within(limit: float) -> optax.GradientTransformation:
  """Shortens the last update so that every weight ends in [−limit, limit]."""

  def update(updates, state, params=None):
    def shortened(u, w):
      return jnp.clip(w + u, -limit, limit) - w

    return jax.tree.map(shortened, updates, params), state

  return optax.GradientTransformation(lambda params: optax.EmptyState(), update)
