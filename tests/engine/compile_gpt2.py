"""A script: compiles the training program of GPT-2 for all devices here, without allocating it.

python -m tests.engine.compile_gpt2 OUT.json SIZE BATCH_SIZE '{"data": 4, "fsdp": 64}'

It writes the bytes on one device of the parameters and the optimizer's state, those of all devices,
the program's arguments and temporaries as XLA counts them, and the seconds it took.
"""

import json
import math
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec

from commands.dry_run import compile_program
from configs import gpt2
from data import placement
from data.spec import Spec
from data.text.symbols import Character
from engine.session import Session, open_session


def compiled(size: str, batch_size: int, mesh: Mapping[str, int]) -> dict[str, float]:
  """Compiles the program of a size of GPT-2 on a mesh, with one microbatch a step."""
  config = gpt2.get_config(size)
  config.data.batch_size, config.train.accumulate = batch_size, 1
  config.mesh.update(mesh)
  begun = time.perf_counter()
  session = open_session(config, _spec(config.data.text))
  program = compile_program(session, _Abstract(session))
  state = session.abstract.params, session.abstract.opt_state
  return {
    'whole': sum(math.prod(leaf.shape) * leaf.dtype.itemsize for leaf in jax.tree.leaves(state)),
    'here': program.memory['parameters'] + program.memory['optimizer state'],
    'temporaries': program.memory['activations, gradients, temporaries'],
    'seconds': time.perf_counter() - begun,
  }


def _spec(text: Any) -> Spec:
  """A text data set with as many entries as the config asks for, each a character."""
  characters = ''.join(map(chr, range(0x20000, 0x20000 + text.vocabulary)))
  tokenizer = Character(characters, tuple(text.specials)).to_json()
  features = {'tokens': ((text.length + 1,), 'int32'), 'length': ((), 'int32')}
  return Spec('text', 'train', 10_000_000, features, 0, 'identity', (), tokenizer)


class _Abstract:
  """A feed of batches that have shapes alone, split over the mesh as those of a stream are."""

  def __init__(self, session: Session):
    self._session = session

  def take(self, used: int, steps: int) -> tuple[int, dict[str, jax.ShapeDtypeStruct]]:
    session = self._session
    split = NamedSharding(session.mesh, PartitionSpec(None, *placement.BATCH))
    columns = {**session.spec.features, 'index': ((), 'int32'), 'epoch': ((), 'uint32')}
    return 1, {
      name: jax.ShapeDtypeStruct((1, session.per_step, *shape), np.dtype(dtype), sharding=split)
      for name, (shape, dtype) in columns.items()
    }

  def batch(self, data: Mapping[str, jax.Array], i: jax.Array) -> dict[str, jax.Array]:
    batch = {
      name: jax.lax.dynamic_index_in_dim(rows, i, keepdims=False) for name, rows in data.items()
    }
    return placement.split_batch(batch, self._session.mesh)

  def close(self) -> None:
    """There is nothing to close."""


if __name__ == '__main__':
  out, size, batch_size, mesh = sys.argv[1:]
  Path(out).write_text(json.dumps(compiled(size, int(batch_size), json.loads(mesh))))
