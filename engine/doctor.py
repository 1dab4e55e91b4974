"""Diagnoses of failing runs: pure functions of what a run logged, sampled and was trained on.

They tell three failures: metrics that are not finite, samples that collapse, and a player of a
contest that has won for good. Each comes to a `Finding`: what was seen, the likely cause, and the
options to try, which all exist in the run's config. `engine.diagnosis` calls them and writes files.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from data.spec import Spec
from objectives.base import Contest, Player

# Inputs of networks are of order 1. The gradient of the first layer is as large as its inputs, so
# that from here on usual learning rates are far too high.
OFF_SCALE = 1e4
# A network that standardises its inputs bears any scale up to where squares overflow float32.
OFF_SCALE_STANDARDISED = 1e18
# No verdict on samples or players before this step: at first samples of every model are nearly
# constant, and a discriminator is ahead of its generator.
EARLIEST_STEP = 500
# Samples whose standard deviation over samples is below this share of that of real examples.
# Healthy models are at .6 and above after some hundred steps, gan_plain.py is below .1.
LEAST_SPREAD = 0.25
# Two samples are duplicates where they are nearer than this share of the median distance of a real
# example to its nearest neighbour, and samples collapse where this share of them has a duplicate.
DUPLICATE_DISTANCE, MOST_DUPLICATES = 0.2, 0.5
# Of evaluators' figures: the share of samples with a duplicate, which counts those nearer than
# real examples ever are and so is high for smooth samples too, and of the classes that are hit.
MOST_DUPLICATES_EVALUATED, LEAST_CLASSES = 0.9, 0.25
# How the names of metrics begin whose figures those are.
_TELLING = ('duplicate', 'classes_')
# Pictures, or evaluations, in a row that must show a collapse: one may be an accident.
COLLAPSED_IN_A_ROW = 2
# A discriminator has won where its loss is below this share of its loss at chance: of 1.39 nats it
# has .03 left, a probability of error of 1.5 % at most.
WON_LOSS = 0.02
# A generator gets no gradient where its norm is below this share of the largest that was logged.
VANISHED = 1e-4
# How long it must have won: that many logged points, and steps.
WON_POINTS, WON_STEPS = 5, 300
# The last gradient norm is a jump where it is so many times the largest of those before.
JUMP = 100.0
# Images that are compared, whose distances grow with the square, and numbers of each: of larger
# images every second, third, … one.
MOST_IMAGES, MOST_NUMBERS = 256, 2**14


class Finding(NamedTuple):
  """One failure of one lane.

  Attributes:
    kind: 'not finite', 'collapse' or 'winning player'.
    step: at which it was found.
    lane: the label of the lane; '' in a run of one.
    seen: what was seen, with figures.
    cause: the likely cause.
    advice: what to try.
  """

  kind: str
  step: int
  lane: str
  seen: str
  cause: str
  advice: str

  @property
  def paragraph(self) -> str:
    """All of it as one paragraph."""
    return f'{self.seen}; likely cause: {self.cause}; {self.advice}'


class Suspect(NamedTuple):
  """A column of numbers of a batch that a model cannot be trained on as it is.

  Attributes:
    column: its name, as a user knows it.
    feature: of the batch: 'inputs' or 'target'.
    value: the worst one: one that is not finite, or the largest.
    finite: whether it is.
    examples: numbers in the split of the examples that hold such a value, ascending.
    rows: examples in the batch.
  """

  column: str
  feature: str
  value: float
  finite: bool
  examples: tuple[int, ...]
  rows: int


class Stop(NamedTuple):
  """The first step of a run whose metrics are not all finite.

  Attributes:
    step: its number, from 1.
    player: the first one with such a metric.
    values: the metrics of the step, by name.
    before: those of the steps before it that are at hand, oldest first; `(value, weight)` each.
    lane: the label of the lane; '' in a run of one.
  """

  step: int
  player: str
  values: Mapping[str, float]
  before: Sequence[Mapping[str, tuple[float, float]]]
  lane: str


class Spread(NamedTuple):
  """The spread of samples compared with that of real examples.

  Attributes:
    ratio: of the root mean square deviation from the mean image, samples to examples.
    duplicates: share of the samples that have a duplicate.
    number: of samples compared.
  """

  ratio: float
  duplicates: float
  number: int


class Sampled(NamedTuple):
  """The samples of one step: their spread, and figures of evaluators.

  Attributes:
    step: of the samples.
    spread: of pictures that were drawn; None if it was not measured.
    figures: of evaluators, by name.
  """

  step: int
  spread: Spread | None = None
  figures: Mapping[str, float] = {}


class Logged(NamedTuple):
  """The figures of one line of the log, of one lane."""

  step: int
  figures: Mapping[str, float]


# --- options --------------------------------------------------------------------------------------


def value_at(config: Mapping[str, Any], place: str) -> Any:
  """Returns the value at a place such as 'optimizer.model.clip'; None where there is none."""
  node: Any = config
  for part in place.split('.'):
    if not isinstance(node, Mapping) or part not in node:
      return None
    node = node[part]
  return node


def flags(config: Mapping[str, Any], remedies: Mapping[str, Any]) -> list[str]:
  """Returns `--config.PLACE=VALUE` of the options that the config has, and that it has otherwise.

  Args:
    config: of the run, as plain dicts.
    remedies: values to try, by place.
  """
  held = {place: value_at(config, place) for place in remedies}
  return [
    f'--config.{place}={_number(value)}'
    for place, value in remedies.items()
    if held[place] is not None and held[place] != value
  ]


def _number(value: Any) -> str:
  return f'{value:g}' if isinstance(value, float) and value != int(value) else str(value)


def _advice(given: Sequence[str], otherwise: str) -> str:
  if not given:
    return otherwise
  return f'try {given[0]}' + (f', then {", ".join(given[1:])}' if given[1:] else '')


def _slower(config: Mapping[str, Any], optimizer: str, factor: float) -> dict[str, float]:
  """A lower learning rate of an optimizer, to two digits."""
  place = f'optimizer.{optimizer}.learning_rate'
  rate = value_at(config, place)
  if not isinstance(rate, (int, float)) or rate <= 0:
    return {}
  # Above 10 no optimizer works; a tenth of such a rate would be no advice.
  return {place: float(f'{rate / factor:.2g}') if rate <= 10 else 1e-3}


# --- the data -------------------------------------------------------------------------------------


def suspects(
  batch: Mapping[str, np.ndarray], spec: Spec, config: Mapping[str, Any]
) -> list[Suspect]:
  """Returns the columns of a batch that hold nan or infinity, then those far off the scale.

  Args:
    batch: features by name, [B, …]; `index` int [B] are the numbers of the examples.
    spec: of the split.
    config: of the run, as plain dicts.
  """
  limit = OFF_SCALE_STANDARDISED if _standardised(config) else OFF_SCALE
  found = []
  for feature, values in batch.items():
    if values.dtype.kind != 'f' or feature == 'image':
      continue
    most = OFF_SCALE if values.ndim == 1 else limit
    columns = values.reshape(len(values), -1).astype(np.float64).T
    names = column_names(feature, values.ndim > 1, len(columns), spec)
    for name, column in zip(names, columns):
      finite = np.isfinite(column)
      bad = ~finite if not finite.all() else np.abs(column) > most
      if bad.any():
        worst = column[bad][np.argmax(np.abs(column[bad]))]
        numbers = tuple(sorted({int(number) for number in batch['index'][bad]}))
        rows = len({*batch['index'].tolist()})
        found.append(Suspect(name, feature, float(worst), bool(finite.all()), numbers, rows))
  return sorted(found, key=lambda each: (each.finite, -abs(each.value) if each.finite else 0))


def _standardised(config: Mapping[str, Any]) -> bool:
  return any(module.get('normalise') is True for module in config['modules'].values())


def column_names(feature: str, several: bool, number: int, spec: Spec) -> list[str]:
  """Returns the names of the columns of a feature, from the table's header where there is one."""
  if not several:
    return [f'the {feature}']
  named: list[str] = []
  if feature == 'inputs':
    for column in spec.input_columns:
      words = [f' ({word})' for word in column.words] or ['']
      named += [f'the column "{column.name}"{word}' for word in words]
  # Tables that TFDS has prepared name no columns.
  return named if len(named) == number else [f'column {i} of the {feature}' for i in range(number)]


