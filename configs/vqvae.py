"""VQ-VAE on 28×28 grey and 32×32 colour images: a 7×7 or 8×8 map of 128 codes of 32 numbers.

  python train.py --config=configs/vqvae.py
  python train.py --config=configs/vqvae.py:cifar10 --config.modules.codebook.codes=512

The loss is reconstruction + β·commitment in nats per image, β = commitment_weight. Watch
vqvae/codebook_used, the share of codes that a batch uses, and test/codebook_perplexity. Sampling
chooses the code at each position of the map independently: there is no prior over whole maps yet.

1,000 steps take 3 to 4 minutes on 2 CPU cores and reach test/reconstruction 57.9 nats on mnist5k
(the dense VAE: 103.9) and a perplexity of 98 of 128 codes.
"""

from ml_collections import ConfigDict

from configs.defaults import copies, defaults, optimizer, quality


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
  config.evaluators.final = quality(data)
  config.evaluators.copies = copies(data)
  # Not test/elbo, which also includes the rate: that of a provisional prior, which is not trained.
  config.checkpoint.best = 'test/reconstruction'
  return config
