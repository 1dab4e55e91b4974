"""Optimizers and schedules by name: optax, and the options of a config around it."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import optax

from engine.build import call, name_of, parameters
from engine.optimizer_options import (
  AVERAGING,
  COMMON,
  DECAYS,
  OPTAX,
  SCHEDULE,
  SCHEDULES,
  options_by_name,
)
from engine.sharding import path_name
from errors import UserError, nearest
from objectives.base import Objective
from options import REQUIRED, Option, complete

Schedule = Callable[[jax.Array], jax.Array]


class Optimizer(NamedTuple):
  """An optax chain whose learning rate is a function of the run's step.

  Attributes:
    init: `(parameters) -> state`.
    update: `(gradients, state, parameters, step) -> (updates, state)`.
    rate: `(step) -> learning rate`.
    offload: whether the arrays of the state live in the host's memory; `update` then takes them
      from there and returns them there.
  """

  init: Callable[[Any], Any]
  update: Callable[[Any, Any, Any, jax.Array], tuple[Any, Any]]
  rate: Schedule
  offload: bool = False


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
  where: str = 'config.optimizer.PLAYER',
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
    where: the section's place in the config, for messages.
  """
  chosen = _paths_with(matrices, f'{where}.matrices')

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


def section_options(section: Mapping[str, Any], where: str) -> dict[str, Option]:
  """Returns the options that a section of `config.optimizer` takes, given its `name`.

  Raises:
    UserError: `name` is missing, or no optimizer.
  """
  name = name_of(section, where)
  taken = parameters(find(name, where))
  defaults = {key: REQUIRED if p.default is p.empty else p.default for key, p in taken.items()}
  return {**COMMON, **options_by_name(name, defaults)}


def make_optimizer(steps: int, where: str, /, **section: Any) -> Optimizer:
  """Builds one optimizer: clip → L2 and L1 → the optimizer → weights kept in bounds.

  `clip_weights` is the Lipschitz bound of Arjovsky et al. 2017. Whatever `state_dtype` is, updates
  are computed in float32.

  Args:
    steps: length of the run, which a decaying schedule spans.
    where: the section's place in the config, for messages.
    **section: the options of `section_options`.

  Raises:
    UserError: an option is unknown, missing or out of range, or has no effect.
  """
  declared = section_options(section, where)
  name = section['name']
  given = complete(declared, section, f'the optimizer {name}', f'{where}.')
  factory = find(name, where)
  rate = make_schedule(given['learning_rate'], steps, f'{where}.schedule', given['schedule'])
  weight_decay, decay_only = given['weight_decay'], given['decay_only']
  # What is not given is optax's own default.
  options = {key: given[key] for key in section if key not in COMMON}
  mask = _paths_with(decay_only, f'{where}.decay_only') if decay_only else None
  taken = parameters(factory)
  if 'where' in taken:
    options['where'] = where
  decoupled = 'weight_decay' in taken
  if decoupled:
    options['weight_decay'] = weight_decay
  if decoupled and decay_only:
    masks = [key for key in ('mask', 'weight_decay_mask') if key in taken]
    if not masks:
      raise UserError(
        f'{where}.decay_only={decay_only} has no effect: {name} decays all parameters; leave it '
        'empty, or use an optimizer such as adamw'
      )
    options[masks[0]] = mask
  if decay_only and not weight_decay:
    raise UserError(
      f'{where}.decay_only={decay_only} has no effect without {where}.weight_decay; give that a '
      'value above 0, or leave decay_only empty'
    )
  if given.get('nesterov') and 'momentum' in taken and not given.get('momentum'):
    raise UserError(
      f'{where}.nesterov=True has no effect without {where}.momentum; give that a value above 0, '
      'or leave nesterov out'
    )
  before = []
  if given['clip']:
    before.append(optax.clip_by_global_norm(given['clip']))
  if weight_decay and not decoupled:
    before.append(optax.add_decayed_weights(weight_decay, mask))
  if given['l1']:
    before.append(add_l1(given['l1']))
  after = [keep_weights_within(given['clip_weights'])] if given['clip_weights'] else []

  def chain(rate: jax.Array | float) -> optax.GradientTransformation:
    main = call(factory, {'learning_rate': rate, **options}, where)
    return optax.chain(*before, main, *after)

  narrow, offload = given['state_dtype'] != 'float32', given['offload']
  if narrow:
    _check_narrow(name, given, where)

  def init(params: Any) -> Any:
    state = chain(given['learning_rate']).init(params)
    state = _narrowed(state) if narrow else state
    return _moved_to(jax.memory.Space.Host, state) if offload else state

  def update(gradients: Any, state: Any, params: Any, step: jax.Array) -> tuple[Any, Any]:
    state = _moved_to(jax.memory.Space.Device, state) if offload else state
    state = _widened(state) if narrow else state
    # Made anew in the traced step: so the rate follows the run's step, and not a count of updates
    # of its own, and an optimizer's state holds no schedule.
    updates, state = chain(rate(step)).update(gradients, state, params)
    state = _narrowed(state) if narrow else state
    return updates, _moved_to(jax.memory.Space.Host, state) if offload else state

  return Optimizer(init, update, rate, offload)