def of_data(
  found: Sequence[Suspect], spec: Spec, config: Mapping[str, Any]
) -> tuple[str, str, str] | None:
  """Returns (seen, cause, advice) where the data are the cause; None where they are not.

  Args:
    found: by `suspects`, not finite ones first.
    spec: of the split that was trained on.
    config: of the run, as plain dicts.
  """
  if not found:
    return None
  first = found[0]
  where = f'{spec.name} {spec.split}'
  others = len({each.column for each in found}) - 1
  more = f' (and {others} further column{"s"[: others > 1]})' if others else ''
  # An example's number alone: its row in a file of one's own is another one.
  which = (
    f'all {first.rows:,} examples'
    if len(first.examples) == first.rows
    else f'{"example" if len(first.examples) == 1 else "examples"} {_listed(first.examples)}'
  )
  seen = f'{first.column}{more} is {first.value:.3g} in {which} of its batch of {where}'
  if not first.finite:
    return (
      seen,
      'the data, which are not finite there',
      'fill these values in, or leave these examples out' + _ignored(first, spec, config, ', or'),
    )
  remedies = {
    f'modules.{name}.normalise': True
    for name, module in config['modules'].items()
    if module.get('normalise') is False and first.feature == 'inputs'
  }
  scaled = f'bring {first.column} to a scale of about 1 in the data'
  given = flags(config, remedies)
  return (
    seen,
    'the data, which are far off the scale of about 1 that networks are made for',
    (f'try {given[0]}, or {scaled}' if given else scaled) + _ignored(first, spec, config, ', or'),
  )


