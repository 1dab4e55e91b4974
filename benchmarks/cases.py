"""What is compared with what: our config and flags, the peer's command line, the ratio to reach."""

from typing import NamedTuple


class Case(NamedTuple):
  """One comparison.

  Attributes:
    config: flags of `benchmarks.train_steps`.
    peer: file in `benchmarks/peers` and its arguments.
    target: our steps/s over the peer's, at least.
  """

  config: tuple[str, ...]
  peer: tuple[str, ...]
  target: float


CASES = {
  'dense_gan_128': Case(
    ('--config=configs/gan.py', '--config.data.batch_size=128'),
    ('torch_gan.py', 'dense', '--r1', '1.0', '--batch-size', '128'),
    1.5,
  ),
  'dense_gan_16': Case(
    ('--config=configs/gan.py', '--config.data.batch_size=16'),
    ('torch_gan.py', 'dense', '--r1', '1.0', '--batch-size', '16'),
    2.5,
  ),
  'dense_gan_plain_128': Case(
    ('--config=configs/gan_plain.py', '--config.data.batch_size=128'),
    ('torch_gan.py', 'dense', '--plain', '--batch-size', '128'),
    1.5,
  ),
  'dense_gan_plain_16': Case(
    ('--config=configs/gan_plain.py', '--config.data.batch_size=16'),
    ('torch_gan.py', 'dense', '--plain', '--batch-size', '16'),
    2.5,
  ),
  'dcgan_128': Case(
    ('--config=configs/dcgan.py', '--config.data.batch_size=128'),
    ('torch_gan.py', 'dcgan', '--batch-size', '128'),
    1.0,
  ),
  'dense_vae_128': Case(
    ('--config=configs/vae.py', '--config.data.batch_size=128'),
    ('torch_vae.py', 'dense', '--batch-size', '128'),
    1.4,
  ),
  'dense_vae_16': Case(
    ('--config=configs/vae.py', '--config.data.batch_size=16'),
    ('torch_vae.py', 'dense', '--batch-size', '16'),
    3.0,
  ),
  'conv_vae_128': Case(
    ('--config=configs/conv_vae.py', '--config.data.batch_size=128'),
    ('torch_vae.py', 'conv', '--batch-size', '128'),
    1.3,
  ),
  'mlp_32': Case(
    ('--config=configs/mlp.py', '--config.data.batch_size=32'),
    ('torch_classifier.py', 'mlp', '--batch-size', '32'),
    3.5,
  ),
  'cnn_64': Case(
    (
      '--config=configs/cnn.py',
      '--config.data.batch_size=64',
      '--config.modules.model.dropout=0.0',
    ),
    ('torch_classifier.py', 'cnn', '--batch-size', '64'),
    1.0,
  ),
  'cnn_binary_64': Case(
    ('--config=configs/cnn_binary.py', '--config.data.batch_size=64'),
    ('torch_classifier.py', 'cnn_binary', '--batch-size', '64'),
    1.0,
  ),
}
