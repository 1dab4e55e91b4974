"""Prepares tiny TFDS data sets of given examples."""

from collections.abc import Mapping, Sequence
from typing import Any


def prepare(
  root: Any,
  name: str,
  features: Mapping[str, Any],
  splits: Mapping[str, Sequence[Mapping[str, Any]]],
  version: str = '1.0.0',
) -> None:
  """Prepares the examples of each split, in their order.

  Args:
    root: the TFDS folder.
    name: the name of the data set.
    features: the TFDS features.
    splits: the examples of each split; an image is an encoded file or a Pillow image.
    version: the version of the data set.
  """
  import tensorflow_datasets as tfds

  class Tiny(tfds.core.GeneratorBasedBuilder, skip_registration=True):
    VERSION = tfds.core.Version(version)

    def _info(self):
      return tfds.core.DatasetInfo(
        builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True
      )

    def _split_generators(self, dl_manager):
      return {split: enumerate(examples) for split, examples in splits.items()}

    def _generate_examples(self):
      raise NotImplementedError

  Tiny.name = name
  tfds.disable_progress_bar()
  Tiny(data_dir=root, file_format='array_record').download_and_prepare()
