"""The section `config.data`: which examples a run trains on, and which it is evaluated on."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from data.examples import Examples
from data.selection import Fold
from data.source import open_source
from data.spec import Spec
from data.text.options import Text, open_text
from errors import UserError
from options import option

# What an evaluator calls the two splits that `config.data` names.
TEST, TRAIN = 'test', 'train'
# `config.data.fold` that trains every fold, side by side.
ALL_FOLDS = -1


@dataclasses.dataclass(frozen=True)
class Data:
  """The options of `config.data`."""

  name: str = option(
    "A data set: ours, or any that TFDS has prepared; several joined by '+' follow one another."
  )
  split: str = option(
    "Trained on; TFDS's slices (`train[:90%]`) work; of joined data sets the same of each, or one "
    "for each with '|' between them."
  )
  test_name: str = option("The data set evaluated on; '' is `name`, or the first of several.")
  test_split: str = option('Its split.')
  classes: Sequence[int] = option(
    'Only the examples of these labels, which become 0, 1, …; empty for all.', low=0
  )
  columns: Sequence[str] = option('Further columns of whole numbers to read, for metrics by group.')
  folds: int = option(
    'Parts that `split` is cut into for a cross-validation; 0 is none. `fold` is evaluated on and '
    'the others are trained on; `test_name` and `test_split` wait for the end.',
    low=2,
    also=(0,),
  )
  fold: int = option(
    'Which part, from 0; -1 trains every fold, each as a lane of one run.',
    low=0,
    also=(ALL_FOLDS,),
  )
  batch_size: int = option('Examples per update.', low=1)
  data_dir: str = option(
    "The folder of prepared data sets; '' is $TFDS_DATA_DIR or ~/tensorflow_datasets."
  )
  resident_mb: int = option(
    'MiB up to which a decoded split lives on the devices; larger ones are streamed.', low=0
  )
  workers: int = option('Reading processes of a streamed split; 0 reads with threads.', low=0)
  text: Text | None = option('How text is cut into rows of tokens; {} for images and tables.')
  augment: Mapping[str, Any] = option('Changes of the images that are trained on.')


def open_whole(data: Data) -> Examples:
  """Opens the split that is trained on, before it is cut into folds."""
  return open_source(data.name, data.split, data.data_dir, data.classes, data.columns)


def open_training(data: Data, tokenizer: str = '') -> Examples:
  """Opens the examples that are trained on; of text its rows of tokens.

  Args:
    data: the section.
    tokenizer: the run's, as JSON; '' to make it from the options of the section.
  """
  return _tokenized(_trained_on(data), data, tokenizer, training=True)


def open_testing(data: Data, tokenizer: str, split: str = '') -> Examples:
  """Opens the examples that are evaluated on, or another split of that data set.

  Args:
    data: the section.
    tokenizer: the run's, as JSON; '' where the data is no text.
    split: '' for the fold that is held out, or else `test_split`.
  """
  if data.folds and not split:
    chosen: Examples = Fold(open_whole(data), data.fold, data.folds, held_out=True)
  else:
    name = data.test_name or data.name.split('+')[0]
    chosen = open_source(name, split or data.test_split, data.data_dir, data.classes, data.columns)
  return _tokenized(chosen, data, tokenizer, training=False)


def open_evaluated(data: Data, tokenizer: str, split: str) -> Examples:
  """Opens the split that an evaluator names.

  Args:
    data: the section.
    tokenizer: the run's, as JSON; '' where the data is no text.
    split: 'test' for what `config.data` tests on, or the fold that is held out; 'train' for what it
      trains on; else a TFDS split of the data set tested on, such as 'test[:100]'.
  """
  if split == TRAIN:
    return _tokenized(_trained_on(data), data, tokenizer, training=False)
  return open_testing(data, tokenizer, '' if split == TEST else split)


def check_features(examples: Examples, spec: Spec) -> None:
  """Raises UserError unless examples have all features of `spec`, which a run was trained on."""
  found = examples.spec
  if not spec.features.items() <= found.features.items():
    raise UserError(
      f'{found.name} {found.split} holds {found.features}, but the run was trained on '
      f'{spec.features}; point TFDS_DATA_DIR at the data it was trained on'
    )


def _trained_on(data: Data) -> Examples:
  whole = open_whole(data)
  # All folds train on equally many examples, so that one of them describes every lane's data.
  fold = max(data.fold, 0)
  return Fold(whole, fold, data.folds, held_out=False) if data.folds else whole


def _tokenized(examples: Examples, data: Data, tokenizer: str, training: bool) -> Examples:
  if data.text:
    return open_text(examples, data.text, tokenizer, training)
  if 'text' in examples.spec.features:
    raise UserError(
      f'{data.name} is text, and config.data.text is empty: start from a config of text, such as '
      'configs/gpt.py'
    )
  return examples
