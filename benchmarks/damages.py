"""Ways in which a disk, a killed process or a hand damages files: each takes a path and draws."""

import json
import os
import random
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

# Changes a file or a folder in place and returns in words what was done.
Damage = Callable[[random.Random, Path], str]

# More than Python's parser of JSON can follow.
_DEEP = 200_000


def truncate(rng: random.Random, path: Path) -> str:
  size = path.stat().st_size
  kept = rng.randrange(max(size, 1))
  os.truncate(path, kept)
  return f'truncated to {kept} of {size} bytes'


def flip_bit(rng: random.Random, path: Path) -> str:
  return _flipped(rng, path, 1)


def flip_run(rng: random.Random, path: Path) -> str:
  return _flipped(rng, path, rng.randrange(2, 64))


def _flipped(rng: random.Random, path: Path, number: int) -> str:
  content = bytearray(path.read_bytes())
  if not content:
    return empty(rng, path)
  first = rng.randrange(8 * len(content))
  last = min(first + number, 8 * len(content))
  for bit in range(first, last):
    content[bit // 8] ^= 1 << bit % 8
  path.write_bytes(content)
  return f'{last - first} bits flipped from byte {first // 8} of {len(content)}'


def delete(rng: random.Random, path: Path) -> str:
  del rng
  _remove(path)
  return 'deleted'


def to_folder(rng: random.Random, path: Path) -> str:
  _remove(path)
  path.mkdir()
  if rng.random() < 0.5:
    (path / 'some').write_text('file')
  return 'replaced by a folder'


def empty(rng: random.Random, path: Path) -> str:
  del rng
  _remove(path)
  path.write_bytes(b'')
  return 'replaced by an empty file'


def noise(rng: random.Random, path: Path) -> str:
  _remove(path)
  path.write_bytes(rng.randbytes(rng.choice((1, 100, 5000))))
  return 'replaced by noise'


def append_noise(rng: random.Random, path: Path) -> str:
  with open(path, 'ab') as file:
    file.write(rng.randbytes(rng.choice((1, 100))))
  return 'noise appended'


def dangling_link(rng: random.Random, path: Path) -> str:
  del rng
  _remove(path)
  path.symlink_to('/nowhere/at/all')
  return 'replaced by a symbolic link to nowhere'


def link_to_itself(rng: random.Random, path: Path) -> str:
  del rng
  _remove(path)
  path.symlink_to(path.name)
  return 'replaced by a symbolic link to itself'


def in_the_future(rng: random.Random, path: Path) -> str:
  when = time.time() + rng.choice((3600, 86400, 20 * 365 * 86400))
  os.utime(path, (when, when))
  return 'given a time in the future'


def forbid(rng: random.Random, path: Path) -> str:
  """Takes all permissions; without effect for a superuser, so for others only."""
  del rng
  path.chmod(0)
  return 'its permissions removed'


def other_json(rng: random.Random, path: Path) -> str:
  """Replaces a JSON file by JSON of another form."""
  deep = f'{"[" * _DEEP}{"]" * _DEEP}'
  text = rng.choice(('[]', '{}', '3', 'null', '"text"', '[{}]', 'NaN', f'{{"a": {deep}}}', deep))
  path.write_text(text)
  return f'replaced by the JSON {text[:20]}'


def other_value(rng: random.Random, path: Path) -> str:
  """Replaces one value somewhere in a JSON file by one of another type, or removes its key."""
  try:
    whole = json.loads(path.read_text())
  except (OSError, ValueError):
    return noise(rng, path)
  places = _places(whole)
  if not places:
    return other_json(rng, path)
  parent, key = rng.choice(places)
  old = parent[key]
  if rng.random() < 0.2:
    del parent[key]
    done = f'{key} removed'
  else:
    wrong = [new for new in (None, 7, -1, 1e40, 'text', [], {}, True, [1, 'a']) if new != old]
    parent[key] = rng.choice(wrong)
    done = f'{key} set to {parent[key]!r}'
  path.write_text(json.dumps(whole, indent=2))
  return done


def other_number(rng: random.Random, path: Path) -> str:
  """Changes one number of a JSON file, which stays a number of its kind."""
  try:
    whole = json.loads(path.read_text())
  except (OSError, ValueError):
    return noise(rng, path)
  numbers = [
    (parent, key) for parent, key in _places(whole) if isinstance(parent[key], (int, float))
  ]
  if not numbers:
    return other_json(rng, path)
  parent, key = rng.choice(numbers)
  old = parent[key]
  parent[key] = (not old) if isinstance(old, bool) else old * 2 + 1
  path.write_text(json.dumps(whole, indent=2))
  return f'{key} changed from {old} to {parent[key]}'


def _places(value: Any) -> list[tuple[Any, Any]]:
  """(container, key) of every value in parsed JSON."""
  keys: list[Any] = []
  if isinstance(value, dict):
    keys = sorted(value)
  elif isinstance(value, list):
    keys = [*range(len(value))]
  return [(value, key) for key in keys] + [place for key in keys for place in _places(value[key])]


def _remove(path: Path) -> None:
  if path.is_dir() and not path.is_symlink():
    shutil.rmtree(path)
  else:
    path.unlink(missing_ok=True)


OF_FILES: Mapping[str, Damage] = {
  'truncate': truncate,
  'flip_bit': flip_bit,
  'flip_run': flip_run,
  'delete': delete,
  'to_folder': to_folder,
  'empty': empty,
  'noise': noise,
  'append_noise': append_noise,
  'dangling_link': dangling_link,
  'link_to_itself': link_to_itself,
  'in_the_future': in_the_future,
}
OF_FOLDERS: Mapping[str, Damage] = {
  'delete': delete,
  'empty': empty,
  'noise': noise,
  'to_folder': to_folder,
  'dangling_link': dangling_link,
  'link_to_itself': link_to_itself,
  'in_the_future': in_the_future,
}
OF_JSON: Mapping[str, Damage] = {
  'other_json': other_json,
  'other_value': other_value,
  'other_number': other_number,
}
if os.geteuid():
  OF_FILES = {**OF_FILES, 'forbid': forbid}
  OF_FOLDERS = {**OF_FOLDERS, 'forbid': forbid}


def damage(rng: random.Random, path: Path) -> str:
  """Damages a file, a folder or a link in a way that is drawn; returns what was done."""
  known: Mapping[str, Damage]
  if not path.exists():
    # A link to nowhere, left by a damage before.
    known = {name: OF_FILES[name] for name in ('delete', 'empty', 'noise', 'to_folder')}
  elif path.is_dir():
    known = OF_FOLDERS
  elif path.suffix == '.json' or path.name in ('metadata', '_METADATA', '_CHECKPOINT_METADATA'):
    # Half of them by the form that is broken, half by what it says.
    known = OF_JSON if rng.random() < 0.5 else OF_FILES
  else:
    known = OF_FILES
  return known[rng.choice(sorted(known))](rng, path)
