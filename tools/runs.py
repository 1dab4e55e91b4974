"""Lists, compares and plots runs: python -m tools.runs runs

Prints one line for every run below the folders: its objective and data, its step, the best value of
the figure that ranks its checkpoints, when it was last written, and whether it is complete.

python -m tools.runs --compare runs/a runs/b                     # options that differ, figures
python -m tools.runs runs --plot=test/loss --out=loss.png        # curves of all runs
"""

import sys
from collections.abc import Sequence

from absl import flags

from commands import cli
from commands.list_runs import compare_runs, list_runs, plot_runs
from errors import UserError


def main(folders: Sequence[str]) -> None:
  values = flags.FLAGS
  if values.compare and values.plot is not None:
    raise UserError('--compare and --plot exclude each other; give one of them')
  if bool(values.plot) != bool(values.out) or '' in (values.plot, values.out):
    raise UserError('give --plot=FIGURE and --out=FILE.png together')
  if values.compare:
    if len(folders) != 2:
      raise UserError(f'--compare takes the folders of two runs, not {len(folders)}')
    compare_runs(*folders)
  elif values.plot:
    plot_runs(folders or ['runs'], values.plot, values.out)
  else:
    list_runs(folders or ['runs'])


if __name__ == '__main__':
  flags.DEFINE_bool('compare', False, 'Compare two runs: their options and their figures.')
  flags.DEFINE_string('plot', None, 'The figure of metrics.jsonl to plot, e.g. test/loss.')
  flags.DEFINE_string('out', None, 'The PNG file that --plot writes.')
  cli.launch(main, sys.argv, takes_words=True)
