"""Measures what is known on a GPU alone, in parts of a few minutes, the most wanted first.

  python -m benchmarks.on_gpu --out=figures --peer_python=/path/to/python-with-torch
  python -m benchmarks.on_gpu --out=figures --part=exact --only=dcgan

gpt2: GPT-2 124m against torch.compile, as configured and with other options. exact: two runs for
each `config.train.determinism`, compared bit for bit, and their speed. tests: the unit tests of
models, losses and what is built of them. families: all cases of benchmarks.compare, against whole
CUDA graphs and torch.compile. quality: time and figure of whole runs. Every row is written at once,
to OUT/PART.json and as a line of a table to OUT/PART.md: a session that is cut short keeps them.
"""

import argparse
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks import compare
from benchmarks.cases import CASES, Case
from benchmarks.side import ROOT, SideFailed
from engine.runtime import DETERMINISM
from errors import UserError, choose

Row = dict[str, Any]

# Our options for GPT-2 124m beside those of the config.
GPT2: Mapping[str, tuple[str, ...]] = {
  'as configured': (),
  'scan': ('scan=True',),
  'scan, 4 blocks an iteration': ('scan=True', 'unroll=4'),
  'residual stream in float32': ('residual=float32',),
}
# Configs whose runs are repeated: kernel gradients, batch statistics, lookups, recurrence.
FAMILIES: Mapping[str, tuple[str, ...]] = {
  'dcgan': ('--config=configs/dcgan.py',),
  'conv_vae': ('--config=configs/conv_vae.py',),
  'dcgan_batch_norm': ('--config=configs/dcgan_batch_norm.py',),
  'gan': ('--config=configs/gan.py',),
  'cnn': ('--config=configs/cnn.py',),
  'gpt': ('--config=configs/gpt.py', '--config.train.precision=bfloat16'),
  'rnn': ('--config=configs/rnn.py',),
  'mlp': ('--config=configs/mlp.py',),
}
_SHAKESPEARE = '--config=configs/gpt_shakespeare.py'
# Whole runs: their flags, and the figure that they are judged by. The best published loss of the
# first is 1.4697, and it overfits from step 1,500 on; the goal is 1.46 at its last step.
RUNS: Mapping[str, tuple[tuple[str, ...], str]] = {
  **{
    f'gpt_shakespeare, {steps} steps, dropout {dropout}': (
      (
        _SHAKESPEARE,
        f'--config.train.steps={steps}',
        f'--config.modules.model.dropout={dropout}',
      ),
      'test/loss',
    )
    for steps, dropout in ((1500, 0.2), (2000, 0.3), (2500, 0.3), (3000, 0.4), (5000, 0.4))
  },
  'resnet, fashion_mnist': (
    ('--config=configs/resnet.py:fashion_mnist', '--config.train.precision=bfloat16'),
    'test/accuracy',
  ),
  'dcgan, fashion_mnist': (('--config=configs/dcgan.py:fashion_mnist',), 'samples/fd'),
}
TESTS = ('losses', 'models', 'objectives', 'sampling', 'metrics')


def gpt2(args: argparse.Namespace) -> Iterator[Row]:
  """Yields the ratio to torch.compile for each of `GPT2`."""
  case = CASES['gpt2_124m']
  for name in _chosen(args, GPT2):
    more = tuple(f'--config.modules.model.{option}' for option in GPT2[name])
    yield {'options': name, **_compared(args, case._replace(config=case.config + more), 'compile')}


def families(args: argparse.Namespace) -> Iterator[Row]:
  """Yields the ratio of each case to a whole CUDA graph, then to torch.compile."""
  modes = ('graph', 'compile') if args.device == 'gpu' else ('compile',)
  for mode in modes:
    for name in _chosen(args, compare.chosen([], args.device, mode)):
      yield {'case': name, 'peer_mode': mode, **_compared(args, CASES[name], mode)}


