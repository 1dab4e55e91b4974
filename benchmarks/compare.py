"""Compares our speed, of training or of text generation, with that of a peer in PyTorch.

  python -m benchmarks.compare dense_gan_128 dcgan_128 --peer_python=/path/to/python-with-torch

Each side is a process that is kept alive. The two are interleaved: each round runs ours, then the
peer, so that a machine whose speed drifts affects both. The figure is the median over rounds of the
ratio of steps per second within a round. PyTorch is not a requirement of this project; install it
in an environment of its own, e.g. `pip install torch==2.13.0` for a CPU.
"""

import json
import os
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import app, flags

from benchmarks.cases import CASES, Case
from benchmarks.peers import protocol
from benchmarks.side import Side
from errors import UserError, nearest

flags.DEFINE_string('peer_python', sys.executable, "The Python that has the peer's framework.")
flags.DEFINE_integer('rounds', 6, 'Number of rounds.')
flags.DEFINE_float('seconds', 6.0, 'Approximate time that each side runs in a round.')
flags.DEFINE_integer('threads', 2, 'Threads of the peer.')
flags.DEFINE_string('json', None, 'A file to write the figures to, in addition to the terminal.')


def compare(case: Case, peer_python: str, rounds: int, seconds: float, threads: int) -> dict:
  """Runs one case; returns the median speeds, the median ratio and its range over rounds."""
  environment = protocol.environment(threads)
  file, *arguments = case.peer
  ours = Side([sys.executable, '-m', f'benchmarks.{case.program}', *case.config], dict(os.environ))
  peer = Side([peer_python, f'benchmarks/peers/{file}', *arguments], environment)
  sides = {'ours': ours, 'peer': peer}
  lengths = {}
  for name, side in sides.items():
    side.speed('warm', case.steps)
    lengths[name] = max(case.steps, round(side.speed('warm', 3 * case.steps) * seconds))
  speeds: dict[str, list[float]] = {name: [] for name in sides}
  for _ in range(rounds):
    for name, side in sides.items():
      speeds[name].append(side.speed('run', lengths[name]))
  for side in sides.values():
    side.close()
  ratios = [a / b for a, b in zip(speeds['ours'], speeds['peer'])]
  return {
    'ours': statistics.median(speeds['ours']),
    'peer': statistics.median(speeds['peer']),
    'ratio': statistics.median(ratios),
    'lowest': min(ratios),
    'highest': max(ratios),
    'target': case.target,
  }


def main(argv: Sequence[str]) -> None:
  values = flags.FLAGS
  names = list(argv[1:]) or list(CASES)
  for name in names:
    if name not in CASES:
      raise UserError(f'no case "{name}"{nearest(name, CASES)}; there are: {", ".join(CASES)}')
  results = {}
  print('case                  ours/s    peer/s   ratio (lowest–highest)   target')
  for name in names:
    figures = compare(
      CASES[name], values.peer_python, values.rounds, values.seconds, values.threads
    )
    results[name] = figures
    print(
      f'{name:20} {figures["ours"]:8.4g}  {figures["peer"]:8.4g}   {figures["ratio"]:5.2f} '
      f'({figures["lowest"]:.2f}–{figures["highest"]:.2f})'
      f'{"":12}{figures["target"]}',
      flush=True,
    )
  if values.json:
    Path(values.json).write_text(json.dumps(results, indent=2) + '\n')


def _run(argv: Sequence[str]) -> None:
  try:
    main(argv)
  except UserError as error:
    print(f'error: {error}', file=sys.stderr)
    sys.exit(2)


if __name__ == '__main__':
  app.run(_run)
