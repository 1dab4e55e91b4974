"""Measures the training speed of a transformer: tokens/s and model FLOPs utilisation (MFU).

  python -m benchmarks.utilisation --config=configs/gpt_shakespeare.py --steps=200

It times steps as train.py takes them, without logs, checkpoints and evaluations, and prints the
median over `--repeats`. The formula is in `benchmarks/flops.py`, the peaks are in
`engine/planning/devices.py`: on an accelerator that of bfloat16, whatever the config's precision;
on a CPU that of a float32 product.
"""

import statistics
import sys

from absl import flags

from commands import cli, config_flags

flags.DEFINE_integer('steps', 100, 'Number of steps that are timed together.')
flags.DEFINE_integer('repeats', 5, 'How many times they are timed.')


def main() -> None:
  # Imported here because it imports jax, which must come after `cli.launch` set up the process.
  import jax

  from benchmarks import flops
  from benchmarks.peers.protocol import timed
  from benchmarks.stepper import Stepper
  from engine.session import open_session

  values = flags.FLAGS
  session = open_session(values.config)
  model, params = session.objective.modules['model'], session.lane_abstract.params['model']
  length = session.data.text.length
  parameters = flops.multiplied_parameters(params, model.tied)
  cost = flops.token_flops(
    parameters, model.layers, model.heads, model.width // model.heads, length
  )
  run = Stepper(values.config).run
  run(values.steps)
  seconds = [timed(values.steps, run)['seconds'] for _ in range(values.repeats)]
  speed = session.per_step * length * values.steps / statistics.median(seconds)
  devices = jax.devices()
  peak = len(devices) * flops.peak(devices[0])
  print(f'{len(devices)} × {devices[0].device_kind}, peak {peak / 1e12:.4g} TFLOP/s')
  print(f'{parameters:,} parameters, {cost / 1e6:.4g} MFLOP a token')
  print(f'{speed:.5g} tokens/s, MFU {speed * cost / peak:.1%}')


if __name__ == '__main__':
  cli.launch(main, sys.argv, define=config_flags.define_config)
