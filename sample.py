"""Draws from a trained run: python sample.py --workdir=runs/gan --num=64 --out=digits.png"""

import sys

from absl import flags

from engine import cli
from errors import UserError

flags.DEFINE_string('workdir', None, "The run's folder, as train.py left it.")
flags.DEFINE_integer('num', 64, 'How many samples to draw.')
flags.DEFINE_string(
  'out', None, 'A .png (a grid) or an .npz (arrays); WORKDIR/samples.png if not given.'
)
flags.DEFINE_integer('seed', 0, 'Other samples for another seed.')
flags.DEFINE_string('checkpoint', 'latest', '"latest", "best", or a step.')


def main() -> None:
  if not flags.FLAGS.workdir:
    raise UserError('give --workdir, e.g. python sample.py --workdir=runs/gan')
  from engine import draw

  values = flags.FLAGS
  out = values.out or f'{values.workdir}/samples.png'
  draw.draw(values.workdir, values.checkpoint, values.num, values.seed, out)


if __name__ == '__main__':
  cli.launch(main, sys.argv)
