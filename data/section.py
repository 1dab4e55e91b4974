"""The section `config.data`: which examples a run trains on, and which it is evaluated on."""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from data.examples import Examples
from data.selection import Fold
from data.source import open_source
from data.spec import Spec
from data.text.options import Text, open_text
from errors import UserError

# What an evaluator calls the two splits that `config.data` names.
TEST, TRAIN = 'test', 'train'
# `config.data.fold` that trains every fold, side by side.
ALL_FOLDS = -1


class Data(NamedTuple):
  """The options of `config.data`.

  Attributes:
    name: a data set: ours, or any that TFDS has prepared; several joined by '+'.
    split: trained on; TFDS's slices (`train[:90%]`) work; of joined data sets the same of each, or
      one for each with '|' between them.
    test_name: the data set evaluated on; '' means `name`, or the first of several.
    test_split: its split.
    classes: only the examples of these labels, which become 0, 1, …; empty for all.
    columns: further columns of whole numbers to read, for metrics by group.
    folds: parts that `split` is cut into for a cross-validation; 0 is none. Then `fold` is
      evaluated on and the others are trained on; `test_name` and `test_split` wait for the end.
    fold: which one, from 0; −1 trains every fold, each as a lane of one run.
    batch_size: examples per update.
    data_dir: the folder of prepared data sets; '' means $TFDS_DATA_DIR or ~/tensorflow_datasets.
    resident_mb: MiB up to which a decoded split lives on the devices; larger ones are streamed.
    workers: reading processes of a streamed split; 0 reads with threads.
    text: the options of text; None for images and tables.
    augment: see `data.transforms.prepare`.
  """

  name: str
  split: str
  test_name: str
  test_split: str
  classes: Sequence[int]
  columns: Sequence[str]
  folds: int
  fold: int
  batch_size: int
  data_dir: str
  resident_mb: int
  workers: int
  text: Text | None
  augment: Mapping[str, Any]


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


def open_testing(data: Data, tokenizer: str, split: str = '', where: str = '--split') -> Examples:
  """Opens the examples that are evaluated on, or another split of that data set.

  Args:
    data: the section.
    tokenizer: the run's, as JSON; '' where the data is no text.
    split: '' for the fold that is held out, or else `test_split`.
    where: the option that holds `split`, as a user writes it, for messages.
  """
  if data.folds and not split:
    chosen: Examples = Fold(open_whole(data), data.fold, data.folds, held_out=True)
  else:
    name = data.test_name or data.name.split('+')[0]
    if not split:
      split, where = data.test_split, 'config.data.test_split'
    chosen = open_source(name, split, data.data_dir, data.classes, data.columns, where)
  return _tokenized(chosen, data, tokenizer, training=False)


def open_evaluated(data: Data, tokenizer: str, split: str, where: str) -> Examples:
  """Opens the split that an evaluator names.

  Args:
    data: the section.
    tokenizer: the run's, as JSON; '' where the data is no text.
    split: 'test' for what `config.data` tests on, or the fold that is held out; 'train' for what it
      trains on; else a TFDS split of the data set tested on, such as 'test[:100]'.
    where: the option that holds `split`, as a user writes it, for messages.
  """
  if split == TRAIN:
    return _tokenized(_trained_on(data), data, tokenizer, training=False)
  return open_testing(data, tokenizer, '' if split == TEST else split, where)


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