def _ignored(suspect: Suspect, spec: Spec, config: Mapping[str, Any], before: str) -> str:
  """The flag that leaves out a column of a CSV table, after `before`; '' for other data."""
  names = [each.name for each in spec.input_columns if f'"{each.name}"' in suspect.column]
  own = str(value_at(config, 'data.name')).startswith('csv:')
  if not names or not own or value_at(config, 'data.table.ignore') is None:
    return ''
  ignored = [*value_at(config, 'data.table.ignore'), names[0]]
  return f'{before} leave the column out with --config.data.table.ignore={",".join(ignored)}'


def _listed(numbers: Sequence[int]) -> str:
  shown = ', '.join(f'{number:,}' for number in numbers[:5])
  return f'{shown} and {len(numbers) - 5:,} others' if len(numbers) > 5 else shown


# --- not finite -----------------------------------------------------------------------------------


def not_finite(
  stop: Stop,
  batches: Sequence[Mapping[str, np.ndarray]],
  norms: Mapping[str, float],
  spec: Spec,
  players: Sequence[Player],
  config: Mapping[str, Any],
) -> Finding:
  """Diagnoses a run that stopped being finite.

  Args:
    stop: the step.
    batches: of the step, and of the one before if there is one: a value of either may show only
      now.
    norms: of the parameters of every module after the step.
    spec: of the split that was trained on.
    players: of the objective.
    config: of the run, as plain dicts.
  """
  for batch in batches:
    data = of_data(suspects(batch, spec, config), spec, config)
    if data:
      return Finding('not finite', stop.step, stop.lane, *data)
  culprit = _last_mover(stop, players)
  if culprit is None:
    seen = f'{_norms_shown(norms)} before any update'
    cause = 'the modules or the loss, which are not finite at their first parameters'
    return Finding('not finite', stop.step, stop.lane, seen, cause, _finer(config))
  return Finding('not finite', stop.step, stop.lane, *_divergence(stop, culprit, norms, config))


