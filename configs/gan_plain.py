"""Dense GAN by the textbook recipe, which collapses: ReLU throughout, RMSprop, no penalty, no EMA.

  python train.py --config=configs/gan_plain.py

It is kept to show mode collapse: on mnist5k, seed 0, the discriminator's loss falls to 1e-5 within
3,000 steps, and all samples become the same blot (docs/results.md).
"""

from ml_collections import ConfigDict

from configs import gan
from configs.defaults import optimizer


def get_config(data: str = 'mnist5k') -> ConfigDict:
  config = gan.get_config(data)
  config.objective.penalties.r1 = 0.0
  config.objective.penalty_every = 1
  config.modules.generator.widths = (1024, 512, 256)
  config.modules.generator.norm = 'none'
  config.modules.discriminator.activation = 'relu'
  config.modules.discriminator.minibatch_stddev = 0
  config.optimizer.generator = optimizer('rmsprop', 1e-4)
  config.optimizer.discriminator = optimizer('rmsprop', 1e-4)
  config.ema = {}
  return config
