"""A checksum inside a JSON file, which notices a flipped bit that leaves the JSON valid."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

_KEY = 'sum'


def checksum(content: Any) -> str:
  """Returns a hash, hexadecimal, of what JSON can hold; the same however the JSON is laid out."""
  return hashlib.sha256(json.dumps(content, sort_keys=True).encode()).hexdigest()[:16]


def with_sum(content: Mapping[str, Any]) -> dict[str, Any]:
  """Returns a mapping, as JSON gives it back, with its checksum."""
  plain = json.loads(json.dumps({key: value for key, value in content.items() if key != _KEY}))
  return {**plain, _KEY: checksum(plain)}


def is_whole(content: Mapping[str, Any]) -> bool:
  """Returns whether a mapping has the checksum that it carries; True where it carries none."""
  rest = {key: value for key, value in content.items() if key != _KEY}
  return _KEY not in content or content[_KEY] == checksum(rest)
