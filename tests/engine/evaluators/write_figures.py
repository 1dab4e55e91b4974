"""A script: the figures of all evaluators of a small cVAE on any mesh and number of processes.

python -m tests.engine.evaluators.write_figures OUT.json BATCH_SIZE AXIS:SIZE,… [distributed]
"""

import json
import sys
from pathlib import Path

import jax

from configs import cvae
from configs.defaults import examples, measure, samples
from engine import distributed
from engine.evaluation import open_evaluators
from engine.lanes import take_lane
from engine.session import open_session
from engine.state import weights
from tests.runs import small


def figures(batch_size: int, mesh: dict[str, int]) -> dict[str, float]:
  """Returns the mean of every figure of the first lane, and its standard error if it has one."""
  config = small(cvae.get_config())
  config.modules.encoder.latent_size = 4
  config.objective.binarise = True
  config.data.test_split, config.data.batch_size = 'test[:101]', 128
  config.mesh.update(mesh)
  config.seeds = config.mesh.lane
  config.evaluators = dict(
    test=examples(batch_size=batch_size),
    nll=measure('likelihood', samples=20, batch_size=batch_size),
    samples=samples(
      dict(name='pixels.BlockMeans', side=4),
      dict(fd=dict(name='frechet')),
      samples=101,
      reference='train[:101]',
      batch_size=batch_size,
    ),
  )
  session = open_session(config)
  evaluators = open_evaluators(session, unscheduled=True)
  held = take_lane(weights(session.init()), 0, session.lanes.number)
  found = {}
  for name in evaluators.names:
    for figure, value in evaluators.evaluate(name, held, jax.random.key(3)).figures.items():
      found[figure] = value.mean
      if value.standard_error is not None:
        found[f'{figure} ±'] = value.standard_error
  return found


if __name__ == '__main__':
  out, batch_size, mesh, *rest = sys.argv[1:]
  if rest == ['distributed']:
    distributed.join()
  sizes = dict(part.split(':') for part in mesh.split(','))
  content = figures(int(batch_size), {axis: int(size) for axis, size in sizes.items()})
  Path(f'{out}.{jax.process_index()}').write_text(json.dumps(content))
