"""The protocol of benchmarks: each program is a process that is kept alive and driven over stdin.

A harness starts each program (a peer with `environment()`), writes one command per line to its
stdin and reads one line of JSON for each, so that programs can be interleaved (A B C A B C …) on a
noisy machine:

    warm 20   →  {"steps": 20, "seconds": 0.41, "loss_d": 1.38, "loss_g": 0.69}
    run 100   →  {"steps": 100, "seconds": 2.02, …}
    quit      →  the process ends (so does end of file)

`warm` and `run` do the same work; the harness discards the times of `warm`. Any other line is
answered with {"error": …}. This file imports the standard library only, so that every peer and the
harness can import it, whatever their environments contain.
"""

import json
import os
import sys
import time
from collections.abc import Callable, Mapping
from typing import TextIO

# glibc maps each buffer above the threshold anew, so that its pages fault at every step; with a
# higher threshold the heap keeps them. It must be set in the environment before the process starts.
MALLOC = {
  'MALLOC_MMAP_THRESHOLD_': str(1 << 32),
  'MALLOC_TRIM_THRESHOLD_': str(1 << 32),
}


def environment(threads: int, base: Mapping[str, str] | None = None) -> dict[str, str]:
  """Returns `base`, by default `os.environ`, with the malloc settings and thread counts added."""
  counts = {name: str(threads) for name in ('OMP_NUM_THREADS', 'MKL_NUM_THREADS')}
  return {**(os.environ if base is None else base), **MALLOC, **counts}


def timed(steps: int, run: Callable[[int], Mapping[str, float]]) -> dict[str, float]:
  """Runs `steps` steps and returns their wall time together with the figures that `run` returns.

  `run` must not return before the work is done, which reading a loss ensures.
  """
  start = time.perf_counter()
  report = run(steps)
  return {'steps': steps, 'seconds': time.perf_counter() - start, **report}


def serve(
  run: Callable[[int], Mapping[str, float]], lines: TextIO | None = None, out: TextIO | None = None
) -> None:
  """Answers commands until `quit` or end of file.

  Args:
    run: takes a number of steps, runs them and returns the last losses as Python floats.
    lines: lines with commands; standard input by default.
    out: file that answers are written to; standard output by default.
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
