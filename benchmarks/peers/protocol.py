"""The protocol of benchmarks: each program is a process that is kept alive and driven over stdin.

A harness starts each program (a peer with `environment()`), writes one command per line to its
stdin and reads one line of JSON for each, so that programs can be interleaved (A B C A B C …) on a
noisy machine:

    warm 20   →  {"steps": 20, "seconds": 0.41, "loss_d": 1.38, "loss_g": 0.69}
    run 100   →  {"steps": 100, "seconds": 2.02, …}
    describe  →  {"device": "NVIDIA H200", "version": "torch 2.11.0", …}
    quit      →  the process ends (so does end of file)

`warm` and `run` do the same work; the harness discards the times of `warm`. Steps that fail, and
any other line, are answered with {"error": …}. This file imports the standard library only, so that
every peer and the harness can import it, whatever their environments contain.
"""

import json
import os
import sys
import time
import traceback
from collections.abc import Callable, Mapping
from typing import Any, TextIO

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
  run: Callable[[int], Mapping[str, float]],
  lines: TextIO | None = None,
  out: TextIO | None = None,
  describe: Callable[[], Mapping[str, Any]] = dict,
) -> None:
  """Answers commands until `quit` or end of file.

  Args:
    run: takes a number of steps, runs them and returns the last losses as Python floats.
    describe: returns what `describe` is answered with; called after a first `warm` or `run`.
    lines: lines with commands; standard input by default.
    out: file that answers are written to; standard output by default.
  """
  out = out or sys.stdout
  for line in lines or sys.stdin:
    match line.split():
      case ['quit']:
        return
      case ['warm' | 'run', count] if count.isdigit() and int(count) > 0:
        answer = _answered(lambda: timed(int(count), run))
      case ['describe']:
        answer = _answered(describe)
      case []:
        continue
      case _:
        answer = {
          'error': f'expected "warm N", "run N", "describe" or "quit", got {line.strip()!r}'
        }
    print(json.dumps(answer), file=out, flush=True)


def _answered(work: Callable[[], Mapping[str, Any]]) -> Mapping[str, Any]:
  """Returns the result of `work`, or its error as an answer, with the traceback on stderr."""
  try:
    return work()
  except Exception as error:
    traceback.print_exc()
    return {'error': f'{type(error).__name__}: {(str(error).strip().splitlines() or [""])[0]}'}
