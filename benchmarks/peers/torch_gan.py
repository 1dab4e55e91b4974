"""The GANs of this project in PyTorch, as fast as PyTorch makes them.

It computes the same as `objectives/gan.py` with configs/gan.py and R1 at every step,
configs/gan_plain.py (`--plain`) and configs/dcgan_batch_norm.py, so that a ratio of step times
compares frameworks and nothing else. It is driven over stdin, see `protocol.py`; start it with
`protocol.environment(threads)`, whose malloc settings make PyTorch about 10 % faster too.

    python benchmarks/peers/torch_gan.py dense --r1 0.3 --batch-size 128
    python benchmarks/peers/torch_gan.py dense --plain --batch-size 128     # RMSprop, ReLU, no R1
    python benchmarks/peers/torch_gan.py dcgan --batch-size 128

It is fast because data are resident as uint8; Adam is fused and RMSprop uses foreach; the generator
runs without a graph in the discriminator's update; gradients are computed only for the parameters
that are updated; the EMA is one `_foreach_lerp_`; denormals are flushed to 0; the host reads a loss
once per command, never per step. `torch.compile` has no second derivatives, so R1 fails with
`--mode compile` (torch 2.13).
"""

import argparse
import itertools
from collections.abc import Callable, Iterable, Sequence

import torch
import torch_peer
from torch import Tensor, nn
from torch.nn import functional as F

LATENT = 100
EMA_DECAY = 0.999


class Scale(nn.Module):
  """Maps images in [0, 1] to [-1, 1]."""

  def forward(self, x: Tensor) -> Tensor:
    return x * 2 - 1


def dense_generator() -> nn.Sequential:
  """Makes the dense generator: z [B, 100] → images [B, 784] in [0, 1]."""
  widths = (LATENT, 1024, 512, 256)
  layers: list[nn.Module] = []
  for fan_in, fan_out in itertools.pairwise(widths):
    layers += [nn.Linear(fan_in, fan_out), nn.ReLU(inplace=True)]
  return nn.Sequential(*layers, nn.Linear(widths[-1], 784), nn.Sigmoid())


def dense_discriminator(plain: bool) -> nn.Sequential:
  """Makes the dense discriminator: images [B, 784] → logits [B, 1]."""
  widths = (784, 1024, 512, 256)
  layers: list[nn.Module] = []
  for fan_in, fan_out in itertools.pairwise(widths):
    activation = nn.ReLU(inplace=True) if plain else nn.LeakyReLU(0.2, inplace=True)
    layers += [nn.Linear(fan_in, fan_out), activation]
  return nn.Sequential(*layers, nn.Linear(widths[-1], 1))


def dcgan_generator() -> nn.Sequential:
  """Makes the DCGAN generator: z [B, 100] → images [B, 1, 28, 28] in [0, 1]."""
  return nn.Sequential(
    nn.Linear(LATENT, 7 * 7 * 128, bias=False),
    nn.Unflatten(1, (128, 7, 7)),
    nn.BatchNorm2d(128),
    nn.ReLU(inplace=True),
    nn.ConvTranspose2d(128, 64, 4, 2, padding=1, bias=False),
    nn.BatchNorm2d(64),
    nn.ReLU(inplace=True),
    nn.ConvTranspose2d(64, 1, 4, 2, padding=1),
    nn.Sigmoid(),
  )


def dcgan_discriminator() -> nn.Sequential:
  """Makes the DCGAN discriminator: images [B, 1, 28, 28] in [0, 1] → logits [B, 1]."""
  return nn.Sequential(
    Scale(),
    nn.Conv2d(1, 64, 4, 2, padding=1),
    nn.LeakyReLU(0.2, inplace=True),
    nn.Conv2d(64, 128, 4, 2, padding=1, bias=False),
    nn.BatchNorm2d(128),
    nn.LeakyReLU(0.2, inplace=True),
    nn.Flatten(),
    nn.Linear(7 * 7 * 128, 1),
  )


def make_optimizer(params: Iterable[Tensor], args: argparse.Namespace) -> torch.optim.Optimizer:
  """Makes foreach RMSprop for the plain GAN, fused Adam(2e-4, 0.5, 0.999) for the others."""
  kept = torch_peer.capturable(args)
  if args.plain:
    return torch.optim.RMSprop(params, lr=2e-4, foreach=True, **kept)
  return torch.optim.Adam(params, lr=2e-4, betas=(0.5, 0.999), fused=True, **kept)


