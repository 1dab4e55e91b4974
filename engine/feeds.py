"""The feed of a session: which batches its lanes train on."""

from data import feed, placement
from data.examples import Examples
from data.feed import Feed
from data.resident import Resident
from data.section import ALL_FOLDS, SKIP, open_training, open_whole
from engine.memory import check_memory, resident_need
from engine.session import Session
from errors import UserError


def open_feed(session: Session, step: int) -> Feed:
  """Opens the batches of a session from `step` on.

  Raises:
    UserError: several lanes, and the split is too large to live on the devices; or these have too
      little memory for it.
  """
  data = session.data
  every_fold = data.fold == ALL_FOLDS
  source = _source(session)
  resident = source.nbytes <= data.resident_mb * 2**20
  if resident:
    check_memory(resident_need(source.nbytes), 'the split that lives on the devices')
  if every_fold:
    # The order is that of one fold's training examples; each lane skips its own fold.
    return Resident(
      source.load(),
      session.spec,
      session.per_step,
      session.train.seed,
      session.mesh,
      block=data.order_block,
    )
  if not resident:
    source = open_training(data, session.spec.tokenizer, decoded=True)
  return feed.open_feed(
    source=source,
    batch_size=session.per_step,
    seed=session.train.seed,
    resident_mb=data.resident_mb,
    workers=data.workers,
    mesh=session.mesh,
    used=step * session.per_step,
    block=data.order_block,
    restart=data.corrupt == SKIP,
  )


def describe_feed(session: Session) -> Feed:
  """Returns the feed of a session whose devices need not be here: `take` returns shapes.

  Raises:
    UserError: several lanes, and the split is too large to live on the devices.
  """
  source = _source(session)
  if session.data.fold == ALL_FOLDS:
    return Resident(
      source.load(),
      session.spec,
      session.per_step,
      0,
      session.mesh,
      block=session.data.order_block,
      place=placement.describe,
    )
  return feed.describe_feed(
    source=source,
    batch_size=session.per_step,
    resident_mb=session.data.resident_mb,
    mesh=session.mesh,
    block=session.data.order_block,
  )


def _source(session: Session) -> Examples:
  """The examples that a session trains on."""
  data = session.data
  every_fold = data.fold == ALL_FOLDS
  source = open_whole(data) if every_fold else open_training(data, session.spec.tokenizer)
  if session.lanes.number > 1 and source.nbytes > data.resident_mb * 2**20:
    raise UserError(
      f'{session.lanes.number} lanes share a split that lives on the devices, and '
      f'{source.spec.name} is larger than config.data.resident_mb={data.resident_mb}; '
      'raise it, or train the seeds or folds one after another'
    )
  return source
