"""Finds finished TFDS data sets and describes them, reading their JSON files alone."""

import re
from collections.abc import Iterable, Iterator
from typing import Any, NamedTuple

import errors
import files
from data.spec import Feature, InputColumn, input_columns
from data.tfds import splits

FORMAT = 'array_record'  # the only TFDS format with random access without TensorFlow
DESCRIPTION = 'dataset_info.json'  # the file that marks a finished data set
DEFAULT = '.config/metadata.json'  # names the configuration that is meant where none is
COLUMNS = 'inputs.columns.json'  # of a table, as `data.spec.input_columns` reads it
_DESCRIBED = (DESCRIPTION, 'features.json')
_NAME = re.compile(r'(?P<base>\w+)(?:/(?P<config>[\w.-]+))?(?::(?P<version>\d+\.\d+\.\d+))?')
_VERSION = re.compile(r'\d+\.\d+\.\d+')


class Prepared(NamedTuple):
  """The folder of one finished version of a data set.

  Attributes:
    folder: holds the record files and their descriptions; local or in a bucket.
    info: the content of dataset_info.json.
    features: the content of features.json.
  """

  folder: files.Path
  info: dict[str, Any]
  features: dict[str, Any]

  @property
  def full_name(self) -> str:
    parts = [self.info['name'], self.info.get('configName', ''), self.info['version']]
    return '/'.join(part for part in parts if part)

  @property
  def format(self) -> str:
    return self.info.get('fileFormat', 'tfrecord')

  @property
  def stamp(self) -> str:
    """A value that changes when the folder is prepared again; part of the keys of caches."""
    return files.stamp(self.folder / DESCRIPTION)

  def shard_lengths(self) -> dict[str, list[int]]:
    """Returns the number of examples in each record file, by split."""
    return {
      split['name']: [int(length) for length in split.get('shardLengths', ())]
      for split in self.info['splits']
    }

  def count(self, split: str, where: str) -> int:
    """Counts the examples that a TFDS split selects.

    Args:
      split: what TFDS reads, e.g. 'train', 'train[:90%]', 'train+test', 'all'.
      where: the option that holds the split, as a user writes it, e.g. 'config.data.split'.

    Raises:
      UserError: it selects none.
    """
    lengths = self.shard_lengths()
    try:
      return splits.count(split, lengths)
    except ValueError as error:
      have = ', '.join(f'{name} ({sum(each):,})' for name, each in lengths.items())
      raise errors.UserError(
        f'{where}={split} selects no examples of {self.full_name}: {error}; choose from {have}, a '
        'slice such as "train[:90%]" or "train[100:200]", a sum such as "train+test", or "all"'
      ) from error

  def feature(self, name: str) -> tuple[Feature, int] | None:
    """Describes a top-level feature.

    Returns:
      ((shape, dtype), number of classes); None if there is no such feature, or it is neither an
      array, nor text, nor one or several classes. An unknown dimension is -1, text has the dtype
      'string', and what is no class has 0 classes.
    """
    entry = self.features.get('featuresDict', {}).get('features', {}).get(name, {})
    if 'classLabel' in entry:
      return ((), 'int64'), int(entry['classLabel'].get('numClasses', 0))
    if 'text' in entry:
      return ((), 'string'), 0
    if 'classLabel' in (each := entry.get('sequence', {}).get('feature', {})):
      return ((-1,), 'int64'), int(each['classLabel'].get('numClasses', 0))
    plain = entry.get('image') or entry.get('tensor')
    if plain is None:
      return None
    shape = tuple(int(size) for size in plain.get('shape', {}).get('dimensions', ()))
    return (shape, plain.get('dtype', 'uint8')), 0

  def class_names(self, feature: str) -> tuple[str, ...]:
    """Returns the names of a feature's classes, in order; empty if the data set names none.

    Raises:
      UserError: the file of the names is damaged.
    """
    name = f'{feature}.labels.txt'
    try:
      found = tuple((self.folder / name).read_text().splitlines())
    except FileNotFoundError:
      return ()
    except (OSError, UnicodeDecodeError) as error:
      raise damaged(self.folder, f'{name}: {error}') from error
    described = self.feature(feature)
    if described is not None and len(found) != described[1]:
      raise damaged(self.folder, f'{name} names {len(found)} classes of {described[1]}')
    return found

  def input_columns(self) -> tuple[InputColumn, ...]:
    """Returns the columns that `inputs` are made of; empty if the data set does not say.

    Raises:
      UserError: the file that says it is damaged.
    """
    place = self.folder / COLUMNS
    try:
      return input_columns(files.read_json(place)) if place.exists() else ()
    except (ValueError, TypeError) as error:
      raise damaged(self.folder, f'{COLUMNS}: {error}') from error

  def feature_names(self) -> list[str]:
    """Returns the names of the top-level features, in alphabetical order."""
    return sorted(self.features.get('featuresDict', {}).get('features', {}))


