"""Calling an objective as the engine does, from one key."""

from typing import Any

import jax
import jax.numpy as jnp

from objectives.base import Batch, Context, Objective, Variables, numbered_keys
from options import complete


def keys_of(batch: Batch, key: jax.Array) -> jax.Array:
  """One key per example [B], by its `position` in the update where the batch has it."""
  rows = len(next(iter(batch.values())))
  return numbered_keys(key, batch.get('position', jnp.arange(rows)))


def given(batch: Batch, key: jax.Array, step: int = 0) -> tuple[Batch, Context]:
  """A batch and the context of its loss; module rngs differ by the first position, as in parts."""
  first = batch['position'][0] if 'position' in batch else 0
  rngs = {name: jax.random.fold_in(key, first) for name in ('params', 'dropout')}
  return batch, Context(jnp.int32(step), keys_of(batch, key), rngs)


def evaluate(
  objective: Objective, variables: Variables, batch: Batch, key: jax.Array
) -> dict[str, jax.Array]:
  return objective.evaluate(variables, batch, keys_of(batch, key))


def measure(
  objective: Objective, name: str, variables: Variables, batch: Batch, key: jax.Array, **options
) -> dict[str, jax.Array]:
  found = objective.measurements[name]
  options = complete(found.options, options, name)
  return found.measure(variables, batch, keys_of(batch, key), **options)


def sample(
  objective: Objective, variables: Variables, key: jax.Array, num: int, **options: Any
) -> jax.Array:
  """Samples 0 to `num` − 1."""
  sampler, numbers = objective.sampler, jnp.arange(num)
  options = complete(sampler.options, options, 'the sampler', '--')
  return sampler.sample(variables, numbered_keys(key, numbers), numbers, **options)


def render(
  objective: Objective, kind: str, variables: Variables, batch: Batch, key: jax.Array, num: int
) -> jax.Array:
  return objective.pictures[kind].render(variables, batch, keys_of(batch, key), num)
