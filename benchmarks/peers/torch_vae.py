"""The VAEs of this project in PyTorch, as fast as PyTorch makes them.

It computes the same as `objectives/vae.py` with configs/vae.py (`dense`) and configs/conv_vae.py
(`conv`), so that a ratio of step times compares frameworks and nothing else. Only RMSprop differs:
PyTorch divides by √v + ε, optax by √(v + ε), which costs the same. It is driven over stdin, see
`protocol.py`; start it with `protocol.environment(threads)`.

    python benchmarks/peers/torch_vae.py dense --batch-size 128
    python benchmarks/peers/torch_vae.py conv --batch-size 128

It is fast because data are resident as uint8; RMSprop uses foreach; activations work in place;
feature maps are channels-last and flattened without a copy; denormals are flushed to 0; the host
reads a loss once per command, never per step.
"""

import argparse
import itertools
from collections.abc import Sequence

import torch
import torch_peer
from torch import Tensor, nn
from torch.nn import functional as F

LATENT = 20


class Unflatten(nn.Module):
  """Reshapes [B, 64·7·7] to feature maps [B, 64, 7, 7]: the inverse of `torch_peer.Flatten`."""

  def __init__(self, channels_last: bool):
    super().__init__()
    self.channels_last = channels_last

  def forward(self, x: Tensor) -> Tensor:
    if self.channels_last:
      return x.view(-1, 7, 7, 64).permute(0, 3, 1, 2)
    return x.view(-1, 64, 7, 7)


def dense(*widths: int) -> nn.Sequential:
  """Makes fully connected layers of these widths, with ReLUs between them."""
  layers: list[nn.Module] = []
  for fan_in, fan_out in itertools.pairwise(widths[:-1]):
    layers += [nn.Linear(fan_in, fan_out), nn.ReLU(inplace=True)]
  return nn.Sequential(*layers, nn.Linear(widths[-2], widths[-1]))


def conv_encoder(channels_last: bool) -> nn.Sequential:
  """Makes the convolutional encoder: images [B, 1, 28, 28] → means and log-variances [B, 40]."""
  return nn.Sequential(
    nn.Conv2d(1, 32, 4, 2, padding=1),
    nn.ReLU(inplace=True),
    nn.Conv2d(32, 64, 4, 2, padding=1),
    nn.ReLU(inplace=True),
    torch_peer.Flatten(channels_last),
    *dense(7 * 7 * 64, 256, 2 * LATENT),
  )


def conv_decoder(channels_last: bool) -> nn.Sequential:
  """Makes the convolutional decoder: z [B, 20] → logits [B, 1, 28, 28]."""
  return nn.Sequential(
    *dense(LATENT, 256, 7 * 7 * 64),
    nn.ReLU(inplace=True),
    Unflatten(channels_last),
    nn.ConvTranspose2d(64, 32, 4, 2, padding=1),
    nn.ReLU(inplace=True),
    nn.ConvTranspose2d(32, 1, 4, 2, padding=1),
  )


class VAE(nn.Module):
  """Encoder and decoder; the forward pass returns the loss."""

  def __init__(self, model: str, channels_last: bool):
    super().__init__()
    if model == 'dense':
      self.encoder = dense(784, 1024, 512, 256, 2 * LATENT)
      self.decoder = dense(LATENT, 256, 512, 1024, 784)
    else:
      self.encoder, self.decoder = conv_encoder(channels_last), conv_decoder(channels_last)
      if channels_last:
        self.to(memory_format=torch.channels_last)

  def forward(self, images: Tensor, noise: Tensor) -> Tensor:
    """Returns the negative ELBO in nats, mean over the batch; z = μ + σ·noise, noise [B, 20]."""
    mean, log_variance = self.encoder(images).chunk(2, dim=1)
    deviation = torch.exp(0.5 * log_variance)
    logits = self.decoder(torch.addcmul(mean, deviation, noise))
    reconstruction = F.binary_cross_entropy_with_logits(logits, images, reduction='sum')
    kl = -0.5 * (1 + log_variance - mean.square() - deviation.square()).sum()
    return (reconstruction + kl) / images.shape[0]


class Trainer:
  """The model, its optimizer and the resident data."""

  def __init__(self, args: argparse.Namespace):
    self.batch_size, self.device = args.batch_size, args.device
    model = VAE(args.model, args.channels_last).to(args.device)
    self.loss = torch_peer.compiled(model, args)
    self.data = torch_peer.resident_images(args.model == 'dense', args.device)
    self.optimizer = torch.optim.RMSprop(
      model.parameters(), lr=1e-3, alpha=0.9, eps=1e-8, foreach=True, **torch_peer.capturable(args)
    )

  def images(self) -> Tensor:
    """Returns a random batch in [0, 1], gathered from the resident uint8 array."""
    indices = torch.randint(torch_peer.EXAMPLES, (self.batch_size,), device=self.device)
    return self.data[indices].float().div_(255)

  def step(self) -> dict[str, Tensor]:
    noise = torch.randn(self.batch_size, LATENT, device=self.device)
    loss = self.loss(self.images(), noise)
    return {'loss': torch_peer.update(loss, self.optimizer)}


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
  """Reads the command line; the defaults are the fastest setting measured."""
  parser = torch_peer.parser(__doc__, 'model', ('dense', 'conv'), batch_size=128)
  parser.add_argument('--channels-last', action=argparse.BooleanOptionalAction, default=True)
  return torch_peer.parse(parser, argv)


def main() -> None:
  args = parse()
  torch_peer.set_up(args)
  torch_peer.serve(Trainer(args).step, args)


if __name__ == '__main__':
  main()
