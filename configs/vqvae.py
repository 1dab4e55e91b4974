"""VQ-VAE on 28×28 grey and 32×32 colour images: a 7×7 or 8×8 map of 128 codes of 32 numbers.

  python train.py --config=configs/vqvae.py
  python train.py --config=configs/vqvae.py:cifar10 --config.modules.codebook.codes=512

The loss is reconstruction + β·commitment in nats per image, β = commitment_weight. Watch
vqvae/codebook_used, the share of codes that a batch chooses, and test/codebook_perplexity. Samples
draw every place of the map by itself: a prior over whole maps is to come.

1,000 steps take 3 to 4 minutes on 2 CPU cores: on mnist5k test/reconstruction
57.9 nats (the dense VAE: 103.9) and a perplexity of 98 of 128 codes.
"""

from ml_collections import ConfigDict

from configs.defaults import defaults, optimizer


def get_config(data: str = 'mnist5k') -> ConfigDict:
  config = defaults()
  config.objective = dict(
    name='vqvae',
    reconstruction='bernoulli',
    variance=0.0,
    commitment_weight=0.25,
    decay=0.99,
    restart_below=0.1,
  )
  config.modules = dict(
    encoder=dict(name='vqvae.Encoder', widths=(32, 64), blocks=2, hidden=32, code_size=32),
    codebook=dict(name='vqvae.Codebook', codes=128),
    decoder=dict(name='vqvae.Decoder', widths=(64, 32), blocks=2, hidden=32),
  )
  config.optimizer.vqvae = optimizer('adam', 1e-3)
  config.data.name = data
  config.train.steps = 1000
  # What is trained for: the rate, which the bound has as well, is a stopgap prior's.
  config.checkpoint.best = 'test/reconstruction'
  return config
