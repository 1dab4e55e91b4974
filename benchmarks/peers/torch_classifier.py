"""The classifiers of this project in PyTorch, as fast as PyTorch makes them.

It computes the same as configs/mlp.py (`mlp`), configs/cnn.py (`cnn`) and configs/cnn_binary.py
(`cnn_binary`), so that a ratio of step times compares frameworks and nothing else. It is driven
over stdin, see `protocol.py`; start it with `protocol.environment(threads)`.

    python benchmarks/peers/torch_classifier.py mlp --batch-size 32
    python benchmarks/peers/torch_classifier.py cnn --batch-size 64
    python benchmarks/peers/torch_classifier.py cnn_binary --batch-size 64

It is fast because data are resident as uint8; activations work in place; denormals are flushed to
0; feature maps are flattened without a copy; the host reads a loss once per command, never per
step; and the defaults of the flags below (memory layout, kind of Adam, pool before or after the
ReLU) are the fastest.
"""

import argparse
from collections.abc import Sequence

import torch
import torch_peer
from torch import Tensor, nn
from torch.nn import functional as F


def mlp() -> nn.Sequential:
  """Makes the dense classifier: images [B, 784] → logits [B, 10]."""
  return nn.Sequential(nn.Linear(784, 128), nn.ReLU(inplace=True), nn.Linear(128, 10))


def cnn(kernel: int, hidden: int, outputs: int, args: argparse.Namespace) -> nn.Sequential:
  """Makes the convolutional classifier: images [B, 1, 28, 28] → logits [B, outputs]."""
  # max(relu(x)) = relu(max(x)), so the faster order can be used.
  pool_and_relu = [nn.MaxPool2d(2), nn.ReLU(inplace=True)]
  if not args.pool_first:
    pool_and_relu = pool_and_relu[::-1]
  return nn.Sequential(
    nn.Conv2d(1, 32, kernel, padding='same'),
    *pool_and_relu,
    nn.Conv2d(32, 64, kernel, padding='same'),
    *pool_and_relu,
    torch_peer.Flatten(args.channels_last),
    nn.Linear(7 * 7 * 64, hidden),
    nn.ReLU(inplace=True),
    nn.Linear(hidden, outputs),
  )


class Trainer:
  """The model, its optimizer and the resident data."""

  def __init__(self, args: argparse.Namespace):
    self.batch_size = args.batch_size
    self.binary = args.model == 'cnn_binary'
    self.signed = args.model != 'mlp'
    self.device = args.device
    self.images = torch_peer.resident_images(args.model == 'mlp', args.device)
    classes = 2 if self.binary else 10
    self.labels = torch.randint(classes, (torch_peer.EXAMPLES,), device=args.device)
    if args.model == 'mlp':
      self.model = mlp()
    else:
      sizes = (3, 128, 1) if self.binary else (5, 1024, 10)
      self.model = cnn(*sizes, args)
      if args.channels_last:
        self.model.to(memory_format=torch.channels_last)
    self.model.to(args.device)
    self.compiled_loss = torch_peer.compiled(self.loss, args)
    kind = {'fused': True} if args.adam == 'fused' else {'foreach': args.adam == 'foreach'}
    self.optimizer = torch.optim.Adam(
      self.model.parameters(), lr=1e-3, **kind, **torch_peer.capturable(args)
    )

  def batch(self) -> tuple[Tensor, Tensor]:
    """Returns (images, labels) of a random batch, gathered from the resident uint8 array."""
    indices = torch.randint(torch_peer.EXAMPLES, (self.batch_size,), device=self.device)
    images = self.images[indices].float()
    images = images.div_(127.5).sub_(1) if self.signed else images.div_(255)
    return images, self.labels[indices]

  def loss(self, images: Tensor, labels: Tensor) -> Tensor:
    """Returns the mean cross-entropy in nats."""
    logits = self.model(images)
    if self.binary:
      return F.binary_cross_entropy_with_logits(logits[:, 0], labels.float())
    return F.cross_entropy(logits, labels)

  def step(self) -> dict[str, Tensor]:
    return {'loss': torch_peer.update(self.compiled_loss(*self.batch()), self.optimizer)}


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
  """Reads the command line; the defaults are the fastest setting measured."""
  parser = torch_peer.parser(__doc__, 'model', ('mlp', 'cnn', 'cnn_binary'), batch_size=64)
  parser.add_argument('--channels-last', action=argparse.BooleanOptionalAction, default=True)
  parser.add_argument('--pool-first', action=argparse.BooleanOptionalAction, default=True)
  parser.add_argument('--adam', choices=('fused', 'foreach', 'plain'), default='fused')
  return torch_peer.parse(parser, argv)


def main() -> None:
  args = parse()
  torch_peer.set_up(args)
  torch_peer.serve(Trainer(args).step, args)


if __name__ == '__main__':
  main()
