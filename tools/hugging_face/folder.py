"""Reads the local folder of a Hugging Face model: its config.json, and its tensors one at a time.

Weights are read from safetensors files only, which contain numbers and no code.
"""

from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import ml_dtypes  # noqa: F401  registers bfloat16 with numpy
import numpy as np
from safetensors import SafetensorError, safe_open

import files
from errors import UserError

CONFIG = 'config.json'
WEIGHTS = 'model.safetensors'
INDEX = 'model.safetensors.index.json'

# File extensions of weights in other formats: pickles, which can run any code when they are read,
# and others such as those of TensorFlow and Flax.
_PICKLES = ('.bin', '.pt', '.pth', '.ckpt', '.pkl', '.pickle')
_OTHERS = ('.h5', '.msgpack', '.ot', '.gguf', '.onnx')
# safetensors' names of the dtypes that are converted to float32.
FLOATS = ('F64', 'F32', 'F16', 'BF16')


class Entry(NamedTuple):
  """The file, shape and dtype of a tensor; `dtype` is safetensors' name of it."""

  file: Path
  shape: tuple[int, ...]
  dtype: str


def read_config(folder: Path) -> dict[str, Any]:
  """Reads config.json.

  Raises:
    UserError: the folder does not exist, or has no readable config.json.
  """
  if not folder.is_dir():
    if folder.suffix in _PICKLES:
      raise UserError(_refusal(folder))
    reason = 'is a file' if folder.exists() else 'does not exist'
    raise UserError(
      f'--folder={folder} {reason}; give the local folder of a Hugging Face model, with its '
      f'{CONFIG} and {WEIGHTS}'
    )
  if not (folder / CONFIG).is_file():
    raise UserError(
      f'{folder} has no {CONFIG}; give the folder that save_pretrained wrote, or a download of all '
      "of a model's files"
    )
  return _read_json(folder / CONFIG)


def find_tensors(folder: Path) -> dict[str, Entry]:
  """Returns {name: entry} of all tensors, without reading them.

  Raises:
    UserError: the folder has no safetensors, a file is damaged or missing, or two files have a
      tensor of the same name.
  """
  if (folder / WEIGHTS).is_file():
    return _entries(folder / WEIGHTS)
  if (folder / WEIGHTS).exists():
    raise UserError(f'{folder / WEIGHTS} is no file; download or save it again')
  if not (folder / INDEX).is_file():
    raise UserError(_no_weights(folder))
  index = _read_json(folder / INDEX).get('weight_map')
  if not isinstance(index, dict) or not index:
    raise UserError(f'{folder / INDEX} has no weight_map; download or save the model again')
  entries: dict[str, Entry] = {}
  for file in sorted(set(map(str, index.values()))):
    # Only plain file names: an index must not refer to files outside its folder.
    if Path(file).name != file or not (folder / file).is_file():
      raise UserError(f'{folder / INDEX} names {file}, which is not in {folder}; download it too')
    new = _entries(folder / file)
    twice = [name for name in new if name in entries]
    if twice:
      raise UserError(
        f'the tensor {twice[0]} is in both {entries[twice[0]].file.name} and {file} of {folder}; '
        'download or save the model again'
      )
    entries.update(new)
  missing = [name for name in index if name not in entries]
  if missing:
    raise UserError(
      f'{folder / INDEX} names the tensor {missing[0]}, which is in none of its files; download or '
      'save the model again'
    )
  return entries


def read_tensor(name: str, entry: Entry) -> np.ndarray:
  """Reads one tensor as float32.

  Raises:
    UserError: it is not of floats, cannot be read, or has a value that is NaN or infinite, or too
      large for float32.
  """
  if entry.dtype not in FLOATS:
    raise UserError(
      f'{name} in {entry.file} is {entry.dtype}, and only {", ".join(FLOATS)} are read; save the '
      'model as float32 first'
    )
  try:
    with safe_open(entry.file, framework='numpy') as handle, np.errstate(over='ignore'):
      array = handle.get_tensor(name).astype(np.float32, copy=False)
  except (SafetensorError, OSError) as error:
    raise UserError(_damaged(entry.file, error)) from error
  check_finite(array, f'{name} in {entry.file}')
  return array


def check_finite(array: np.ndarray, name: str) -> None:
  """Raises UserError, with the name of the tensor, if it has a value that is NaN or infinite."""
  finite = np.isfinite(array)
  if not finite.all():
    place = tuple(map(int, np.unravel_index(np.argmin(finite), array.shape)))
    raise UserError(
      f'{name} has {np.size(finite) - np.count_nonzero(finite):,} values that are NaN, infinite or '
      f'too large for float32, the first {array[place]} at {list(place)}; use weights from before '
      'the training diverged'
    )


def _entries(file: Path) -> dict[str, Entry]:
  try:
    with safe_open(file, framework='numpy') as handle:
      parts = {name: handle.get_slice(name) for name in handle.keys()}
      return {
        name: Entry(file, tuple(part.get_shape()), part.get_dtype()) for name, part in parts.items()
      }
  except (SafetensorError, OSError) as error:
    raise UserError(_damaged(file, error)) from error


def _damaged(file: Path, error: Exception) -> str:
  return f'{file} is damaged or was cut off ({error}); download or save it again'


def _no_weights(folder: Path) -> str:
  for file in sorted(folder.iterdir()):
    if file.suffix in _PICKLES:
      return _refusal(file)
  for file in sorted(folder.iterdir()):
    if file.suffix in (*_OTHERS, '.safetensors'):
      return (
        f'{folder} has {file.name} and no {WEIGHTS}; save the model with '
        'save_pretrained(..., safe_serialization=True) in transformers'
      )
  return f'{folder} has no {WEIGHTS}; download it too, or save the model with save_pretrained'


def _refusal(file: Path) -> str:
  return (
    f'{file} is a pickle, which can run any code when it is read, so it is refused; get the '
    f"model's {WEIGHTS}, or if you trust the file have transformers write it with "
    'from_pretrained(...).save_pretrained(..., safe_serialization=True)'
  )


def _read_json(path: Path) -> dict[str, Any]:
  try:
    value = files.parse_json(path.read_text())
  except (OSError, ValueError) as error:
    raise UserError(f'{path} is unreadable ({error}); download or save it again') from error
  if not isinstance(value, Mapping):
    raise UserError(f'{path} holds no JSON object; download or save it again')
  return dict(value)