def find(name: str, roots: Iterable[files.Path]) -> Prepared | None:
  """Finds the newest finished version of `name` in the first root that has one, or None.

  Raises:
    UserError: every version found needs TensorFlow to be read, or a folder is damaged.
  """
  unreadable = incomplete = None
  for root in roots:
    folders = list(_versions(root, name))
    for folder in sorted(folders, key=_version_key, reverse=True):
      found = _read(folder)
      if found and found.format == FORMAT:
        return found
      unreadable = unreadable or found
      # An upload to a bucket that is going on is not damaged.
      if found is None and files.is_local(folder) and files.entries(folder):
        incomplete = incomplete or folder
  if unreadable:
    raise errors.UserError(
      f'{unreadable.folder} was prepared as {unreadable.format}, which only TensorFlow can read; '
      f'prepare it again with file_format="{FORMAT}", where TensorFlow is installed'
    )
  if incomplete:
    lacking = [name for name in _DESCRIBED if not (incomplete / name).exists()]
    raise damaged(incomplete, f'there is no {" and no ".join(lacking)}')
  return None


def names(roots: Iterable[files.Path]) -> list[str]:
  """Lists the names of the data sets whose descriptions lie under the roots."""
  found = {
    folder.parent.relative_to(root).as_posix()
    for root in roots
    for pattern in (f'*/*/{DESCRIPTION}', f'*/*/*/{DESCRIPTION}')
    for folder in (path.parent for path in root.glob(pattern))
    if _VERSION.fullmatch(folder.name)
  }
  return sorted(name for name in found if not name.startswith('.'))


def split_name(name: str) -> tuple[str, str | None, str | None]:
  """Splits 'base/config:version' into (base, config, version); UserError for any other form."""
  match = _NAME.fullmatch(name)
  if not match:
    raise errors.UserError(
      f'"{name}" is not the name of a data set; write "mnist5k" or "dataset/config:1.0.0", and of '
      'files of your own folder:PATH, csv:PATH, npz:PATH or text:PATH'
    )
  return match['base'], match['config'], match['version']


def _versions(root: files.Path, name: str) -> Iterator[files.Path]:
  base, config, version = split_name(name)
  folder = root / base
  inside = files.entries(folder / config) if config else files.entries(folder)
  if not config and not any(_VERSION.fullmatch(entry.name) for entry in inside):
    inside = files.entries(folder / _default_config(folder))
  for entry in inside:
    # TFDS calls an unfinished preparation VERSION.incomplete…, which does not match.
    if _VERSION.fullmatch(entry.name) and version in (None, entry.name):
      yield entry


def _default_config(folder: files.Path) -> str:
  try:
    return f'{files.read_json(folder / DEFAULT)["default_config_name"]}'
  except (OSError, ValueError, KeyError, TypeError):
    # Other folders, such as TFDS's own of downloads, hold no versions.
    configs = [
      entry.name
      for entry in files.entries(folder)
      if any(_VERSION.fullmatch(each.name) for each in files.entries(entry))
    ]
  if len(configs) > 1:
    raise errors.UserError(
      f'{folder} holds several configs; write "{folder.name}/NAME" with NAME one of '
      f'{", ".join(configs)}'
    )
  return configs[0] if configs else '.'


def _version_key(folder: files.Path) -> tuple[int, ...]:
  return tuple(int(part) for part in folder.name.split('.'))


def _read(folder: files.Path) -> Prepared | None:
  try:
    info, features = (files.read_json(folder / name) for name in _DESCRIBED)
    prepared = Prepared(folder, info, features)
    # Whatever is read of them later.
    prepared.full_name, prepared.format, prepared.shard_lengths()
    [prepared.feature(name) for name in prepared.feature_names()]
    return prepared
  except FileNotFoundError:
    return None
  except OSError as error:
    raise damaged(folder, error.strerror or str(error)) from error
  except KeyError as error:
    raise damaged(folder, f'{DESCRIPTION} has no {error}') from error
  except (ValueError, TypeError, AttributeError) as error:
    raise damaged(folder, f'{" or ".join(_DESCRIBED)}: {error}') from error


def damaged(folder: files.Path, reason: str) -> errors.UserError:
  """Returns the error for a data set that cannot be read."""
  return errors.UserError(
    f'{folder} is damaged ({reason}); delete it and have the data set prepared again'
  )
