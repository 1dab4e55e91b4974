"""Counts the examples that a TFDS split string selects, with TFDS's own parser."""

from collections.abc import Mapping, Sequence

import errors


def count(split: str, shard_lengths: Mapping[str, Sequence[int]]) -> int:
  """Counts the examples that `split` selects.

  TFDS, which takes a quarter of a second to import, is imported only if `split` is more than the
  name of a split.

  Args:
    split: whatever TFDS reads, e.g. 'train', 'train[:90%]', 'train[-1shard:]', 'train+test', 'all'.
    shard_lengths: the number of examples in each record file, by split.

  Raises:
    ValueError: it selects none; the message is the reason.
  """
  if split in shard_lengths:
    total = sum(shard_lengths[split])
  else:
    parts = _parts(split, shard_lengths)
    if any(start > stop for start, stop in parts):
      # TFDS does not refuse these: it reads a wrong number of examples.
      raise ValueError('a slice ends before it starts')
    total = sum(stop - start for start, stop in parts)
  if not total:
    raise ValueError('it is empty')
  return total


def _why(split: str, shard_lengths: Mapping[str, Sequence[int]]) -> str:
  """Why TFDS refuses a split that it can read."""
  for part in split.split('+'):
    name = part.partition('[')[0].strip()
    if name not in shard_lengths:
      return f'there is no split "{name}"{errors.nearest(name, shard_lengths)}'
  return 'a bound lies beyond its end'


def _parts(split: str, shard_lengths: Mapping[str, Sequence[int]]) -> list[tuple[int, int]]:
  """Returns the (start, stop) of every part of a sum."""
  import tensorflow_datasets as tfds

  try:
    instruction = tfds.core.ReadInstruction.from_spec(split)
  except (ValueError, NotImplementedError) as error:
    raise ValueError('TFDS cannot read it') from error
  infos = {
    name: tfds.core.splits.SplitInfo(name=name, shard_lengths=list(lengths), num_bytes=0)
    for name, lengths in shard_lengths.items()
  }
  try:
    parts = instruction.to_absolute(infos)
  except ValueError as error:
    raise ValueError(_why(split, shard_lengths)) from error
  return [
    (part.from_ or 0, infos[part.splitname].num_examples if part.to is None else part.to)
    for part in parts
  ]
