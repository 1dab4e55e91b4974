"""How a benchmark harness talks to a peer: one process per variant, kept alive, driven by stdin.

A harness starts each peer with `environment()`, then writes one command a line and reads one line
of JSON for each, so that variants can be interleaved (A B C A B C …) on a noisy machine:

    warm 20   →  {"steps": 20, "seconds": 0.41, "loss_d": 1.38, "loss_g": 0.69}
    run 100   →  {"steps": 100, "seconds": 2.02, …}
    quit      →  the process ends (so does end of file)

`warm` and `run` do the same work; the two words only mark which figures to throw away. A line that
is neither is answered with {"error": …}. Standard library only: every peer and the harness can
import this file, whatever else their environments hold.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import TextIO

# glibc maps every buffer above the threshold afresh and faults its pages in again at each step;
# raised, the heap keeps them. It has to stand in the environment before the process starts.
MALLOC = {
  'MALLOC_MMAP_THRESHOLD_': str(1 << 32),
  'MALLOC_TRIM_THRESHOLD_': str(1 << 32),
}


def environment(threads: int, base: Mapping[str, str] | None = None) -> dict[str, str]:
  """Returns `base` (default: `os.environ`) with the malloc setting and the thread counts added."""
  counts = {name: str(threads) for name in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS')}
  return {**(os.environ if base is None else base), **MALLOC, **counts}


def timed(steps: int, run: Callable[[int], Mapping[str, float]]) -> dict[str, float]:
  """Runs `steps` steps and returns their wall time beside what `run` reports.

  `run` must return only when the work is done, as the reading of a loss makes sure of.
  """
  start = time.perf_counter()
  report = run(steps)
  return {'steps': steps, 'seconds': time.perf_counter() - start, **report}


def serve(
  run: Callable[[int], Mapping[str, float]], lines: TextIO | None = None, out: TextIO | None = None
) -> None:
  """Answers commands until `quit` or end of file.

  Args:
    run: takes a number of steps, performs them, returns the last losses as Python floats.
    lines: where commands come from; standard input by default.
    out: where answers go; standard output by default.
  """
  out = out or sys.stdout
  for line in lines or sys.stdin:
    match line.split():
      case ['quit']:
        return
      case ['warm' | 'run', count] if count.isdigit() and int(count) > 0:
        answer = timed(int(count), run)
      case []:
        continue
      case _:
        answer = {'error': f'expected "warm N", "run N" or "quit", got {line.strip()!r}'}
    print(json.dumps(answer), file=out, flush=True)