def _last_mover(stop: Stop, players: Sequence[Player]) -> Player | None:
  """The player whose update made the loss not finite; None if nobody had moved before.

  Every loss reads all modules, so that it is the one that moved last before the loss. Where the
  loss itself is finite it is the gradient of the player that is not.
  """
  number = [player.name for player in players].index(stop.player)
  named = players[number]
  loss = stop.values[f'{named.name}/loss']
  if math.isfinite(loss) or named.repeats > 1:
    return named
  earlier = [player for player in players[:number] if (stop.step - 1) % player.every == 0]
  last_step = [player for player in players if (stop.step - 2) % player.every == 0]
  moved = earlier or (last_step if stop.step > 1 else [])
  return moved[-1] if moved else None


def _divergence(
  stop: Stop, culprit: Player, norms: Mapping[str, float], config: Mapping[str, Any]
) -> tuple[str, str, str]:
  """(seen, cause, advice) of a player whose updates were too large."""
  optimizer = culprit.optimizer_name
  past = _past_norms(stop, culprit)
  rate = stop.values.get(f'{culprit.name}/learning_rate', math.nan)
  section = f'optimizer.{optimizer}'
  slower = _slower(config, optimizer, 10.0)
  clipped = {f'{section}.clip': 1.0} if value_at(config, f'{section}.clip') == 0 else {}
  gradient = f'the gradient norm of "{culprit.name}"'
  jumped = len(past) >= 5 and past[-1] > JUMP * max(past[:-1])
  if len(past) < 2:
    seen = f'{gradient} was {past[0]:.3g}' if past else 'no step before it was finite'
  else:
    seen = (
      f'{gradient} went from a median of {np.median(past[:-1]):.3g} over {len(past) - 1} steps to '
      f'{past[-1]:.3g} in the last finite one'
    )
  seen += f', {_norms_shown(norms)} after the step'
  cause = f'updates of "{culprit.name}" that are too large'
  if math.isfinite(rate):
    cause += f' (learning rate {rate:.3g})'
  if jumped:
    cause = f'one exceptional gradient of "{culprit.name}"' + (
      '' if clipped else ', though clipped'
    )
  remedies = {**clipped, **slower} if jumped else {**slower, **clipped}
  return seen, cause, _advice(flags(config, remedies), _finer(config))


def _past_norms(stop: Stop, culprit: Player) -> list[float]:
  """The norm of all gradients of a player in each of the last steps in which it acted."""
  prefix = f'{culprit.name}/gradient_norm'
  found = []
  for values in stop.before:
    held = [value for name, (value, weight) in values.items() if name.startswith(prefix) and weight]
    if held:
      found.append(math.hypot(*held))
  return found


def _norms_shown(norms: Mapping[str, float]) -> str:
  shown = ' and '.join(f'{name} {norm:.3g}' for name, norm in norms.items())
  return f'the parameters have the norm{"s"[: len(norms) > 1]} {shown}'


def _finer(config: Mapping[str, Any]) -> str:
  """The advice where no rate and no clipping is left to try."""
  if value_at(config, 'train.precision') != 'float32':
    return 'try --config.train.precision=float32'
  return 'look at what the modules return of the batch in the folder of this diagnosis'


# --- samples --------------------------------------------------------------------------------------


def spread(samples: np.ndarray, real: np.ndarray) -> Spread | None:
  """Compares how far images lie apart with how far real ones do.

  Args:
    samples: float [N, H, W, C].
    real: float [M, H, W, C], on the same scale.

  Returns:
    None where there are too few of either, samples are not finite, or real ones do not differ.
  """
  number = min(len(samples), MOST_IMAGES)
  real = _rows(real[:number])
  flat = _rows(samples[:number])
  if min(len(flat), len(real)) < 8 or not np.isfinite(flat).all():
    return None
  deviation, nearest = _deviation(real), np.median(_nearest(real))
  # Rounding leaves something where all are the same: 1e-8 of a distance of order √D.
  if deviation < 1e-6 or nearest < 1e-6 * math.sqrt(real.shape[1]):
    return None
  duplicates = float((_nearest(flat) < DUPLICATE_DISTANCE * nearest).mean())
  return Spread(_deviation(flat) / deviation, duplicates, number)


