"""The common TFDS split strings, read without importing TFDS."""

import re
from collections.abc import Mapping

_PATTERN = re.compile(r'([\w-]+)(?:\[(?:(-?\d+)(%?))?:(?:(-?\d+)(%?))?\])?')


def count(split: str, lengths: Mapping[str, int]) -> int | None:
  """Returns how many examples `split` selects, or None where only TFDS can tell.

  Read here: 'train' and slices by numbers or whole percents, 'train[100:]', 'train[:-10%]'. None
  for sums, shards, mixed units, bounds out of range and names that are not in `lengths`.
  """
  match = _PATTERN.fullmatch(split)
  if not match or match[1] not in lengths:
    return None
  total = lengths[match[1]]
  start = _bound(match[2], match[3], total, 0)
  stop = _bound(match[4], match[5], total, total)
  mixed = match[2] and match[4] and match[3] != match[5]
  if mixed or start is None or stop is None:
    return None
  return max(0, stop - start)


def _bound(digits: str | None, percent: str | None, total: int, default: int) -> int | None:
  if digits is None:
    return default
  # TFDS rounds percents to the closest example, halves to even.
  bound = round(int(digits) * total / 100.0) if percent else int(digits)
  if abs(bound) > total:
    return None
  return bound + total if bound < 0 else bound
