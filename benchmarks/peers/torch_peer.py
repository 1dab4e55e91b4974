"""What the PyTorch peers share: how a process begins, resident data, how steps are served."""

import argparse
from collections.abc import Callable, Mapping, Sequence

import protocol
import torch
from torch import Tensor, nn

EXAMPLES = 4000
# Characters of tiny Shakespeare's training split, and how many different ones there are.
CHARACTERS, VOCABULARY = 1_003_854, 65


def parser(doc: str, name: str, choices: Sequence[str], batch_size: int) -> argparse.ArgumentParser:
  """The command line of a peer: the positional `name`, one of `choices`, and two flags."""
  made = argparse.ArgumentParser(description=doc.splitlines()[0])
  made.add_argument(name, choices=choices)
  made.add_argument('--batch-size', type=int, default=batch_size)
  made.add_argument('--threads', type=int, default=2)
  return made


def begin(threads: int) -> None:
  """Sets up the process; call it before anything is drawn."""
  torch.set_num_threads(threads)
  torch.set_flush_denormal(True)
  torch.manual_seed(0)


def serve(step: Callable[[], Mapping[str, Tensor]]) -> None:
  """Answers the harness; `step` takes one training step and returns its losses, scalars."""

  def run(steps: int) -> dict[str, float]:
    for _ in range(steps):
      losses = step()
    # The host reads a loss once per command, never per step.
    return {name: loss.item() for name, loss in losses.items()}

  protocol.serve(run)


def resident_images(flat: bool) -> Tensor:
  """Random images uint8 [4000, 784], or [4000, 1, 28, 28] if not `flat`."""
  shape = (EXAMPLES, 784) if flat else (EXAMPLES, 1, 28, 28)
  return torch.randint(0, 256, shape, dtype=torch.uint8)


def resident_tokens() -> Tensor:
  """Random tokens int64 [1003854], as many as tiny Shakespeare has and as many different ones."""
  return torch.randint(VOCABULARY, (CHARACTERS,))


def windows(tokens: Tensor, batch_size: int, length: int) -> tuple[Tensor, Tensor]:
  """Random windows of `tokens` and what follows each of their tokens: two int64 [B, T]."""
  starts = torch.randint(len(tokens) - length, (batch_size, 1))
  rows = tokens[starts + torch.arange(length + 1)]
  return rows[:, :-1], rows[:, 1:]


def descend(loss: Tensor, optimizer: torch.optim.Optimizer, clip: float = 0.0) -> Tensor:
  """One update of what `optimizer` holds; returns the loss without its graph.

  Args:
    loss: scalar.
    optimizer: of the parameters that move.
    clip: largest global norm of their gradient; 0 is off.
  """
  optimizer.zero_grad(set_to_none=True)
  loss.backward()
  if clip:
    params = [param for group in optimizer.param_groups for param in group['params']]
    nn.utils.clip_grad_norm_(params, clip, foreach=True)
  optimizer.step()
  return loss.detach()


class Flatten(nn.Module):
  """Feature maps [B, C, H, W] → [B, C·H·W], in the order they have in memory."""

  def __init__(self, channels_last: bool):
    super().__init__()
    self.channels_last = channels_last

  def forward(self, x: Tensor) -> Tensor:
    return (x.permute(0, 2, 3, 1) if self.channels_last else x).flatten(1)
