"""A script: what a run of text gives on the devices here, and the bytes it takes on each of them.

python -m tests.engine.write_split_run WORKDIR OUT.json
"""

import functools
import json
import sys
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from ml_collections import ConfigDict

from data.section import open_testing
from engine import run
from engine.evaluation import open_evaluators
from engine.evaluators.batches import PerExample, Split
from engine.restore import Restored, restore_run
from engine.session import open_session
from engine.transfer import transfer
from objectives.base import numbered_keys
from options import complete

ROWS, LENGTH = 8, 16


def measured(workdir: str) -> dict[str, Any]:
  """Returns the results of a run (`tokens`, `figures`, `loaded`), and bytes on one device.

  The bytes are those of the arguments of the compiled programs (`start`, `advance`, `evaluate`), of
  the parameters and of those that another run takes (`params`, `transferred`), and in `whole` of
  all parameters on all devices.
  """
  restored = restore_run(workdir, 'latest')
  variables = restored.variables()
  tokens, programs = _sampled(restored, variables)
  evaluators = open_evaluators(restored.session)
  figures = evaluators.evaluate('test', restored.weights, restored.key()).figures
  loaded = _transferred(workdir, restored)
  return {
    'tokens': tokens.tolist(),
    'figures': {name: figure.mean for name, figure in figures.items()},
    'loaded': _equal(loaded, variables['model']['params']),
    'start': programs[0],
    'advance': programs[1],
    'evaluate': _evaluation_bytes(restored, variables),
    'params': _bytes_here(variables),
    'transferred': _bytes_here(loaded),
    'whole': sum(leaf.nbytes for leaf in jax.tree.leaves(variables)),
  }


def _sampled(restored: Restored, variables: Any) -> tuple[np.ndarray, list[int]]:
  """Greedy tokens [ROWS, LENGTH], and argument bytes of the two programs that sample them."""
  sampler = restored.session.objective.sampler
  options = complete(sampler.options, {'temperature': 0.0}, 'the sampler')
  options = {name: options[name] for name in ('temperature', 'top_k', 'top_p')}
  keys = numbered_keys(jax.random.key(0), jnp.arange(ROWS))
  prompts = jnp.arange(97, 97 + ROWS, dtype=jnp.int32)[:, None]
  start = jax.jit(functools.partial(sampler.start, length=LENGTH))
  begin = start.lower(variables, prompts, jnp.ones(ROWS, jnp.int32), keys).compile()
  state = begin(variables, prompts, jnp.ones(ROWS, jnp.int32), keys)
  advance = jax.jit(sampler.advance).lower(variables, state, LENGTH, **options).compile()
  state = advance(variables, state, LENGTH, **options)
  return np.asarray(state.tokens), [_argument_bytes(program) for program in (begin, advance)]


def _evaluation_bytes(restored: Restored, variables: Any) -> int:
  session = restored.session
  program = PerExample(session.objective.evaluate, session)
  examples = open_testing(session.data, session.spec)
  batch = program.first(Split(lambda: examples, 0), ROWS)
  return _argument_bytes(program.call.lower(variables, restored.key(), batch).compile())


def _transferred(workdir: str, restored: Restored) -> Any:
  """The parameters of the module of a new run that starts from this one."""
  config = ConfigDict(run.read_config(workdir))
  config.init_from.model.run = workdir
  config.mesh = {name: config.mesh[name] if jax.device_count() > 1 else 1 for name in config.mesh}
  config.train.seed += 1
  session = open_session(config, restored.session.spec)
  return transfer(session.init(), session)[0].params['model']


def _equal(a: Any, b: Any) -> bool:
  return all(jax.tree.leaves(jax.tree.map(lambda x, y: np.array_equal(x, y), a, b)))


def _argument_bytes(program: jax.stages.Compiled) -> int:
  return program.memory_analysis().argument_size_in_bytes


def _bytes_here(tree: Any) -> int:
  return sum(leaf.addressable_shards[0].data.nbytes for leaf in jax.tree.leaves(tree))


if __name__ == '__main__':
  Path(sys.argv[2]).write_text(json.dumps(measured(sys.argv[1])))
