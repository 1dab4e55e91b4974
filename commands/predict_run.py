"""Predicts pictures, tables or texts without labels with a trained run: a table, and a file."""

import contextlib
import functools
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

import files
from commands.prediction_files import check_out, write
from commands.prediction_table import Table
from data.unlabelled import pictures, tables, texts
from data.unlabelled.base import PIPE, InputRequest, Inputs, Preparation, Progress
from engine.averages import chosen_averages
from engine.build import to_plain
from engine.evaluators.batches import Function, PerExample, Split, round_up
from engine.memory import memory_errors
from engine.report import Counting
from engine.restore import DEFAULT, Placement, Restored, check_lane, restore_lanes, restore_run
from engine.session import Session
from errors import UserError
from objectives.base import Batch, Legend, Predictor, Row, Variables
from options import Option, complete

BATCH_SIZE = Option(int, 64, 'Most examples at once.', low=1)
# What opens the inputs of a run, by the feature that its model reads.
_OPEN: Mapping[str, Callable[[InputRequest, Preparation], Inputs]] = {
  'image': pictures.open_pictures,
  'inputs': tables.open_tables,
  'tokens': texts.open_texts,
}
# With a file, rows are shown on the terminal up to this number.
_SHOWN_BESIDE_A_FILE = 20
# From so many inputs on it is shown how many are done.
_COUNTED = 500


class Request(NamedTuple):
  """The inputs to predict, the run to predict with, and the options.

  Attributes:
    workdir: the run's folder.
    places: files, folders, '-' for standard input.
    texts: texts given in words.
    out: a .csv, .jsonl or .npz; None for the terminal alone.
    checkpoint: see `engine.restore.restore_run`; 'best' is each lane's own.
    lane: of a run of several; None for the means over all of them.
    average: of the parameters; see `engine.averages.chosen_averages`.
    batch_size: most examples at once.
    resize, lines, column: see `data.unlabelled.base.InputRequest`.
    options: of the predictor, those that are given.
    placement: where the parameters go.
  """

  workdir: str
  places: tuple[str, ...] = ()
  texts: tuple[str, ...] = ()
  out: str | None = None
  checkpoint: str = ''
  lane: int | None = None
  average: str = ''
  batch_size: int = BATCH_SIZE.default
  resize: str = ''
  lines: bool | None = None
  column: str = ''
  options: Mapping[str, Any] = {}
  placement: Placement = DEFAULT


class Predicted(NamedTuple):
  """The prediction of one example.

  Attributes:
    input: the number of the input that it belongs to.
    name: of that input.
    values: what the predictor concluded, by name.
    rows: words them, given whether all is wanted, as in a file, or what fits a line.
  """

  input: int
  name: str
  values: Mapping[str, np.ndarray]
  rows: Callable[[bool], Sequence[Row]]


def places(words: Sequence[str]) -> tuple[str, ...]:
  """Returns the places of --input: each word is one if it exists, else several between commas.

  Raises:
    UserError: a word is empty, which would be the folder that the command runs in.
  """
  if '' in words:
    raise UserError('--input= names no file and no folder; give one, or leave it out')
  found: list[str] = []
  for word in words:
    is_one = word == PIPE or files.path(word).exists()
    found += [word] if is_one else [place for place in word.split(',') if place]
  return tuple(found)


@memory_errors('a smaller --batch_size, or a device with more memory')
def predict_run(request: Request) -> None:
  """Predicts all inputs, prints a table and writes a file where one is requested.

  Everything is read and checked before anything is predicted.

  Raises:
    UserError: no run, no such checkpoint, lane or average, nothing that it predicts, an option that
      is unknown, out of range or without effect, an input that is refused (see `data.unlabelled`),
      or `out` cannot be written.
  """
  BATCH_SIZE.check(request.batch_size, '--batch_size')
  if not request.places and not request.texts:
    raise UserError('give --input, files or a folder; or of a run that reads text --text')
  if request.out is not None:
    check_out(request.out)
  first = restore_run(request.workdir, request.checkpoint, request.lane or 0, request.placement)
  session = first.session
  predictor = _predictor(session, request.workdir)
  options = complete(
    predictor.options, request.options, f'the predictor of {request.workdir}', '--'
  )
  chosen_averages(session.averages, request.average)
  lanes = _lanes(request, session)
  given = _OPEN[predictor.input](_asked(request), _reading(request, session, predictor))
  _introduce(request, first, lanes, given)
  function = _function(predictor, len(lanes), options)
  variables = _variables(request, first, lanes)
  predicted = _predicted(first, lanes[0], given, function, variables, request.batch_size)
  worded = _worded(predicted, session, given, functools.partial(predictor.rows, **options))
  number = len(given.examples)
  if request.out is None:
    table = Table(predictor.summary)
    # Lines on the screen show well enough how far it is.
    with _counting('predict', 0 if sys.stdout.isatty() else number) as progress:
      for done, each in enumerate(worded, 1):
        table.add(each.input, each.name, each.rows(False))
        progress(done)
    table.close()
    return
  table = Table(predictor.summary, most=_SHOWN_BESIDE_A_FILE, held=True)
  with _counting('predict', number) as progress:
    facts = {'class_names': np.array(_class_names(session)), 'step': np.int64(first.step)}
    write(request.out, _shown(worded, table, progress), facts)
  more = table.close()
  rest = f' ({more:,} more rows than are shown)' if more else ''
  inputs = len(given.names)
  print(f'written  {request.out}: {inputs:,} input{"s" if inputs > 1 else ""}{rest}')