# The least relative change that a number of bfloat16 shows: half the distance to the next one.
_LEAST_CHANGE = 2.0**-8


def _check_narrow(name: str, given: Mapping[str, Any], where: str) -> None:
  """Raises UserError where half precision cannot hold an optimizer's state.

  A decay near 1 moves an average by so little that it rounds back to where it was, for ever.
  """
  if name not in AVERAGING:
    raise UserError(
      f'{where}.state_dtype={given["state_dtype"]} is for states that are moving averages, and '
      f'{name} keeps more; set it to float32, or name to one of {", ".join(AVERAGING)}'
    )
  for key in DECAYS:
    decay = given.get(key)
    if isinstance(decay, float) and 1 - decay < _LEAST_CHANGE:
      raise UserError(
        f'{where}.{key}={decay} moves an average by less than {given["state_dtype"]} shows '
        f'({_LEAST_CHANGE:.2g} of it); set {key} to at most 0.996, or state_dtype to float32'
      )


def _narrowed(state: Any) -> Any:
  """The state with its arrays of float32 as bfloat16; counts and scalars as they are."""

  def narrow(leaf: jax.Array) -> jax.Array:
    return leaf.astype(jnp.bfloat16) if leaf.ndim and leaf.dtype == jnp.float32 else leaf

  return jax.tree.map(narrow, state)


def _widened(state: Any) -> Any:
  """Undoes `_narrowed`, up to its rounding."""
  return jax.tree.map(
    lambda leaf: leaf.astype(jnp.float32) if leaf.dtype == jnp.bfloat16 else leaf, state
  )


