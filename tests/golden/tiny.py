"""Every config on tiny shapes, and what five steps of it come to."""

import functools
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict

from commands import cli
from data.spec import Spec
from data.text import tokenization
from tests.golden import adapter

ROOT = Path(__file__).parents[2]
STEPS = 5
CONFIGS = sorted(
  p.stem for p in (ROOT / 'configs').glob('*.py') if p.stem not in ('__init__', 'defaults')
)
LABEL = {'label': ((), 'int32')}
# What the data sets look like, and how many classes they have.
LOOKS = {
  'mnist5k': ({'image': ((28, 28, 1), 'uint8'), **LABEL}, 10),
  'cifar10': ({'image': ((32, 32, 3), 'uint8'), **LABEL}, 10),
  'breast_cancer': ({'inputs': ((30,), 'float32'), **LABEL}, 2),
  'diabetes': ({'inputs': ((10,), 'float32'), 'target': ((), 'float32')}, 0),
}
# The argument of a config that takes other words than the name of a set of images.
ARGUMENTS = {
  'tabular': ('breast_cancer', 'diabetes'),
  'synthetic': ('both',),
}
# Configs of text, and the argument each is built with; `finetune` needs a run and has a test of its
# own in tests/test_text_runs.py.
TEXT = {
  'gpt': 'python_stdlib',
  'gpt2': '124m',
  'gpt_shakespeare': 'tiny_shakespeare',
  'gpt_shakespeare_cpu': 'tiny_shakespeare',
  'rnn': 'python_stdlib',
  'bert': 'python_stdlib',
  'bert_tag': '',
  'bert_classify': '',
}
CONFIGS.remove('finetune')
# Variants whose modules are those of another config: one set of images says enough.
VARIANTS = (
  'cdcgan', 'cgan', 'cnn_binary', 'cvae', 'features', 'gan_plain', 'iwae', 'vae_nll', 'vampprior',
)  # fmt: skip


# Variants of another config, which is stepped as well.
SLOW = (
  'cdcgan', 'cnn_binary', 'cvae', 'dcgan_batch_norm', 'features', 'gan_plain', 'gpt2',
  'gpt_shakespeare', 'gpt_shakespeare_cpu', 'iwae', 'synthetic', 'vae_nll', 'vampprior',
)  # fmt: skip


def cases() -> list[tuple[str, str]]:
  """Every config with each of the data sets that it is tried on."""
  images = {name: ('mnist5k',) if name in VARIANTS else ('mnist5k', 'cifar10') for name in CONFIGS}
  pictures = [name for name in CONFIGS if name not in TEXT]
  pairs = [(name, data) for name in pictures for data in ARGUMENTS.get(name, images[name])]
  return [*pairs, *TEXT.items()]


def marked_cases() -> list[Any]:
  """Returns `cases` for `pytest.mark.parametrize`.

  Colour images are slow but for one config, and so are configs that change numbers of another one.
  """

  def marks(name: str, data: str) -> tuple[Any, ...]:
    slow = name in SLOW or (data == 'cifar10' and name != 'vae')
    return (pytest.mark.slow,) if slow else ()

  return [pytest.param(*case, marks=marks(*case)) for case in cases()]


def config_for(name: str) -> ConfigDict:
  return config_of(name, TEXT.get(name, ARGUMENTS.get(name, ('mnist5k',))[0]))


def config_of(name: str, data: str = 'mnist5k') -> ConfigDict:
  config = cli.load(f'{ROOT}/configs/{name}.py:{data}')
  config.data.batch_size = 4
  if name in TEXT:
    # As deep and wide as it is, a step would take a minute.
    small = dict(width=16, layers=1, heads=4, hidden=16, context=8, embedding=4)
    model = config.modules.model
    model.update({key: value for key, value in small.items() if key in model})
    config.data.text.length = 8
    config.train.accumulate = 1
  return config


def spec_for(name: str, data: str, config: ConfigDict) -> Spec:
  """The looks of the data that `config_of(name, data)` is tried on."""
  return spec_of_text(config) if name in TEXT else spec(data, len(config.data.classes) or None)


def spec(data: str, classes: int | None = None) -> Spec:
  features, known = LOOKS.get(data, LOOKS['mnist5k'])
  return Spec(data, 'train', 100, features, known if classes is None else classes, 'identity')


