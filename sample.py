"""Samples from a trained run, or renders another kind of picture of it.

python sample.py --workdir=runs/gan --num=64 --out=digits.png
python sample.py --workdir=runs/vae --kind=reconstruct
python sample.py --workdir=runs/gpt --prompt='import ' --temperature=0.8 --top_k=50
python sample.py --workdir=runs/gpt --help           # with the options of that run's sampler
"""

import sys
from collections.abc import Sequence

from absl import flags

from commands import cli, objective_flags, run_flags
from errors import UserError

flags.DEFINE_string('workdir', None, "The run's folder, as train.py left it.")
flags.DEFINE_string(
  'kind',
  'prior',
  'What to make: "prior" for samples, or a picture of the model: interpolate; for an autoencoder '
  'reconstruct, traverse, manifold; for a classifier explain.',
)
flags.DEFINE_integer('num', None, 'How many samples, texts, pairs, rows: what the kind counts.')
flags.DEFINE_string(
  'out',
  None,
  'A .png (a grid) or an .npz (arrays); WORKDIR/KIND.png if not given. Without an ending, '
  '[FOLDER/]NAME of a data set to make: train on it with --config.data.name=NAME. Of texts a .txt '
  'or an .npz, beside the terminal.',
)
flags.DEFINE_string(
  'split', '', "Where the test images of a picture come from; the config's test_split by default."
)
flags.DEFINE_integer(
  'seed', None, 'Other samples, and other test images, for another seed; 0 if not given.'
)
flags.DEFINE_string(
  'checkpoint',
  '',
  '"latest", "best", or a step; by default the best one where config.train.patience waited for it, '
  'else the latest.',
)
flags.DEFINE_integer('lane', 0, 'Which lane of a run of several seeds or folds.')
flags.DEFINE_string(
  'average',
  '',
  'The average of the parameters: a name in config.ema, or "none"; the first of each module by '
  'default.',
)


def define(argv: Sequence[str]) -> Sequence[str]:
  """Defines the flags of the run in --workdir; see `cli.Define`."""
  words = run_flags.define_run_flags(argv)
  if 'config' in flags.FLAGS:
    objective_flags.define(argv, cli.value_of(argv, 'workdir'), objective_flags.SAMPLER)
  return words


def main() -> None:
  values = flags.FLAGS
  if not values.workdir:
    raise UserError('give --workdir, e.g. python sample.py --workdir=runs/gan')
  from commands.sample_run import Request, sample_run

  request = Request(
    values.workdir,
    values.kind,
    values.num,
    values.out,
    values.split,
    values.seed,
    values.checkpoint,
    values.lane,
    values.average,
    objective_flags.given(values, values.workdir, objective_flags.SAMPLER),
    run_flags.placement(values),
  )
  sample_run(request)


if __name__ == '__main__':
  cli.launch(main, sys.argv, define=define)
