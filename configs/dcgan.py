"""DCGAN on 28×28 digits, or on any data set of images whose sides are multiples of four.

  python train.py --config=configs/dcgan.py
  python train.py --config=configs/dcgan.py:fashion_mnist
  python train.py --config=configs/dcgan.py:cifar10

Of the networks of Radford et al. (2016) only the generator has batch normalisation, with the
batch's statistics in training and averaged ones in sampling. The discriminator has none, and R1
with γ = 3 instead: at every fourth step, since R1 differentiates the discriminator twice (lazy
regularisation, Karras et al. 2020, appendix B). `penalty/r1` in the log is its mean over those
steps. `dcgan_batch_norm.py` is the recipe of the paper.
"""

from ml_collections import ConfigDict

from configs import gan


def get_config(data: str = 'mnist5k') -> ConfigDict:
  config = gan.get_config(data)
  config.objective.penalties.r1 = 3.0
  config.modules = dict(
    generator=dict(name='dcgan.Generator', widths=(128, 64)),
    discriminator=dict(name='dcgan.Discriminator', widths=(64, 128), norm='none'),
  )
  for player in ('generator', 'discriminator'):
    config.optimizer[player].learning_rate = 1e-3
  config.train.steps = 2000
  return config
