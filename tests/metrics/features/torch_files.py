"""Files as `torch.save` writes them, made by hand of opcodes of pickle."""

import io
import pickle
import struct
import zipfile

import numpy as np

MAGIC, VERSION = 0x1950A86A20F9469CFC6C, 1001


def word(text: str) -> bytes:
  return b'X' + struct.pack('<I', len(text)) + text.encode()


def number(value: int) -> bytes:
  return b'J' + struct.pack('<i', value)


def several(*parts: bytes) -> bytes:
  return b'(' + b''.join(parts) + b't'


def named(module: str, name: str) -> bytes:
  return f'c{module}\n{name}\n'.encode()


def storage(key: str, size: int, kind: str = 'FloatStorage', older: bool = False) -> bytes:
  rest = (b'N',) if older else ()
  return several(word('storage'), named('torch', kind), word(key), word('cpu'), number(size),
                 *rest) + b'Q'  # fmt: skip


def tensor(stored: bytes, offset: int, shape: tuple, strides: tuple) -> bytes:
  shapes = (several(*map(number, numbers)) for numbers in (shape, strides))
  hooks = named('collections', 'OrderedDict') + b')R'
  given = several(stored, number(offset), *shapes, b'\x89', hooks)
  return named('torch._utils', '_rebuild_tensor_v2') + given + b'R'


def state(**tensors: bytes) -> bytes:
  """A pickled dict of tensors."""
  entries = (word(name) + made + b's' for name, made in tensors.items())
  return b'\x80\x02}' + b''.join(entries) + b'.'


def archive(pickled: bytes, storages: dict[str, np.ndarray], **more: bytes) -> bytes:
  """A file in the format of a zip archive."""
  file = io.BytesIO()
  with zipfile.ZipFile(file, 'w') as made:
    made.writestr('model/data.pkl', pickled)
    for key, numbers in storages.items():
      made.writestr(f'model/data/{key}', numbers.tobytes())
    for name, content in more.items():
      made.writestr(f'model/{name}', content)
  return file.getvalue()


def older(pickled: bytes, storages: dict[str, np.ndarray], **about) -> bytes:
  """A file in the older format."""
  machine = {'protocol_version': VERSION, 'little_endian': True, **about}
  parts = [pickle.dumps(each, 2) for each in (MAGIC, VERSION, machine)]
  numbers = [struct.pack('<q', each.size) + each.tobytes() for each in storages.values()]
  return b''.join([*parts, pickled, pickle.dumps([*storages], 2), *numbers])