def _predictor(session: Session, workdir: str) -> Predictor:
  """The predictor of a run; UserError where it has none."""
  objective = session.objective
  if objective.predictor is not None:
    return objective.predictor
  can = (
    'sample.py samples from it' if objective.sampler or objective.pictures else 'use evaluate.py'
  )
  raise UserError(
    f'{workdir} is a run of {session.config.objective.name}, which predicts nothing of an input; '
    f'{can}'
  )


def _asked(request: Request) -> InputRequest:
  if request.places.count(PIPE) > 1:
    raise UserError('--input=- is given twice, and standard input can be read once')
  return InputRequest(
    request.places,
    request.texts,
    request.resize,
    request.lines,
    request.column,
    lambda: sys.stdin.buffer.read(),
    _counting,
  )


def _reading(request: Request, session: Session, predictor: Predictor) -> Preparation:
  section = to_plain(session.config.data)
  return Preparation(
    request.workdir,
    session.data,
    section['image'],
    section['jsonl']['text'],
    session.spec,
    predictor.starts,
    predictor.marks,
  )


@contextlib.contextmanager
def _counting(what: str, total: int) -> Iterator[Progress]:
  """Shows on standard error how many are done, where there are many."""
  if total < _COUNTED:
    yield lambda done: None
    return
  with Counting(what, total, sys.stderr) as show:
    yield lambda done: show(done, {})


# --- lanes


def _lanes(request: Request, session: Session) -> tuple[int, ...]:
  if request.lane is None:
    return tuple(range(session.lanes.number))
  check_lane(session, request.lane, request.workdir)
  return (request.lane,)


def _variables(request: Request, first: Restored, lanes: Sequence[int]) -> Variables:
  """The variables of one lane; those of several with a leading axis."""
  each = [
    restored.variables(lane, request.average)
    for lane, restored in restore_lanes(
      first, lanes, request.workdir, request.checkpoint, request.placement
    )
  ]
  return each[0] if len(each) == 1 else jax.tree.map(lambda *leaves: jnp.stack(leaves), *each)


def _function(predictor: Predictor, lanes: int, options: Mapping[str, Any]) -> Function:
  """The function of a batch that gives each example's prediction, from the means over lanes.

  Of text it has the tokens too, as they were read.
  """

  def predict(variables: Variables, batch: Batch, keys: jax.Array) -> Mapping[str, jax.Array]:
    if lanes == 1:
      return predictor.predict(variables, batch, keys)
    # One lane after the other, since what they predict can be large.
    of_lane = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape[1:], leaf.dtype), variables)
    shapes = jax.eval_shape(predictor.predict, of_lane, batch, keys)
    zeros = {name: jnp.zeros(shape.shape, jnp.float32) for name, shape in shapes.items()}

    def add(total, one):
      more = predictor.predict(one, batch, keys)
      return {name: values + more[name] for name, values in total.items()}, None

    total, _ = jax.lax.scan(add, zeros, variables)
    return {name: values / lanes for name, values in total.items()}

  def function(variables: Variables, batch: Batch, keys: jax.Array) -> Mapping[str, jax.Array]:
    means = {n: v.astype(jnp.float32) for n, v in predict(variables, batch, keys).items()}
    concluded = predictor.conclude(means, batch, **options)
    read = {name: batch[name] for name in ('tokens', 'length') if name in batch}
    return {**read, **concluded}

  return function


# --- predictions


def _predicted(
  restored: Restored,
  lane: int,
  given: Inputs,
  function: Function,
  variables: Variables,
  batch_size: int,
) -> Iterator[dict[str, np.ndarray]]:
  """Yields what is predicted of each example, in their order."""
  session, number = restored.session, len(given.examples)
  split = Split(lambda: given.examples, resident_mb=0)
  size = round_up(min(batch_size, number), session.mesh)
  for batch in PerExample(function, session).over(variables, restored.key(lane), split, size):
    for row in range(len(next(iter(batch.values.values())))):
      yield {name: values[row] for name, values in batch.values.items()}


def _worded(
  predicted: Iterator[dict[str, np.ndarray]],
  session: Session,
  given: Inputs,
  rows: Callable[..., Sequence[Row]],
) -> Iterator[Predicted]:
  names = _class_names(session)
  for number, values in enumerate(predicted):

    def words(whole: bool, number: int = number, values=values) -> Sequence[Row]:
      return rows(values, Legend(names, whole, *given.words(number), given.decode))

    input = given.input_of(number)
    yield Predicted(input, given.names[input], values, words)


def _class_names(session: Session) -> Sequence[str]:
  spec = session.spec
  return spec.class_names or [str(number) for number in range(spec.num_classes)]


def _shown(predicted: Iterator[Predicted], table: Table, progress: Progress) -> Iterator[Predicted]:
  """The same, each added to the table as it passes."""
  for done, each in enumerate(predicted, 1):
    table.add(each.input, each.name, each.rows(False))
    progress(done)
    yield each


def _introduce(request: Request, restored: Restored, lanes: Sequence[int], given: Inputs) -> None:
  """Says on standard error, beside the table, of which run it is, and what was left out."""
  labels = [restored.session.lanes.labels[lane] for lane in lanes]
  of = '' if restored.session.lanes.number == 1 else f', lane {labels[0]}'
  if len(lanes) > 1:
    of = f', means over the {len(lanes)} lanes {", ".join(labels)}'
  print(f'run      {request.workdir}, step {restored.step}{of}', file=sys.stderr)
  for remark in given.remarks:
    print(f'note     {remark}', file=sys.stderr)
  sys.stderr.flush()
