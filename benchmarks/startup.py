"""Measures the time from the start of train.py to its first finished step, cold and warm.

  python -m benchmarks.startup --config=configs/gan.py

Cold: nothing is cached, so the data set is prepared and decoded, and every program is compiled.
Warm: the second start. A step has finished when its line is in metrics.jsonl.
"""

import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

from absl import app, flags

ROOT = Path(__file__).parents[1]


def first_step(config: str, cache: str, folder: Path | str = ROOT) -> float:
  """Runs the train.py of `folder` with the cache `cache`; returns the seconds to its first step."""
  with tempfile.TemporaryDirectory() as workdir:
    started = time.time()
    process = subprocess.Popen(
      [
        sys.executable,
        'train.py',
        f'--config={config}',
        f'--workdir={workdir}',
        '--config.train.log_every=1',
      ],
      cwd=folder,
      env={**os.environ, 'ATELIER_CACHE': cache},
      stdout=subprocess.DEVNULL,
    )
    try:
      log = Path(workdir) / 'metrics.jsonl'
      while not (log.exists() and '\n' in log.read_text()):
        if process.poll() is not None:
          raise RuntimeError('train.py ended before its first step')
        time.sleep(0.02)
      return json.loads(log.read_text().splitlines()[0])['wall_time'] - started
    finally:
      process.kill()
      process.wait()


def main(argv: Sequence[str]) -> None:
  del argv
  cold, warm = [], []
  for _ in range(flags.FLAGS.repeats):
    with tempfile.TemporaryDirectory() as cache:
      cold.append(first_step(flags.FLAGS.config, cache))
      warm.append(first_step(flags.FLAGS.config, cache))
  for name, seconds in (('cold', cold), ('warm', warm)):
    shown = ', '.join(f'{s:.2f}' for s in seconds)
    print(f'{name}: {statistics.median(seconds):.2f} s to the first step ({shown})')


if __name__ == '__main__':
  flags.DEFINE_string('config', 'configs/gan.py', 'The config to train.')
  flags.DEFINE_integer('repeats', 3, 'Number of cold and of warm starts; the median is printed.')
  app.run(main)