def spec_of_text(config: ConfigDict) -> Spec:
  """As `data.text.options.open_text` would describe it, of bytes."""
  text = config.data.text
  row = ((text.length + text.next_token,), 'int32')
  features = {'tokens': row, 'length': ((), 'int32')}
  features.update({'kind': row} if text.kinds else LABEL if text.rows == 'documents' else {})
  classes = 2 if len(features) > 2 else 0
  json = tokenizer(tuple(text.specials))
  return Spec('text', 'train', 100, features, classes, 'identity', (), json)


@functools.cache
def tokenizer(specials: tuple[str, ...]) -> str:
  return tokenization.train('byte', (), 0, specials).to_json()


def batch_of(description: Spec, rows: int, step: int = 0) -> dict[str, np.ndarray]:
  """A batch of noise as a feed gives it, another one for every step."""
  rng = np.random.default_rng(step)

  def integers(shape: tuple[int, ...]) -> np.ndarray:
    places = np.arange(math.prod(shape), dtype=np.int32).reshape(shape)
    return (places + step) % max(description.num_classes, 2)

  values = {
    'uint8': lambda shape: rng.integers(0, 256, shape, np.uint8),
    'float32': lambda shape: rng.random(shape, np.float32),
    'int32': integers,
  }
  columns = {
    name: values[dtype]((rows, *shape)) for name, (shape, dtype) in description.features.items()
  }
  if 'tokens' in columns:
    length = columns['tokens'].shape[1]
    columns['tokens'] = rng.integers(0, 256, (rows, length), np.int32)
    # Some rows end in padding.
    columns['length'] = (length - (np.arange(rows) + step) % 3).astype(np.int32)
  return {
    **columns,
    'index': np.arange(rows, dtype=np.int32) + rows * step,
    'epoch': np.zeros(rows, np.uint32),
  }


class Outcome(NamedTuple):
  """What five steps of a config came to.

  Attributes:
    description: the looks of its data.
    players: the modules that each player moves.
    moved: the modules whose parameters the first step changed.
    metrics: by name, of each step.
    evaluation: the objective's figures after them, averaged over a batch of its own.
    sample: three samples; None where the objective samples nothing.
  """

  description: Spec
  players: dict[str, tuple[str, ...]]
  moved: frozenset[str]
  metrics: dict[str, list[float]]
  evaluation: dict[str, float]
  sample: np.ndarray | None


@functools.cache
def five_steps(name: str, data: str) -> Outcome:
  """Trains `config_of(name, data)` for five steps; once for whoever asks."""
  description, training = open_training(name, data)
  return run(description, training, training.start())


def five_steps_of_one_key(name: str, data: str) -> Outcome:
  """Likewise from the same parameters, with one key for all that is drawn."""
  description, training = open_training(name, data)
  state = training.start()
  with adapter.one_key():
    return run(description, training, state)


def open_training(name: str, data: str) -> tuple[Spec, adapter.Training]:
  """The looks of the data, and the training of `config_of(name, data)` on `batch_of` them."""
  config = config_of(name, data)
  description = spec_for(name, data, config)
  for section in config.optimizer.values():
    section.schedule.warmup = 0  # it starts at a rate of 0
  config.train.steps = 2 * STEPS  # where schedules end

  def batches(rows: int) -> list[dict[str, np.ndarray]]:
    return [batch_of(description, rows, step) for step in range(STEPS)]

  return description, adapter.open_training(config, description, batches)


def run(description: Spec, training: adapter.Training, state: adapter.State) -> Outcome:
  """Takes the five steps from `state`, the one at step 0, evaluates and samples."""
  before = jax.device_get(state.params)
  state, first = training.advance(state, 0, 1)
  moved = frozenset(module for module in before if _differ(before[module], state.params[module]))
  state, others = training.advance(state, 1, STEPS - 1)
  steps = first + others
  return Outcome(
    description=description,
    players={player.name: player.moves for player in training.objective.players},
    moved=moved,
    # A player that rested has no metrics in that step.
    metrics={name: [step[name] for step in steps if name in step] for name in steps[0]},
    evaluation=_averaged(training.evaluate(state, batch_of(description, 4, STEPS))),
    sample=None if training.sample is None else np.asarray(training.sample(state, 3)),
  )


def _differ(before: Any, after: Any) -> bool:
  return any((a != b).any() for a, b in zip(jax.tree.leaves(before), jax.tree.leaves(after)))


def _averaged(columns: Mapping[str, np.ndarray]) -> dict[str, float]:
  """Means in float64, with the weights `weight` where there are any."""
  exact = {name: np.asarray(column, np.float64) for name, column in columns.items()}
  weights = exact.pop('weight', None)
  return {name: float(np.average(column, weights=weights)) for name, column in exact.items()}
