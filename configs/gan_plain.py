"""The textbook recipe for the dense pair: ReLU throughout, RMSprop, no penalty, no averaging.

  python train.py --config=configs/gan_plain.py

Kept to show what happens: the pair collapses. On mnist5k, seed 0, the discriminator's loss falls to
1e-5 within 3,000 steps and all samples become one blot (docs/results.md).
"""

from ml_collections import ConfigDict

from configs import gan
from configs.defaults import optimizer


def get_config(data: str = 'mnist5k') -> ConfigDict:
  config = gan.get_config(data)
  config.objective.penalties.r1 = 0.0
  config.modules.discriminator.activation = 'relu'
  config.optimizer.generator = optimizer('rmsprop', 1e-4)
  config.optimizer.discriminator = optimizer('rmsprop', 1e-4)
  config.ema = {}
  return config