def _compared(args: argparse.Namespace, case: Case, mode: str) -> Row:
  try:
    figures = compare.compare(
      case, args.peer_python, args.rounds, args.seconds, args.threads, args.device, mode
    )
  except SideFailed as error:
    return {'failed': str(error)}
  described = figures.pop('described')
  mfu = {f'mfu_{name}': value for name, value in figures.pop('mfu').items()}
  versions = {name: each.get('version') for name, each in described.items()}
  return {**figures, **mfu, 'card': described['ours'].get('device'), 'versions': versions}


def exact(args: argparse.Namespace) -> Iterator[Row]:
  """Yields for each family and kind of determinism whether two runs end with equal bits.

  Neither finds compiled programs of the other, so both choose their kernels themselves.
  """
  for name in _chosen(args, FAMILIES):
    usual = None
    for determinism in DETERMINISM:
      folders = [Path(args.out) / f'{name}-{determinism}-{i}' for i in range(2)]
      flags = (
        *FAMILIES[name],
        f'--config.train.determinism={determinism}',
        f'--config.train.steps={args.steps}',
        f'--config.train.log_every={max(1, args.steps // 3)}',
        f'--config.checkpoint.every={args.steps}',
      )
      done = [_train(args, flags, folder, uncached=True) for folder in folders]
      speed = max((each['steps_per_second'] or 0.0) for each in done)
      usual = usual or speed
      prints = [_fingerprint(folder, args.steps) for folder in folders]
      yield {
        'family': name,
        'determinism': determinism,
        'equal': prints[0] is not None and prints[0] == prints[1],
        'steps_per_second': speed,
        'of_default': speed / usual if usual else None,
        'seconds': [each['seconds'] for each in done],
        'failed': next((each['failed'] for each in done if each['failed']), ''),
      }


def quality(args: argparse.Namespace) -> Iterator[Row]:
  """Yields the time and the figure, best and last, of whole runs."""
  for name in _chosen(args, RUNS):
    flags, figure = RUNS[name]
    folder = Path(args.out) / ''.join(c if c.isalnum() else '_' for c in name)
    done = _train(args, flags, folder)
    logged = [
      (line['step'], value)
      for line in _lines(folder)
      for key, value in line.items()
      if key == figure or key.startswith(f'{figure}_')
    ]
    highest = figure == 'test/accuracy'
    best = (max if highest else min)(logged, key=lambda each: each[1], default=None)
    last = logged[-1] if logged else None
    yield {'run': name, 'figure': figure, 'best': best, 'last': last, **done}


def tests(args: argparse.Namespace) -> Iterator[Row]:
  """Yields what pytest says at the end for each folder of unit tests; all of it is in OUT."""
  for name in _chosen(args, TESTS):
    command = [sys.executable, '-m', 'pytest', f'tests/{name}', '-rsf', '-m', 'not slow']
    started = time.perf_counter()
    done = subprocess.run(command, cwd=ROOT, env=_environment(args), capture_output=True, text=True)
    (Path(args.out) / f'tests_{name}.txt').write_text(done.stdout + done.stderr)
    lines = done.stdout.strip().splitlines()
    failed = [line.split()[1] for line in lines if line.startswith('FAILED')]
    seconds = time.perf_counter() - started
    yield {'tests': name, 'seconds': seconds, 'ended': lines[-1] if lines else '', 'failed': failed}


PARTS: Mapping[str, Callable[[argparse.Namespace], Iterator[Row]]] = {
  'gpt2': gpt2,
  'exact': exact,
  'tests': tests,
  'families': families,
  'quality': quality,
}


def _chosen(args: argparse.Namespace, names: Sequence[str] | Mapping[str, Any]) -> list[str]:
  """The names that begin with one of `--only`, or all."""
  return [name for name in names if name.startswith(tuple(args.only.split(',')))]


def _environment(args: argparse.Namespace) -> dict[str, str]:
  return {**os.environ, 'JAX_PLATFORMS': 'cpu' if args.device == 'cpu' else 'cuda'}


