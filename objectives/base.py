"""What every objective offers the engine, and the few helpers that objectives share."""

from collections.abc import Callable, Mapping
from types import ModuleType
from typing import Any, NamedTuple, Protocol

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np

from errors import UserError, nearest

Batch = Mapping[str, jax.Array]
Params = Mapping[str, Any]  # {module: parameters}
Mutable = Mapping[str, Any]  # {module: {collection: values}}, e.g. batch statistics
Variables = Mapping[str, Any]  # {module: {'params': …, collection: …}}


class Aux(NamedTuple):
  """What a loss returns beside its scalar.

  Attributes:
    metrics: scalars, logged as `PLAYER/NAME`.
    mutable: `{module: {collection: values}}` for the modules whose collections changed.
  """

  metrics: Mapping[str, jax.Array]
  mutable: Mutable


LossFn = Callable[[Params, Mutable, Batch, jax.Array], tuple[jax.Array, Aux]]


class Player(NamedTuple):
  """The modules that one optimizer moves to lower one loss.

  Attributes:
    name: key of its optimizer in `config.optimizer` and in `state.opt_state`.
    moves: the modules whose parameters it may change.
    loss: `(params, mutable, batch, key) -> (scalar, Aux)`. The batch holds `position` int32 [B],
      each example's place in the update's batch, from which `example_keys` draws, and `step`
      int32 [B], the steps taken before this one, the same for all.
    repeats: updates per step; each sees its own slice of the batch.
  """

  name: str
  moves: tuple[str, ...]
  loss: LossFn
  repeats: int = 1


class Drawing(NamedTuple):
  """One kind of picture that `sample.py --kind=…` draws.

  Attributes:
    draw: (variables, batch of test examples, key, num) -> images [rows, columns, H, W, C].
    num: how many of whatever `count` says, if the user does not say.
    count: what is counted, e.g. 'pairs of test images'.
  """

  draw: Callable[[Variables, Batch, jax.Array, int], jax.Array]
  num: int
  count: str


class Writing(NamedTuple):
  """How a language model goes on with a text, a few tokens at a time.

  Attributes:
    begin: (variables, prompts int32 [B, P], key, length) -> loop, whose `tokens` are int32
      [B, length], the prompt first, and whose `position` says how many of them stand.
    advance: (variables, loop, count, temperature, top_k, top_p) -> loop with up to `count` tokens
      more; can be jitted with every one of these traced.
    check: (prompt, length, temperature, top_k, top_p) -> None; raises UserError for what no text
      can be made of, naming the flag of sample.py.
    context: most tokens of a text, the prompt included; 0 for no bound.
  """

  begin: Callable[[Variables, jax.Array, jax.Array, int], Any]
  advance: Callable[[Variables, Any, jax.Array, jax.Array, jax.Array, jax.Array], Any]
  check: Callable[[Any, int, float, int, float], None]
  context: int


class Objective(Protocol):
  """A run's aim. Images are float32 in [0, 1] on every side of these methods.

  Two members may be missing: `writing`, which language models have beside `sample`, and `derive`.
  """

  modules: Mapping[str, nn.Module]
  players: tuple[Player, ...]
  drawings: Mapping[str, Drawing]  # by kind, beside `sample`'s
  writing: Writing

  def init(self, key: jax.Array, batch: Batch) -> Variables:
    """Returns fresh variables of every module for batches shaped like `batch`."""

  def evaluate(self, variables: Variables, batch: Batch, key: jax.Array) -> dict[str, jax.Array]:
    """Returns per-example arrays; the engine masks the padding.

    Floats [B] are figures and averaged, with weights where there is a `weight` [B] among them, such
    as a row's number of tokens. Integers, and arrays with further axes, are what the model says of
    each example (`prediction`, `probability` [B, K]): they go to the metrics that read it.
    """

  def derive(self, figures: Mapping[str, float]) -> dict[str, float]:
    """Returns the figures to report, given the averaged ones: a perplexity, say, of a loss."""

  def measure(self, variables: Variables, batch: Batch, key: jax.Array) -> dict[str, jax.Array]:
    """Returns further per-example arrays [B], too costly for training: evaluate.py alone asks."""

  def sample(self, variables: Variables, key: jax.Array, num: int, **conditions) -> jax.Array:
    """Returns images float32 [num, H, W, C] in [0, 1], or tokens int32 [num, T].

    `sample` is None where there is nothing to draw from, as for a classifier.
    """