def _moved_to(space: Any, state: Any) -> Any:
  """The state with its arrays in a space of memory; scalars stay on the device."""
  return jax.tree.map(lambda leaf: jax.device_put(leaf, space) if leaf.ndim else leaf, state)


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
    if name not in moves:
      raise UserError(
        f'config.optimizer.{name} has no effect: no player has an optimizer of that name'
        f'{nearest(name, moves)}; there are: {", ".join(moves)}'
      )
  for name in moves:
    if name not in sections:
      raise UserError(f'config.optimizer has no section for the player "{name}"; add one')
  return {
    name: make_optimizer(steps, f'config.optimizer.{name}', **sections[name]) for name in moves
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
  """Returns the optimizer `name` of this file or of optax.

  Raises:
    UserError: there is none; lists those there are.
  """
  known = optimizers()
  if name not in known:
    raise UserError(
      f'{where}.name={name} is no optimizer{nearest(name, known)}; there are: '
      f'{", ".join(sorted(known))}'
    )
  return known[name]


def optimizers() -> dict[str, Callable]:
  """Returns all optimizers by name; those that the installed optax lacks are left out."""
  found = {
    name: getattr(home, name)
    for home in (optax.contrib, optax)
    for name in OPTAX
    if hasattr(home, name)
  }
  return {**found, 'momentum': momentum, 'muon': muon}


def make_schedule(
  learning_rate: float, steps: int, where: str, section: Mapping[str, Any]
) -> Schedule:
  """Builds a learning-rate schedule: a linear warm-up over `warmup` steps, then `name`.

  Args:
    learning_rate: the highest rate.
    steps: length of the whole run, warm-up included.
    where: the section's place in the config, for messages.
    section: the options of `SCHEDULE`.

  Raises:
    UserError: an option is unknown, missing, out of range, or does not fit the others.
  """
  given = complete(SCHEDULE, section, 'the schedule', f'{where}.')
  schedule, warmup = _SCHEDULES[given['name']], given['warmup']
  end, boundaries, factors = given['end'], given['boundaries'], given['factors']
  if warmup and warmup >= steps:
    raise UserError(f'{where}.warmup={warmup} must be from 0 to below the {steps} steps of the run')
  if len(boundaries) != len(factors):
    raise UserError(f'{where}.boundaries and {where}.factors must have the same length')
  if [*boundaries] != sorted(set(boundaries)):
    shown = ','.join(map(str, boundaries))
    raise UserError(f'{where}.boundaries={shown} must ascend; give each step once, in order')
  if boundaries and schedule is not _piecewise:
    raise UserError(
      f'{where}.boundaries={",".join(map(str, boundaries))} has no effect with {where}.name='
      f'{given["name"]}; leave it empty, or set name to piecewise'
    )
  if schedule is _exponential and not end:
    raise UserError(f'{where}.end={end} must be above 0 for an exponential decay')
  after = schedule(learning_rate, steps - warmup, end, boundaries, factors)
  if not warmup:
    return after
  return optax.join_schedules([optax.linear_schedule(0.0, learning_rate, warmup), after], [warmup])


def check_warmups(sections: Mapping[str, Any], steps: int, why: str = '') -> None:
  """Raises UserError for a warm-up that no run of at most `steps` can hold.

  The data, which says how long a run of epochs is, need not be known for it.

  Args:
    sections: `config.optimizer`, checked later.
    steps: the most that the run takes.
    why: the options that the steps follow from, in words; '' for none.
  """
  for name, section in sections.items():
    schedule = section.get('schedule') if isinstance(section, Mapping) else None
    warmup = schedule.get('warmup') if isinstance(schedule, Mapping) else None
    if type(warmup) is int and warmup >= max(steps, 1):
      raise UserError(
        f'config.optimizer.{name}.schedule.warmup={warmup} must be from 0 to below the {steps} '
        f'steps of the run{why}'
      )


def check_schedules(sections: Mapping[str, Any]) -> None:
  """Raises UserError for an option of a schedule that another schedule than the named one reads.

  For runs that begin: one that has begun keeps its config, whatever stands there.

  Args:
    sections: `config.optimizer`, checked already.
  """
  for name, section in sections.items():
    where, schedule = f'config.optimizer.{name}.schedule', section['schedule']
    if schedule['end'] and schedule['name'] not in _DECAYS:
      raise UserError(
        f'{where}.end={schedule["end"]} has no effect with {where}.name={schedule["name"]}; set it '
        f'to 0, or name to {" or ".join(_DECAYS)}'
      )
    if schedule['name'] == 'piecewise' and not schedule['boundaries']:
      raise UserError(
        f'{where}.name=piecewise has no effect without {where}.boundaries and factors; give them, '
        'or set name to constant'
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


def _constant(rate: float, *_: Any) -> Schedule:
  return optax.constant_schedule(rate)


def _cosine(rate: float, steps: int, end: float, *_: Any) -> Schedule:
  return optax.cosine_decay_schedule(rate, steps, alpha=end)


def _exponential(rate: float, steps: int, end: float, *_: Any) -> Schedule:
  return optax.exponential_decay(rate, steps, end)


def _piecewise(
  rate: float, steps: int, end: float, boundaries: Sequence[int], factors: Sequence[float]
) -> Schedule:
  del steps, end
  rates = [rate, *(rate * factor for factor in factors)]
  return optax.join_schedules([optax.constant_schedule(r) for r in rates], list(boundaries))


_SCHEDULES = dict(zip(SCHEDULES, (_constant, _cosine, _exponential, _piecewise), strict=True))
# Those that read `end`.
_DECAYS = ('cosine', 'exponential')


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
