"""Inputs in .npz files that NumPy wrote, one array of inputs a file."""

import io
from collections.abc import Sequence

import numpy as np

import files
from data.array_files import INPUTS, read_arrays
from data.examples import Examples, Indices
from data.spec import Spec
from data.unlabelled.base import InputRequest, read_file, some
from errors import UserError


class Arrays(Examples):
  """Inputs [N, …] held in memory, with the one feature that the run reads."""

  def __init__(self, feature: str, inputs: np.ndarray, spec: Spec):
    self._feature, self._inputs = feature, inputs
    self.stamp = ''
    features = {feature: spec.features[feature]}
    self.spec = spec._replace(name='inputs', split='', n=len(inputs), features=features)

  def read(self, indices: Indices) -> dict[str, np.ndarray]:
    return {self._feature: self._inputs[np.asarray(indices, np.int64)]}


def are_arrays(asked: InputRequest) -> bool:
  """Whether the inputs are .npz files.

  Raises:
    UserError: some are, and others are not.
  """
  others = [place for place in asked.places if files.path(place).suffix.lower() != '.npz']
  if others and len(others) < len(asked.places):
    raise UserError(
      f'--input names .npz files and others ({some(others)}); predict them one after the other'
    )
  return not others


def read_inputs(place: str) -> tuple[str, np.ndarray]:
  """Reads the array of inputs of an .npz file, and its name.

  That is the only array, or the only one called as inputs are; see `data.array_files.INPUTS`.

  Raises:
    UserError: the file cannot be read, or it is not clear which of its arrays are the inputs.
  """
  try:
    found = dict(read_arrays(io.BytesIO(read_file(place))))
  except ValueError as error:
    raise UserError(
      f"--input={place} cannot be read ({error}); write it with np.savez('inputs.npz', x=…)"
    ) from error
  chosen: Sequence[str] = [*found] if len(found) == 1 else [n for n in found if n.lower() in INPUTS]
  if len(chosen) != 1:
    raise UserError(
      f'--input={place} has the arrays {some([*found]) or "(none)"}, and needs one called x; write '
      "it with np.savez('inputs.npz', x=…)"
    )
  return chosen[0], found[chosen[0]]


def names_of(place: str, inputs: np.ndarray) -> list[str]:
  """The titles of the inputs of a file."""
  return [f'{place}:{row}' for row in range(len(inputs))]
