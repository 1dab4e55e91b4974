"""DCGAN on 28×28 digits, or on any data set of images whose sides are multiples of four.

  python train.py --config=configs/dcgan.py
  python train.py --config=configs/dcgan.py:cifar10

Batch normalisation uses the batch's statistics in training, running ones in sampling. About 6
steps/s on 2 CPU cores; 2,000 steps reach samples/fd_pixels14_1k-test 1.58 on mnist5k
(docs/results.md).
"""

from ml_collections import ConfigDict

from configs import gan
from configs.defaults import optimizer


def get_config(data: str = 'mnist5k') -> ConfigDict:
  config = gan.get_config(data)
  config.objective.penalties.r1 = 0.0
  config.modules = dict(
    generator=dict(name='dcgan.Generator', widths=(128, 64)),
    discriminator=dict(name='dcgan.Discriminator', widths=(64, 128), norm='batch'),
  )
  config.optimizer.generator = optimizer('adam', 2e-4, b1=0.5, b2=0.999)
  config.optimizer.discriminator = optimizer('adam', 2e-4, b1=0.5, b2=0.999)
  config.train.steps = 2000
  return config
