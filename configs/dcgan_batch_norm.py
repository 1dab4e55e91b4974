"""DCGAN as published: batch normalisation in both networks, no penalty (Radford et al. 2016).

  python train.py --config=configs/dcgan_batch_norm.py

It is kept to compare with: after 2,000 steps its Fréchet distance is more than twice that of
`dcgan.py`, and it makes few of some classes (docs/results.md).
"""

from ml_collections import ConfigDict

from configs import dcgan
from configs.defaults import optimizer


def get_config(data: str = 'mnist5k') -> ConfigDict:
  config = dcgan.get_config(data)
  config.objective.penalties.r1 = 0.0
  config.objective.penalty_every = 1
  config.modules.discriminator.norm = 'batch'
  config.optimizer.generator = optimizer('adam', 2e-4, b1=0.5, b2=0.999)
  config.optimizer.discriminator = optimizer('adam', 2e-4, b1=0.5, b2=0.999)
  return config
