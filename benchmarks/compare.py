"""Compares our speed, of training or of text generation, with that of a peer in PyTorch.

  python -m benchmarks.compare dense_gan_128 dcgan_128 --peer_python=/path/to/python-with-torch
  python -m benchmarks.compare --device=gpu --mode=graph --peer_python=/path/to/python-with-torch

Each side is a process that is kept alive. The two are interleaved: each round runs ours, then the
peer, so that a machine whose speed drifts affects both. The figure is the median over rounds of the
ratio of steps per second within a round. On a GPU the MFU of both sides is that of the operations
that our step is counted to have, over the card's peak at the step's precision. A side that fails
has its reason in the table, and the other cases go on. PyTorch is not a requirement of this
project; install it in an environment of its own, e.g. `pip install torch==2.13.0` for a CPU.
"""

import json
import os
import statistics
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from absl import app, flags

from benchmarks.cases import CASES, Case
from benchmarks.peers import protocol
from benchmarks.side import Side, SideFailed
from errors import UserError, nearest

DEVICES, MODES = ('cpu', 'gpu'), ('eager', 'compile', 'graph')
flags.DEFINE_string('peer_python', sys.executable, "The Python that has the peer's framework.")
flags.DEFINE_enum('device', 'cpu', DEVICES, 'What both sides compute on.')
flags.DEFINE_enum(
  'mode',
  'eager',
  MODES,
  'How the peer runs a step: eager; compile: its loss by torch.compile; graph: the whole step '
  'captured as one CUDA graph.',
)
flags.DEFINE_integer('rounds', 6, 'Number of rounds.')
flags.DEFINE_float('seconds', 6.0, 'Approximate time that each side runs in a round.')
flags.DEFINE_integer('threads', 2, 'Threads of the peer.')
flags.DEFINE_string('json', None, 'A file to write the figures to, in addition to the terminal.')

_HEADER = 'case                  ours/s    peer/s   ratio (lowest–highest)   MFU ours, peer  target'
# Most steps of a dispatch on a GPU: a small model takes thousands in a second.
_DISPATCH = 1000
# Seconds of steps by which the speed on a GPU is estimated: a few of them say nothing there.
_ESTIMATED = 0.5
# The share of a GPU's memory that our side reserves, so that the peer has as much.
_MEMORY = '0.45'
# What the platforms of jax are called that a side may use.
_PLATFORMS = {'cpu': 'cpu', 'gpu': 'cuda'}
_GPU_OF_JAX = 'import jax; print(jax.devices("cuda")[0].device_kind)'
_GPU_OF_TORCH = 'import torch; print(torch.cuda.get_device_name())'


def compare(
  case: Case,
  peer_python: str,
  rounds: int,
  seconds: float,
  threads: int,
  device: str = 'cpu',
  mode: str = 'eager',
) -> dict[str, Any]:
  """Runs one case.

  Returns:
    The median speeds of both sides in steps a second, the median ratio and its range over rounds,
    and what both sides say of themselves; of a GPU also the MFUs.

  Raises:
    SideFailed: a side has failed; the message names it.
  """
  file, *arguments = case.peer
  ours_flags = [*case.config]
  if device == 'gpu' and case.program == 'train_steps':
    ours_flags.append(f'--config.train.dispatch={_DISPATCH}')
  platform = {'JAX_PLATFORMS': _PLATFORMS[device], 'XLA_PYTHON_CLIENT_MEM_FRACTION': _MEMORY}
  sides = {
    'ours': Side(
      [sys.executable, '-m', f'benchmarks.{case.program}', *ours_flags], {**os.environ, **platform}
    ),
    'peer': Side(
      [peer_python, f'benchmarks/peers/{file}', *arguments, '--device', device, '--mode', mode],
      protocol.environment(threads),
    ),
  }
  try:
    return _measured(sides, case, rounds, seconds, device)
  finally:
    for side in sides.values():
      side.close()


def _measured(
  sides: Mapping[str, Side], case: Case, rounds: int, seconds: float, device: str
) -> dict[str, Any]:
  def speed(name: str, command: str, steps: int) -> float:
    try:
      return sides[name].speed(command, steps)
    except SideFailed as error:
      raise SideFailed(f'{name}: {error}') from error

  lengths = {}
  for name in sides:
    speed(name, 'warm', case.steps)
    pace = speed(name, 'warm', 3 * case.steps)
    if device == 'gpu':
      pace = speed(name, 'warm', max(case.steps, round(pace * _ESTIMATED)))
    lengths[name] = max(case.steps, round(pace * seconds))
  speeds: dict[str, list[float]] = {name: [] for name in sides}
  for _ in range(rounds):
    for name in sides:
      speeds[name].append(speed(name, 'run', lengths[name]))
  described = {name: side.description() for name, side in sides.items()}
  ratios = [a / b for a, b in zip(speeds['ours'], speeds['peer'])]
  medians = {name: statistics.median(values) for name, values in speeds.items()}
  flops, peak = (described['ours'].get(key) for key in ('flops', 'peak'))
  return {
    **medians,
    'ratio': statistics.median(ratios),
    'lowest': min(ratios),
    'highest': max(ratios),
    'target': case.gpu_target if device == 'gpu' else case.target,
    'mfu': {
      name: flops * pace / peak if flops and peak else None for name, pace in medians.items()
    },
    'described': described,
  }