def pick(module: ModuleType, name: str, kind: str) -> Any:
  """Returns the public entry `name` of `module`.

  Raises:
    UserError: there is none; lists what `module` offers as a `kind`.
  """
  own = {
    key: value
    for key, value in vars(module).items()
    if not key.startswith('_') and key[0].islower() and _defined_in(value, module)
  }
  if name not in own:
    known = ', '.join(sorted(own))
    raise UserError(f'there is no {kind} "{name}"{nearest(name, own)}; there are: {known}')
  return own[name]


def _defined_in(value: Any, module: ModuleType) -> bool:
  """Whether `value` is a function or an instance of a class that `module` itself defines."""
  owner = value if hasattr(value, '__qualname__') else type(value)
  return getattr(owner, '__module__', None) == module.__name__


def example_keys(key: jax.Array, batch: Batch) -> jax.Array:
  """Returns one PRNG key per example, [B].

  They depend on the example's position in the update's batch and not on how that batch is cut for
  accumulation or over devices.
  """
  return jax.vmap(lambda position: jax.random.fold_in(key, position))(batch['position'])


def require_classes(name: str, num_classes: int, without: str) -> None:
  """Raises UserError where the data has no classes; `without` is the objective that needs none."""
  if not num_classes:
    raise UserError(
      f'config.objective.name={name} needs labels, and the data set has none; use {without}, or a '
      'data set with classes'
    )


def wanted_labels(label: int | jax.Array | None, num: int, num_classes: int) -> jax.Array:
  """Returns int32 [num] for what a caller of `sample` asked for.

  Args:
    label: the class of all samples, or int32 [num], that of each; None for every class in turn.
    num: how many samples.
    num_classes: how many classes there are.

  Raises:
    UserError: there is no such class; not noticed where `label` is traced, so without a value.
  """
  if label is None:
    return jnp.arange(num) % num_classes
  if not isinstance(label, jax.core.Tracer):
    values = np.asarray(label).reshape(-1)
    wrong = values[(values < 0) | (values >= num_classes)]
    if wrong.size:
      raise UserError(f'--label={wrong[0]} is no class; they go from 0 to {num_classes - 1}')
  return jnp.broadcast_to(jnp.asarray(label, jnp.int32), (num,))


def apply_training(
  module: nn.Module, params: Any, mutable: Mapping[str, Any], *inputs, key: jax.Array
) -> tuple[Any, Mapping[str, Any]]:
  """Applies `module` as in training: `(outputs, changed collections)`.

  `key` feeds dropout.
  """
  return module.apply(
    {'params': params, **mutable},
    *inputs,
    train=True,
    mutable=list(mutable),
    rngs={'dropout': key},
  )


def over_each_other(above: jax.Array, below: jax.Array, columns: int) -> jax.Array:
  """Images [N, H, W, C] twice to [rows, columns, H, W, C]: each row of the first over its partner.

  Fewer images make fewer columns; places left over are white.
  """
  number, *shape = above.shape
  columns = min(columns, number)
  pair = jnp.stack([above, below])
  missing = [(0, 0), (0, -number % columns), *3 * [(0, 0)]]
  rows = jnp.pad(pair, missing, constant_values=1).reshape(2, -1, columns, *shape)
  return rows.swapaxes(0, 1).reshape(-1, columns, *shape)
