"""A character RNN in PyTorch, as fast as PyTorch makes it.

It computes the same as configs/rnn.py, with the same sizes: an embedding of characters (or one-hot
vectors, `--embedding 0`), `torch.nn.RNN` with tanh, `torch.nn.GRU` or `torch.nn.LSTM`, the logits
of all positions by one product, Adam, clipping at 1. It is driven over stdin, see `protocol.py`;
start it with `protocol.environment(threads)`.

    python benchmarks/peers/torch_rnn.py tanh --embedding 64
    python benchmarks/peers/torch_rnn.py lstm --embedding 64 --batch-size 32 --length 64 --width 256

It is fast because data are resident as one tensor, from which windows are sliced by one gather;
time is the first axis, so that each step of the recurrence reads contiguous memory; Adam is fused;
denormals are flushed to 0; the host reads a loss once per command, never per step. An LSTM runs as
one oneDNN primitive; `--no-onednn` runs PyTorch's own loop instead, for comparison.
"""

import argparse
from collections.abc import Sequence

import torch
import torch_peer
from torch import Tensor, nn
from torch.nn import functional as F

CELLS = {'tanh': nn.RNN, 'gru': nn.GRU, 'lstm': nn.LSTM}
CLIP = 1.0


class CharacterRNN(nn.Module):
  """A character language model: tokens int64 [T, B] → logits [T, B, 65]."""

  def __init__(self, args: argparse.Namespace):
    super().__init__()
    size = args.embedding or torch_peer.VOCABULARY
    self.embedding = nn.Embedding(torch_peer.VOCABULARY, size) if args.embedding else None
    self.cells = CELLS[args.cell](size, args.width, args.layers)
    self.head = nn.Linear(args.width, torch_peer.VOCABULARY)

  def forward(self, tokens: Tensor) -> Tensor:
    if self.embedding is None:
      inputs = F.one_hot(tokens, torch_peer.VOCABULARY).float()
    else:
      inputs = self.embedding(tokens)
    return self.head(self.cells(inputs)[0])


class Trainer:
  """The model, its optimizer and the resident text."""

  def __init__(self, args: argparse.Namespace):
    self.args = args
    self.text = torch_peer.resident_tokens(args.device)
    model = CharacterRNN(args).to(args.device)
    self.model = torch_peer.compiled(model, args)
    kind = {'fused': True} if args.adam == 'fused' else {'foreach': args.adam == 'foreach'}
    self.optimizer = torch.optim.Adam(
      model.parameters(), lr=args.learning_rate, **kind, **torch_peer.capturable(args)
    )

  def step(self) -> dict[str, Tensor]:
    rows = torch_peer.windows(self.text, self.args.batch_size, self.args.length)
    tokens, targets = (part.t().contiguous() for part in rows)
    loss = F.cross_entropy(self.model(tokens).flatten(0, 1), targets.flatten())
    return {'loss': torch_peer.update(loss, self.optimizer, CLIP)}


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
  """Reads the command line; the defaults are the sizes of configs/rnn.py."""
  parser = torch_peer.parser(__doc__, 'cell', tuple(CELLS), batch_size=32)
  parser.add_argument('--length', type=int, default=64)
  parser.add_argument('--width', type=int, default=256)
  parser.add_argument('--embedding', type=int, default=0, help='0: one-hot')
  parser.add_argument('--layers', type=int, default=1)
  parser.add_argument('--learning-rate', type=float, default=2e-3)
  parser.add_argument('--adam', choices=('fused', 'foreach', 'plain'), default='fused')
  parser.add_argument('--onednn', action=argparse.BooleanOptionalAction, default=True)
  return torch_peer.parse(parser, argv)


def main() -> None:
  args = parse()
  torch_peer.set_up(args)
  torch.backends.mkldnn.enabled = args.onednn
  torch_peer.serve(Trainer(args).step, args)


if __name__ == '__main__':
  main()