def chosen(names: Sequence[str], device: str, mode: str) -> list[str]:
  """Returns the cases to run: those that are named, else all that the device and mode are for.

  Raises:
    UserError: there is no such case, or it cannot be run in this mode.
  """
  for name in names:
    if name not in CASES:
      raise UserError(f'no case "{name}"{nearest(name, CASES)}; there are: {", ".join(CASES)}')
    if mode != 'eager' and CASES[name].program != 'train_steps':
      raise UserError(f'the case {name} generates texts that grow: leave --mode={mode} at eager')
  return list(names) or [
    name
    for name, case in CASES.items()
    if device in case.devices and (mode == 'eager' or case.program == 'train_steps')
  ]


def check_device(device: str, mode: str, peer_python: str) -> None:
  """Raises UserError where a side does not find the device, or it does not have the mode."""
  if device == 'cpu' and mode == 'graph':
    raise UserError(
      '--mode=graph captures a CUDA graph, which a CPU has not; give --device=gpu too, or '
      '--mode=eager or compile'
    )
  if device == 'cpu':
    return
  found = {'jax': gpu_of_jax(), 'torch': _printed(peer_python, _GPU_OF_TORCH, {})}
  if not all(found.values()):
    listed = ', '.join(f'{name} finds {gpu or "none"}' for name, gpu in found.items())
    raise UserError(
      f'--device=gpu needs a GPU that both sides find, and here {listed}; give --device=cpu, or on '
      'a machine with a GPU make setup ACCEL=cuda13 and name a --peer_python whose torch has CUDA'
    )


def gpu_of_jax() -> str:
  """Returns the kind of the GPU that jax finds here; '' for none."""
  return _printed(sys.executable, _GPU_OF_JAX, {'JAX_PLATFORMS': _PLATFORMS['gpu']})


def _printed(python: str, code: str, environment: Mapping[str, str]) -> str:
  """The last line that a program prints; '' where it fails."""
  try:
    done = subprocess.run(
      [python, '-c', code], env={**os.environ, **environment}, capture_output=True, text=True
    )
  except OSError:
    return ''
  lines = done.stdout.strip().splitlines()
  return lines[-1] if lines and not done.returncode else ''


def row(name: str, figures: Mapping[str, Any]) -> str:
  """Returns the line of the table of a case, or of the side that failed in it."""
  if 'failed' in figures:
    return f'{name:20}        –         –   {figures["failed"]}'
  mfu = ', '.join('–' if each is None else f'{each:.1%}' for each in figures['mfu'].values())
  return (
    f'{name:20} {figures["ours"]:8.4g}  {figures["peer"]:8.4g}   {figures["ratio"]:5.2f} '
    f'({figures["lowest"]:.2f}–{figures["highest"]:.2f})'
    f'{"":12}{mfu:15}  {figures["target"]}'
  )


def main(argv: Sequence[str]) -> int:
  """Prints the table; returns the exit code: 1 where one of our sides has failed."""
  values = flags.FLAGS
  names = chosen(argv[1:], values.device, values.mode)
  check_device(values.device, values.mode, values.peer_python)
  results: dict[str, dict[str, Any]] = {}
  for name in names:
    try:
      figures = compare(
        CASES[name],
        values.peer_python,
        values.rounds,
        values.seconds,
        values.threads,
        values.device,
        values.mode,
      )
    except SideFailed as error:
      figures = {'failed': str(error)}
    if not results:
      print(f'--device={values.device} --mode={values.mode}')
    if 'described' in figures and not any('described' in each for each in results.values()):
      for each in figures['described'].values():
        print(f'{each.get("version", "")}: {each.get("device", "")}')
    if not results:
      print(_HEADER)
    results[name] = {**figures, 'device': values.device, 'mode': values.mode}
    print(row(name, figures), flush=True)
  if values.json:
    Path(values.json).write_text(json.dumps(results, indent=2) + '\n')
  return int(any(each.get('failed', '').startswith('ours') for each in results.values()))


def _run(argv: Sequence[str]) -> None:
  try:
    sys.exit(main(argv))
  except UserError as error:
    print(f'error: {error}', file=sys.stderr)
    sys.exit(2)


if __name__ == '__main__':
  app.run(_run)
