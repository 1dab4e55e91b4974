"""The cases of the benchmarks: our config and flags, the peer's command line, the target ratio."""

from typing import NamedTuple


class Case(NamedTuple):
  """One comparison.

  Attributes:
    config: flags of our program.
    peer: the peer's file in `benchmarks/peers`, and its arguments.
    target: the ratio of our steps/s to the peer's that we aim at on a CPU.
    program: our program, a module of `benchmarks`.
    steps: steps that warm each side up, and the smallest number of steps in a round.
    gpu_target: that on a GPU, against the fastest mode of the peer; above 1 it is what was measured
      once (docs/results.md).
    devices: what it is run on where no case is named.
  """

  config: tuple[str, ...]
  peer: tuple[str, ...]
  target: float
  program: str = 'train_steps'
  steps: int = 3
  gpu_target: float = 1.0
  devices: tuple[str, ...] = ('cpu', 'gpu')


def _decoding(config: tuple[str, ...], peer: tuple[str, ...], rows: int) -> Case:
  """Returns the case of generating `rows` texts of 256 tokens after a given first one, in one step.

  Our model caches the keys and values of earlier tokens; nanoGPT's `generate` sends the whole text
  through the model for every token.
  """
  length = 256
  peer = ('torch_gpt.py', 'generate', *peer, '--batch-size', str(rows))
  peer += ('--length', str(length), '--context', str(length))
  flags = (*config, f'--num={rows}', f'--length={length}')
  return Case(flags, peer, 3.0, program='decode_steps', steps=1)


# One layer of 256 units over the characters of tiny Shakespeare. One-hot characters would be a
# lookup for us and a matrix product for torch.nn; with an embedding both sides do the same work.
RNN = (
  '--config=configs/rnn.py:tiny_shakespeare',
  '--config.data.text.tokenizer=character',
  '--config.data.text.specials=()',
  '--config.modules.model.embedding=64',
)

# The models of nanoGPT's two settings for text generation, both with a context of 256 in float32.
SMALL = (
  ('--config=configs/gpt_shakespeare_cpu.py', '--config.modules.model.context=256'),
  ('--layers', '4', '--heads', '4', '--width', '128'),
)
LARGE = (
  ('--config=configs/gpt_shakespeare.py', '--config.train.precision=float32'),
  ('--layers', '6', '--heads', '6', '--width', '384'),
)

# The peer's generator, and R1 at every step as it computes it.
GAN = (
  '--config=configs/gan.py',
  '--config.objective.penalty_every=1',
  '--config.modules.generator.widths=1024,512,256',
  '--config.modules.generator.norm=none',
  '--config.modules.discriminator.minibatch_stddev=0',
)

CASES = {
  'dense_gan_128': Case(
    (*GAN, '--config.data.batch_size=128'),
    ('torch_gan.py', 'dense', '--r1', '1.0', '--batch-size', '128'),
    1.5,
    gpu_target=1.75,
  ),
  'dense_gan_16': Case(
    (*GAN, '--config.data.batch_size=16'),
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
    ('--config=configs/dcgan_batch_norm.py', '--config.data.batch_size=128'),
    ('torch_gan.py', 'dcgan', '--batch-size', '128'),
    1.0,
    gpu_target=1.39,
  ),
  'dense_vae_128': Case(
    ('--config=configs/vae.py', '--config.data.batch_size=128'),
    ('torch_vae.py', 'dense', '--batch-size', '128'),
    1.4,
    gpu_target=1.93,
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
    gpu_target=1.27,
  ),
  'mlp_32': Case(
    ('--config=configs/mlp.py', '--config.data.batch_size=32'),
    ('torch_classifier.py', 'mlp', '--batch-size', '32'),
    3.5,
    gpu_target=1.62,
  ),
  'cnn_64': Case(
    (
      '--config=configs/cnn.py',
      '--config.data.batch_size=64',
      '--config.modules.model.dropout=0.0',
    ),
    ('torch_classifier.py', 'cnn', '--batch-size', '64'),
    1.0,
    gpu_target=1.51,
  ),
  'cnn_binary_64': Case(
    ('--config=configs/cnn_binary.py', '--config.data.batch_size=64'),
    ('torch_classifier.py', 'cnn_binary', '--batch-size', '64'),
    1.0,
  ),
  'gpt_shakespeare_cpu': Case(
    ('--config=configs/gpt_shakespeare_cpu.py',), ('torch_gpt.py', 'steps'), 1.2
  ),
  # nanoGPT's setting for a GPU.
  'gpt_shakespeare': Case(
    ('--config=configs/gpt_shakespeare.py',),
    (
      'torch_gpt.py', 'steps', *LARGE[1], '--context', '256', '--batch-size', '64',
      '--dropout', '0.2', '--precision', 'bfloat16', '--steps', '5000',
    ),
    1.0,
    gpu_target=1.04,
    devices=('gpu',),
  ),
  # A microbatch of nanoGPT's setting for OpenWebText. The text has no influence on the speed: it is
  # the default of the config, whose vocabulary is learned once and kept in the cache.
  'gpt2_124m': Case(
    (
      '--config=configs/gpt2.py:124m',
      '--config.data.batch_size=16',
      '--config.train.accumulate=1',
    ),
    (
      'torch_gpt.py', 'steps', '--layers', '12', '--heads', '12', '--width', '768',
      '--context', '1024', '--vocabulary', '50304', '--batch-size', '16',
      '--precision', 'bfloat16',
    ),
    1.0,
    devices=('gpu',),
  ),
  'rnn_tanh': Case(
    (*RNN, '--config.modules.model.cell=tanh'),
    ('torch_rnn.py', 'tanh', '--embedding', '64'),
    1.7,
    gpu_target=0.7,
  ),
  'rnn_lstm': Case(
    (*RNN, '--config.modules.model.cell=lstm'),
    ('torch_rnn.py', 'lstm', '--embedding', '64'),
    1.0,
    gpu_target=1.09,
  ),
  'decode_small_1': _decoding(*SMALL, rows=1),
  'decode_small_8': _decoding(*SMALL, rows=8),
  'decode_large_1': _decoding(*LARGE, rows=1),
  'decode_large_8': _decoding(*LARGE, rows=8),
}  # fmt: skip
