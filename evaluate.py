"""Measures a trained run on its test split: python evaluate.py --workdir=runs/vae"""

import sys

from absl import flags

from commands import cli
from errors import UserError

flags.DEFINE_string('workdir', None, "The run's folder, as train.py left it.")
flags.DEFINE_string(
  'checkpoint',
  '',
  '"latest", "best", or a step; by default the best one where config.train.patience waited for it, '
  'else the latest.',
)
flags.DEFINE_string('split', '', "What to measure on; the config's test_split by default.")
flags.DEFINE_integer('seed', None, "Of the noise in the figures; the run's own by default.")
flags.DEFINE_string('out', None, 'Where the figures go; WORKDIR/metrics.json if not given.')


def main() -> None:
  values = flags.FLAGS
  if not values.workdir:
    raise UserError('give --workdir, e.g. python evaluate.py --workdir=runs/vae')

  from commands import evaluate_run

  out = values.out or f'{values.workdir}/metrics.json'
  evaluate_run.judge(values.workdir, values.checkpoint, values.split, values.seed, out, sys.argv)


if __name__ == '__main__':
  cli.launch(main, sys.argv)
