"""nanoGPT in PyTorch, as fast as PyTorch makes it.

It has the architecture and settings of karpathy/nanoGPT (model.py, train.py, the README's settings
for a CPU): pre-norm, learned positions, tied embedding, exact GELU, normal(0.02) initialisation
with residual projections scaled by 1/√(2·layers), AdamW with weight decay on matrices only, cosine
schedule, clipping at 1; with `--precision bfloat16` autocast, in which parameters and the residual
stream stay float32. The defaults are those for a CPU; the other published settings are
`--layers 6 --heads 6 --width 384 --context 256 --batch-size 64 --dropout 0.2 --steps 5000
--precision bfloat16`, and GPT-2's smallest model `--layers 12 --heads 12 --width 768 --context 1024
--vocabulary 50304`.

    python benchmarks/peers/torch_gpt.py steps                                   # training steps
    python benchmarks/peers/torch_gpt.py generate --context 256 --length 256     # whole generations
    python benchmarks/peers/torch_gpt.py train --text input.txt                  # nanoGPT's run
    python benchmarks/peers/torch_gpt.py steps --device gpu --mode compile --precision bfloat16

`steps` and `generate` are driven over stdin, see `protocol.py`; start all three with
`protocol.environment(threads)`. `generate` works like nanoGPT's: there is no cache, the whole text
goes through the model for every token, and only the last position through the head. `train` prints
JSON lines: at every evaluation the losses that nanoGPT estimates from random windows, at the end
the exact loss of the validation split, in which every token but the first is predicted once.
`seconds` is the time of training with evaluations, `seconds_training` without; neither includes
imports and reading the text.

It is faster than nanoGPT's own script because data are resident as one tensor, from which windows
are sliced by one gather; AdamW is fused; denormals are flushed to 0; the host reads a loss once per
command, never per step. `--attention plain` and `--adam foreach` are alternatives to compare with
the defaults.
"""

import argparse
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

import torch
import torch_peer
from torch import Tensor, nn
from torch.nn import functional as F

# nanoGPT, config/train_shakespeare_char.py and the defaults of train.py.
LEARNING_RATE, END, WARMUP = 1e-3, 1e-4, 100
BETAS, WEIGHT_DECAY, CLIP = (0.9, 0.99), 0.1, 1.0
TRAINING_SHARE = 0.9


class Size(NamedTuple):
  """The hyperparameters of a model; `context` is the largest number of positions."""

  vocabulary: int
  context: int
  layers: int
  heads: int
  width: int
  dropout: float
  bias: bool
  fused: bool


