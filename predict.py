"""Predicts with a trained run: classes, values, kinds of tokens, masked tokens, token losses.

python predict.py --workdir=runs/cnn --input=a.png,b.png        # or: digits/*.png
python predict.py --workdir=runs/cnn --input=photos --resize=center --out=photos.csv
python predict.py --workdir=runs/tabular --input=patients.csv
python predict.py --workdir=runs/bert --text='import [MASK]'
cat names.txt | python predict.py --workdir=runs/bert_classify --input=-
python predict.py --workdir=runs/cnn --help            # with the options of that run's predictor
"""

import sys
from collections.abc import Sequence

from absl import flags

from commands import cli, objective_flags, run_flags
from errors import UserError

flags.DEFINE_string('workdir', None, "The run's folder, as train.py left it.")
flags.DEFINE_multi_string(
  'input',
  [],
  'What to predict, by what the run reads. Pictures: files, or a folder with the folders below it; '
  '"-" reads their names, one a line. Tables: .csv files; "-" reads one. Both: .npz files with an '
  'array x. Text: files, of which a '
  '.txt is one text, or a folder; "-" reads lines. Several are separated by commas, or the flag is '
  'repeated; words without a flag are inputs, too.',
)
flags.DEFINE_multi_string(
  'text', [], 'A text to predict, of a run that reads text; repeated for several.'
)
flags.DEFINE_string(
  'out', None, 'A .csv or .jsonl (rows, with all classes) or an .npz (arrays), written at the end.'
)
flags.DEFINE_string(
  'resize',
  '',
  'How pictures of another size than the run reads are resized: "center" cuts the largest centred '
  'part of the shape, "stretch" changes the shape, "pad" adds black. They are refused by default, '
  'unless the run resized its own.',
)
flags.DEFINE_bool(
  'lines',
  None,
  'Whether each line of a file of plain text is a text of its own, or all of it is one; by default '
  'the lines of "-" alone are.',
)
flags.DEFINE_string(
  'column',
  '',
  'The column of a .csv, or the key of a .jsonl, that holds the text; "text" if not given.',
)
flags.DEFINE_integer('batch_size', 64, 'Most examples at once.')
flags.DEFINE_string(
  'checkpoint',
  '',
  '"latest", "best" (of each lane), or a step; by default the best one where config.train.patience '
  'waited for it, else the latest.',
)
flags.DEFINE_integer(
  'lane',
  None,
  'The only lane to predict with, of a run of several seeds or folds; by default the means of what '
  'all of them predict.',
)
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
    objective_flags.define(argv, cli.value_of(argv, 'workdir'), objective_flags.PREDICTOR)
  return words


def main(words: Sequence[str]) -> None:
  values = flags.FLAGS
  if not values.workdir:
    raise UserError('give --workdir, e.g. python predict.py --workdir=runs/cnn --input=a.png')
  from commands.predict_run import Request, places, predict_run

  request = Request(
    values.workdir,
    places=places([*values.input, *words]),
    texts=tuple(values.text),
    out=values.out,
    checkpoint=values.checkpoint,
    lane=values.lane,
    average=values.average,
    batch_size=values.batch_size,
    resize=values.resize,
    lines=values.lines,
    column=values.column,
    options=objective_flags.given(values, values.workdir, objective_flags.PREDICTOR),
    placement=run_flags.placement(values),
  )
  predict_run(request)


if __name__ == '__main__':
  cli.launch(main, sys.argv, define=define, takes_words=True)
