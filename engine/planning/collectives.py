"""The communication of a compiled program, read from its text (HLO)."""

import math
import re
from collections.abc import Iterable, Iterator, Mapping
from typing import NamedTuple

import numpy as np


class Collective(NamedTuple):
  """One exchange between devices.

  Attributes:
    kind: 'all-reduce', 'all-gather', 'reduce-scatter', 'all-to-all' or 'collective-permute'.
    size: bytes of the whole array, which every device of a group gets, gives or shares in.
    group: the devices of one group by their number in the mesh; the other groups look the same.
    times: how often it happens in a step.
  """

  kind: str
  size: int
  group: tuple[int, ...]
  times: int = 1

  @property
  def sent(self) -> float:
    """Bytes that a device sends in all of them, by an algorithm that sends the fewest."""
    return self.times * _sent(self.kind, self.size, len(self.group))

  def sent_within_and_beyond(self, domain: int) -> tuple[float, float]:
    """Bytes that a device sends to its own domain of devices, and to others.

    A domain first adds up or shares out what it has, so that each device exchanges its part alone
    with other domains.
    """
    domains = len({device // domain for device in self.group})
    inside = max(1, len(self.group) // domains)
    if self.kind == 'collective-permute':
      whole = self.times * self.size
      return (0.0, whole) if domains > 1 else (whole, 0.0)
    shared = 1 if self.kind == 'all-to-all' else inside
    beyond = _sent(self.kind, self.size / shared, domains)
    return self.times * _sent(self.kind, self.size, inside), self.times * beyond


def _sent(kind: str, size: float, devices: int) -> float:
  if kind == 'collective-permute':
    return size
  rounds = 2 if kind == 'all-reduce' else 1
  return rounds * size * (devices - 1) / devices


def axes_of(collective: Collective, mesh: Mapping[str, int]) -> str:
  """The axes of a mesh that the devices of a group differ along, e.g. 'data × fsdp'."""
  places = np.stack(np.unravel_index(collective.group, tuple(mesh.values())))
  return ' × '.join(
    axis for axis, along in zip(mesh, places) if (along != along[0]).any()
  )  # fmt: skip


def bytes_by_axes(collectives: Iterable[Collective], mesh: Mapping[str, int]) -> dict[str, float]:
  """Bytes that a device sends in a step, by the axes that it sends them along."""
  found: dict[str, float] = {}
  for each in collectives:
    axes = axes_of(each, mesh)
    found[axes] = found.get(axes, 0.0) + each.sent
  return found


def read_collectives(text: str, devices: int) -> list[Collective]:
  """Returns the communication of one call of a compiled program.

  What is within a loop of a known length counts as often as it runs; a loop of another length, such
  as that over the steps of a dispatch, counts once. Of the branches of a condition the one that
  sends most counts.

  Args:
    text: of the compiled program, `jax.stages.Compiled.as_text()`.
    devices: how many it runs on.
  """
  return _Reader(text, devices).read()


class _Call(NamedTuple):
  """An instruction that calls other computations: any of some groups of them, so many times."""

  choices: tuple[tuple[str, ...], ...]
  times: int
  fused: bool


_OPERATIONS = ('all-reduce', 'all-gather', 'reduce-scatter', 'all-to-all', 'collective-permute')
_COLLECTIVE = re.compile(
  rf'= (?P<type>.*?) (?P<kind>{"|".join(_OPERATIONS)})(?P<start>-start)?\((?P<rest>.*)'
)
_HEADER = re.compile(r'^(ENTRY )?%?([\w.\-]+) \(.*\{\s*$')
_BITS = dict(pred=8, bf16=16, f16=16, f32=32, f64=64, c64=64, c128=128)
_ARRAY = re.compile(r'\b([a-z]+\d*[a-z\d]*)\[([\d,]*)\]')


class _Reader:
  """The computations of one program, by name."""

  def __init__(self, text: str, devices: int):
    self._devices = devices
    self._entry = ''
    self._lines: dict[str, list[str]] = {}
    self._known: dict[str, list[tuple[str, Collective]]] = {}
    name = ''
    for line in text.splitlines():
      header = _HEADER.match(line)
      if header:
        name = header[2]
        self._lines[name] = []
        self._entry = name if header[1] else self._entry
      elif name and line.startswith('}'):
        name = ''
      elif name:
        self._lines[name].append(line)

  def read(self) -> list[Collective]:
    return [collective for _, collective in self._inside(self._entry)]

  def _inside(self, name: str) -> list[tuple[str, Collective]]:
    """The collectives of a computation and of those that it calls, each with its identity."""
    if name not in self._known:
      self._known[name] = []
      self._known[name] = [*self._find(name)]
    return self._known[name]

  def _find(self, name: str) -> Iterator[tuple[str, Collective]]:
    # One that runs beside computations is written into each of them, under one channel.
    begun: set[str] = set()
    for line in self._lines.get(name, ()):
      found = _COLLECTIVE.search(line)
      if found:
        yield self._collective(found, name, line)
        continue
      call = self._call(line)
      if call is None:
        continue
      choices = [[each for name in group for each in self._inside(name)] for group in call.choices]
      for identity, each in max(choices, key=lambda inner: sum(c.sent for _, c in inner)):
        if call.fused and identity in begun:
          continue
        if call.fused:
          begun.add(identity)
        yield identity, each._replace(times=each.times * call.times)

  def _collective(self, found: re.Match[str], name: str, line: str) -> tuple[str, Collective]:
    kind, rest = found['kind'], found['rest']
    size, group = _bytes(found['type']), self._group(rest)
    if kind == 'all-reduce' and name.startswith('all-reduce-scatter'):
      # A TPU adds up and keeps a part in one: the sum is not sent on.
      kind = 'reduce-scatter'
    elif kind == 'reduce-scatter':
      size *= len(group)
    if found['start'] and kind != 'all-reduce':
      # Its type holds what goes in and what comes out.
      size = size * len(group) // (len(group) + 1) if 'permute' not in kind else size // 2
    channel = re.search(r'channel_id=(\d+)', line)
    identity = f'{kind} {channel[1]} {size}' if channel else line.strip()
    return identity, Collective(kind, size, group)

  def _call(self, line: str) -> _Call | None:
    loop = re.search(r'\bwhile\(.*condition=%?([\w.\-]+), body=%?([\w.\-]+)', line)
    if loop:
      return _Call(((loop[1], loop[2]),), self._trips(line, loop[1]), fused=False)
    branches = re.search(r'branch_computations=\{([^}]*)\}', line)
    if branches:
      return _Call(tuple((name,) for name in _names(branches[1])), 1, fused=False)
    either = re.findall(r'(?:true|false)_computation=%?([\w.\-]+)', line)
    if either:
      return _Call(tuple((name,) for name in either), 1, fused=False)
    called = re.search(r'\b(?:calls|called_computations)=(\{[^}]*\}|%?[\w.\-]+)', line)
    if called:
      return _Call((_names(called[1]),), 1, fused=True)
    plain = re.search(r'\bcall\(.*to_apply=%?([\w.\-]+)', line)
    return _Call(((plain[1],),), 1, fused=False) if plain else None

  def _trips(self, line: str, condition: str) -> int:
    """How often a loop runs: as the compiler says, or by the constant that its counter is below."""
    said = re.search(r'"known_trip_count":\{"n":"(\d+)"', line)
    if said:
      return int(said[1])
    lines = self._lines.get(condition, ())
    root = next((each for each in lines if each.lstrip().startswith('ROOT ')), '')
    compared = re.search(r'compare\([^)]*?%([\w.\-]+)\), direction=LT', root)
    if not compared:
      return 1
    for each in lines:
      constant = re.search(rf'%{re.escape(compared[1])} = s32\[\]\S* constant\((\d+)\)', each)
      if constant:
        return int(constant[1])
    return 1

  def _group(self, rest: str) -> tuple[int, ...]:
    """The first group of devices that is named after an instruction; all where none is."""
    pair = re.search(r'source_target_pairs=\{\{(\d+),(\d+)\}', rest)
    if pair:
      return int(pair[1]), int(pair[2])
    listed = re.search(r'replica_groups=\{\{([\d,]+)\}', rest)
    if listed:
      return tuple(map(int, listed[1].split(',')))
    counted = re.search(r'replica_groups=(\[[\d,]+\]<=\[[\d,]+\](?:T\([\d,]+\))?)', rest)
    if counted:
      return tuple(map(int, _counted(counted[1])[0]))
    named = re.search(
      r'replica_groups=mesh\[(?P<sizes>[^\]]*)\](?:, device_ids=\((?P<ids>[^)]*(?:\)[^){]*)?)\))? '
      r'\{(?P<axes>[^}]*)\}',
      rest,
    )
    if named:
      return _along(named['sizes'], named['ids'] or '', named['axes'])
    return tuple(range(self._devices))


def _along(sizes: str, ids: str, axes: str) -> tuple[int, ...]:
  """The first group of devices along some axes of a mesh that the compiler names itself."""
  mesh = {name: int(size) for name, size in re.findall(r"'([^']+)'=(\d+)", sizes)}
  devices = _counted(ids) if ids else np.arange(math.prod(mesh.values()))
  devices = devices.reshape(tuple(mesh.values()))
  index: list[slice | int] = [0] * len(mesh)
  for name, before, size in re.findall(r"'([^']+)'(?::\((\d+)\)(\d+))?", axes):
    # A part of an axis, 'a':(before)size, is one of several that it is cut into.
    apart = mesh[name] // (int(before) * int(size)) if size else 1
    last = apart * int(size) if size else mesh[name]
    index[[*mesh].index(name)] = slice(0, last, apart)
  return tuple(map(int, np.ravel(devices[tuple(index)])))


def _counted(text: str) -> np.ndarray:
  """Numbers from 0 in a form such as '[4,2]<=[2,4]T(1,0)', or '[2,4]T(1,0)' for one row."""
  shape, arrow, rest = text.partition('<=')
  form = re.match(r'\[([\d,]+)\](?:T\(([\d,]+)\)?)?', rest if arrow else shape)
  if form is None:  # They are listed.
    return np.array([int(each) for each in re.findall(r'\d+', text)])
  numbers = np.arange(math.prod(_sizes(form[1]))).reshape(_sizes(form[1]))
  if form[2]:
    numbers = numbers.transpose(_sizes(form[2]))
  return numbers.reshape(_sizes(shape.strip('[]'))) if arrow else numbers


def _sizes(text: str) -> tuple[int, ...]:
  return tuple(int(each) for each in text.split(',') if each)


def _names(text: str) -> tuple[str, ...]:
  return tuple(re.findall(r'[\w.\-]+', text))


def _bytes(kind: str) -> int:
  """Bytes of an HLO type; of a tuple the sum over its arrays."""
  total = 0
  for name, sizes in _ARRAY.findall(kind):
    bits = _BITS.get(name) or int((re.findall(r'\d+', name) or ['8'])[0])
    elements = math.prod(_sizes(sizes))
    total += elements * bits // 8 if bits >= 8 else math.ceil(elements * bits / 8)
  return total