class Attention(nn.Module):
  """Causal self-attention, [B, T, C] → [B, T, C]."""

  def __init__(self, size: Size):
    super().__init__()
    self.size = size
    self.query_key_value = nn.Linear(size.width, 3 * size.width, bias=size.bias)
    self.projection = nn.Linear(size.width, size.width, bias=size.bias)
    self.drop = nn.Dropout(size.dropout)

  def forward(self, x: Tensor) -> Tensor:
    batch, length, width = x.shape
    query, key, value = (
      part.view(batch, length, self.size.heads, -1).transpose(1, 2)
      for part in self.query_key_value(x).split(width, dim=2)
    )
    attend = self.fused if self.size.fused else self.plain
    mixed = attend(query, key, value).transpose(1, 2).reshape(batch, length, width)
    return self.drop(self.projection(mixed))

  def fused(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    dropout = self.size.dropout if self.training else 0.0
    return F.scaled_dot_product_attention(query, key, value, dropout_p=dropout, is_causal=True)

  def plain(self, query: Tensor, key: Tensor, value: Tensor) -> Tensor:
    length = query.shape[2]
    later = torch.ones(length, length, dtype=torch.bool, device=query.device).triu(1)
    scores = query @ key.transpose(-2, -1) / math.sqrt(query.shape[-1])
    return self.drop(scores.masked_fill(later, -math.inf).softmax(-1)) @ value


class Block(nn.Module):
  """A pre-norm block: attention, then a two-layer MLP, each with a residual connection."""

  def __init__(self, size: Size):
    super().__init__()
    self.norm_1 = nn.LayerNorm(size.width, bias=size.bias)
    self.attention = Attention(size)
    self.norm_2 = nn.LayerNorm(size.width, bias=size.bias)
    self.up = nn.Linear(size.width, 4 * size.width, bias=size.bias)
    self.projection = nn.Linear(4 * size.width, size.width, bias=size.bias)
    self.drop = nn.Dropout(size.dropout)

  def forward(self, x: Tensor) -> Tensor:
    x = x + self.attention(self.norm_1(x))
    return x + self.drop(self.projection(F.gelu(self.up(self.norm_2(x)))))


class GPT(nn.Module):
  """tokens int64 [B, T] → logits [B, T, vocabulary], or with `last` [B, 1, vocabulary]."""

  def __init__(self, size: Size):
    super().__init__()
    self.size = size
    self.tokens = nn.Embedding(size.vocabulary, size.width)
    self.positions = nn.Embedding(size.context, size.width)
    self.drop = nn.Dropout(size.dropout)
    self.blocks = nn.Sequential(*(Block(size) for _ in range(size.layers)))
    self.norm = nn.LayerNorm(size.width, bias=size.bias)
    self.head = nn.Linear(size.width, size.vocabulary, bias=False)
    self.head.weight = self.tokens.weight
    self.initialise()

  def initialise(self) -> None:
    for name, param in self.named_parameters():
      if param.dim() >= 2:
        residual = name.endswith('projection.weight')
        nn.init.normal_(param, std=0.02 / math.sqrt(2 * self.size.layers) if residual else 0.02)
      elif name.endswith('bias'):
        nn.init.zeros_(param)

  def forward(self, tokens: Tensor, last: bool = False) -> Tensor:
    x = self.drop(self.tokens(tokens) + self.positions.weight[: tokens.shape[1]])
    x = self.norm(self.blocks(x))
    return self.head(x[:, -1:] if last else x)

  def loss(self, tokens: Tensor, targets: Tensor) -> Tensor:
    """Returns the cross-entropy in nats per token, a scalar."""
    return F.cross_entropy(self(tokens).flatten(0, 1), targets.flatten())


def learning_rate(step: int, steps: int) -> float:
  """Returns the rate at a step: a linear warm-up, then a cosine to `END`, constant after that."""
  if step < WARMUP:
    return LEARNING_RATE * step / WARMUP
  progress = min(1.0, (step - WARMUP) / max(1, steps - WARMUP))
  return END + 0.5 * (1 + math.cos(math.pi * progress)) * (LEARNING_RATE - END)


def make_optimizer(model: nn.Module, adam: str, captured: bool = False) -> torch.optim.AdamW:
  """Makes AdamW with weight decay of matrices, and none of gains and biases.

  Where a step is `captured` in a graph, the learning rate is a tensor that the graph reads.
  """
  params = list(model.parameters())
  groups = [
    {'params': [p for p in params if p.dim() >= 2], 'weight_decay': WEIGHT_DECAY},
    {'params': [p for p in params if p.dim() < 2], 'weight_decay': 0.0},
  ]
  kind = {'fused': True} if adam == 'fused' else {'foreach': adam == 'foreach'}
  rate: float | Tensor = LEARNING_RATE
  if captured:
    rate, kind['capturable'] = torch.tensor(rate, device=params[0].device), True
  return torch.optim.AdamW(groups, lr=rate, betas=BETAS, **kind)


class Trainer:
  """The model, its optimizer, its schedule and the resident text int64 [N]."""

  def __init__(self, args: argparse.Namespace, text: Tensor, vocabulary: int):
    self.args = args
    self.text = text
    self.model = GPT(size_of(args, vocabulary)).to(args.device)
    self.optimizer = make_optimizer(self.model, args.adam, captured=args.mode == 'graph')
    self.loss = torch_peer.compiled(self.model.loss, args)
    self.steps_taken = 0

  def set_rate(self) -> None:
    """Sets the learning rate of the next step."""
    rate = learning_rate(self.steps_taken, self.args.steps)
    for group in self.optimizer.param_groups:
      if isinstance(group['lr'], Tensor):
        group['lr'].fill_(rate)
      else:
        group['lr'] = rate
    self.steps_taken += 1

  def step(self) -> dict[str, Tensor]:
    tokens, targets = torch_peer.windows(self.text, self.args.batch_size, self.args.context)
    with autocast(self.args):
      loss = self.loss(tokens, targets)
    return {'loss': torch_peer.update(loss, self.optimizer, CLIP)}


def autocast(args: argparse.Namespace) -> torch.autocast:
  """Within it, products are computed in `--precision`."""
  half = args.precision == 'bfloat16'
  return torch.autocast(args.device.type, dtype=torch.bfloat16, enabled=half)


@torch.inference_mode()
def generate(model: GPT, rows: int, length: int, device: torch.device | None = None) -> Tensor:
  """Samples texts of `length` tokens that start with token 0: int64 [rows, length].

  Like nanoGPT's `generate`: for every token the text so far, or its last `context` tokens, goes
  through the whole model.
  """
  text = torch.zeros(rows, 1, dtype=torch.int64, device=device)
  for _ in range(length - 1):
    logits = model(text[:, -model.size.context :], last=True)[:, -1]
    text = torch.cat([text, torch.multinomial(logits.softmax(-1), 1)], dim=1)
  return text


def read_text(path: str) -> tuple[Tensor, Tensor, int]:
  """Reads a text as nanoGPT does: (the first nine tenths, the last tenth, vocabulary size)."""
  text = Path(path).read_text(encoding='utf-8')
  ids = {character: i for i, character in enumerate(sorted(set(text)))}
  tokens = torch.tensor([ids[character] for character in text])
  cut = int(TRAINING_SHARE * len(tokens))
  return tokens[:cut], tokens[cut:], len(ids)


@torch.inference_mode()
def estimate(trainer: Trainer, text: Tensor) -> float:
  """Returns the mean loss of random windows, like nanoGPT's `estimate_loss`."""
  args = trainer.args
  trainer.model.eval()
  with autocast(args):
    losses = [
      trainer.model.loss(*torch_peer.windows(text, args.batch_size, args.context))
      for _ in range(args.evaluation_batches)
    ]
  trainer.model.train()
  return torch.stack(losses).mean().item()


@torch.inference_mode()
def whole_loss(model: GPT, text: Tensor) -> float:
  """Returns nats per token over `text`, in adjacent windows, of which the last may be short."""
  context, batch = model.size.context, 128
  model.eval()
  full = (len(text) - 1) // context
  pieces = [
    *zip(
      text[: full * context].view(full, context).split(batch),
      text[1 : full * context + 1].view(full, context).split(batch),
    ),
    (text[None, full * context : -1], text[None, full * context + 1 :]),
  ]
  nats = sum(model.loss(x, y).item() * y.numel() for x, y in pieces if y.numel())
  model.train()
  return nats / (len(text) - 1)


def train(args: argparse.Namespace) -> None:
  """Trains a model; prints its losses during training and at the end, and the wall time."""
  training, validation, vocabulary = read_text(args.text)
  training, validation = training.to(args.device), validation.to(args.device)
  trainer = Trainer(args, training, vocabulary)
  started, evaluating = time.perf_counter(), 0.0

  def report(**figures: float) -> None:
    before = time.perf_counter()
    texts = {'train_estimate': training, 'val_estimate': validation}
    losses = {name: estimate(trainer, text) for name, text in texts.items()}
    nonlocal evaluating
    evaluating += time.perf_counter() - before
    print(json.dumps({'step': trainer.steps_taken, **losses, **figures}), flush=True)

  while trainer.steps_taken < args.steps:
    if trainer.steps_taken % args.evaluate_every == 0:
      report()
    trainer.set_rate()
    trainer.step()
  report()
  seconds = time.perf_counter() - started
  print(
    json.dumps(
      {
        'steps': args.steps,
        'val_loss': whole_loss(trainer.model, validation),
        'seconds': seconds,
        'seconds_training': seconds - evaluating,
        'tokens_per_second': args.steps * args.batch_size * args.context / (seconds - evaluating),
      }
    )
  )


def size_of(args: argparse.Namespace, vocabulary: int) -> Size:
  """Returns the hyperparameters on the command line."""
  values = {name: getattr(args, name) for name in Size._fields if name in args}
  del values['vocabulary']
  return Size(vocabulary=vocabulary, fused=args.attention == 'fused', **values)


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
  """Reads the command line; the defaults are nanoGPT's CPU setting."""
  parser = torch_peer.parser(__doc__, 'work', ('steps', 'generate', 'train'), batch_size=12)
  parser.add_argument('--layers', type=int, default=4)
  parser.add_argument('--heads', type=int, default=4)
  parser.add_argument('--width', type=int, default=128)
  parser.add_argument('--context', type=int, default=64, help='tokens of a window')
  parser.add_argument('--dropout', type=float, default=0.0)
  parser.add_argument('--bias', action=argparse.BooleanOptionalAction, default=False)
  parser.add_argument('--steps', type=int, default=2000, help='length of the schedule, of `train`')
  parser.add_argument('--length', type=int, default=256, help='generate: tokens of a text')
  parser.add_argument('--text', help='train: a text file')
  parser.add_argument('--evaluate-every', type=int, default=250)
  parser.add_argument('--evaluation-batches', type=int, default=20)
  parser.add_argument('--attention', choices=('fused', 'plain'), default='fused')
  parser.add_argument('--adam', choices=('fused', 'foreach', 'plain'), default='fused')
  parser.add_argument('--precision', choices=('float32', 'bfloat16'), default='float32')
  parser.add_argument('--vocabulary', type=int, default=torch_peer.VOCABULARY)
  args = torch_peer.parse(parser, argv)
  if (args.work == 'train') != (args.text is not None):
    parser.error('--text names the file that `train` reads, and goes with nothing else')
  modes = {'steps': torch_peer.MODES, 'generate': ('eager',), 'train': ('eager', 'compile')}
  if args.mode not in modes[args.work]:
    parser.error(f'--mode {args.mode} is not for `{args.work}`: {" or ".join(modes[args.work])}')
  return args


def main() -> None:
  args = parse()
  torch_peer.set_up(args)
  if args.work == 'train':
    train(args)
  elif args.work == 'generate':
    model = GPT(size_of(args, args.vocabulary)).eval().to(args.device)
    sizes = (args.batch_size, args.length, args.device)
    torch_peer.serve(lambda: {'last': generate(model, *sizes)[0, -1]}, args)
  else:
    text = torch_peer.resident_tokens(args.device, args.vocabulary)
    trainer = Trainer(args, text, args.vocabulary)
    torch_peer.serve(trainer.step, args, before=trainer.set_rate)


if __name__ == '__main__':
  main()
