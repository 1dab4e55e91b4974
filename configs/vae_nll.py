"""VAE that reaches a published likelihood on Fashion-MNIST: a gated MLP of 2×300 units, 40 latents.

  python train.py --config=configs/vae_nll.py
  python train.py --config=configs/vae_nll.py --config.train.steps=300000
  python evaluate.py --workdir=runs/vae_nll --split=test --checkpoint=best

It follows the protocol of the Exemplar VAE (Norouzi et al., NeurIPS 2020, arXiv 2004.04795):
dynamically binarised images; the last 10,000 training images choose the checkpoint; −log p(x) on
the test split by K = 5000 importance samples. The paper's VAE reaches 228.70 ± 0.15 nats. 200,000
steps (25 to 50 minutes on 2 CPU cores) reach 228.78. The second command trains 100,000 more, which
start from a quarter of the learning rate, and reaches 228.65 (docs/results.md).
"""

from ml_collections import ConfigDict

from configs import vae
from configs.defaults import average, optimizer


def get_config(data: str = 'fashion_mnist') -> ConfigDict:
  config = vae.get_config(data)
  config.objective.binarise = True
  config.objective.kl_warmup = 20_000
  # `glu` multiplies one half of the units by a sigmoid of the other half: 300 of 600 remain.
  config.modules = dict(
    encoder=dict(name='mlp.Encoder', widths=(600, 600), activation='glu', latent_size=40),
    decoder=dict(name='mlp.Decoder', widths=(600, 600), activation='glu'),
  )
  config.optimizer.vae = optimizer('adam', 1e-3, b1=0.9, b2=0.999)
  config.optimizer.vae.schedule.name = 'cosine'
  config.ema.encoder = average('encoder', 0.999)
  config.ema.decoder = average('decoder', 0.999)
  config.data.split, config.data.test_split = 'train[:50000]', 'train[50000:]'
  config.data.batch_size = 100
  config.train.steps = 200_000
  config.train.log_every = 500
  config.evaluators.test.every = 5000
  config.train.sample_every = 20_000
  config.checkpoint.every = 5000
  config.evaluators.test.batch_size = config.evaluators.likelihood.batch_size = 100
  return config
