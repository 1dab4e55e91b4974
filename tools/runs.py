"""Lists, compares and plots runs: python -m tools.runs runs

Prints one line for every run below the folders: its objective and data, its step, the best value of
the figure that ranks its checkpoints, when it was last written, and whether it is complete.

python -m tools.runs --compare runs/a runs/b                     # options that differ, figures
python -m tools.runs runs --plot=test/loss --out=loss.png        # curves of all runs
python -m tools.runs runs/a runs/b --plot=test/loss,test/accuracy --csv=c.csv --out=c.png
python -m tools.runs runs/mine --against=c.csv --out=mine.png    # a run over those curves

With --csv the runs and their lanes are seeds of one config: the picture shows their mean and band,
and the CSV has a row for each figure and step. docs/reproduce.md explains both.
"""

import sys
from collections.abc import Sequence

from absl import flags

from commands import cli
from commands.curves import DEVIATION, MIN_MAX, plot_against, write_curves
from commands.list_runs import compare_runs, list_runs, plot_runs
from errors import UserError


def main(folders: Sequence[str]) -> None:
  values = flags.FLAGS
  for name in ('plot', 'csv', 'against', 'out'):
    if values[name].present and not values[name].value:
      raise UserError(f'--{name}= is empty; give a value, or leave the flag out')
  drawn = values.plot or values.against
  if values.compare and drawn:
    raise UserError('--compare excludes --plot and --against; give one of them')
  if values.csv and values.against:
    raise UserError('--csv and --against exclude each other; give one of them')
  if values.csv and not values.plot:
    raise UserError('--csv needs the figures to write; name them with --plot=FIGURE,FIGURE')
  if bool(drawn) != bool(values.out):
    raise UserError('give --plot=FIGURE, or --against=FILE.csv, and --out=FILE.png together')
  if values['band'].present and not values.csv:
    raise UserError(f'--band={values.band} has no effect without --csv; leave it out')
  figures = [name.strip() for name in values.plot.split(',') if name.strip()]
  if values.compare:
    if len(folders) != 2:
      raise UserError(f'--compare takes the folders of two runs, not {len(folders)}')
    compare_runs(*folders)
  elif values.against:
    plot_against(folders or ['runs'], values.against, figures, values.out)
  elif values.csv:
    write_curves(folders or ['runs'], figures, values.out, values.csv, values.band)
  elif drawn:
    plot_runs(folders or ['runs'], values.plot, values.out)
  else:
    list_runs(folders or ['runs'])


if __name__ == '__main__':
  flags.DEFINE_bool('compare', False, 'Compare two runs: their options and their figures.')
  flags.DEFINE_string(
    'plot', '', 'The figure of metrics.jsonl to plot, e.g. test/loss; several for --csv.'
  )
  flags.DEFINE_string('csv', '', 'The CSV file that the curves of several seeds are written to.')
  flags.DEFINE_enum('band', MIN_MAX, (MIN_MAX, DEVIATION), 'The band of the seeds of --csv.')
  flags.DEFINE_string('against', '', 'The CSV file of published curves that runs are drawn over.')
  flags.DEFINE_string('out', '', 'The PNG file that is written.')
  cli.launch(main, sys.argv, takes_words=True)
