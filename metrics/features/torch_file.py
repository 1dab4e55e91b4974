"""Tensors of a file that PyTorch's `torch.save` wrote, read without PyTorch.

Such a file holds a pickle, which can name any function to be called while it is read. The reader
here knows the names of dicts, tensors and their numbers, and refuses all others.
"""

import io
import pickle
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable, Mapping
from typing import Any, BinaryIO, NamedTuple

import numpy as np

# The beginning of the older format: this number, the version and a dict about the machine, each
# pickled; then the pickle with the tensors, the keys of the storages, and the storages.
_MAGIC = 0x1950A86A20F9469CFC6C
_VERSION = 1001

_DTYPES: Mapping[str, str] = {
  'DoubleStorage': '<f8',
  'FloatStorage': '<f4',
  'HalfStorage': '<f2',
  'LongStorage': '<i8',
  'IntStorage': '<i4',
  'ShortStorage': '<i2',
  'CharStorage': 'i1',
  'ByteStorage': 'u1',
  'BoolStorage': '?',
}


class _Storage(NamedTuple):
  """The place and type of the numbers of tensors, which follow the pickle."""

  key: str
  dtype: np.dtype
  size: int


class _Tensor(NamedTuple):
  """A tensor as a pickle describes it; `offset` and `strides` count numbers."""

  storage: _Storage
  offset: int
  shape: tuple[int, ...]
  strides: tuple[int, ...]


def read_tensors(content: bytes) -> dict[str, np.ndarray]:
  """Reads the tensors of a state dict, by name.

  Args:
    content: of the file, in the format of PyTorch 1.6 and later (a zip archive) or the older one.

  Raises:
    ValueError: it is no such file, is cut off, or its pickle names anything but tensors and dicts.
  """
  is_archive = content[:4] == b'PK\x03\x04'
  try:
    found, read_storage = (_read_archive if is_archive else _read_older)(io.BytesIO(content))
    if not isinstance(found, dict):
      raise ValueError('it holds no dict of tensors')
    storages: dict[str, np.ndarray] = {}
    tensors = {}
    for name, tensor in found.items():
      if not isinstance(name, str) or not isinstance(tensor, _Tensor):
        raise ValueError(f'{name!r} in it is no tensor')
      storage = tensor.storage
      if storage.key not in storages:
        storages[storage.key] = read_storage(storage)
      tensors[name] = _view(storages[storage.key], tensor, name)
    return tensors
  # A damaged pickle can raise nearly anything; what is wanted is one kind of error.
  except ValueError:
    raise
  except Exception as error:
    raise ValueError(f'it is damaged ({type(error).__name__}: {error})') from error


def _view(numbers: np.ndarray, tensor: _Tensor, name: str) -> np.ndarray:
  """A tensor's own copy of its numbers; ValueError where they reach beyond the storage."""
  strides, shape = tensor.strides, tensor.shape
  whole = all(isinstance(n, int) and n >= 0 for n in (tensor.offset, *shape, *strides))
  last = tensor.offset + sum((size - 1) * step for size, step in zip(shape, strides, strict=True))
  if not whole or (0 not in shape and last >= numbers.size):
    raise ValueError(f'the tensor {name} reaches beyond its numbers')
  bytes_ = [step * numbers.itemsize for step in strides]
  begin = numbers[tensor.offset :]
  return np.lib.stride_tricks.as_strided(begin, shape, bytes_, writeable=False).copy()


ReadStorage = Callable[[_Storage], np.ndarray]


def _read_archive(file: BinaryIO) -> tuple[Any, ReadStorage]:
  """The zip format: NAME/data.pkl, and the storages as NAME/data/KEY."""
  archive = zipfile.ZipFile(file)
  pickles = [name for name in archive.namelist() if name.endswith('/data.pkl')]
  if len(pickles) != 1:
    raise ValueError('it has no data.pkl, or several')
  folder = pickles[0].removesuffix('data.pkl')
  order = f'{folder}byteorder'
  if order in archive.namelist() and archive.read(order) != b'little':
    raise ValueError('its numbers are big-endian')

  def read_storage(storage: _Storage) -> np.ndarray:
    return np.frombuffer(
      archive.read(f'{folder}data/{storage.key}'), storage.dtype, count=storage.size
    )

  return _Reader(io.BytesIO(archive.read(pickles[0]))).load(), read_storage


def _read_older(file: BinaryIO) -> tuple[Any, ReadStorage]:
  """The older format; each storage is its length, int64, and its numbers."""
  if _Reader(file).load() != _MAGIC or _Reader(file).load() != _VERSION:
    raise ValueError('PyTorch did not write it')
  if not _Reader(file).load().get('little_endian', False):
    raise ValueError('its numbers are big-endian')
  reader = _Reader(file)
  found = reader.load()
  numbers: dict[str, np.ndarray] = {}
  for key in _Reader(file).load():
    dtype = reader.storages[key].dtype
    (size,) = struct.unpack('<q', file.read(8))
    if size != reader.storages[key].size:
      raise ValueError(f'its storage {key} has {size} numbers, not {reader.storages[key].size}')
    numbers[key] = np.frombuffer(file.read(size * dtype.itemsize), dtype, count=size)
  return found, lambda storage: numbers[storage.key]


class _Reader(pickle.Unpickler):
  """An unpickler that makes dicts and tensors, and calls nothing else."""

  def __init__(self, file: BinaryIO):
    super().__init__(file, encoding='utf-8')
    self.storages: dict[str, _Storage] = {}

  def find_class(self, module: str, name: str) -> Any:
    if (module, name) in _KNOWN:
      return _KNOWN[module, name]
    if module == 'torch' and name in _DTYPES:
      # A word, which cannot be called.
      return name
    raise ValueError(f'its pickle names {module}.{name}, which is none of a file of tensors')

  def persistent_load(self, pid: Any) -> _Storage:
    kind, dtype, key, _, size = pid[:5]
    if kind != 'storage' or (len(pid) > 5 and pid[5] is not None):
      raise ValueError('its pickle names a storage of another kind')
    storage = _Storage(str(key), np.dtype(_DTYPES[dtype]), int(size))
    if self.storages.setdefault(storage.key, storage) != storage:
      raise ValueError(f'its pickle describes the storage {storage.key} twice, and differently')
    return storage


def _rebuild_tensor(storage: Any, offset: Any, shape: Any, strides: Any, *_: Any) -> _Tensor:
  """Stands in for `torch._utils._rebuild_tensor_v2`; arguments about gradients are ignored."""
  if not isinstance(storage, _Storage):
    raise ValueError('a tensor in it has no storage')
  return _Tensor(storage, offset, tuple(shape), tuple(strides))


def _rebuild_parameter(tensor: Any, *_: Any) -> Any:
  """Stands in for `torch._utils._rebuild_parameter`."""
  return tensor


_KNOWN: Mapping[tuple[str, str], Callable[..., Any]] = {
  ('collections', 'OrderedDict'): OrderedDict,
  ('torch._utils', '_rebuild_tensor_v2'): _rebuild_tensor,
  ('torch._utils', '_rebuild_parameter'): _rebuild_parameter,
}
