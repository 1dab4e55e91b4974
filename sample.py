"""Draws from a trained run.

python sample.py --workdir=runs/gan --num=64 --out=digits.png
python sample.py --workdir=runs/gpt --prompt='import ' --temperature=0.8 --top_k=50
"""

import sys
from pathlib import Path
from typing import Any

from absl import flags

from commands import cli
from errors import UserError

flags.DEFINE_string('workdir', None, "The run's folder, as train.py left it.")
flags.DEFINE_string(
  'kind',
  'prior',
  'What to draw: "prior" for samples, or a picture of the model: interpolate; for an autoencoder '
  'reconstruct, traverse, manifold; for a classifier explain.',
)
flags.DEFINE_integer('num', None, 'How many samples, texts, pairs, rows: what the kind counts.')
flags.DEFINE_string('prompt', None, 'Of a language model: what the text begins with.')
flags.DEFINE_integer(
  'length',
  None,
  "Tokens of a text, its prompt included; the model's context if not given, or 256 where that has "
  'no bound.',
)
flags.DEFINE_float('temperature', None, 'Below 1 safer, above 1 wilder text, 0 the likeliest; 1.')
flags.DEFINE_integer('top_k', None, 'Draw each token among so many of the likeliest; 0, all.')
flags.DEFINE_float(
  'top_p', None, 'Draw each token among the likeliest that together have this probability; 1, all.'
)
flags.DEFINE_integer('label', None, 'The class to draw, where the model was trained with labels.')
flags.DEFINE_string(
  'out',
  None,
  'A .png (a grid) or an .npz (arrays); WORKDIR/KIND.png if not given. Without an ending, '
  '[FOLDER/]NAME of a data set to make: train on it with --config.data.name=NAME. Of texts a .txt '
  'or an .npz, beside the terminal.',
)
flags.DEFINE_string('split', '', "Where test images come from; the config's test_split by default.")
flags.DEFINE_integer('seed', 0, 'Other samples, and other test images, for another seed.')
flags.DEFINE_string(
  'checkpoint',
  '',
  '"latest", "best", or a step; by default the best one where config.train.patience waited for it, '
  'else the latest.',
)

_ENDINGS = ('.png', '.npz', '.txt')
_OF_TEXT = ('prompt', 'length', 'temperature', 'top_k', 'top_p')


def main() -> None:
  values = flags.FLAGS
  if not values.workdir:
    raise UserError('give --workdir, e.g. python sample.py --workdir=runs/gan')
  conditions = {} if values.label is None else {'label': values.label}
  if values.out and not Path(values.out).suffix:
    from commands import export_dataset

    export_dataset.synthesise(
      values.workdir,
      values.checkpoint,
      values.kind,
      values.num,
      conditions,
      values.seed,
      values.out,
    )
    return
  if values.out and Path(values.out).suffix not in _ENDINGS:
    raise UserError(f'--out={values.out} must end in one of {", ".join(_ENDINGS)}, or in nothing')
  from commands import render_samples
  from engine.restore import restore_run

  restored = restore_run(values.workdir, values.checkpoint)
  given = [name for name in _OF_TEXT if getattr(values, name) is not None]
  if values.kind == render_samples.PRIOR and hasattr(restored.session.objective, 'writing'):
    _write(restored)
    return
  if given:
    raise UserError(f'--{given[0]} is for language models; {values.workdir} is a run of another')
  name = 'samples' if values.kind == render_samples.PRIOR else values.kind
  out = values.out or f'{values.workdir}/{name}.png'
  render_samples.draw(
    restored,
    values.workdir,
    values.kind,
    values.num,
    conditions,
    values.split,
    values.seed,
    out,
  )


def _write(restored: Any) -> None:
  from commands import generate_text

  values = flags.FLAGS
  if values.label is not None:
    raise UserError('this model was trained without a label, so there is none to ask for')
  chosen = {name: getattr(values, name) for name in _OF_TEXT}
  wish = generate_text.Wish(
    **{
      name: generate_text.USUAL[name] if value is None else value for name, value in chosen.items()
    },
    num=1 if values.num is None else values.num,
    seed=values.seed,
  )
  generate_text.write(restored, wish, values.workdir, values.out)


if __name__ == '__main__':
  cli.launch(main, sys.argv)
