"""Tokens per second of writing text against nanoGPT's in PyTorch, interleaved in one run.

  python -m benchmarks.decode --peer_python=/path/to/python-with-torch              # all cases
  python -m benchmarks.decode decode_small_1 decode_large_8 --rounds=3 --seconds=10

Ours keeps keys and values of earlier tokens in a cache (`benchmarks/decode_steps.py`); nanoGPT's
`generate` sends the whole text through the model for every token. Both write texts of `--length`
tokens, the first given, and draw from the whole distribution. Sides, rounds and figure as in
`benchmarks/compare.py`, whose flags these are too.
"""

import json
import os
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

from absl import app, flags

from benchmarks.cases import DECODING, Decoding
from benchmarks.compare import Side
from benchmarks.peers import protocol
from errors import UserError, nearest

flags.DEFINE_integer('length', 256, 'Tokens of a text, the first included.')


def measure(
  case: Decoding, length: int, peer_python: str, rounds: int, seconds: float, threads: int
) -> dict[str, float]:
  """Runs one case; returns the median tokens/s, the ratio and its spread over rounds."""
  ours = [sys.executable, '-m', 'benchmarks.decode_steps', *case.config]
  ours += [f'--num={case.rows}', f'--length={length}']
  peer = [peer_python, 'benchmarks/peers/torch_gpt.py', 'generate', *case.peer]
  peer += ['--batch-size', str(case.rows), '--length', str(length), '--context', str(length)]
  sides = {
    'ours': Side(ours, dict(os.environ)),
    'peer': Side(peer, protocol.environment(threads)),
  }
  counts = {}
  for name, side in sides.items():
    side.ask('warm', 1)
    counts[name] = max(1, round(side.ask('warm', 1) * seconds))
  speeds: dict[str, list[float]] = {name: [] for name in sides}
  for _ in range(rounds):
    for name, side in sides.items():
      speeds[name].append(side.ask('run', counts[name]) * case.rows * (length - 1))
  for side in sides.values():
    side.close()
  ratios = [a / b for a, b in zip(speeds['ours'], speeds['peer'])]
  return {
    **{name: statistics.median(figures) for name, figures in speeds.items()},
    'ratio': statistics.median(ratios),
    'lowest': min(ratios),
    'highest': max(ratios),
    'target': case.target,
  }


def main(argv: Sequence[str]) -> None:
  values = flags.FLAGS
  names = list(argv[1:]) or list(DECODING)
  for name in names:
    if name not in DECODING:
      raise UserError(
        f'no case "{name}"{nearest(name, DECODING)}; there are: {", ".join(DECODING)}'
      )
  results = {}
  print('case             ours, tokens/s   peer, tokens/s   ratio (lowest–highest)   target')
  for name in names:
    figures = measure(
      DECODING[name],
      values.length,
      values.peer_python,
      values.rounds,
      values.seconds,
      values.threads,
    )
    results[name] = figures
    print(
      f'{name:16} {figures["ours"]:14.5g}   {figures["peer"]:14.5g}   {figures["ratio"]:5.2f} '
      f'({figures["lowest"]:.2f}–{figures["highest"]:.2f}){"":12}{figures["target"]}',
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
