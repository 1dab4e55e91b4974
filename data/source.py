"""Opens data sets by name, and prepares those that are not prepared yet."""

from collections.abc import Sequence

import errors
import files
from data import folders
from data.examples import Examples
from data.folders import cache_dir
from data.own.names import own_files, split_names
from data.own.options import DEFAULTS, Own
from data.selection import ClassSubset, Joined
from data.spec import Spec
from data.tfds import catalog, preparation
from data.tfds.readable import readable
from data.tfds.source import Source

# What becomes of stored examples that cannot be read.
REFUSE, SKIP = 'refuse', 'skip'

__all__ = ['Examples', 'Source', 'Spec', 'cache_dir', 'open_source']


def open_source(
  name: str,
  split: str,
  data_dir: str,
  classes: Sequence[int] = (),
  columns: Sequence[str] = (),
  where: str = 'config.data.split',
  key: str = 'config.data.name',
  own: Own = DEFAULTS,
  corrupt: str = REFUSE,
) -> Examples:
  """Opens a split of the data set `name`, after preparing the data set if necessary.

  Args:
    name: a prepared TFDS data set ('fashion_mnist', 'dataset/config', 'dataset:1.0.0') or the name
      of a builder in data/tfds/builders, or 'KIND:PATH' for files of one's own, which are encoded
      in our cache; several joined by '+' are concatenated.
    split: a TFDS split, e.g. 'train', 'test', 'train[90%:]'; of several data sets the same one of
      each, or one for each with '|' between them, 'train[:500]|train'.
    data_dir: the TFDS folder to search first, local or gs://…; '' means $TFDS_DATA_DIR or
      ~/tensorflow_datasets. Our own cache is searched second.
    classes: labels of the examples to keep, which become 0, 1, … in this order; empty for all.
    columns: further integer scalar features to read.
    where: the option that holds `split`, as a user writes it, for messages.
    key: the option that holds `name`, likewise.
    own: how files of one's own are read.
    corrupt: `REFUSE`, or `SKIP` to leave out the stored examples that cannot be read; the others
      keep their order.

  Raises:
    UserError: no such data set or split, its raw files are missing, or it cannot be read.
  """
  names, splits = split_names(name), split.split('|')
  if '' in names:
    raise errors.UserError(
      f"{key}={name} has an empty name; give one, such as mnist5k, or several joined by '+'"
    )
  if len(splits) not in (1, len(names)):
    raise errors.UserError(
      f'{where}={split} has {len(splits)} splits for the {len(names)} data sets of '
      f'{name}; give one for all, or one for each'
    )
  pairs = zip(names, splits * (len(names) // len(splits)))
  sources = [_open_one(*pair, data_dir, columns, where, key, own, corrupt) for pair in pairs]
  source = sources[0] if len(sources) == 1 else Joined(sources)
  return ClassSubset(source, tuple(classes)) if len(tuple(classes)) else source


def _open_one(
  name: str,
  split: str,
  data_dir: str,
  columns: Sequence[str],
  where: str,
  key: str,
  own: Own,
  corrupt: str,
) -> Examples:
  files_of = own_files(name)
  if files_of is not None:
    from data.own import preparation as own_preparation  # it imports TFDS

    prepared = own_preparation.open_prepared(name, *files_of, own._replace(columns=columns))
    return _source(name, split, prepared, columns, where, corrupt)
  roots = folders.roots(data_dir)
  try:
    prepared = catalog.find(name, roots)
    if prepared is None:
      _prepare(name, data_dir)
      prepared = catalog.find(name, roots)
  except errors.UserError as error:
    raise errors.UserError(f'{key}={name}: {error}') from error
  return _source(name, split, prepared, columns, where, corrupt)


def _source(
  name: str,
  split: str,
  prepared: catalog.Prepared,
  columns: Sequence[str],
  where: str,
  corrupt: str,
) -> Examples:
  found = Source(name, split, prepared, columns, where, tolerant=corrupt == SKIP)
  return readable(found) if corrupt == SKIP else found


def _prepare(name: str, data_dir: str) -> None:
  base, _, _ = catalog.split_name(name)
  roots = folders.roots(data_dir)
  if base not in preparation.builders():
    known = [*preparation.builders(), *catalog.names(roots)]
    raise errors.UserError(
      f'there is no data set {name}{errors.nearest(name, known)} in {roots[0]} or {roots[1]}; '
      f'there are: {", ".join(dict.fromkeys(known))}; prepare it with TFDS in the format '
      f'{catalog.FORMAT}, or write data/tfds/builders/{base}.py'
    )
  root = folders.writable_root(data_dir)
  searched = [folder for folder in dict.fromkeys((root, *roots)) if files.is_local(folder)]
  preparation.prepare(name, root, [folder / 'downloads' for folder in searched])
