"""Shared code of the PyTorch peers: command line, process setup, resident data, serving steps.

A peer computes on `--device cpu` or `gpu`, where float32 products are TF32's as ours are. `--mode`
is how its steps are run: `eager`; `compile`, the loss through `torch.compile`; `graph`, the whole
step (data, noise, forward, backward, optimizer) captured once as a CUDA graph and replayed.
"""

import argparse
from collections.abc import Callable, Mapping, Sequence

import protocol
import torch
from torch import Tensor, nn

EXAMPLES = 4000
# Number of characters in tiny Shakespeare's training split, and of different ones.
CHARACTERS, VOCABULARY = 1_003_854, 65
MODES = ('eager', 'compile', 'graph')
# Steps before a step is captured, in which lazy state is made and algorithms are chosen.
_BEFORE_CAPTURE = 5


def parser(doc: str, name: str, choices: Sequence[str], batch_size: int) -> argparse.ArgumentParser:
  """Makes the parser of a peer's command line, with the positional `name` and two flags."""
  made = argparse.ArgumentParser(description=doc.splitlines()[0])
  made.add_argument(name, choices=choices)
  made.add_argument('--batch-size', type=int, default=batch_size)
  made.add_argument('--threads', type=int, default=2)
  made.add_argument('--device', choices=('cpu', 'gpu'), default='cpu')
  made.add_argument('--mode', choices=MODES, default='eager')
  return made


def parse(made: argparse.ArgumentParser, argv: Sequence[str] | None) -> argparse.Namespace:
  """Reads a command line; in place of the name, `device` is then a `torch.device`."""
  args = made.parse_args(argv)
  if args.mode == 'graph' and args.device == 'cpu':
    made.error('--mode graph captures a CUDA graph; give --device gpu too, or another mode')
  if args.device == 'gpu' and not torch.cuda.is_available():
    made.error(f'--device gpu: torch {torch.__version__} finds no GPU; give --device cpu')
  args.device = torch.device('cuda' if args.device == 'gpu' else 'cpu')
  return args


def set_up(args: argparse.Namespace) -> None:
  """Sets threads, precision and the random seed; call it before any random number is used."""
  torch.set_num_threads(args.threads)
  torch.set_flush_denormal(True)
  torch.manual_seed(0)
  if args.device.type == 'cuda':
    torch.set_float32_matmul_precision('high')
    torch.backends.cudnn.allow_tf32 = True
    torch.backends.cudnn.benchmark = True


def compiled(function: Callable, args: argparse.Namespace) -> Callable:
  """Returns `function`, a loss or a model, through `torch.compile` with `--mode compile`."""
  return torch.compile(function) if args.mode == 'compile' else function


def capturable(args: argparse.Namespace) -> dict[str, bool]:
  """Returns the keyword with which an optimizer keeps its count of steps on the device."""
  return {'capturable': True} if args.mode == 'graph' else {}


def _nothing() -> None:
  pass


def serve(
  step: Callable[[], Mapping[str, Tensor]],
  args: argparse.Namespace,
  before: Callable[[], None] = _nothing,
) -> None:
  """Answers the harness (see `protocol.serve`).

  Args:
    step: takes one step and returns its losses, scalar tensors by name.
    args: the command line.
    before: what the host does before each step, e.g. the schedule of the learning rate.
  """
  taken = captured(step, before) if args.mode == 'graph' else step

  def run(steps: int) -> dict[str, float]:
    for _ in range(steps):
      before()
      losses = taken()
    # The host reads a loss once per command, never per step.
    return {name: loss.item() for name, loss in losses.items()}

  gpu = args.device.type == 'cuda'
  described = {
    'device': torch.cuda.get_device_name() if gpu else f'CPU, {args.threads} threads',
    'version': f'torch {torch.__version__}',
  }
  protocol.serve(run, describe=lambda: described)


def captured(
  step: Callable[[], Mapping[str, Tensor]], before: Callable[[], None]
) -> Callable[[], Mapping[str, Tensor]]:
  """Captures a step as a CUDA graph; returns what replays it and returns the same loss tensors."""
  beside = torch.cuda.Stream()
  beside.wait_stream(torch.cuda.current_stream())
  with torch.cuda.stream(beside):
    for _ in range(_BEFORE_CAPTURE):
      before()
      step()
  torch.cuda.current_stream().wait_stream(beside)
  graph = torch.cuda.CUDAGraph()
  with torch.cuda.graph(graph):
    losses = step()

  def replayed() -> Mapping[str, Tensor]:
    graph.replay()
    return losses

  return replayed


def resident_images(flat: bool, device: torch.device) -> Tensor:
  """Makes random images uint8 [4000, 784], or [4000, 1, 28, 28] if not `flat`."""
  shape = (EXAMPLES, 784) if flat else (EXAMPLES, 1, 28, 28)
  return torch.randint(0, 256, shape, dtype=torch.uint8, device=device)


def resident_tokens(device: torch.device, vocabulary: int = VOCABULARY) -> Tensor:
  """Makes random tokens int64 [1003854], with the length of tiny Shakespeare."""
  return torch.randint(vocabulary, (CHARACTERS,), device=device)


def windows(tokens: Tensor, batch_size: int, length: int) -> tuple[Tensor, Tensor]:
  """Returns random windows of `tokens` and the targets, each the next token: two int64 [B, T]."""
  starts = torch.randint(len(tokens) - length, (batch_size, 1), device=tokens.device)
  rows = tokens[starts + torch.arange(length + 1, device=tokens.device)]
  return rows[:, :-1], rows[:, 1:]


def update(loss: Tensor, optimizer: torch.optim.Optimizer, clip: float = 0.0) -> Tensor:
  """Updates the parameters of `optimizer` to lower `loss`; returns the loss without its graph.

  Args:
    loss: scalar.
    optimizer: the optimizer of the parameters to update.
    clip: largest global norm of the gradient; 0 is off.
  """
  optimizer.zero_grad(set_to_none=True)
  loss.backward()
  if clip:
    params = [param for group in optimizer.param_groups for param in group['params']]
    nn.utils.clip_grad_norm_(params, clip, foreach=True)
  optimizer.step()
  return loss.detach()


class Flatten(nn.Module):
  """Flattens feature maps [B, C, H, W] to [B, C·H·W], in the order that they have in memory."""

  def __init__(self, channels_last: bool):
    super().__init__()
    self.channels_last = channels_last

  def forward(self, x: Tensor) -> Tensor:
    return (x.permute(0, 2, 3, 1) if self.channels_last else x).flatten(1)
