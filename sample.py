"""Draws from a trained run: python sample.py --workdir=runs/gan --num=64 --out=digits.png"""

import sys
from pathlib import Path

from absl import flags

from engine import cli
from errors import UserError

flags.DEFINE_string('workdir', None, "The run's folder, as train.py left it.")
flags.DEFINE_string(
  'kind',
  'prior',
  'What to draw: "prior" for samples, or a picture of the model: interpolate; for an autoencoder '
  'reconstruct, traverse, manifold; for a classifier explain.',
)
flags.DEFINE_integer('num', None, 'How many samples, pairs, rows: what the kind counts.')
flags.DEFINE_integer('label', None, 'The class to draw, where the model was trained with labels.')
flags.DEFINE_string(
  'out',
  None,
  'A .png (a grid) or an .npz (arrays); WORKDIR/KIND.png if not given. Without an ending, '
  '[FOLDER/]NAME of a data set to make: train on it with --config.data.name=NAME.',
)
flags.DEFINE_string('split', '', "Where test images come from; the config's test_split by default.")
flags.DEFINE_integer('seed', 0, 'Other samples, and other test images, for another seed.')
flags.DEFINE_string(
  'checkpoint',
  '',
  '"latest", "best", or a step; by default the best one where config.train.patience waited for it, '
  'else the latest.',
)


def main() -> None:
  values = flags.FLAGS
  if not values.workdir:
    raise UserError('give --workdir, e.g. python sample.py --workdir=runs/gan')
  conditions = {} if values.label is None else {'label': values.label}
  if values.out and not Path(values.out).suffix:
    from engine import synthesise

    synthesise.synthesise(
      values.workdir,
      values.checkpoint,
      values.kind,
      values.num,
      conditions,
      values.seed,
      values.out,
    )
    return
  from engine import draw

  name = 'samples' if values.kind == draw.PRIOR else values.kind
  out = values.out or f'{values.workdir}/{name}.png'
  draw.draw(
    values.workdir,
    values.checkpoint,
    values.kind,
    values.num,
    conditions,
    values.split,
    values.seed,
    out,
  )


if __name__ == '__main__':
  cli.launch(main, sys.argv)
