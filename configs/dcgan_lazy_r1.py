"""`dcgan.py` with lazy regularisation: R1 with γ = 1 every 16 steps, its weight times 16.

  python train.py --config=configs/dcgan_lazy_r1.py

R1 differentiates the discriminator twice, which would halve the speed if computed in every step;
every 16 steps it costs next to nothing (Karras et al. 2020, appendix B). The penalty is a player of
its own, `penalty`, that shares the discriminator's optimizer; `penalty/r1` in the log is its mean
over the steps that computed it.
"""

from ml_collections import ConfigDict

from configs import dcgan


def get_config(data: str = 'mnist5k') -> ConfigDict:
  config = dcgan.get_config(data)
  config.objective.penalties.r1 = 1.0
  config.objective.penalty_every = 16
  return config
