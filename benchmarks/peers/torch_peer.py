"""Shared code of the PyTorch peers: command line, process setup, resident data, serving steps."""

import argparse
from collections.abc import Callable, Mapping, Sequence

import protocol
import torch
from torch import Tensor, nn

EXAMPLES = 4000
# Number of characters in tiny Shakespeare's training split, and of different ones.
CHARACTERS, VOCABULARY = 1_003_854, 65


def parser(doc: str, name: str, choices: Sequence[str], batch_size: int) -> argparse.ArgumentParser:
  """Makes the parser of a peer's command line, with the positional `name` and two flags."""
  made = argparse.ArgumentParser(description=doc.splitlines()[0])
  made.add_argument(name, choices=choices)
  made.add_argument('--batch-size', type=int, default=batch_size)
  made.add_argument('--threads', type=int, default=2)
  return made


def set_up(threads: int) -> None:
  """Sets threads, denormals and the random seed; call it before any random number is used."""
  torch.set_num_threads(threads)
  torch.set_flush_denormal(True)
  torch.manual_seed(0)


def serve(step: Callable[[], Mapping[str, Tensor]]) -> None:
  """Answers the harness (see `protocol.serve`).

  Args:
    step: takes one step and returns its losses, scalar tensors by name.
  """

  def run(steps: int) -> dict[str, float]:
    for _ in range(steps):
      losses = step()
    # The host reads a loss once per command, never per step.
    return {name: loss.item() for name, loss in losses.items()}

  protocol.serve(run)


def resident_images(flat: bool) -> Tensor:
  """Makes random images uint8 [4000, 784], or [4000, 1, 28, 28] if not `flat`."""
  shape = (EXAMPLES, 784) if flat else (EXAMPLES, 1, 28, 28)
  return torch.randint(0, 256, shape, dtype=torch.uint8)


def resident_tokens() -> Tensor:
  """Makes random tokens int64 [1003854], with the length and vocabulary of tiny Shakespeare."""
  return torch.randint(VOCABULARY, (CHARACTERS,))


def windows(tokens: Tensor, batch_size: int, length: int) -> tuple[Tensor, Tensor]:
  """Returns random windows of `tokens` and the targets, each the next token: two int64 [B, T]."""
  starts = torch.randint(len(tokens) - length, (batch_size, 1))
  rows = tokens[starts + torch.arange(length + 1)]
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