def _rows(images: np.ndarray) -> np.ndarray:
  """Images as rows of numbers, float64 [N, D], D at most `MOST_NUMBERS`."""
  flat = images.reshape(len(images), -1)
  return flat[:, :: -(-flat.shape[1] // MOST_NUMBERS)].astype(np.float64)


def _deviation(rows: np.ndarray) -> float:
  return float(np.sqrt(rows.var(axis=0).mean()))


def _nearest(rows: np.ndarray) -> np.ndarray:
  """The distance of each row [N, D] to the nearest other one, [N]."""
  squares = (rows**2).sum(axis=1)
  distances = squares[:, None] + squares[None, :] - 2 * rows @ rows.T
  np.fill_diagonal(distances, np.inf)
  return np.sqrt(np.maximum(distances.min(axis=1), 0))


def is_collapsed(sampled: Sampled, classes: int) -> bool:
  """Returns whether samples are nearly all the same, or a few in many copies.

  Args:
    sampled: what is known of them.
    classes: of the data; 0 where it has none.
  """
  if sampled.step < EARLIEST_STEP:
    return False
  drawn = sampled.spread
  if drawn is not None and (drawn.ratio < LEAST_SPREAD or drawn.duplicates > MOST_DUPLICATES):
    return True
  copies, hit = (_evaluated(sampled.figures, beginning) for beginning in _TELLING)
  few = classes >= 4 and any(value <= LEAST_CLASSES * classes for value in hit.values())
  return few or any(value > MOST_DUPLICATES_EVALUATED for value in copies.values())


def _evaluated(figures: Mapping[str, float], beginning: str) -> dict[str, float]:
  """The figures of metrics of samples, `EVALUATOR/METRIC_…`, whose METRIC begins so."""
  return {
    name: value
    for name, value in figures.items()
    if name.partition('/')[2].startswith(beginning) and math.isfinite(value)
  }


def tells_of_copies(figures: Mapping[str, float]) -> bool:
  """Returns whether figures of evaluators tell a collapse from its absence."""
  return any(_evaluated(figures, beginning) for beginning in _TELLING)


def collapse(
  drawn: Sequence[Sampled],
  evaluated: Sequence[Sampled],
  classes: int,
  contest: Contest | None,
  remedies: Mapping[str, Any],
  config: Mapping[str, Any],
  lane: str = '',
) -> Finding | None:
  """Diagnoses samples that collapsed; None where the last ones are not, or not for long enough.

  Args:
    drawn: the pictures of one lane, oldest first.
    evaluated: evaluations whose figures tell of copies, likewise.
    classes: of the data; 0 where it has none.
    contest: of the objective; None for no contest.
    remedies: of the objective.
    config: of the run, as plain dicts.
    lane: its label; '' in a run of one.
  """
  if not any(_stays_collapsed(history, classes) for history in (drawn, evaluated)):
    return None
  step = max(history[-1].step for history in (drawn, evaluated) if history)
  shown = []
  if drawn and drawn[-1].spread is not None:
    last = drawn[-1].spread
    shown.append(
      f'the pixels of {last.number} samples deviate from their mean by {last.ratio:.2f} of what '
      f'those of real examples do, and {last.duplicates:.0%} of the samples have a duplicate'
    )
  for beginning in (*_TELLING, 'recall'):
    for each in evaluated[-1:]:
      shown += [f'{n} is {v:.3g}' for n, v in _evaluated(each.figures, beginning).items()]
  slower: dict[str, float] = {}
  if contest is None:
    cause = 'a model whose samples do not depend on the noise that they are made of'
    for name in config['optimizer']:
      slower |= _slower(config, name, 3.0)
  else:
    cause = (
      f'"{contest.generator}" makes one or a few images (mode collapse), because '
      f'"{contest.discriminator}" gives it no direction to others'
    )
    slower |= _slower(config, contest.discriminator, 3.0)
  given = flags(config, {**remedies, **slower})
  advice = _advice(given, 'try another architecture')
  seen = f'samples have collapsed: {", ".join(shown)}'
  return Finding('collapse', step, lane, seen, cause, advice)


def _stays_collapsed(history: Sequence[Sampled], classes: int) -> bool:
  last = history[-COLLAPSED_IN_A_ROW:]
  return len(last) == COLLAPSED_IN_A_ROW and all(is_collapsed(each, classes) for each in last)


# --- players --------------------------------------------------------------------------------------


def winner(
  history: Sequence[Logged],
  largest: float,
  contest: Contest | None,
  remedies: Mapping[str, Any],
  config: Mapping[str, Any],
  lane: str = '',
) -> Finding | None:
  """Diagnoses a contest that one player has won for good; None where none has.

  Args:
    history: the last lines of the log of one lane, oldest first.
    largest: gradient norm of the generator in all lines so far.
    contest: of the objective; None for no contest.
    remedies: of the objective.
    config: of the run, as plain dicts.
    lane: its label; '' in a run of one.
  """
  if contest is None or not history or history[-1].step < EARLIEST_STEP:
    return None
  for reason in (_has_won, _has_no_gradient):
    held = [reason(each, contest, largest) for each in history]
    first = next((i for i in range(len(held), 0, -1) if not held[i - 1]), 0)
    points = history[first:]
    if len(points) >= WON_POINTS and points[-1].step - points[0].step >= WON_STEPS:
      return _won(points, largest, contest, remedies, config, lane)
  return None


def _has_won(logged: Logged, contest: Contest, largest: float) -> bool:
  """Whether the discriminator's loss is next to none."""
  del largest
  loss = logged.figures.get(f'{contest.discriminator}/loss', math.nan)
  return contest.chance_loss > 0 and loss < WON_LOSS * contest.chance_loss


def _has_no_gradient(logged: Logged, contest: Contest, largest: float) -> bool:
  """Whether the generator's gradient has vanished."""
  norm = generator_norm(logged, contest)
  return norm is not None and norm <= VANISHED * largest


def generator_norm(logged: Logged, contest: Contest) -> float | None:
  """Returns the norm of the generator's gradient; None where it was not logged."""
  return logged.figures.get(f'{contest.generator}/gradient_norm')


def _won(
  points: Sequence[Logged],
  largest: float,
  contest: Contest,
  remedies: Mapping[str, Any],
  config: Mapping[str, Any],
  lane: str,
) -> Finding:
  figures = points[-1].figures
  judge, maker = contest.discriminator, contest.generator
  loss = figures.get(f'{judge}/loss', math.nan)
  logits = [figures.get(f'{judge}/{name}', math.nan) for name in contest.logits]
  norm = generator_norm(points[-1], contest)
  seen = (
    f'since step {points[0].step:,} "{judge}" has won over "{maker}": its loss is {loss:.3g}, and '
    f'{contest.chance_loss:.3g} at chance, its mean logits are {logits[0]:.3g} of real and '
    f'{logits[1]:.3g} of generated examples'
  )
  if norm is not None:
    seen += f', the gradient norm of "{maker}" is {norm:.3g} (largest so far {largest:.3g})'
  place = f'optimizer.{maker}.learning_rate'
  if value_at(config, place) == 0:
    rate = value_at(config, f'optimizer.{judge}.learning_rate')
    given = flags(config, {place: rate or 1e-4})
    cause = f'"{maker}" does not move, for its learning rate is 0'
    return Finding('winning player', points[-1].step, lane, seen, cause, _advice(given, ''))
  cause = (
    f'"{judge}" separates real from generated examples without error, so that "{maker}" hardly '
    'learns what to change'
  )
  given = flags(config, {**remedies, **_slower(config, judge, 3.0)})
  advice = _advice(given, f'try a smaller "{judge}"')
  return Finding('winning player', points[-1].step, lane, seen, cause, advice)
