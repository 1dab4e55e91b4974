"""Plans a run on devices that need not be here: memory, speed and cost, before they are paid for.

python plan.py --config=configs/gpt2.py:1558m --config.data.batch_size=512 \\
  --config.train.accumulate=1 --mesh=data:16,fsdp:16 --device=tpu-v5e

The training program is compiled for that many devices: by libtpu where it is installed and they are
TPUs, else for CPU devices in their place, and then its memory is an estimate. docs/plan_a_run.md
explains what is printed.
"""

import sys

from absl import flags

from commands import cli, config_flags
from errors import UserError

flags.DEFINE_string('device', None, 'The device: h100, h200, b200, tpu-v5e, tpu-v5p, tpu-v6e, …')
flags.DEFINE_string(
  'mesh',
  None,
  'Devices along each axis, e.g. data:16,fsdp:16; an axis that is not named is 1. By default '
  "the config's own mesh, whose -1 is 1.",
)
flags.DEFINE_string(
  'topology', '', 'How the TPUs are connected, e.g. 16x16; by default the form closest to a square.'
)
flags.DEFINE_string(
  'fit', '', 'Find the smallest mesh that holds the run, with 1, 2, 4, … devices along this axis.'
)
flags.DEFINE_string(
  'sweep',
  '',
  'A table of meshes: a number of devices, which are split over data and fsdp, or meshes '
  'separated by ";".',
)
flags.DEFINE_bool('money', False, 'Print what the whole run costs, at --price and --electricity.')
flags.DEFINE_float('price', None, 'What a device costs an hour, for --money.', lower_bound=0)
flags.DEFINE_float('electricity', None, 'What a kWh costs, for --money.', lower_bound=0)
flags.DEFINE_float(
  'watts', 0.0, 'Power of a device; 0 for what its data sheet says.', lower_bound=0
)
flags.DEFINE_float(
  'mfu',
  0.0,
  'Utilisation that is expected, 0 to 1, at which the whole run is computed too.',
  lower_bound=0,
  upper_bound=1,
)


def main() -> None:
  values = flags.FLAGS
  if 'config' not in values:
    raise UserError('give --config, e.g. python plan.py --config=configs/gan.py --device=h100')
  if not values.device:
    raise UserError('give --device, e.g. --device=h100; train.py --dry_run plans for those here')
  if values.money and values.price is None and values.electricity is None:
    raise UserError('--money needs --price, of a device for an hour, or --electricity, of a kWh')
  for name in ('price', 'electricity'):
    if values[name].value is not None and not values.money:
      raise UserError(f'--{name}={values[name].value} has no effect without --money; add it')
  # They import jax, which must come after the process was prepared.
  from commands import plan_report, plan_run

  question = plan_run.read_question(
    values.config,
    device=values.device,
    mesh=values.mesh,
    topology=values.topology,
    fit=values.fit,
    sweep=values.sweep,
    prices=plan_report.Prices(values.watts, values.price, values.electricity, values.mfu),
  )
  plan_run.prepare(question)
  plan_run.plan_run(values.config, question)


if __name__ == '__main__':
  cli.launch(main, sys.argv, define=config_flags.define_config)
