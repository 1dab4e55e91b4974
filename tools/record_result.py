"""Adds the figures of an evaluated run to a list of results that `evaluate.py --verify` reads:

python -m tools.record_result --metrics=runs/gan/metrics.json --name=gan \
  --command='python train.py --config=configs/gan.py' --into=docs/results.json

A row of the same name is replaced; it keeps its command and note where none are given.
"""

import sys

from absl import flags

from commands import cli
from errors import UserError


def main() -> None:
  values = flags.FLAGS
  for flag in ('metrics', 'name', 'into'):
    if not values[flag].present:
      raise UserError(
        f'give --{flag}, e.g. python -m tools.record_result --metrics=runs/gan/metrics.json '
        '--name=gan --into=docs/results.json'
      )
  from commands.recorded_results import record_result

  record_result(values.metrics, values.name, values.into, values.command, values.note)


if __name__ == '__main__':
  flags.DEFINE_string('metrics', None, 'The metrics.json of the run, as evaluate.py wrote it.')
  flags.DEFINE_string('name', None, 'The name of the row.')
  flags.DEFINE_string('into', None, 'The list of results, a .json; made if it is missing.')
  flags.DEFINE_multi_string(
    'command', [], 'The command that trained the run; several are given one by one.'
  )
  flags.DEFINE_string('note', '', 'What is to be known of the row, in words.')
  cli.launch(main, sys.argv)
