"""Cross-validates a config: python -m tools.cross_validate --config=configs/mlp.py --folds=5

The split is cut into folds; for each fold a model is trained on all others and evaluated on it. A
single fold is an ordinary run, train.py with `--config.data.folds=5 --config.data.fold=2`; if the
split fits on the devices, all folds train at once, in one program. The result is each figure's mean
and standard deviation over the folds, and a 95 % interval of the mean by Student's t, which is
approximate: the folds share training examples (Bengio and Grandvalet 2004). After an interruption
the same command resumes.
"""

import sys

from absl import flags

from commands import cli, config_flags
from errors import UserError


def main() -> None:
  values = flags.FLAGS
  if 'config' not in values:
    raise UserError(
      'give --config, e.g. python -m tools.cross_validate --config=configs/mlp.py --folds=5'
    )
  if values.workdir == '':
    raise UserError('--workdir= names no folder; give one, or leave the flag out')
  if 'data.test_split' in values['config'].keys:
    raise UserError(
      f'--config.data.test_split={values.config.data.test_split} has no effect: each fold is '
      'evaluated on what it holds out; leave the flag out'
    )
  workdir = values.workdir or f'{cli.default_workdir(sys.argv)}-cv{values.folds}'
  # Imported here because it imports jax, which must come after `cli.launch` set up the process.
  from commands.cross_validate import cross_validate

  argv = ['-m', 'tools.cross_validate', *sys.argv[1:]]
  cross_validate(values.config, values.folds, workdir, argv)


if __name__ == '__main__':
  flags.DEFINE_integer('folds', 5, 'Number of parts of the split; each is held out once.')
  flags.DEFINE_string('workdir', None, "The run's folder; runs/CONFIG-cvFOLDS by default.")
  lost = 'run the same command to resume from the last checkpoint'
  cli.launch(main, sys.argv, lost, config_flags.define_config)
