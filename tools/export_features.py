"""Writes a classifier's weights for the comparison of samples on its features.

python -m tools.export_features --workdir=runs/features --out=metrics/features/weights/NAME.npz

The run is one of configs/features.py, or of another config whose module is a `cnn` with a hidden
layer and whose loss is softmax. NAME.npz gets the parameters as float16, NAME.json beside it the
network, the command, seed, data and commit of the training, the accuracy on the test split, and a
checksum. `config.evaluators.NAME.features=dict(name='classifier.Classifier', weights='NAME')` then
names the extractor; weights elsewhere are named by their path.
"""

import sys

from absl import flags

from commands import cli
from errors import UserError


def main() -> None:
  values = flags.FLAGS
  if not values.workdir or not values.out:
    raise UserError(
      'give --workdir and --out, e.g. python -m tools.export_features --workdir=runs/features '
      '--out=metrics/features/weights/mnist5k-cnn.npz'
    )
  # Imported here because it imports jax, which must come after `cli.launch` set up the process.
  from commands.export_features import export_features

  export_features(values.workdir, values.checkpoint, values.out)


if __name__ == '__main__':
  flags.DEFINE_string('workdir', None, "The run's folder, as train.py left it.")
  flags.DEFINE_string('checkpoint', 'latest', '"latest", "best", or a step.')
  flags.DEFINE_string('out', None, 'The file *.npz to write; the one beside it ends in .json.')
  cli.launch(main, sys.argv)
