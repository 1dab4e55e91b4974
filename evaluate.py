"""Evaluates a trained run: python evaluate.py --workdir=runs/vae

All evaluators of the run's config, each of whose options can be overridden:

python evaluate.py --workdir=runs/vae --config.evaluators.likelihood.samples=500

Runs that were evaluated, side by side, and as a report; recorded figures computed anew:

python evaluate.py --runs=runs/a,runs/b --report=report.html
python evaluate.py --verify=runs/vae/metrics.json
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
flags.DEFINE_list(
  'only', [], 'The evaluators to run, names in config.evaluators with commas; all by default.'
)
flags.DEFINE_integer('lane', None, 'The only lane to evaluate, from 0; all by default.')
flags.DEFINE_string('out', None, 'Where the figures go; WORKDIR/metrics.json if not given.')
flags.DEFINE_list(
  'runs',
  [],
  'Runs that were evaluated, to compare: folders, folders above them, patterns such as runs/gan*, '
  'with commas between them. Beside --verify, where its runs are looked for.',
)
flags.DEFINE_string(
  'report', None, 'An .html file for a report of the runs; beside --runs or --workdir.'
)
flags.DEFINE_string(
  'verify',
  None,
  'A metrics.json, or a list of results such as docs/results.json, whose figures are computed '
  'anew; exit code 1 if one does not hold.',
)
flags.DEFINE_bool('distributed', False, cli.DISTRIBUTED)
flags.DEFINE_float('join_timeout', cli.DEFAULT_JOIN_TIMEOUT, cli.JOIN_TIMEOUT)


# The flags that say what is done; each excludes the others that its entry does not list, and what
# belongs to one evaluation.
_BESIDE = {'verify': ('runs',), 'runs': ('report',)}
_OF_ONE_RUN = (
  'workdir', 'checkpoint', 'split', 'seed', 'average', 'only', 'lane', 'out', 'distributed',
  'join_timeout', 'mesh',
)  # fmt: skip


def define(argv: Sequence[str]) -> Sequence[str]:
  """Defines the flags of the run in --workdir; see `cli.Define`."""
  if any(cli.value_of(argv, task) is not None for task in _BESIDE):
    # --workdir has no effect, which `main` says.
    run_flags.define_run_flags([word for word in argv if 'workdir' not in word])
    return argv
  return run_flags.define_run_flags(argv, ('evaluators', *run_flags.PLACEMENT))


def main() -> None:
  values = flags.FLAGS
  for task, beside in _BESIDE.items():
    if values[task].present:
      _refuse_beside(task, beside)
      (_verify if task == 'verify' else _compare)()
      return
  _evaluate()


def _refuse_beside(task: str, beside: Sequence[str]) -> None:
  """Raises UserError where a flag is given that has no effect beside --verify or --runs."""
  values = flags.FLAGS
  for name in (*_OF_ONE_RUN, 'report', 'verify', 'runs'):
    if name in values and values[name].present and name not in (task, *beside):
      raise UserError(f'--{name} has no effect beside --{task}; leave one of them out')


def _verify() -> None:
  values = flags.FLAGS
  if not values.verify:
    raise UserError('--verify= names no file; give one, e.g. --verify=runs/vae/metrics.json')
  from commands.verify_figures import verify

  code = verify(values.verify, values.runs)
  if code:
    sys.exit(code)


def _compare() -> None:
  values = flags.FLAGS
  from commands import html_report
  from commands.compare_results import compare_results

  if values.report is not None:
    html_report.check_out(values.report)
  groups = compare_results(values.runs)
  if values.report is not None:
    html_report.write_report(groups, values.report)


def _evaluate() -> None:
  values = flags.FLAGS
  if not values.workdir:
    raise UserError('give --workdir, e.g. python evaluate.py --workdir=runs/vae')
  run_flags.refuse_without_effect(values)
  cli.join_processes(saves=False, options={'arguments': sys.argv[1:]})

  from commands import html_report
  from commands.evaluate_run import Request, evaluate_run

  request = Request(
    values.workdir,
    f'{values.workdir}/metrics.json' if values.out is None else values.out,
    checkpoint=values.checkpoint,
    split=values.split,
    seed=values.seed,
    average=values.average,
    lane=values.lane,
    only=values.only,
    evaluators=values.config.evaluators,
    placement=run_flags.placement(values),
  )
  if values.report is not None:
    html_report.check_out(values.report)
  evaluate_run(request, sys.argv)
  if values.report is not None:
    html_report.report_run(request.workdir, request.out, values.report)


if __name__ == '__main__':
  cli.launch(main, sys.argv, define=define)
