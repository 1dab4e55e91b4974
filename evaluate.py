"""Evaluates a trained run: python evaluate.py --workdir=runs/vae

All evaluators of the run's config, each of whose options can be overridden:

python evaluate.py --workdir=runs/vae --config.evaluators.likelihood.samples=500
"""

import sys
from collections.abc import Sequence

from absl import flags

from commands import cli, run_flags
from errors import UserError

flags.DEFINE_string('workdir', None, "The run's folder, as train.py left it.")
flags.DEFINE_string(
  'checkpoint',
  '',
  '"latest", "best" (of each lane), or a step; by default the best one where config.train.patience '
  'waited for it, else the latest.',
)
flags.DEFINE_string(
  'split',
  '',
  'A split of the data set that is tested on, such as "test" or "test[:100]", for all evaluators '
  'of examples; their own by default.',
)
flags.DEFINE_integer('seed', None, "Of the noise in the figures; the run's own by default.")
flags.DEFINE_string(
  'average',
  '',
  'The average of the parameters: a name in config.ema, or "none"; that of each evaluator by '
  'default.',
)
flags.DEFINE_integer('lane', None, 'The only lane to evaluate, from 0; all by default.')
flags.DEFINE_string('out', None, 'Where the figures go; WORKDIR/metrics.json if not given.')
flags.DEFINE_bool('distributed', False, cli.DISTRIBUTED)


def define(argv: Sequence[str]) -> Sequence[str]:
  """Defines the flags of the run in --workdir; see `cli.Define`."""
  return run_flags.define_run_flags(argv, ('evaluators', *run_flags.PLACEMENT))


def main() -> None:
  values = flags.FLAGS
  if not values.workdir:
    raise UserError('give --workdir, e.g. python evaluate.py --workdir=runs/vae')
  run_flags.refuse_without_effect(values)
  cli.join_processes(values.distributed)

  from commands.evaluate_run import Request, evaluate_run

  request = Request(
    values.workdir,
    f'{values.workdir}/metrics.json' if values.out is None else values.out,
    checkpoint=values.checkpoint,
    split=values.split,
    seed=values.seed,
    average=values.average,
    lane=values.lane,
    evaluators=values.config.evaluators,
    placement=run_flags.placement(values),
  )
  evaluate_run(request, sys.argv)


if __name__ == '__main__':
  cli.launch(main, sys.argv, define=define)
