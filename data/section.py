"""The section `config.data`, and opening the examples that it names."""

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

from data.decoded import decode_once
from data.examples import Examples
from data.own.names import own_files, split_names
from data.own.options import Image, Jsonl, Own, Table, check_effect
from data.selection import Fold, check_input_columns, match_classes
from data.source import REFUSE, SKIP, open_source
from data.spec import Spec
from data.text.options import Text, open_text
from errors import UserError
from options import option

# Names that an evaluator uses for the test split and the training split of `config.data`.
TEST, TRAIN = 'test', 'train'
# The value of `config.data.fold` that trains all folds, as lanes.
ALL_FOLDS = -1


@dataclasses.dataclass(frozen=True)
class Data:
  """The options of `config.data`."""

  name: str = option(
    'The data set to train on: one of ours, or any that TFDS has prepared; several are joined by '
    "'+'. Or files of your own: folder:PATH, csv:PATH, npz:PATH, text:PATH."
  )
  split: str = option(
    'The split to train on, or a TFDS slice of one (`train[:90%]`); of joined data sets the same '
    "split of each, or one for each with '|' between them."
  )
  test_name: str = option("The data set to evaluate on; '' means `name`, or the first of several.")
  test_split: str = option('The split of it to evaluate on.')
  classes: Sequence[int] = option(
    'The labels of the examples to keep, which become 0, 1, …; empty keeps all.', low=0
  )
  columns: Sequence[str] = option('Further integer columns to read, for metrics by group.')
  folds: int = option(
    'Number of parts that `split` is cut into for a cross-validation; 0 for none. With folds a run '
    'is evaluated on `fold` and trained on the others; the test split is not read.',
    low=2,
    also=(0,),
  )
  fold: int = option(
    'The fold that is held out, from 0; -1 trains one lane for each fold.',
    low=0,
    also=(ALL_FOLDS,),
  )
  batch_size: int = option('Examples per update.', low=1)
  data_dir: str = option(
    "The folder of prepared data sets; '' means $TFDS_DATA_DIR or ~/tensorflow_datasets."
  )
  resident_mb: int = option(
    'Largest size in MiB of a decoded split that is held on the devices; larger splits are '
    'streamed.',
    low=0,
  )
  workers: int = option(
    'Processes that read a streamed split; 0 reads with threads.', low=0, high=1024
  )
  text: Text | None = option('How text is cut into rows of tokens; {} for images and tables.')
  augment: Mapping[str, Any] = option('Augmentation of the images that are trained on.')
  decoded_mb: int = option(
    'Largest size in MiB of a streamed split of images or tables that is decoded once, into arrays '
    'in the cache, which are memory-mapped; of a larger one examples are decoded each time that '
    'they are read. 0 for none.',
    low=0,
    default=16384,
  )
  order_block: int = option(
    'Examples in a block of the block-wise order, for data on slow or remote disks: blocks of '
    'consecutive examples come in a random order, and each is shuffled in itself. 0 shuffles the '
    'split as a whole.',
    low=0,
    default=0,
  )
  corrupt: str = option(
    'What becomes of stored examples that cannot be read, and of reading processes that die: '
    '`refuse` ends with an error that names them; `skip` leaves these examples out and starts the '
    'processes anew, and says how many.',
    choices=(REFUSE, SKIP),
    default=REFUSE,
  )
  image: Image | None = option('How pictures of folder: and npz: are read.', default=None)
  table: Table | None = option('How the columns of csv: are read.', default=None)
  jsonl: Jsonl | None = option('Which values of the lines of text: are read.', default=None)

  @property
  def own(self) -> Own:
    """How files of one's own are read."""
    return Own(self.image or Image(), self.table or Table(), self.jsonl or Jsonl(), self.columns)

  @property
  def tested(self) -> str:
    """The name of the data set to evaluate on."""
    return self.test_name or split_names(self.name)[0]

  def check_own(self) -> None:
    """Raises UserError where options for files of one's own have no effect."""
    check_effect(self.own, self._names)

  def check_data_dir(self) -> None:
    """Raises UserError for a folder of prepared data sets where files of one's own are read."""
    if self.data_dir and all(map(own_files, self._names)):
      raise UserError(
        f'config.data.data_dir={self.data_dir} has no effect on {" and ".join(self._names)}: it is '
        'for prepared data sets; leave it empty'
      )

  def check_folds(self) -> None:
    """Raises UserError for a split that is named twice and cut into folds."""
    names, splits = split_names(self.name), self.split.split('|')
    pairs = [*zip(names, splits * (len(names) // len(splits)))]
    if self.folds and len(set(pairs)) < len(pairs):
      raise UserError(
        f'config.data.name={self.name} names a split twice, and with config.data.folds='
        f'{self.folds} a fold would hold out examples that are trained on; name it once'
      )

  @property
  def _names(self) -> list[str]:
    return [*split_names(self.name), *([self.test_name] if self.test_name else [])]


def open_whole(data: Data) -> Examples:
  """Opens the training split, before it is cut into folds."""
  return open_source(
    data.name,
    data.split,
    data.data_dir,
    data.classes,
    data.columns,
    own=data.own,
    corrupt=data.corrupt,
  )


def open_training(data: Data, tokenizer: str = '', decoded: bool = False) -> Examples:
  """Opens the examples to train on; for text, its rows of tokens.

  Args:
    data: the section.
    tokenizer: the run's tokenizer, as JSON; '' to make one from the options of the section.
    decoded: whether to read images and tables from arrays on disk, which folds share; see
      `decoded.decode_once`.
  """
  whole = open_whole(data)
  if decoded:
    whole = decode_once(whole, data.decoded_mb)
  return _tokenized(_trained_on(whole, data), data, tokenizer, training=True)


def open_testing(data: Data, spec: Spec, split: str = '', where: str = '--split') -> Examples:
  """Opens the examples to evaluate on, or another split of the test data set.

  Args:
    data: the section.
    spec: of the run's training data: its tokenizer is used, and its classes are matched by name.
    split: a TFDS split; '' for the fold that is held out, or `test_split` without folds.
    where: the option that holds `split`, as a user writes it, for messages.

  Raises:
    UserError: the split is unavailable, or its classes have other names.
  """
  if data.folds and not split:
    whole = _open_matched(data, data.name, data.split, 'config.data.split', spec)
    chosen: Examples = Fold(whole, data.fold, data.folds, held_out=True)
  else:
    name = data.tested
    if not split:
      split, where = data.test_split, 'config.data.test_split'
    chosen = _open_matched(data, name, split, where, spec)
  return _tokenized(chosen, data, spec.tokenizer, training=False)


def open_evaluated(data: Data, spec: Spec, split: str, where: str) -> Examples:
  """Opens the split that an evaluator names.

  Args:
    data: the section.
    spec: of the run's training data, as for `open_testing`.
    split: 'test' for the test split of `config.data`, or the fold that is held out; 'train' for its
      training split; else a TFDS split of the test data set, such as 'test[:100]'.
    where: the option that holds `split`, as a user writes it, for messages.
  """
  if not split:
    raise UserError(f'{where} is empty; give {TEST}, {TRAIN} or a TFDS split')
  if split == TRAIN:
    whole = _open_matched(data, data.name, data.split, 'config.data.split', spec)
    return _tokenized(_trained_on(whole, data), data, spec.tokenizer, training=False)
  return open_testing(data, spec, '' if split == TEST else split, where)


def check_features(examples: Examples, spec: Spec, where: str = '') -> None:
  """Raises UserError unless `examples` have all features of `spec`, that of the training data.

  Args:
    examples: to be evaluated on.
    spec: of the training data.
    where: the option that names `examples`; '' where they are the data that was trained on.
  """
  actual = examples.spec
  if not spec.features.items() <= actual.features.items():
    way_out = (
      f'choose data of the same form with {where}'
      if where
      else 'point TFDS_DATA_DIR at the data it was trained on'
    )
    raise UserError(
      f'{actual.name} {actual.split} has {actual.features}, but the run was trained on '
      f'{spec.features}; {way_out}'
    )


def _open_matched(data: Data, name: str, split: str, where: str, spec: Spec) -> Examples:
  """Opens a split with its classes numbered as in `spec`, which has `data.classes` only."""
  key = 'config.data.test_name' if name == data.test_name else 'config.data.name'
  whole = open_source(
    name, split, data.data_dir, (), data.columns, where, key, data.own, data.corrupt
  )
  check_input_columns(whole, spec)
  if not data.text:  # the features of text are known once it is tokenized
    check_features(whole, spec, key if name == data.test_name else '')
  return match_classes(whole, spec, subset=bool(data.classes))


def _trained_on(whole: Examples, data: Data) -> Examples:
  # All folds have the same number of training examples, so fold 0 describes every lane's data.
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
