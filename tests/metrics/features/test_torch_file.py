"""Tensors of PyTorch's files, read without PyTorch, and nothing run that such a file names."""

import io
import pickle
import subprocess
import sys

import numpy as np
import pytest

from metrics.features.torch_file import read_tensors
from tests.metrics.features.torch_files import archive, named, older, state, storage, tensor, word

NUMBERS = np.arange(12, dtype=np.float32)
COUNTS = np.array([7], np.int64)


def file_of(make):
  """A matrix, its transpose from the middle of the same numbers, and a scalar."""
  is_older = make is older
  floats = storage('0', 12, older=is_older)
  pickled = state(
    matrix=tensor(floats, 0, (3, 4), (4, 1)),
    part=tensor(floats, 2, (2, 3), (1, 4)),
    count=tensor(storage('1', 1, 'LongStorage', is_older), 0, (), ()),
  )
  return make(pickled, {'0': NUMBERS, '1': COUNTS})


@pytest.mark.parametrize('make', [archive, older])
def test_tensors_have_their_shapes_strides_and_types(make):
  found = read_tensors(file_of(make))
  assert [*found] == ['matrix', 'part', 'count']
  np.testing.assert_array_equal(found['matrix'], NUMBERS.reshape(3, 4))
  np.testing.assert_array_equal(found['part'], NUMBERS.reshape(3, 4)[:, 2:].T)
  assert found['count'] == 7 and found['count'].dtype == np.int64
  assert found['matrix'].dtype == np.float32


@pytest.mark.parametrize('make', [archive, older])
@pytest.mark.parametrize(
  'name', [('os', 'system'), ('builtins', 'eval'), ('torch', 'load'), ('torch._utils', '_load'),
           ('collections', 'Counter'), ('numpy', 'FloatStorage')],
)  # fmt: skip
def test_a_pickle_that_names_another_function_is_refused(make, name, tmp_path):
  touched = tmp_path / 'touched'
  call = named(*name) + b'(' + word(f'touch {touched}') + b'tR'
  content = make(state(weights=call), {})
  with pytest.raises(ValueError, match=rf'names {name[0]}\.{name[1]}, which is none of'):
    read_tensors(content)
  assert not touched.exists()


class Call:
  """Pickled as a call of `os.system`."""

  def __reduce__(self):
    return __import__('os').system, ('false',)


def test_pickles_of_the_machine_are_read_as_carefully():
  content = pickle.dumps(Call(), 2)
  for parts in ([content], [pickle.dumps(0x1950A86A20F9469CFC6C, 2), content]):
    with pytest.raises(ValueError, match=r'system, which is none of'):
      read_tensors(b''.join(parts))


@pytest.mark.parametrize('make', [archive, older])
def test_tensors_beyond_their_numbers_are_refused(make):
  floats = storage('0', 12, older=make is older)
  for shape, strides, offset in (((13,), (1,), 0), ((3, 4), (5, 1), 0), ((2,), (1,), -1),
                                 ((2,), (-1,), 5), ((2, 2), (1,), 0)):  # fmt: skip
    content = make(state(a=tensor(floats, offset, shape, strides)), {'0': NUMBERS})
    with pytest.raises(ValueError, match=r'reaches beyond|is damaged|zip'):
      read_tensors(content)


@pytest.mark.parametrize('make', [archive, older])
def test_files_that_are_cut_off_are_refused(make):
  content = file_of(make)
  for length in (0, 1, 3, 10, 50, len(content) // 2, len(content) - 3):
    with pytest.raises(ValueError):
      read_tensors(content[:length])


def test_files_of_other_machines_and_other_things_are_refused():
  pickled = state(a=tensor(storage('0', 12), 0, (12,), (1,)))
  big = archive(pickled, {'0': NUMBERS}, byteorder=b'big')
  with pytest.raises(ValueError, match='big-endian'):
    read_tensors(big)
  with pytest.raises(ValueError, match='big-endian'):
    read_tensors(older(pickled, {'0': NUMBERS}, little_endian=False))
  with pytest.raises(ValueError, match=r'has no data\.pkl'):
    read_tensors(archive(pickled, {}).replace(b'data.pkl', b'data.pk_'))
  with pytest.raises(ValueError, match='no dict of tensors'):
    read_tensors(archive(pickle.dumps([1], 2), {}))
  with pytest.raises(ValueError, match="'a' in it is no tensor"):
    read_tensors(archive(pickle.dumps({'a': 1}, 2), {}))


@pytest.mark.parametrize('zipped', [True, False])
def test_files_that_pytorch_writes(zipped):
  torch = pytest.importorskip('torch', reason='needs PyTorch, an extra')
  network = torch.nn.Sequential(torch.nn.Conv2d(3, 4, 3), torch.nn.BatchNorm2d(4))
  whole = torch.arange(24.0).reshape(4, 6)
  tensors = {**network.state_dict(), 'view': whole[1:, ::2].T, 'half': whole.half(), 'whole': whole}
  tensors['learned'] = torch.nn.Parameter(whole)
  file = io.BytesIO()
  torch.save(tensors, file, _use_new_zipfile_serialization=zipped)
  found = read_tensors(file.getvalue())
  assert found.keys() == tensors.keys()
  for name, expected in tensors.items():
    np.testing.assert_array_equal(found[name], expected.detach().numpy(), strict=True)


def test_reading_imports_no_torch():
  code = 'import sys, metrics.features.torch_file; assert "torch" not in sys.modules'
  subprocess.run([sys.executable, '-c', code], check=True)