def _train(
  args: argparse.Namespace, flags: Sequence[str], folder: Path, uncached: bool = False
) -> Row:
  """Runs train.py; returns its seconds, its last speed and, where it failed, its last line.

  Raises:
    UserError: the folder is there; a run in it would only go on.
  """
  if folder.exists():
    raise UserError(f'{folder} holds a run already; give another --out')
  environment = _environment(args)
  if uncached:
    environment['JAX_ENABLE_COMPILATION_CACHE'] = 'false'
  started = time.perf_counter()
  done = subprocess.run(
    [sys.executable, 'train.py', *flags, f'--workdir={folder.absolute()}'],
    cwd=ROOT,
    env=environment,
    capture_output=True,
    text=True,
  )
  seconds = time.perf_counter() - started
  speeds = [line['steps_per_second'] for line in _lines(folder) if line.get('steps_per_second')]
  said = done.stderr.strip().splitlines()
  failed = (said[-1] if said else f'exit code {done.returncode}') if done.returncode else ''
  return {
    'seconds': seconds,
    'steps_per_second': speeds[-1] if speeds else None,
    'failed': failed,
  }


def _lines(folder: Path) -> list[dict[str, Any]]:
  """The lines of metrics.jsonl; none where there is no such file."""
  path = folder / 'metrics.jsonl'
  return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []


def _fingerprint(folder: Path, step: int) -> Any:
  """That of every leaf of the state at a step; None where there is no such checkpoint."""
  path = folder / 'checkpoints' / str(step) / 'meta' / 'metadata'
  return json.loads(path.read_text())['fingerprint'] if path.exists() else None


def table(rows: Sequence[Row]) -> str:
  """Returns rows as a Markdown table, with a column for every key of theirs."""
  keys = list(dict.fromkeys(key for row in rows for key in row))

  def cell(value: Any) -> str:
    text = f'{value:.4g}' if isinstance(value, float) else '–' if value is None else str(value)
    return text.replace('|', '\\|')

  head = [f'| {" | ".join(keys)} |', f'|{" --- |" * len(keys)}']
  body = [f'| {" | ".join(cell(row.get(key, "")) for key in keys)} |' for row in rows]
  return '\n'.join([*head, *body]) + '\n'


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
  """Reads the command line.

  Raises:
    UserError: there is no such part, `--only` leaves nothing of it, or no GPU is found.
  """
  parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
  parser.add_argument('--out', required=True, help='folder of the figures and the runs')
  parser.add_argument('--part', default=','.join(PARTS), help='parts, e.g. gpt2,exact')
  parser.add_argument('--only', default='', help='rows whose names begin so, e.g. dcgan,mlp')
  parser.add_argument('--peer_python', default=sys.executable, help='Python that has torch')
  parser.add_argument('--device', choices=compare.DEVICES, default='gpu', help='cpu: for a trial')
  parser.add_argument('--rounds', type=int, default=3, help='gpt2, families: rounds')
  parser.add_argument('--seconds', type=float, default=4.0, help='of a side in a round')
  parser.add_argument('--threads', type=int, default=8, help='of the peer on the host')
  parser.add_argument('--steps', type=int, default=300, help='exact: length of the runs')
  args = parser.parse_args(argv)
  args.parts = args.part.split(',')
  for part in args.parts:
    choose(PARTS, part, '--part')
  if args.device == 'gpu' and {'gpt2', 'families'} & {*args.parts}:
    compare.check_device('gpu', 'graph', args.peer_python)
  elif args.device == 'gpu' and not compare.gpu_of_jax():
    raise UserError('--device=gpu: jax finds no GPU; make setup ACCEL=cuda13 on a machine with one')
  return args


def main(argv: Sequence[str] | None = None) -> None:
  args = parse(argv)
  out = Path(args.out)
  out.mkdir(parents=True, exist_ok=True)
  for part in args.parts:
    rows: list[Row] = []
    for row in PARTS[part](args):
      rows.append(row)
      (out / f'{part}.json').write_text(json.dumps(rows, indent=2) + '\n')
      (out / f'{part}.md').write_text(table(rows))
      print(f'{part}: {json.dumps(row)}', flush=True)
    if not rows:
      raise UserError(f'--only={args.only} leaves no row of --part={part}')


if __name__ == '__main__':
  try:
    main()
  except UserError as error:
    print(f'error: {error}', file=sys.stderr)
    sys.exit(2)
