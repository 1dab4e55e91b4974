"""A script: train.py, which also writes the indices of the examples of every step.

python -m tests.train_recorded --record=FILE --config=… --workdir=…
"""

import json
import sys
from typing import Any

from absl import flags

import train
from commands import cli, config_flags

flags.DEFINE_string('record', None, 'The file that a line is appended to for every step.')


class Recorded:
  """A feed that writes, on the first process, what it gives."""

  def __init__(self, feed: Any, session: Any):
    import jax

    self._feed = feed
    self._indices = jax.jit(
      lambda data, i: feed.batch(data, i)['index'], out_shardings=session.replicated
    )

  def __getattr__(self, name: str) -> Any:
    return getattr(self._feed, name)

  def take(self, used: int, steps: int) -> tuple[int, Any]:
    import jax
    import numpy as np

    number, data = self._feed.take(used, steps)
    with jax.transfer_guard('allow'):
      found = [np.asarray(self._indices(data, np.int32(i))).tolist() for i in range(number)]
    if jax.process_index() == 0:
      with open(flags.FLAGS.record, 'a') as file:
        for i, indices in enumerate(found):
          print(json.dumps([used + i * self._feed.batch_size, indices]), file=file)
    return number, data


def main() -> None:
  from engine import loop

  open_feed = loop.open_feed
  loop.open_feed = lambda session, step: Recorded(open_feed(session, step), session)
  train.main()


if __name__ == '__main__':
  cli.launch(main, sys.argv, define=config_flags.define_training_config)
