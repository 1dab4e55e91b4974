"""names: the first names of the 1990 US census that come with the names package; no network."""

import hashlib
from collections.abc import Iterator
from typing import Any

import tensorflow_datasets as tfds

CLASSES = ('female', 'male')
_PARTS = 10  # of which one is for validation and one for testing


class Names(tfds.core.GeneratorBasedBuilder, skip_registration=True):
  """5,160 names, female or male: 80 % train, 10 % validation, 10 % test, by a hash of the name."""

  VERSION = tfds.core.Version('1.0.0')

  def _info(self) -> tfds.core.DatasetInfo:
    features = {
      'text': tfds.features.Text(),
      'label': tfds.features.ClassLabel(names=CLASSES),
    }
    return tfds.core.DatasetInfo(
      builder=self,
      description=(
        'First names of the US census of 1990. A name that is in both lists has the class in which '
        'it is more frequent; a few are equally frequent in both, and are left out.'
      ),
      features=tfds.features.FeaturesDict(features),
      supervised_keys=('text', 'label'),
      homepage='https://www.census.gov/topics/population/genealogy/data/1990_census.html',
    )

  def _split_generators(self, dl_manager: Any) -> dict[str, Iterator]:
    labels = labels_of_names(read_lists())
    return {
      split: self._generate_examples(labels, split) for split in ('train', 'validation', 'test')
    }

  def _generate_examples(self, labels: dict[str, str], split: str) -> Iterator:
    for name, label in labels.items():
      if split_of(name) == split:
        yield name, {'text': name, 'label': label}


def read_lists() -> dict[str, dict[str, float]]:
  """Returns the lists by class: capitalised name -> per cent of the people of that class."""
  import names

  lists = {}
  for label in CLASSES:
    with open(names.FILES[f'first:{label}']) as file:
      rows = (line.split() for line in file)
      lists[label] = {row[0].capitalize(): float(row[1]) for row in rows if row}
  return lists


def labels_of_names(lists: dict[str, dict[str, float]]) -> dict[str, str]:
  """Returns the class of each name, in alphabetical order, without those that are equally both."""
  labels = {}
  for name in sorted(set().union(*lists.values())):
    shares = [lists[label].get(name, 0.0) for label in CLASSES]
    if shares.count(max(shares)) == 1:
      labels[name] = CLASSES[shares.index(max(shares))]
  return labels


def split_of(name: str) -> str:
  """The split of a name."""
  part = int(hashlib.sha256(name.encode()).hexdigest(), 16) % _PARTS
  return {0: 'validation', 1: 'test'}.get(part, 'train')