def r1_penalty(logits: Tensor, images: Tensor) -> Tensor:
  """Returns ½·E‖∇ₓD(x)‖², to be multiplied by γ (Mescheder et al. 2018, eq. 9)."""
  (gradient,) = torch.autograd.grad(logits.sum(), images, create_graph=True)
  return 0.5 * gradient.flatten(1).square().sum(1).mean()


class Trainer:
  """Generator and discriminator, their optimizers, the generator's EMA and the resident data."""

  def __init__(self, args: argparse.Namespace):
    self.args = args
    convolutional = args.model == 'dcgan'
    self.generator = dcgan_generator() if convolutional else dense_generator()
    self.discriminator = dcgan_discriminator() if convolutional else dense_discriminator(args.plain)
    if convolutional and args.channels_last:
      self.generator.to(memory_format=torch.channels_last)
      self.discriminator.to(memory_format=torch.channels_last)
    self.generator.to(args.device)
    self.discriminator.to(args.device)
    self.data = torch_peer.resident_images(not convolutional, args.device)
    self.params_g = list(self.generator.parameters())
    self.params_d = list(self.discriminator.parameters())
    self.ema = [p.detach().clone() for p in self.params_g]
    self.optimizer_g = make_optimizer(self.params_g, args)
    self.optimizer_d = make_optimizer(self.params_d, args)
    self.losses = {
      name: torch_peer.compiled(loss, args)
      for name, loss in (('d', self.loss_d), ('g', self.loss_g))
    }

  def real(self) -> Tensor:
    """Returns a random batch in [0, 1], gathered from the resident uint8 array."""
    size = (self.args.batch_size,)
    indices = torch.randint(torch_peer.EXAMPLES, size, device=self.args.device)
    return self.data[indices].float().div_(255)

  def latent(self) -> Tensor:
    return torch.randn(self.args.batch_size, LATENT, device=self.args.device)

  def loss_d(self) -> Tensor:
    """Returns the non-saturating loss of the discriminator, plus γ·R1 with `--r1`."""
    real = self.real()
    with torch.no_grad():
      fake = self.generator(self.latent())
    if self.args.r1:
      real.requires_grad_()
    if self.args.concat:
      logits_real, logits_fake = self.discriminator(torch.cat([real, fake])).chunk(2)
    else:
      logits_real, logits_fake = self.discriminator(real), self.discriminator(fake)
    loss = F.softplus(-logits_real).mean() + F.softplus(logits_fake).mean()
    if self.args.r1:
      loss = loss + self.args.r1 * r1_penalty(logits_real, real)
    return loss

  def loss_g(self) -> Tensor:
    return F.softplus(-self.discriminator(self.generator(self.latent()))).mean()

  def step(self) -> dict[str, Tensor]:
    """Updates the discriminator, the generator and the EMA, once each."""
    loss_d = self.update(self.losses['d'], self.params_d, self.optimizer_d, frozen=self.params_g)
    loss_g = self.update(self.losses['g'], self.params_g, self.optimizer_g, frozen=self.params_d)
    with torch.no_grad():
      torch._foreach_lerp_(self.ema, self.params_g, 1 - EMA_DECAY)
    return {'loss_d': loss_d, 'loss_g': loss_g}

  def update(
    self,
    loss_fn: Callable[[], Tensor],
    params: Sequence[Tensor],
    optimizer: torch.optim.Optimizer,
    frozen: Sequence[Tensor],
  ) -> Tensor:
    """Updates `params` to lower `loss_fn()`; computes no gradient with respect to `frozen`."""
    for param in frozen:
      param.requires_grad_(False)
    loss = torch_peer.update(loss_fn(), optimizer)
    for param in frozen:
      param.requires_grad_(True)
    return loss


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
  """Reads the command line; the defaults are the fastest setting measured."""
  parser = torch_peer.parser(__doc__, 'model', ('dense', 'dcgan'), batch_size=128)
  parser.add_argument('--r1', type=float, default=0.0, help='γ of the R1 penalty; 0: none')
  parser.add_argument('--plain', action='store_true', help='dense: RMSprop and ReLU, as in 2014')
  parser.add_argument('--channels-last', action=argparse.BooleanOptionalAction, default=True)
  parser.add_argument('--concat', action='store_true', help='real and fake in one forward pass')
  args = torch_peer.parse(parser, argv)
  if args.model == 'dcgan' and (args.plain or args.concat):
    parser.error('--plain and --concat are for the dense GAN: batch statistics are per batch')
  return args


def main() -> None:
  args = parse()
  torch_peer.set_up(args)
  torch_peer.serve(Trainer(args).step, args)


if __name__ == '__main__':
  main()
